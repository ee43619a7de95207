// SPDX-License-Identifier: Apache-2.0
// The inputs that timed calls take in turn: the same weights and adapters, other activations and routing. A
// kernel that keeps its last answer is wrong, and other experts are read with every turn.
#ifndef CM_BENCH_INPUTS_H
#define CM_BENCH_INPUTS_H

#include "harness/bench_copies.h"

typedef struct cm_bench_inputs {
    cm_pristine *pristine, *unadapted; // the case itself, not owned; NULL: not asked for
    cm_pristine items[CM_BENCH_INPUTS - 1], bare_items[CM_BENCH_INPUTS - 1];
    int count;      // of items
    cm_copies bare; // the copies, for calls without adapters
} cm_bench_inputs;

// Adds inputs to `copies`: two or more in all, and so many that copies times inputs touch `cold` bytes twice
// over. None more where weights are to be warm, values are exact, or the reference takes minutes
// (`operations` of a call). The copies must outlive them. Close them after a failure, too.
cm_status cm_bench_inputs_open(cm_pristine *pristine, cm_pristine *unadapted, double operations, size_t cold,
                               cm_copies *copies, cm_bench_inputs **inputs, cm_error *error);
// What the reference says about all of them.
cm_status cm_bench_inputs_want(cm_bench_inputs *inputs, cm_accuracy accuracy, cm_error *error);
void cm_bench_inputs_close(cm_bench_inputs *inputs); // accepts NULL

#endif
