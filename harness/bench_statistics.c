// SPDX-License-Identifier: Apache-2.0
#include "harness/bench_statistics.h"

#include <math.h>
#include <stdlib.h>

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double cm_median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, by_value);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

size_t cm_median_rank(size_t count, double level)
{
    double below = 0, n = (double)count; // P(B < k)
    size_t k = 0;
    while (k < count / 2) {
        double b = (double)k;
        below += exp(lgamma(n + 1) - lgamma(b + 1) - lgamma(n - b + 1) - n * log(2));
        if (!(2 * below <= 1 - level))
            break;
        k++;
    }
    return k;
}

cm_interval cm_median_interval(double *values, size_t count, double level)
{
    size_t rank = cm_median_rank(count, level);
    cm_interval interval = {cm_median(values, count), NAN, NAN};
    if (rank > 0) {
        interval.low = values[rank - 1];
        interval.high = values[count - rank];
    }
    return interval;
}

static const double MOST_SAME = 0.0953; // ln 1.1

cm_speed cm_speed_judge(const cm_interval *ratio, double gate, double least)
{
    if (!(isfinite(ratio->low) && isfinite(ratio->high) && isfinite(gate) && gate >= 0))
        return CM_AMBIGUOUS;
    if (ratio->high < -gate)
        return CM_FASTER;
    if (ratio->low > gate)
        return CM_SLOWER;
    double same = fmin(gate, fmax(least, MOST_SAME));
    return ratio->low >= -same && ratio->high <= same ? CM_SAME : CM_AMBIGUOUS;
}

const char *cm_speed_name(cm_speed speed)
{
    static const char *const names[] = {"FASTER", "SLOWER", "SAME", "AMBIGUOUS"};
    return (unsigned)speed < CM_SPEED_COUNT ? names[speed] : "unknown";
}

double cm_speed_gate(const cm_interval *same, double least)
{
    if (!(isfinite(same->low) && isfinite(same->high)))
        return INFINITY;
    return fmax(least, fmax(fabs(same->low), fabs(same->high)));
}
