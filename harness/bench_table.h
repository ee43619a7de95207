// SPDX-License-Identifier: Apache-2.0
// What a bench says: one group (a case with its kernels and a number of threads) after the other, as a table
// or as records.
#ifndef CM_BENCH_TABLE_H
#define CM_BENCH_TABLE_H

#include "harness/bench.h"
#include "harness/bench_ceilings.h"
#include "harness/record.h"

typedef struct cm_bench_row {
    const cm_kernel *kernel;
    const char *plugin; // NULL: built in
    cm_outcome outcome;
    bool timed;        // the figures below are there
    cm_interval ratio; // logarithms, against the baseline; of the baseline: against itself
    double ns;         // median of a call
    int pairs;
    int64_t calls; // in a sample
    cm_speed speed;
    cm_interval adapted; // of ln(time / time of the same call without adapters); median NaN: not measured
} cm_bench_row;

typedef struct cm_bench_group {
    const cm_pristine *pristine;
    const cm_copies *copies;
    const cm_ceilings *ceilings;
    cm_operand operand; // whose ceiling the share of compute refers to
    cm_counts counts;
    int threads;
    double gate; // logarithm of the smallest ratio that counts; infinite: unknown
    uint64_t seed;
    cm_bench_row *rows; // the first is the baseline
    int count;
} cm_bench_group;

// Bytes that a call reads at least, per second of the row's median, as a part of the ceiling.
double cm_bench_share_of_bandwidth(const cm_bench_group *group, const cm_bench_row *row);
double cm_bench_share_of_compute(const cm_bench_group *group, const cm_bench_row *row);

void cm_bench_print(const cm_bench_group *group, FILE *out);
// The row as a record of the check "perf"; what it points to is owned by the record. `run`: of the
// environment.
void cm_bench_record(const cm_bench_group *group, const cm_bench_row *row, const char *run,
                     cm_record *record);

#endif
