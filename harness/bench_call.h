// SPDX-License-Identifier: Apache-2.0
// The inside of a timed process: a kernel with one prepared state for each copy of the weights, called on one
// after the other. Every output of a timed call is held against one that was judged.
#ifndef CM_BENCH_CALL_H
#define CM_BENCH_CALL_H

#include "harness/bench_copies.h"
#include "harness/check.h"

typedef struct cm_bench_calls cm_bench_calls;

// Prepares a state for each copy and judges one call on each. The pristine of `copies` must have what the
// reference says for the kernel's accuracy. PASS: *calls is there, and *ns has the shortest of these calls.
// Otherwise the outcome has the reason (SKIP: the kernel doesn't support the case), and *calls is what there
// is to be closed.
cm_verdict cm_bench_calls_open(const cm_kernel *kernel, const cm_copies *copies, int threads,
                               cm_outcome *outcome, double *ns, cm_bench_calls **calls);
// `count` calls from copy `first` on; *ns is the mean of one, of the time between entering and leaving run.
// Outputs are poisoned before each call; bits that differ from the judged ones are judged.
cm_verdict cm_bench_calls_time(cm_bench_calls *calls, int64_t first, int64_t count, double *ns);
// One more call on each copy; those on the first are judged whatever their bits.
cm_verdict cm_bench_calls_verify(cm_bench_calls *calls);
void cm_bench_calls_close(cm_bench_calls *calls); // accepts NULL

#endif
