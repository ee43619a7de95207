// SPDX-License-Identifier: Apache-2.0
// Kernels made to be measured: right ones that take a known number of steps, and ones that must not get a
// time.
#ifndef CM_UNIT_BENCH_KERNELS_H
#define CM_UNIT_BENCH_KERNELS_H

#include "harness/checkmoe.h"

#include <check.h>

// sgmv_shrink, right, with a busy loop before it: fifteen has 1.5 times the steps of ten.
extern const cm_kernel cm_unit_ten, cm_unit_fifteen;

typedef struct cm_unit_bad_kernel {
    cm_kernel kernel;
    int verdict;         // cm_verdict that it must get
    const char *finding; // part of the reason
} cm_unit_bad_kernel;

extern const cm_unit_bad_kernel cm_unit_bad_kernels[]; // ends with a kernel without a name

Suite *cm_unit_bench(void);
TCase *cm_unit_bench_statistics(void);
TCase *cm_unit_bench_cli(void);
TCase *cm_unit_bench_tables(void);

#endif
