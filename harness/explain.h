// SPDX-License-Identifier: Apache-2.0
// Simple faults of an adapter that explain an output: each is computed by the reference on changed values and
// held against the output within the bound. Nothing is said that does not hold for every element.
#ifndef CM_EXPLAIN_H
#define CM_EXPLAIN_H

#include "harness/pristine.h"

// Whether setting this argument to 0 leaves out every adapter term: the scalings of the adapters.
bool cm_is_scaling(const cm_op *op, int argument);

// Writes the first explanation that holds, with "; " behind it; "": none does. `values` has its wants.
void cm_explain(const cm_pristine *values, cm_accuracy accuracy, int output, const DLTensor *got, char *text,
                size_t size);

#endif
