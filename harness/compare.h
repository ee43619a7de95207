// SPDX-License-Identifier: Apache-2.0
// Measures, without judging: how far an output is from what the reference wants, in units of the bound.
#ifndef CM_COMPARE_H
#define CM_COMPARE_H

#include "harness/check.h"

typedef struct cm_measure {
    int64_t count;            // elements compared: all of them
    int64_t finite;           // of them, with both values finite
    int64_t nan, infinite;    // non-finite where the reference is finite, or finite where it is not
    int64_t beyond;           // elements outside their bound, non-finite ones included
    int64_t first_bad, worst; // flat indices, -1: none
    double worst_ratio;       // largest |err| / bound over finite elements with a bound
    double largest_error;
    double rms_z;            // of err / sigma, the output's own rounding included in sigma
    double independent;      // samples behind rms_z that are independent: at most 8 of one token
    double bias, bias_error; // mean of err sign(want) / sigma, and its standard error over tokens
    int64_t clusters;        // tokens that the bias was measured over
    double rms_want, rms_bound,
        rms_worst;       // bound: for integers sigma; worst: of the worst-case bound, for the reader
    double widest_share; // of rms_bound in rms_want that is still judged; 0: CM_WIDEST_SHARE
} cm_measure;

// Largest |got - want| that passes: 6 sigma + half an ulp. Sigma is the mean over all orders of summation;
// the order that a kernel has may be unlucky: sum s_i^2 exceeds 4 times its mean in about 1 % of all orders
// and falls off exponentially. So the bound takes the part of sigma that depends on the order twice. With
// sigma 0 the wanted value is certain and the output must be its rounding: the bound is the distance to it.
double cm_bound(const cm_want *want, int64_t n, cm_dtype dtype);

// Compares every element of `got` with `want`. `exact` asks for equal values (the sign of zero is free).
void cm_compare_bounded(const DLTensor *got, cm_dtype dtype, const cm_want *want, bool exact,
                        cm_measure *measure);

// A permutation of 0..n-1 whose keys agree with those of the wanted one at every position.
void cm_compare_permutation(const DLTensor *got, const cm_want *want, const DLTensor *keys,
                            cm_measure *measure);

// Fills first_bad, bad_count, bad_pattern and (where there is room for it) tiles of the outcome: where, how
// many, and the shape of the bad set. With `exact` a tile is 0 or infinite.
void cm_compare_locate(const cm_pristine *pristine, int argument, const DLTensor *got, const cm_want *want,
                       bool exact, const cm_measure *measure, cm_outcome *outcome);

#endif
