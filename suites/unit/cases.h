// SPDX-License-Identifier: Apache-2.0
// What tests of cases, ops and the judge share: a case by its name, with its values.
#ifndef CM_UNIT_CASES_H
#define CM_UNIT_CASES_H

#include "harness/pristine.h"

#include <check.h>

Suite *cm_unit_cases(void);

cm_case cm_unit_case(const char *op, const char *name); // parsed; a refusal fails the test
// Opened; a refusal fails the test. Close with cm_unit_close.
cm_pristine *cm_unit_open(const char *op, const char *name);
void cm_unit_close(cm_pristine *pristine);
const DLTensor *cm_unit_argument(const cm_pristine *pristine, const char *name); // NULL: absent

// Draws `count` cases from the fuzz rows of each suite.
void cm_unit_draw(int count, void (*each)(const cm_op *op, const char *name));

TCase *cm_unit_case_generators(void);
TCase *cm_unit_case_values(void);

#endif
