// SPDX-License-Identifier: Apache-2.0
#include "harness/attempt.h"

#include "harness/op.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool cm_attempt_sensible(cm_attempt *attempt)
{
    const cm_kernel *kernel = attempt->trial->kernel;
    if (kernel->trusts_caller) {
        cm_conclude(attempt->trial->outcome, CM_SKIP, "the kernel trusts its caller to validate");
        return false;
    }
    if (kernel->device > kDLCPU && !cm_kernel_side(kernel))
        return true;
    cm_attempt_begin(attempt); // the valid call must be accepted, or refusals mean nothing
    bool ran = cm_stage_run(attempt->trial, &attempt->options, &attempt->stage);
    cm_stage_close(&attempt->stage);
    return ran;
}

void cm_attempt_begin(cm_attempt *attempt)
{
    const cm_trial *trial = attempt->trial;
    cm_stage_open(trial, &attempt->options, &attempt->stage);
    memcpy(attempt->dims, trial->pristine->test_case.dims, sizeof attempt->dims);
    attempt->stage.hosted.call.dims = attempt->dims;
    attempt->moved = -1;
}

bool cm_attempt_overlap(cm_attempt *attempt, int output, int other, cm_overlap how)
{
    const cm_op *op = attempt->trial->pristine->test_case.op;
    cm_tensor *written = &attempt->stage.tensors[output], *beside = &attempt->stage.tensors[other];
    size_t size = cm_tensor_extent(&written->dl), room = cm_tensor_extent(&beside->dl);
    size_t step = 4; // bytes: no element is larger
    if (attempt->trial->kernel->alignment > (int)step)
        step = (size_t)attempt->trial->kernel->alignment;
    if (size == 0 || room == 0 || (how == CM_OVERLAP_HEAD && size <= step) ||
        (how == CM_OVERLAP_TAIL && room <= step))
        return false;
    size_t place = (size + step - 1) / step * step; // of the other argument; the output may begin before it
    size_t at = how == CM_OVERLAP_SAME   ? place
                : how == CM_OVERLAP_HEAD ? place - (size - 1) / step * step
                                         : place + (room - 1) / step * step;
    attempt->watched_size = place + room + size + step;
    attempt->watched = cm_arena_take(&attempt->stage.arena, op->arguments[output].name, attempt->watched_size,
                                     step, CM_PLACE_START, false);
    if (!attempt->watched)
        cm_broken("no memory for overlapping arguments");
    memset(attempt->watched, attempt->options.poison, attempt->watched_size);
    written->dl.data = attempt->watched + at;
    if (op->arguments[output].role == CM_INOUT)
        cm_tensor_copy(&written->dl, attempt->trial->pristine->arguments[output]);
    beside->dl.data = attempt->watched + place;
    cm_tensor_copy(&beside->dl, attempt->trial->pristine->arguments[other]); // its values stay valid
    attempt->kept = cm_new(attempt->watched_size, 1);
    memcpy(attempt->kept, attempt->watched, attempt->watched_size);
    if (attempt->trial->kernel->device > kDLCPU) {
        char *there = cm_site_send(&attempt->stage.site, attempt->stage.arena.count - 1);
        written->dl.data = there + at;
        beside->dl.data = there + place;
    }
    attempt->moved = output;
    return true;
}

static bool outputs_untouched(const cm_attempt *attempt)
{
    const cm_op *op = attempt->trial->pristine->test_case.op;
    if (attempt->moved >= 0 && memcmp(attempt->watched, attempt->kept, attempt->watched_size) != 0)
        return false;
    for (int n = 0; op->arguments[n].name; n++) {
        const cm_tensor *tensor = &attempt->stage.tensors[n];
        cm_tensor shape; // as the case has it: the attempt may have spoiled the tensor's own
        const DLTensor *was = attempt->trial->pristine->arguments[n];
        bool inout = op->arguments[n].role == CM_INOUT;
        char *data = NULL;
        for (int b = 0; b < attempt->stage.arena.count; b++) // where the stage put it
            if (attempt->stage.arena.blocks[b].tensor == &tensor->dl)
                data = attempt->stage.arena.blocks[b].data;
        if ((op->arguments[n].role != CM_OUTPUT && !inout) || !was || !data)
            continue;
        cm_pristine_layout(&attempt->trial->pristine->test_case, n, &shape);
        shape.dl.data = data;
        int64_t difference;
        if (inout && !cm_tensor_equal(&shape.dl, was, &difference))
            return false;
        for (int64_t i = 0; !inout && i < cm_tensor_count(&shape.dl); i++)
            if (!cm_tensor_is_poison(&shape.dl, i, attempt->options.poison))
                return false;
    }
    return true;
}

cm_verdict cm_attempt_refused(cm_attempt *attempt, const char *what)
{
    const cm_kernel *kernel = attempt->trial->kernel;
    cm_outcome *outcome = attempt->trial->outcome;
    void *state = NULL;
    cm_status status = CM_OK;
    cm_verdict verdict = CM_PASS;
    // Says where we were if the kernel takes the process with it.
    snprintf(outcome->bad_pattern, sizeof outcome->bad_pattern, "called with %s", what);
    for (int function = CM_PREPARE; function <= CM_RUN && status == CM_OK; function++)
        status = cm_stage_call(&attempt->stage, (cm_function)function, &state);
    if (kernel->release)
        kernel->release(state);
    cm_stage_fetch(&attempt->stage, 0);
    outcome->compared++;
    if (status == CM_OK)
        verdict = cm_conclude(outcome, CM_FAIL, "accepted %s", what);
    else if (status == CM_DEVICE_FAULT)
        verdict =
            cm_conclude(outcome, CM_FAIL, "launched with %s: %s", what, attempt->stage.hosted.error.message);
    else if (!outputs_untouched(attempt))
        verdict = cm_conclude(outcome, CM_FAIL, "refused %s with \"%s\", but wrote to an output first", what,
                              cm_status_name(status));
    cm_stage_close(&attempt->stage);
    free(attempt->kept);
    attempt->kept = NULL;
    return verdict;
}
