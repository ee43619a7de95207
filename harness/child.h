// SPDX-License-Identifier: Apache-2.0
// The child's side of a test: fences around the process before the kernel runs, and the last words when it
// dies. What it finds goes into a slot that the parent shares.
#ifndef CM_CHILD_H
#define CM_CHILD_H

#include "harness/check.h"

enum { CM_PATIENCE = 6 };
#define CM_TIMEOUT_REASON "the kernel did not come back in time"

typedef enum cm_stage_of_child {
    CM_CHILD_ABSENT,
    CM_CHILD_BEGUN,
    CM_CHILD_DIED,
    CM_CHILD_DONE,
    CM_CHILD_BROKEN, // a fault of the harness: no verdict
} cm_stage_of_child;

typedef struct cm_slot {
    volatile int stage; // cm_stage_of_child
    double ms;          // wall time of the check
    cm_outcome outcome;
    cm_details details; // of the outcome
} cm_slot;

// Runs one check on one kernel in this process: output is caught, memory and file sizes are limited, fatal
// signals write their reason into the slot. `plugin` (NULL: none) is loaded first and the trial's kernel
// looked up in it by name. After `timeout` seconds the process ends itself with TIMEOUT if it had a processor
// for half of them; one that had less (a loaded machine, or a kernel that sleeps) is left to the parent,
// which waits CM_PATIENCE times as long. Leaves the process fenced: call it in a forked child only.
void cm_child_run(const cm_check *check, const cm_trial *trial, const char *plugin, double timeout,
                  cm_slot *slot);

#endif
