// SPDX-License-Identifier: Apache-2.0
// A case is one input to an op. Its text name parses back to exactly the same bytes:
//   t17-h256-i96-e8-k2-r16x2-bf16-yf32-skewed-random-s7
// dimensions (letter and number; rNxL is rank and adapters), dtypes (all, then variable and dtype),
// attributes (name=value), words of the axes, the value tier, the seed. Words at their default are left out.
#ifndef CM_CASE_H
#define CM_CASE_H

#include "harness/dtype.h"
#include "harness/status.h"

enum { CM_CASE_TEXT = 256, CM_AXIS_COUNT = 7 };

// A choice that a case makes by a word, e.g. how tokens are routed. Rows end with a NULL name; the first is
// the default. `make` is for the fixtures.
typedef struct cm_word {
    const char *name;
    const char *meaning;
    const void *make; // table or function of the fixture; the harness never looks inside
} cm_word;

// A word that stands for several others, e.g. the dimensions of a published layer. Printed names have the
// others. Rows end with a NULL name.
typedef struct cm_case_alias {
    const char *name;
    const char *meaning;
    const char *words; // as in a case, dash between
} cm_case_alias;

typedef enum cm_axis_kind {
    CM_AXIS_ROUTING,
    CM_AXIS_ADAPTERS,
    CM_AXIS_PARTS,
    CM_AXIS_VALUES,
    CM_AXIS_LAYOUT,
    CM_AXIS_MAP,
    CM_AXIS_TIER,
} cm_axis_kind;

typedef struct cm_axis {
    const char *name;
    const char *kinds; // fill kinds of the arguments that need it, blank between; NULL: every op has it
    const cm_word *words;
} cm_axis;

typedef struct cm_case {
    const cm_op *op;
    int64_t dims[CM_DIM_COUNT];
    cm_dtype dtypes[128]; // by dtype variable
    double attributes[CM_MAX_ATTRIBUTES];
    int words[CM_AXIS_COUNT]; // row of each axis
    uint64_t seed;
} cm_case;

int cm_dim_index(char letter); // place in CM_DIM_LETTERS, -1: none

// Whether any argument of the op has this dimension letter.
bool cm_op_has_dim(const cm_op *op, char letter);
bool cm_op_has_dtype(const cm_op *op, char variable);
bool cm_op_has_axis(const cm_op *op, const cm_axis *axis);

cm_status cm_case_parse(const cm_op *op, const char *text, cm_case *out, cm_error *error);
void cm_case_print(const cm_case *test_case, char text[CM_CASE_TEXT]);
const char *cm_case_word(const cm_case *test_case, cm_axis_kind axis);

// Calls `each` for every case of a pattern with alternatives: "t{1,17}-h{64,256}-...-s{1..3}".
cm_status cm_case_expand(const char *pattern, cm_status (*each)(const char *text, void *self), void *self,
                         cm_error *error);
// Chooses one alternative everywhere; "s*" gets the seed `seed` itself.
cm_status cm_case_draw(const char *pattern, uint64_t seed, char text[CM_CASE_TEXT], cm_error *error);

#endif
