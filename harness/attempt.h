// SPDX-License-Identifier: Apache-2.0
// A call that is wrong on purpose: a kernel must refuse it by a status and write nothing.
#ifndef CM_ATTEMPT_H
#define CM_ATTEMPT_H

#include "harness/stage.h"

typedef struct cm_attempt {
    const cm_trial *trial;
    cm_stage_options options;
    cm_stage stage;
    int64_t dims[CM_DIM_COUNT]; // of the call, to be spoiled as well
    int moved;                  // output that was laid over another argument; -1: none
    char *watched, *kept;       // the memory that both share, and what it held
    size_t watched_size;        // bytes
} cm_attempt;

// Whether the kernel can be asked at all and accepts the valid call; otherwise the outcome has the verdict.
// A kernel of a device without memory here has no valid call: it is only asked to refuse.
bool cm_attempt_sensible(cm_attempt *attempt);
// A fresh valid call in attempt->stage, to be spoiled. What its tags say when it runs is where its arguments
// lie.
void cm_attempt_begin(cm_attempt *attempt);
// How an output is laid over another argument.
typedef enum cm_overlap { CM_OVERLAP_SAME, CM_OVERLAP_HEAD, CM_OVERLAP_TAIL, CM_OVERLAP_COUNT } cm_overlap;
// Moves both into memory of their own, so that they share their beginning, or only the output's end, or only
// its beginning. False: they are empty, or no address in between is aligned as the kernel asks.
bool cm_attempt_overlap(cm_attempt *attempt, int output, int other, cm_overlap how);
// Runs the spoiled call from prepare on and ends the attempt. `what` says what was wrong with it.
cm_verdict cm_attempt_refused(cm_attempt *attempt, const char *what);

#endif
