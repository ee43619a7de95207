// SPDX-License-Identifier: Apache-2.0
// The two files of the cli suite: what is printed and returned, and the files that are written.
#ifndef CM_UNIT_CLI_H
#define CM_UNIT_CLI_H

#include <check.h>

Suite *cm_unit_cli(void);
TCase *cm_unit_cli_files(void);

#endif
