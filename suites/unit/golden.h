// SPDX-License-Identifier: Apache-2.0
// The tests of the recorded goldens.
#ifndef CM_UNIT_GOLDEN_H
#define CM_UNIT_GOLDEN_H

#include <check.h>

Suite *cm_unit_golden(void);
TCase *cm_unit_golden_misread(void);

#endif
