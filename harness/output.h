// SPDX-License-Identifier: Apache-2.0
// Writing a report to a path: a temporary name first, renamed when it is whole; "-" is stdout.
#ifndef CM_OUTPUT_H
#define CM_OUTPUT_H

#include "harness/record.h"

cm_status cm_report_write(const cm_report *report, const cm_records *records, const char *path,
                          cm_error *error);

#endif
