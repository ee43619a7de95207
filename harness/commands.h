// SPDX-License-Identifier: Apache-2.0
// The verbs: each takes the words from its own name on and returns the exit status.
#ifndef CM_COMMANDS_H
#define CM_COMMANDS_H

#include "harness/record.h"

int cm_cmd_run(int argc, char **argv);
int cm_cmd_bench(int argc, char **argv);
int cm_cmd_report(int argc, char **argv, const cm_report *const *reports);
int cm_cmd_repro(int argc, char **argv);
int cm_cmd_list(int argc, char **argv);
int cm_cmd_inspect(int argc, char **argv);
int cm_cmd_new_plugin(int argc, char **argv);
int cm_cmd_doctor(int argc, char **argv);

#endif
