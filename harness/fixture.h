// SPDX-License-Identifier: Apache-2.0
// What the fixtures provide: axes of cases and generators of values. The program binds them (registry.h).
#ifndef CM_FIXTURE_H
#define CM_FIXTURE_H

#include "harness/case.h"

// Everything a generator may look at. Arguments are filled in the order of the op's table, so those before
// `argument` have their values.
typedef struct cm_values {
    const cm_case *test_case;
    const cm_call *call;
    int argument;
    int level; // exact tier: 0, 1, ... ask for sparser data
} cm_values;

typedef struct cm_generator {
    const char *kind; // cm_fill.kind
    cm_status (*fill)(const cm_values *values, const DLTensor *tensor, cm_error *error);
} cm_generator;

enum { CM_EXACT_LEVELS = 4 };

#endif
