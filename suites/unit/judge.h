// SPDX-License-Identifier: Apache-2.0
// The two files of the judge suite: verdicts on values, and where the bad ones are.
#ifndef CM_UNIT_JUDGE_H
#define CM_UNIT_JUDGE_H

#include <check.h>

Suite *cm_unit_judge(void);
TCase *cm_unit_judge_places(void);

#endif
