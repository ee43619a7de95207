// SPDX-License-Identifier: Apache-2.0
// Simulated kernels that round where the contracts of the ops let them, for sigma.c.
#ifndef CM_UNIT_SIGMA_H
#define CM_UNIT_SIGMA_H

#include "harness/rng.h"
#include "suites/unit/oracle.h"

#include <check.h>

enum { LONGEST = 1024, SEEDS = CM_UNIT_SLOW ? 1 : 4 }; // LONGEST: of any dimension of a case here

// What a kernel does at the end of fp32's range: subnormal numbers as IEEE 754 has them; 0 in their place; or
// the argument of exp clamped so that sigmoid is at least `least`.
enum cm_sigma_range { CM_SIGMA_GRADUAL, CM_SIGMA_FLUSHED, CM_SIGMA_CLAMPED };

// A simulated kernel on one case. Arguments are contiguous floats; a sum collects its terms first.
struct cm_sigma_kernel {
    const cm_pristine *pristine;
    float *values[CM_MAX_ARGUMENTS];
    double *output; // before its own rounding
    cm_dtype dtype; // that intermediates are rounded to
    bool model, injected;
    enum cm_sigma_range range;
    double least;
    cm_rng rng;
    uint64_t drawn;
    uint32_t block[4];
    double terms[LONGEST];
    int64_t count;
    double lost, expected; // squared errors of all additions, and what a full significand would lose
};

void cm_sigma_open(const cm_pristine *pristine, cm_dtype dtype, cm_accuracy accuracy, bool injected,
                   struct cm_sigma_kernel *out);
double cm_sigma_rounded(cm_dtype dtype, double value);

// Before a run: the range of a kernel of fp32 arithmetic.
void cm_sigma_set_range(struct cm_sigma_kernel *kernel, enum cm_sigma_range range, double least);

// Each fills kernel->output.
void cm_sigma_moe_forward(struct cm_sigma_kernel *kernel);
void cm_sigma_shrink(struct cm_sigma_kernel *kernel);
void cm_sigma_expand(struct cm_sigma_kernel *kernel);
void cm_sigma_pair(struct cm_sigma_kernel *kernel);

TCase *cm_unit_sigma_range(void);

#endif
