// SPDX-License-Identifier: Apache-2.0
#include "harness/judge.h"

#include "harness/op.h"

#include <string.h>

static cm_verdict judge_output(const cm_trial *trial, const DLTensor *got, int n, bool exact, double share)
{
    const cm_pristine *pristine = trial->pristine;
    const cm_argument *argument = &pristine->test_case.op->arguments[n];
    const cm_want *want = &pristine->want[trial->kernel->accuracy][n];
    cm_measure measure;
    cm_verdict verdict;
    if (argument->compare == CM_COMPARE_PERMUTATION) {
        int key = cm_op_argument_index(pristine->test_case.op, argument->compare_key);
        cm_compare_permutation(got, want, pristine->arguments[key], &measure);
        verdict = cm_judge_permutation(&measure, argument->name, trial->outcome);
    } else {
        exact = exact || argument->compare == CM_COMPARE_EXACT;
        cm_compare_bounded(got, pristine->tensors[n].dtype, want, exact, &measure);
        measure.widest_share = share;
        verdict = cm_judge_bounded(&measure, exact, argument->name, trial->outcome);
    }
    if (verdict == CM_FAIL)
        cm_compare_locate(pristine, n, got, want, exact, &measure, trial->outcome);
    return verdict;
}

cm_verdict cm_judge_outputs_within(const cm_trial *trial, const DLTensor *const *arguments, double share)
{
    const cm_op *op = trial->pristine->test_case.op;
    bool exact = !strcmp(cm_case_word(&trial->pristine->test_case, CM_AXIS_TIER), "exact");
    cm_verdict verdict = CM_PASS;
    for (int n = 0; op->arguments[n].name && verdict == CM_PASS; n++)
        if (op->arguments[n].compare != CM_COMPARE_NONE)
            verdict = judge_output(trial, arguments[n], n, exact, share);
    if (verdict == CM_PASS && trial->outcome->compared == 0)
        return cm_conclude(trial->outcome, CM_VACUOUS, "there is no output element to compare");
    return verdict;
}

cm_verdict cm_judge_outputs(const cm_trial *trial, const DLTensor *const *arguments)
{
    return cm_judge_outputs_within(trial, arguments, CM_WIDEST_SHARE);
}
