// SPDX-License-Identifier: Apache-2.0
// What may change a result or a time: code, build, machine, numeric modes. An allow-list: no host name, and
// of the environment only variables that number libraries read. What is absent says why.
#ifndef CM_ENV_H
#define CM_ENV_H

#include <stdio.h>

// JSON object, schema checkmoe.env/1; free with free().
char *cm_environment_json(const char *run, int argc, char *const *argv);

// For doctor: a table of what is here, and what is missing, what that skips and where it comes from. Asks the
// CUDA driver, so call it in a process that runs no kernels.
void cm_environment_print(FILE *out);

#endif
