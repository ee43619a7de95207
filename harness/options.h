// SPDX-License-Identifier: Apache-2.0
// The options that run, repro and list share: which cases, kernels and checks, and where results go.
#ifndef CM_OPTIONS_H
#define CM_OPTIONS_H

#include "harness/plugin.h"
#include "harness/run.h"

#include <argp.h>

enum { CM_MAX_GLOBS = 256, CM_MAX_REPORTS = 16 };

typedef struct cm_options {
    cm_run_options run;
    const char *globs[CM_MAX_GLOBS + 1];
    int glob_count;
    const char *plugins[CM_MAX_PLUGINS + 1];
    int plugin_count;
    const char *report_paths[CM_MAX_REPORTS];
    int report_count;
    bool set_given, last_failed;
    cm_last last;
} cm_options;

// argp children for selection and results; their input is a cm_options.
extern const struct argp cm_selection_argp, cm_results_argp;

// Defaults, before parsing. `verb` becomes the program's name in messages: "checkmoe run".
void cm_options_begin(cm_options *options, char **argv, const char *verb);
// Links the pointers inside; after parsing.
void cm_options_end(cm_options *options, int argc, char **argv);
// Takes what is to be run again from --records or the last run: the failures, or the record with this id. On
// an error the message is printed; then the exit status, else 0.
int cm_options_open_last(cm_options *options, const char *id);
void cm_options_add_glob(cm_options *options, const char *glob, struct argp_state *state);

#endif
