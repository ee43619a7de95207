// SPDX-License-Identifier: Apache-2.0
// Statistics of paired times: pure mathematics, no clock and no printing. Ratios are looked at as their
// natural logarithms, so that twice as fast and twice as slow lie equally far from 0.
#ifndef CM_BENCH_STATISTICS_H
#define CM_BENCH_STATISTICS_H

#include <stdbool.h>
#include <stddef.h>

// Median of `count` > 0 numbers, none of them NaN; sorts them in place.
double cm_median(double *values, size_t count);

// Rank k, counted from 1, so that the k-th smallest and the k-th largest of `count` independent values of one
// continuous distribution, whatever it is, enclose its median with a probability of at least `level`
// (0 < level < 1): the largest k with 2 P(B < k) <= 1 - level, B binomial (count, 1/2). 0: there is none.
// H. A. David, H. N. Nagaraja, Order Statistics, 3rd edition (2003), section 7.1.
size_t cm_median_rank(size_t count, double level);

typedef struct cm_interval {
    double median, low, high; // low and high NaN: too few values for any interval of this level
} cm_interval;

// Sorts the values, count > 0, in place.
cm_interval cm_median_interval(double *values, size_t count, double level);

typedef enum cm_speed {
    CM_FASTER,    // the whole interval lies below -gate
    CM_SLOWER,    // the whole interval lies above gate
    CM_SAME,      // the whole interval lies within +-gate, and within +-10 % or what is least
    CM_AMBIGUOUS, // anything else, and no interval
    CM_SPEED_COUNT,
} cm_speed;

// `ratio`: of logarithms of time / time of the baseline. `gate` >= 0: logarithm of the smallest ratio that
// can be told from 1, see cm_speed_gate; on a restless machine it is large, and nothing is called the same
// for that. `least` >= 0: logarithm of the smallest ratio that anyone asks for.
cm_speed cm_speed_judge(const cm_interval *ratio, double gate, double least);
const char *cm_speed_name(cm_speed speed);

// The smallest change that a measurement resolves: the end of the A/A interval that is farther from 0, at
// least `least`. Infinite where the A/A measurement has no interval.
double cm_speed_gate(const cm_interval *same, double least);

#endif
