// SPDX-License-Identifier: Apache-2.0
// Declares what reports.inc lists.
#ifndef CM_REPORTS_H
#define CM_REPORTS_H

#include "harness/record.h"

#define CM_REPORT(symbol) extern const cm_report symbol;
#include "reports/reports.inc"
#undef CM_REPORT

#endif
