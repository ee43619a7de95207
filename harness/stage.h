// SPDX-License-Identifier: Apache-2.0
// A stage is where a kernel performs: private copies of a case's arguments in an arena, laid out and poisoned
// as a check wants them. Of large weights it has views, whose pages are copied when they are written to.
#ifndef CM_STAGE_H
#define CM_STAGE_H

#include "harness/check.h"
#include "harness/host.h"

typedef struct cm_stage_options {
    cm_place place;
    bool read_only;       // inputs are mapped read-only while the kernel runs
    unsigned char poison; // fills outputs and scratch before the run
    int threads;          // of the call; 0: no limit
    // hide[n]: mask of argument n (row-major), or NULL; elements whose mask is 0 become NaN. Floats only.
    uint8_t *const *hide;
} cm_stage_options;

typedef struct cm_stage {
    cm_arena arena;
    cm_tensor tensors[CM_MAX_ARGUMENTS];
    const DLTensor *arguments[CM_MAX_ARGUMENTS];
    cm_hosted hosted;
} cm_stage;

// Copies the case; out of memory is a fault of the harness. Close with cm_stage_close.
void cm_stage_open(const cm_trial *trial, const cm_stage_options *options, cm_stage *stage);
// supports, prepare, update, run, release. True: ran, outputs are there. False: the outcome has the verdict
// (SKIP or ERROR) and its reason.
bool cm_stage_run(const cm_trial *trial, const cm_stage_options *options, cm_stage *stage);
void cm_stage_close(cm_stage *stage);

#endif
