// SPDX-License-Identifier: Apache-2.0
// The declared paths of kernels: patterns of cases on both sides of their switch points, and how many cases
// of a run took each.
#ifndef CM_PATHS_H
#define CM_PATHS_H

#include "harness/plan.h"

int cm_paths_count(const cm_kernel *kernel); // declared paths, at most CM_MAX_PATHS

// What is wrong with a kernel's paths and switch points, as a sentence; false: nothing.
bool cm_paths_wrong(const cm_kernel *kernel, const cm_op *op, char *reason, size_t size);

// The pattern with "{@quantity}" replaced by "{n-1,n,...}": the values beside each switch point of that
// quantity of the op's kernels (NULL-terminated), ascending, each once, from 1 up. NULL: none of them
// has such a switch point, and the pattern stands for no case. Free with free().
char *cm_paths_pattern(const char *pattern, const cm_op *op, const cm_kernel *const *kernels);

// cm_case_expand of cm_paths_pattern.
cm_status cm_paths_expand(const char *pattern, const cm_op *op, const cm_kernel *const *kernels,
                          cm_status (*each)(const char *text, void *self), void *self, cm_error *error);

// Cases of a run in which a kernel ran, and those that took each of its paths.
typedef struct cm_paths_met {
    size_t ran, cases[CM_MAX_PATHS];
} cm_paths_met;

// Whether the selection has all that suites hold against the kernel, or the fault (NULL: none), so that a
// path that it leaves out is a finding: not a single case, a set of seconds, a shard or a part of the checks.
// A fault that never takes a path shows it in every shard that has a case of it.
bool cm_paths_covered(const cm_selection *selection, const cm_kernel *kernel, const cm_fault *fault);

// PASS or VACUOUS for one declared path.
void cm_paths_judge(const cm_kernel *kernel, int path, const cm_paths_met *met, cm_outcome *outcome);

// Names of the declared paths, blank between; NULL: none. Free with free().
char *cm_paths_names(const cm_kernel *kernel);

#endif
