// SPDX-License-Identifier: Apache-2.0
// Suites are tables: which cases of an op go through which checks, in which set. Faults are kernels that must
// fail, with the check and the finding that must kill them.
#ifndef CM_SUITE_H
#define CM_SUITE_H

#include "harness/checkmoe.h"

typedef enum cm_set {
    CM_SET_SMOKE = 1, // seconds
    CM_SET_CI = 2,    // the gate
    CM_SET_FULL = 4,  // minutes
    CM_SET_FUZZ = 8,  // a pattern from which fresh cases are drawn
} cm_set;

typedef struct cm_row {
    const char *cases;  // a pattern, see cm_case_expand
    const char *checks; // names, blank between; NULL: every check that the op can have
    unsigned sets;
    const char *why; // what these cases sit on
} cm_row;

// Real files: a layer of a model with its adapter, and what the model's own code computed for it.
typedef struct cm_file_row {
    const char *model, *adapter, *recorded; // below the fixtures folder
    int layer;
    unsigned sets;
} cm_file_row;

typedef struct cm_suite {
    const char *name;
    const char *op;
    const cm_row *rows;       // ends with NULL cases
    const cm_file_row *files; // ends with a NULL model; may be NULL
    const char *kernels; // glob over the names of those that it is for, or after a '!' of those that it is
                         // not for; NULL: all of the op
} cm_suite;

typedef struct cm_fault {
    const char *id;
    const cm_kernel *kernel;
    const char *check;   // that must kill it
    const char *finding; // must be part of that check's reason
    const char *cases;   // pattern of which at least one must kill it
    const char *checks;  // names, blank between; NULL: every check that the op can have
    const char *story;   // what is broken, one line
} cm_fault;

#endif
