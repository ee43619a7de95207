// SPDX-License-Identifier: Apache-2.0
// A case with its values and what the reference says about it. Made once by the runner's parent, in shared
// mappings, so that a fork costs nothing; kernels only ever see copies (stage.h).
#ifndef CM_PRISTINE_H
#define CM_PRISTINE_H

#include "harness/case.h"
#include "harness/source.h"
#include "harness/tensor.h"

typedef struct cm_pristine {
    cm_case test_case;
    char name[CM_CASE_TEXT];
    const cm_source *source; // NULL: generated
    cm_tensor tensors[CM_MAX_ARGUMENTS];
    const DLTensor *arguments[CM_MAX_ARGUMENTS]; // NULL: absent. Outputs have data, too: it is never used
    int files[CM_MAX_ARGUMENTS];                 // memory file that holds the data of a large weight; 0: none
    bool borrowed;                               // the files belong to another pristine
    size_t bytes;                                // of all arguments
    int level;                                   // of the exact tier
    cm_want want[2][CM_MAX_ARGUMENTS];           // by accuracy; count 0 where not made
    bool has_want[2];
    struct cm_kept *kept; // what the reference said, for all processes and copies; NULL: nothing is kept
    void *mappings[8 * CM_MAX_ARGUMENTS];
    size_t mapped[8 * CM_MAX_ARGUMENTS];
    int mapping_count;
} cm_pristine;

// Makes all values. Exact cases are proven exact; CM_BAD_VALUE when no level is.
cm_status cm_pristine_open(const cm_case *test_case, const cm_source *source, cm_pristine *pristine,
                           cm_error *error);
// Evaluates the reference for kernels of this accuracy, once.
cm_status cm_pristine_want(cm_pristine *pristine, cm_accuracy accuracy, cm_error *error);
// The reference with terms left out, into `want`, an array of `count` values of the output argument.
cm_status cm_pristine_without(const cm_pristine *pristine, uint64_t omit, cm_accuracy accuracy, cm_want *want,
                              cm_error *error);
// A private copy, for changing values in a child; nothing of the reference is copied. Weights in files stay
// where they are, read-only. Close it before its original.
cm_status cm_pristine_copy(const cm_pristine *from, cm_pristine *to, cm_error *error);
// Rows `rows[0..count)` of dimension `letter`, which leads every shape that it stands in; everything else is
// shared with `from`, which must outlive it. For ops whose tables list the letter as SPLIT. Close it.
cm_status cm_pristine_select(const cm_pristine *from, char letter, const int64_t *rows, int64_t count,
                             cm_pristine *to, cm_error *error);
// The same call without adapters: what `from` has for them is absent, everything else is shared with `from`,
// which must outlive it. CM_BAD_VALUE where the op can't do without. Close it.
cm_status cm_pristine_unadapted(const cm_pristine *from, cm_pristine *to, cm_error *error);
// The same weights and adapters with other inputs: those of the case with `seed`. Everything else is shared
// with `from`, which must outlive it; random values only. Close it.
cm_status cm_pristine_vary(const cm_pristine *from, uint64_t seed, cm_pristine *to, cm_error *error);
// Gives an argument of a copy compact memory of its own, with its values: before a weight is changed.
cm_status cm_pristine_own(cm_pristine *pristine, int argument, cm_error *error);
// Whether the op proves the values exact, e.g. after they were mixed with others.
bool cm_pristine_is_exact(const cm_pristine *pristine);
// Forgets what the reference said, after values were changed.
void cm_pristine_changed(cm_pristine *pristine);
// Gives back the room for answers of the reference (addresses count against a kernel's process): for values
// that no other process asks about. Before copies of it are made.
void cm_pristine_ask_once(cm_pristine *pristine);
// Elements of an argument that the call may read.
int64_t cm_pristine_reads(const cm_pristine *pristine, int argument);
void cm_pristine_close(cm_pristine *pristine); // accepts a zeroed one

// Lays out an argument as the case's layout word asks: shape, strides and dtype, no data.
void cm_pristine_layout(const cm_case *test_case, int argument, cm_tensor *tensor);

#endif
