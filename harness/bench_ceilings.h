// SPDX-License-Identifier: Apache-2.0
// What this machine can do at most, measured: bytes read from memory and additions and multiplications per
// second, by as many threads as the kernels get.
#ifndef CM_BENCH_CEILINGS_H
#define CM_BENCH_CEILINGS_H

#include "harness/bench_peak.h"
#include "harness/status.h"

typedef struct cm_ceilings {
    int threads;
    double read;                       // bytes/s of streaming reads, the best of all passes
    size_t buffer;                     // bytes that a pass reads
    double multiply[CM_OPERAND_COUNT]; // operations/s, the best of all passes; 0: no instruction for it here
} cm_ceilings;

// Measures in a process of its own that is gone afterwards, with each thread on a CPU of its own (1 <=
// threads <= cm_cpus_allowed()). `seconds`: about as long for each figure. The buffer is four times all
// last-level caches, at least 256 MiB, in huge pages where the system gives them; less where memory is short.
cm_status cm_ceilings_measure(int threads, double seconds, cm_ceilings *ceilings, cm_error *error);

// The ceiling for products of these operands: where this CPU has no instruction for them, that of a wider
// kind, which `operand` becomes.
double cm_ceilings_multiply(const cm_ceilings *ceilings, cm_operand *operand);

#endif
