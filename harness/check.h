// SPDX-License-Identifier: Apache-2.0
// A check is one property that a kernel must have on a case. It runs in a child of its own and leaves what it
// found in the outcome.
#ifndef CM_CHECK_H
#define CM_CHECK_H

#include "harness/arena.h"
#include "harness/outcome.h"
#include "harness/pristine.h"

typedef struct cm_trial {
    const cm_kernel *kernel;
    const cm_pristine *pristine;
    cm_outcome *outcome;
} cm_trial;

typedef struct cm_check {
    const char *name;
    const char *proves;   // what a PASS says
    const char *blind_to; // what it cannot see
    // False with a reason when the op or this case can't have the check; NULL: every op has it.
    bool (*applies)(const cm_pristine *pristine, char *reason, size_t size);
    cm_verdict (*run)(const cm_trial *trial);
    bool claims[4]; // by cm_touch: such a page fault is this check's FAIL; otherwise it is a CRASH
} cm_check;

// Sets reason and verdict in one go.
cm_verdict cm_conclude(cm_outcome *outcome, cm_verdict verdict, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void cm_outcome_metric(cm_outcome *outcome, const char *name, double value);
// Appends a row; one too many is dropped, as is any where the outcome has no room for gains.
void cm_outcome_gain(cm_outcome *outcome, const cm_gain *gain);

#endif
