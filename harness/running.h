// SPDX-License-Identifier: Apache-2.0
// A run under way, shared by the files that carry it out.
#ifndef CM_RUNNING_H
#define CM_RUNNING_H

#include "harness/group.h"
#include "harness/paths.h"
#include "harness/plugin.h"
#include "harness/run.h"

#include <signal.h>
#include <time.h>

struct cm_running {
    const cm_run_options *options;
    cm_record_writer writer;
    cm_known known;
    cm_plugins plugins;
    char id[32];
    size_t written;
    const cm_plan *plan;
    cm_paths_met *met; // cm_running_paths_size of them
    bool is_worker;    // of several: the parent shows progress
    time_t last_sign;  // of life, without a terminal
    cm_error error;
};

extern volatile sig_atomic_t cm_interrupted; // by a signal: no further case begins

// Runs one item of the plan, the `number`-th of `count`, and writes its records.
cm_status cm_running_item(struct cm_running *run, const cm_item *item, size_t number, size_t count);
// Runs all items, in one process or several; the records come in the order of the plan.
cm_status cm_running_items(struct cm_running *run);
// Adds what the tests of one item said about their paths.
void cm_running_count_paths(struct cm_running *run, const cm_item *item, const cm_group *group);
size_t cm_running_paths_size(const struct cm_running *run); // entries of run->met
// After all items: a record for each declared path of each kernel that ran and whose cases were all selected.
cm_status cm_running_judge_paths(struct cm_running *run);
// A bar on a terminal, a line every 30 s elsewhere.
void cm_running_progress(struct cm_running *run, size_t done, size_t count, const char *name);

#endif
