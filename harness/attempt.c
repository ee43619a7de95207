// SPDX-License-Identifier: Apache-2.0
#include "harness/attempt.h"

#include "harness/op.h"

#include <stdio.h>
#include <string.h>

bool cm_attempt_sensible(cm_attempt *attempt)
{
    const cm_kernel *kernel = attempt->trial->kernel;
    if (kernel->trusts_caller) {
        cm_conclude(attempt->trial->outcome, CM_SKIP, "the kernel trusts its caller to validate");
        return false;
    }
    cm_attempt_begin(attempt); // the valid call must be accepted, or refusals mean nothing
    bool ran = cm_stage_run(attempt->trial, &attempt->options, &attempt->stage);
    cm_stage_close(&attempt->stage);
    return ran;
}

void cm_attempt_begin(cm_attempt *attempt)
{
    cm_stage_open(attempt->trial, &attempt->options, &attempt->stage);
}

// Fenced outputs can't have been touched.
static bool outputs_untouched(const cm_attempt *attempt)
{
    const cm_op *op = attempt->trial->pristine->test_case.op;
    unsigned char poison[8];
    memset(poison, attempt->options.poison, sizeof poison);
    for (int n = 0; op->arguments[n].name; n++) {
        const cm_tensor *tensor = &attempt->stage.tensors[n];
        size_t size = cm_dtype_bits(tensor->dtype) / 8u;
        cm_tensor shape; // as the case has it: the attempt may have spoiled the tensor's own
        const DLTensor *was = attempt->trial->pristine->arguments[n];
        bool inout = op->arguments[n].role == CM_INOUT;
        if ((op->arguments[n].role != CM_OUTPUT && !inout) || !was || tensor->dl.device.device_type != kDLCPU)
            continue;
        cm_pristine_layout(&attempt->trial->pristine->test_case, n, &shape);
        for (int64_t i = 0; i < cm_tensor_count(&shape.dl); i++) {
            int64_t offset = cm_tensor_offset(&shape.dl, i) * (int64_t)size;
            const char *kept = inout ? (const char *)was->data + offset : (const char *)poison;
            if (memcmp((const char *)tensor->dl.data + offset, kept, size) != 0)
                return false;
        }
    }
    return true;
}

cm_verdict cm_attempt_refused(cm_attempt *attempt, const char *what)
{
    const cm_kernel *kernel = attempt->trial->kernel;
    const cm_call *call = &attempt->stage.hosted.call;
    cm_outcome *outcome = attempt->trial->outcome;
    void *state = NULL;
    cm_status status = CM_OK;
    cm_verdict verdict = CM_PASS;
    // Says where we were if the kernel takes the process with it.
    snprintf(outcome->bad_pattern, sizeof outcome->bad_pattern, "called with %s", what);
    if (kernel->prepare)
        status = kernel->prepare(call, &state);
    if (status == CM_OK && kernel->update)
        status = kernel->update(call, state);
    if (status == CM_OK)
        status = kernel->run(call, state);
    if (kernel->release)
        kernel->release(state);
    outcome->compared++;
    if (status == CM_OK)
        verdict = cm_conclude(outcome, CM_FAIL, "accepted %s", what);
    else if (!outputs_untouched(attempt))
        verdict = cm_conclude(outcome, CM_FAIL, "refused %s with \"%s\", but wrote to an output first", what,
                              cm_status_name(status));
    cm_stage_close(&attempt->stage);
    return verdict;
}
