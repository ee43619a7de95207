// SPDX-License-Identifier: Apache-2.0
// Reading an op's table: shapes from dimension letters, presence of arguments, and the validation that a
// kernel can ask the host for.
#ifndef CM_OP_H
#define CM_OP_H

#include "harness/case.h"
#include "harness/tensor.h"

// Whether `word` (of `length` characters) is one of the blank-separated `words`.
bool cm_has_word(const char *words, const char *word, size_t length);

int cm_op_argument_count(const cm_op *op);
int cm_op_argument_index(const cm_op *op, const char *name); // -1: none

// Shape of an argument for these dims: at most CM_MAX_RANK extents, returns their number. `letters` (may be
// NULL) gets the dimension letter of each extent, '#' where it is no plain letter.
int cm_op_shape(const cm_argument *argument, const int64_t *dims, int64_t *shape, char *letters);

cm_dtype cm_op_dtype(const cm_argument *argument, const cm_dtype *dtypes);

// Whether a case has the argument: optional ones are absent when a dimension other than T is 0, when the case
// has none of the words that they need, when the argument that they go with is absent, or when the one that
// they scale has no integers.
bool cm_op_present(const cm_case *test_case, int argument);

// The case without adapters (L and r 0). CM_BAD_VALUE: it has none, or the op can't do without.
cm_status cm_op_unadapted(const cm_case *test_case, cm_case *bare, cm_error *error);

// Holds a call against its op's table. Sets the call's sentence through call->host.
cm_status cm_op_validate(const cm_call *call);

#endif
