// SPDX-License-Identifier: Apache-2.0
// Declares whatever suites.inc and faults.inc list.
#ifndef CM_SUITES_H
#define CM_SUITES_H

#include "harness/suite.h"

#define CM_SUITE(symbol) extern const cm_suite symbol;
#include "suites/suites.inc"
#undef CM_SUITE

extern const cm_fault *const cm_faults[]; // ends with NULL

#endif
