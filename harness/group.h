// SPDX-License-Identifier: Apache-2.0
// The tests of one case, run through Check: a forked process, a time-out and a shared slot for each.
#ifndef CM_GROUP_H
#define CM_GROUP_H

#include "harness/child.h"

#include <signal.h>

typedef struct cm_test {
    const cm_check *check;
    const cm_kernel *kernel;
    const char *plugin; // that has the kernel; NULL: built in
    cm_slot *slot;      // in a shared mapping, owned by the group
    char skip[160];     // why the case can't have the check; "": it can
    char *name;
    bool left_out; // the group was stopped before it: there is no outcome
} cm_test;

typedef struct cm_group {
    const cm_pristine *pristine;
    cm_test *tests;
    size_t count, space;
    cm_slot *slots;
    size_t slots_mapped;               // bytes
    double timeout;                    // seconds for each test, see cm_child_run
    const volatile sig_atomic_t *stop; // not 0: leave out the tests that are still to come; may be NULL
} cm_group;

// The kernel goes through the check, or gets a SKIP when the case can't have it. `plugin`: path of the
// library that the kernel's functions come from, in the child; NULL: built in.
void cm_group_add(cm_group *group, const cm_check *check, const cm_kernel *kernel, const char *plugin);
// Runs all tests, each for at most `timeout` seconds (cm_child_run); afterwards each slot's outcome is final.
void cm_group_run(cm_group *group, double timeout);
void cm_group_close(cm_group *group);

#endif
