// SPDX-License-Identifier: Apache-2.0
// Gains by regression: how much of each wanted effect is in an output. Pure mathematics, no printing.
#ifndef CM_GAINS_H
#define CM_GAINS_H

#include "harness/compare.h"

enum { CM_MAX_GAINS = 64 };

typedef struct cm_gains {
    int count;
    double gain[CM_MAX_GAINS], error[CM_MAX_GAINS]; // 1 + coefficient, and its standard error
    bool solvable;                                  // false: the effects are too alike to be told apart
} cm_gains;

// Weighted least squares of err = got - want on `count` effects: err = sum_p (gain_p - 1) effect_p, weights
// 1/sigma^2. effects[p] has want->count elements; elements [n] with use[n] = 0 are left out (NULL: none is).
// The standard error is propagated from want->sigma, whose errors the elements of one row share (8 of them
// count as independent, see judge.c), and from the output's own rounding.
void cm_gains_solve(const DLTensor *got, cm_dtype dtype, const cm_want *want, const double *const *effects,
                    int count, const uint8_t *use, cm_gains *gains);

#endif
