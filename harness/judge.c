// SPDX-License-Identifier: Apache-2.0
#include "harness/judge.h"

#include <math.h>

#ifdef __FAST_MATH__
#error "the judge decides on NaN and infinity: never build it with fast-math"
#endif

// A clean kernel has rms(err/sigma) <= 1; the estimate of sigma is good to 25 % (suites/unit/sigma.c).
static const double RMS_LIMIT = 1.5;
// Share of rms(want) from which a bound is too wide to mean anything.
// Truncation instead of rounding at one point moves the mean of err sign(want)/sigma by about 0.6 or more. On
// clean kernels the mean scatters by 0.25/sqrt(tokens) or less. With 16 tokens, both conditions together
// leave a false alarm less likely than 1e-8.
static const int64_t BIAS_TOKENS = 16;
static const double BIAS_LEAST = 0.25, BIAS_ERRORS = 8;

// A few samples scatter more: the limit is raised to 1.25 times what the rms of n normal numbers exceeds with
// a probability of 1e-9 (Wilson and Hilferty's cube root of chi-squared). From 470 samples on it is
// RMS_LIMIT.
static double rms_limit(double n)
{
    double part = n >= 1 ? 2 / (9 * n) : 2.0 / 9;
    double scatter = 1.25 * pow(1 - part + 6 * sqrt(part), 1.5);
    return scatter > RMS_LIMIT ? scatter : RMS_LIMIT;
}

static cm_verdict judge_nonfinite(const cm_measure *measure, const char *name, cm_outcome *outcome)
{
    return cm_conclude(outcome, CM_FAIL, "non-finite `%s`: %lld NaN and %lld infinite of %lld elements", name,
                       (long long)measure->nan, (long long)measure->infinite, (long long)measure->count);
}

cm_verdict cm_judge_bounded(const cm_measure *measure, bool exact, const char *name, cm_outcome *outcome)
{
    outcome->compared += measure->count;
    if (measure->nan || measure->infinite)
        return judge_nonfinite(measure, name, outcome);
    cm_outcome_metric(outcome, "max_error", measure->largest_error);
    if (exact) {
        if (measure->beyond)
            return cm_conclude(outcome, CM_FAIL, "`%s` differs in %lld of %lld elements on exact data", name,
                               (long long)measure->beyond, (long long)measure->count);
        return CM_PASS;
    }
    cm_outcome_metric(outcome, "error_over_bound", measure->worst_ratio);
    cm_outcome_metric(outcome, "rms_z", measure->rms_z);
    cm_outcome_metric(outcome, "rms_z_limit", rms_limit(measure->independent));
    cm_outcome_metric(outcome, "bias_z", measure->bias);
    cm_outcome_metric(outcome, "bound_share",
                      measure->rms_want > 0 ? measure->rms_bound / measure->rms_want : 0);
    cm_outcome_metric(outcome, "worst_case_share",
                      measure->rms_want > 0 ? measure->rms_worst / measure->rms_want : 0);
    if (measure->beyond)
        return cm_conclude(outcome, CM_FAIL,
                           "`%s` is beyond its bound in %lld of %lld elements, at worst %.3g times", name,
                           (long long)measure->beyond, (long long)measure->count, measure->worst_ratio);
    if (measure->count > 0 && measure->finite == 0)
        return cm_conclude(outcome, CM_VACUOUS, "no wanted element of `%s` is finite", name);
    double share = measure->widest_share > 0 ? measure->widest_share : CM_WIDEST_SHARE;
    if (measure->rms_bound > share * measure->rms_want)
        return cm_conclude(outcome, CM_VACUOUS,
                           "the bound is %.1f %% of rms(want) of `%s`, the limit is %.0f %%",
                           100 * measure->rms_bound / measure->rms_want, name, 100 * share);
    if (!(measure->rms_z <= rms_limit(measure->independent)))
        return cm_conclude(outcome, CM_FAIL, "rms(err/sigma) of `%s` is %.2f, the limit is %.2f", name,
                           measure->rms_z, rms_limit(measure->independent));
    if (measure->clusters >= BIAS_TOKENS && fabs(measure->bias) > BIAS_LEAST &&
        fabs(measure->bias) > BIAS_ERRORS * measure->bias_error)
        return cm_conclude(
            outcome, CM_FAIL,
            "`%s` is biased %s zero: mean of err sign(want)/sigma is %.2f +- %.2f (truncation?)", name,
            measure->bias < 0 ? "towards" : "away from", measure->bias, measure->bias_error);
    return CM_PASS;
}

cm_verdict cm_judge_permutation(const cm_measure *measure, const char *name, cm_outcome *outcome)
{
    outcome->compared += measure->count;
    if (measure->beyond)
        return cm_conclude(outcome, CM_FAIL,
                           "`%s` has %lld of %lld places wrong: repeated, outside, or of another key", name,
                           (long long)measure->beyond, (long long)measure->count);
    return CM_PASS;
}
