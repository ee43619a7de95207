// SPDX-License-Identifier: Apache-2.0
// Parts of a finding as words: places, values, and the other checks that saw a fault.
#ifndef CM_FINDING_H
#define CM_FINDING_H

#include "harness/expect.h"

// "y[T=3, H=0]"; the argument alone when there is no index.
void cm_finding_place(const cm_first_bad *bad, char *text, size_t size);
// "0x1.1p+0 (1.0625)", "NaN", "-Inf".
void cm_finding_value(double value, char *text, size_t size);
// Whether the first bad element has values to show; otherwise it is an address alone, which the reason names.
bool cm_finding_has_values(const cm_outcome *outcome);
// Other checks that also failed on the fault: "numerics FAIL, bounds CRASH".
void cm_finding_others(const cm_records *records, const cm_fault_result *fault, char *text, size_t size);

#endif
