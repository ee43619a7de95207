// SPDX-License-Identifier: Apache-2.0
// A call that is wrong on purpose: a kernel must refuse it by a status and write nothing.
#ifndef CM_ATTEMPT_H
#define CM_ATTEMPT_H

#include "harness/stage.h"

typedef struct cm_attempt {
    const cm_trial *trial;
    cm_stage_options options;
    cm_stage stage;
} cm_attempt;

// Whether the kernel can be asked at all and accepts the valid call; otherwise the outcome has the verdict.
bool cm_attempt_sensible(cm_attempt *attempt);
// A fresh valid call in attempt->stage, to be spoiled.
void cm_attempt_begin(cm_attempt *attempt);
// Runs the spoiled call from prepare on and ends the attempt. `what` says what was wrong with it.
cm_verdict cm_attempt_refused(cm_attempt *attempt, const char *what);

#endif
