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
    cm_site site;
    const cm_kernel *kernel;
} cm_stage;

typedef enum cm_function { CM_PREPARE, CM_UPDATE, CM_RUN } cm_function;

// Copies the case; out of memory is a fault of the harness. Close with cm_stage_close.
void cm_stage_open(const cm_trial *trial, const cm_stage_options *options, cm_stage *stage);
// Arguments lie where their tags say: those of another device than the host are sent there, or fenced.
void cm_stage_send(cm_stage *stage);
// Blocks from `first` on are host memory, to be looked at.
void cm_stage_fetch(cm_stage *stage, int first);
// Sends the arguments, calls one of the kernel's functions (CM_OK if it has none) and waits for its device.
// They stay away.
cm_status cm_stage_call(cm_stage *stage, cm_function function, void **state);
// Sends the arguments and records a run in a graph of the kernel's device, in place of running it. Its
// scratch memory stays in the arena.
cm_status cm_stage_capture(cm_stage *stage, void *state, void **graph);
// Sends the arguments and the captured run's scratch memory (blocks from `scratch` on, poisoned again), runs
// what was recorded, and waits.
cm_status cm_stage_replay(cm_stage *stage, void *graph, int scratch);
// supports, prepare, update, run, release. True: ran, outputs are there. False: the outcome has the verdict
// (SKIP or ERROR) and its reason.
bool cm_stage_run(const cm_trial *trial, const cm_stage_options *options, cm_stage *stage);
void cm_stage_close(cm_stage *stage);

#endif
