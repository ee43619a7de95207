// SPDX-License-Identifier: Apache-2.0
// mutation: a kernel leaves its inputs, weights and adapters as they are. First run: inputs are writable and
// compared afterwards, which tells every change. Second run: they are mapped read-only, which also catches a
// write that is undone. Cannot see: a write of the same value in the first run, writes from another process.
#include "harness/op.h"
#include "harness/stage.h"

#include <stdio.h>

static cm_verdict changed(const cm_trial *trial, const cm_stage *stage, int n, int64_t flat)
{
    const cm_argument *argument = &trial->pristine->test_case.op->arguments[n];
    const DLTensor *now = stage->arguments[n], *before = trial->pristine->arguments[n];
    cm_first_bad *first = &trial->outcome->first_bad;
    int64_t shape[CM_MAX_RANK];
    char place[96] = "";
    *first = (cm_first_bad){
        .ndim = now->ndim, .got = cm_tensor_get(now, flat), .want = cm_tensor_get(before, flat)};
    snprintf(first->argument, sizeof first->argument, "%s", argument->name);
    cm_op_shape(argument, trial->pristine->test_case.dims, shape, first->letters);
    cm_tensor_unravel(now, flat, first->index);
    for (int d = 0, at = 0; d < now->ndim; d++)
        at += snprintf(place + at, sizeof place - (size_t)at, "%s%lld", d ? "," : "",
                       (long long)first->index[d]);
    for (int64_t i = 0; i < cm_tensor_count(now); i++) {
        double was = cm_tensor_get(before, i), is = cm_tensor_get(now, i);
        trial->outcome->bad_count += !(was == is || (was != was && is != is));
    }
    return cm_conclude(trial->outcome, CM_FAIL, "write to input `%s`[%s]: %.9g became %.9g", argument->name,
                       place, first->want, first->got);
}

static cm_verdict run(const cm_trial *trial)
{
    const cm_op *op = trial->pristine->test_case.op;
    cm_verdict verdict = CM_PASS;
    for (int pass = 0; pass < 2 && verdict == CM_PASS; pass++) {
        cm_stage_options options = {.place = CM_PLACE_END, .read_only = pass == 1, .poison = CM_CANARY};
        cm_stage stage;
        cm_stage_open(trial, &options, &stage);
        if (!cm_stage_run(trial, &options, &stage))
            verdict = trial->outcome->verdict;
        for (int n = 0; op->arguments[n].name && verdict == CM_PASS; n++) {
            int64_t flat;
            if (!stage.arguments[n] || op->arguments[n].role == CM_OUTPUT ||
                op->arguments[n].role == CM_INOUT)
                continue;
            if (pass == 0)
                trial->outcome->compared += cm_tensor_count(stage.arguments[n]);
            if (!cm_tensor_equal(stage.arguments[n], trial->pristine->arguments[n], &flat))
                verdict = changed(trial, &stage, n, flat);
        }
        cm_stage_close(&stage);
    }
    if (verdict == CM_PASS && trial->outcome->compared == 0)
        return cm_conclude(trial->outcome, CM_VACUOUS, "the case has no input element that could be changed");
    return verdict;
}

const cm_check cm_check_mutation = {
    .name = "mutation",
    .proves = "inputs, weights and adapters are the same after the call, and are not written to during it",
    .blind_to = "writes by another process or device",
    .run = run,
    .claims = {[CM_TOUCH_INPUT_WRITE] = true},
};
