// SPDX-License-Identifier: Apache-2.0
// Gains by regression: how much of each wanted effect is in an output. Pure mathematics, no printing.
#ifndef CM_GAINS_H
#define CM_GAINS_H

#include "harness/compare.h"

// One effect: what the output would lose without it, in the rows (of the first dimension) that it touches.
typedef struct cm_effect {
    int64_t row_count;
    int64_t *rows;  // ascending
    double *values; // [row_count, elements of a row]
} cm_effect;

typedef struct cm_gains {
    int count;
    double *gain, *error;               // 1 + coefficient, and its standard error
    double *strict_gain, *strict_error; // as if every deviation were an effect or rounding
    bool *determined;                   // false: nothing is left of the effect after the others explain it
} cm_gains;

// Weighted least squares of err = got - want on `count` effects: err = sum_p (gain_p - 1) effect_p, weights
// 1/sigma^2, over columns begin <= c < end of the last dimension.
// The standard error is propagated from want->sigma, whose errors the elements of one row share (8 of them
// count as independent, see judge.c), and from the output's own rounding. Effects of a wrong projection do
// not add up: where residuals are far above sigma, their mean square joins the variance of every element, and
// gain and error are those of that fit; elsewhere they are the strict ones. Close the gains.
void cm_gains_solve(const DLTensor *got, cm_dtype dtype, const cm_want *want, const cm_effect *const *effects,
                    int count, int64_t begin, int64_t end, cm_gains *gains);
void cm_gains_close(cm_gains *gains);

// The limit on |gain - 1| when `tests` gains are judged together: 0.02, or z standard errors if that is more.
// One normal number exceeds 6 s.d. with a probability of 2e-9; z = sqrt(36 + 2 ln tests) keeps that for the
// largest of `tests`, since P(|x| > z) <= P(|x| > 6) exp((36 - z^2)/2) for z >= 6.
double cm_gain_limit(double error, int tests);

#endif
