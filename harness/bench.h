// SPDX-License-Identifier: Apache-2.0
// Two kernels measured side by side: pairs of samples in random order, on weights that are cold, each output
// verified. What comes out is the ratio of their times; a time alone is information.
#ifndef CM_BENCH_H
#define CM_BENCH_H

#include "harness/bench_statistics.h"
#include "harness/bench_worker.h"

#define CM_BENCH_LEVEL 0.99 // of the intervals

typedef struct cm_bench_options {
    int rounds;                                                // pairs, at least 1
    double seconds;                                            // after which no further pair begins
    uint64_t seed;                                             // of the order within pairs
    void (*progress)(const char *kernel, int done, int count); // NULL: none
} cm_bench_options;

typedef struct cm_bench_result {
    cm_outcome outcomes[2]; // of the two kernels; anything but PASS on one: there are no figures
    bool interrupted;
    int pairs;
    int64_t calls;     // in a sample
    cm_interval ratio; // of ln(time of [1] / time of [0]) by pair
    double ns[2];      // median time of a call
} cm_bench_result;

// Measures jobs[1] against the baseline jobs[0]; the same kernel twice is an A/A measurement. A sample is as
// many calls as take the faster kernel 200 us. True: there are figures.
bool cm_bench_pair(const cm_bench_job jobs[2], const cm_bench_options *options, cm_bench_result *result);

#endif
