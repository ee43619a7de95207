// SPDX-License-Identifier: Apache-2.0
// Simulated kernels that round where the contracts of the ops let them, for sigma.c.
#ifndef CM_UNIT_SIGMA_H
#define CM_UNIT_SIGMA_H

#include "harness/rng.h"
#include "suites/unit/oracle.h"

enum { LONGEST = 1024, SEEDS = CM_UNIT_SLOW ? 1 : 4 }; // LONGEST: of any dimension of a case here

// A simulated kernel on one case. Arguments are contiguous floats; a sum collects its terms first.
struct cm_sigma_kernel {
    const cm_pristine *pristine;
    float *values[CM_MAX_ARGUMENTS];
    double *output; // before its own rounding
    cm_dtype dtype; // that intermediates are rounded to
    bool model, injected;
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

// Each fills kernel->output.
void cm_sigma_moe_forward(struct cm_sigma_kernel *kernel);
void cm_sigma_shrink(struct cm_sigma_kernel *kernel);
void cm_sigma_expand(struct cm_sigma_kernel *kernel);

#endif
