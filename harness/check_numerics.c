// SPDX-License-Identifier: Apache-2.0
// numerics: every element of every output is what the reference wants: to the bit on exact data, else within
// 6 sigma of the roundings that the op allows. Inputs are writable, so that a kernel that edits them shows
// what follows. Cannot see: faults that this case's values don't reach, and a LoRA below the bound (see
// effect).
#include "harness/compare.h"
#include "harness/judge.h"
#include "harness/op.h"
#include "harness/stage.h"

#include <string.h>

static cm_verdict judge_output(const cm_trial *trial, const cm_stage *stage, int n, bool exact)
{
    const cm_pristine *pristine = trial->pristine;
    const cm_argument *argument = &pristine->test_case.op->arguments[n];
    const cm_want *want = &pristine->want[trial->kernel->accuracy][n];
    const DLTensor *got = stage->arguments[n];
    cm_measure measure;
    cm_verdict verdict;
    if (argument->compare == CM_COMPARE_PERMUTATION) {
        int key = cm_op_argument_index(pristine->test_case.op, argument->compare_key);
        cm_compare_permutation(got, want, pristine->arguments[key], &measure);
        verdict = cm_judge_permutation(&measure, argument->name, trial->outcome);
    } else {
        exact = exact || argument->compare == CM_COMPARE_EXACT;
        cm_compare_bounded(got, stage->tensors[n].dtype, want, exact, &measure);
        verdict = cm_judge_bounded(&measure, exact, argument->name, trial->outcome);
    }
    if (verdict == CM_FAIL)
        cm_compare_locate(pristine, n, got, want, exact, &measure, trial->outcome);
    return verdict;
}

static cm_verdict run(const cm_trial *trial)
{
    const cm_op *op = trial->pristine->test_case.op;
    bool exact = !strcmp(cm_case_word(&trial->pristine->test_case, CM_AXIS_TIER), "exact");
    cm_stage_options options = {.place = CM_PLACE_END, .poison = CM_CANARY};
    cm_stage stage;
    cm_verdict verdict = CM_PASS;
    cm_stage_open(trial, &options, &stage);
    if (!cm_stage_run(trial, &options, &stage))
        verdict = trial->outcome->verdict;
    for (int n = 0; op->arguments[n].name && verdict == CM_PASS; n++)
        if (op->arguments[n].compare != CM_COMPARE_NONE)
            verdict = judge_output(trial, &stage, n, exact);
    cm_stage_close(&stage);
    if (verdict == CM_PASS && trial->outcome->compared == 0)
        return cm_conclude(trial->outcome, CM_VACUOUS, "there is no output element to compare");
    return verdict;
}

const cm_check cm_check_numerics = {
    .name = "numerics",
    .proves = "every output element is right: to the bit on exact data, within 6 sigma otherwise",
    .blind_to = "what the case's values don't reach; a LoRA smaller than the bound",
    .run = run,
};
