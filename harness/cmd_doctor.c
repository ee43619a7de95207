// SPDX-License-Identifier: Apache-2.0
#include "harness/commands.h"
#include "harness/env.h"
#include "harness/expect.h"

#include <argp.h>

int cm_cmd_doctor(int argc, char **argv)
{
    static const struct argp argp = {.doc =
                                         "Says what this machine has, what is missing and what that skips."};
    static char name[] = "checkmoe doctor";
    argv[0] = name;
    argp_err_exit_status = CM_EXIT_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, NULL);
    cm_environment_print(stdout);
    return CM_EXIT_OK;
}
