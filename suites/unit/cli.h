// SPDX-License-Identifier: Apache-2.0
// The files of the cli suite: what is printed and returned, the files that are written, and what a run leaves
// for the next.
#ifndef CM_UNIT_CLI_H
#define CM_UNIT_CLI_H

#include <check.h>

Suite *cm_unit_cli(void);
TCase *cm_unit_cli_files(void);
TCase *cm_unit_cli_last(void);

#endif
