// SPDX-License-Identifier: Apache-2.0
// From a measure to a verdict with a reason: the constants of the verdict stand here and nowhere else.
#ifndef CM_JUDGE_H
#define CM_JUDGE_H

#include "harness/compare.h"

#define CM_WIDEST_SHARE 0.05 // of rms(want): a check whose bound is wider is VACUOUS

// The verdict on one bounded output; `name` is the argument. `exact` for the exact tier and integers.
cm_verdict cm_judge_bounded(const cm_measure *measure, bool exact, const char *name, cm_outcome *outcome);
// The same for permutations.
cm_verdict cm_judge_permutation(const cm_measure *measure, const char *name, cm_outcome *outcome);

// Judges every output of the trial's case in `arguments` (in the order of the op's table) against the
// reference, which the pristine has for the kernel's accuracy; where the first bad one is goes into the
// outcome. VACUOUS when there is no element to compare.
cm_verdict cm_judge_outputs(const cm_trial *trial, const DLTensor *const *arguments);
// The same with another widest share.
cm_verdict cm_judge_outputs_within(const cm_trial *trial, const DLTensor *const *arguments, double share);

#endif
