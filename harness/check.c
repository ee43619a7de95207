// SPDX-License-Identifier: Apache-2.0
#include "harness/check.h"

#include <stdarg.h>
#include <stdio.h>

cm_verdict cm_conclude(cm_outcome *outcome, cm_verdict verdict, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(outcome->reason, sizeof outcome->reason, format, list);
    va_end(list);
    outcome->verdict = verdict;
    return verdict;
}

void cm_outcome_metric(cm_outcome *outcome, const char *name, double value)
{
    if (outcome->metric_count == CM_MAX_METRICS)
        return;
    cm_metric *metric = &outcome->metrics[outcome->metric_count++];
    snprintf(metric->name, sizeof metric->name, "%s", name);
    metric->value = value;
}

void cm_outcome_gain(cm_outcome *outcome, const cm_gain *gain)
{
    if (outcome->gains && outcome->gain_count < CM_MAX_GAIN_ROWS)
        outcome->gains[outcome->gain_count++] = *gain;
}
