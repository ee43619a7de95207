// SPDX-License-Identifier: Apache-2.0
// Runs a plan: each case is made once in the parent, each (kernel, check) of it is a Check test in a process
// of its own, and each becomes a record.
#ifndef CM_RUN_H
#define CM_RUN_H

#include "harness/expect.h"
#include "harness/plan.h"

typedef struct cm_run_options {
    cm_selection selection;
    const char *const *plugins; // paths, NULL-terminated; without globs only their kernels run; NULL: none
    const char *records_path;   // NULL: see keep_last
    const char *known_path;     // NULL: none
    const char *require;        // targets, comma between; NULL: none
    double timeout;             // seconds per check
    int jobs;                   // processes that share the cases; 0: one for each processor
    bool quiet;                 // no progress
    bool keep_last;             // without records_path: keep the records for --last-failed
    int argc;                   // for the environment
    char *const *argv;
    // Reports to write from the records: paths by the registry's order; NULL: not asked for; "-": stdout.
    const char *const *report_paths;
} cm_run_options;

// Returns the exit status; messages for the person go to stderr.
int cm_run(const cm_run_options *options);

#endif
