// SPDX-License-Identifier: Apache-2.0
// A kernel's state under test. What it may refer to stays as long as the contract says and no longer: memory
// of former adapters and former calls is inaccessible.
#include "harness/op.h"
#include "harness/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static cm_stage *open_call(cm_handle *handle, const cm_scene *scene, int spoiled)
{
    cm_stage_options options = {.place = CM_PLACE_END, .poison = CM_CANARY};
    cm_trial with = {handle->trial->kernel, &scene->values, handle->trial->outcome};
    cm_stage *stage = cm_new(1, sizeof *stage);
    cm_stage_open(&with, &options, stage);
    stage->hosted.yields = handle->yields;
    if (spoiled != CM_NOT_SPOILED)
        stage->arguments[spoiled] = NULL;
    handle->call = stage;
    return stage;
}

static void close_stage(cm_handle *handle, cm_stage **stage)
{
    cm_stage *old = *stage;
    *stage = NULL;
    if (!old || old == handle->packed || old == handle->adapters || old == handle->call)
        return; // another name is still in use
    cm_stage_close(old);
    free(old);
}

// One function of the kernel; then scratch memory is dropped.
static cm_status call(cm_handle *handle, cm_function function)
{
    cm_stage *stage = handle->call;
    int blocks = stage->arena.count;
    cm_status status = cm_stage_call(stage, function, &handle->state);
    cm_site_drop(&stage->site, blocks);
    return status;
}

cm_status cm_handle_open(const cm_trial *trial, const cm_scene *scene, int spoiled, cm_handle *handle)
{
    int yields = handle->yields;
    *handle = (cm_handle){.trial = trial, .yields = yields};
    handle->packed = open_call(handle, scene, spoiled);
    return call(handle, CM_PREPARE);
}

static cm_status perform(cm_handle *handle, bool update)
{
    cm_stage *stage = handle->call;
    cm_status status = CM_OK;
    if (handle->packed) // what a state refers to is on the device during each call
        cm_stage_send(handle->packed);
    if (handle->adapters)
        cm_stage_send(handle->adapters);
    if (update && handle->trial->kernel->update) {
        status = call(handle, CM_UPDATE);
        if (status == CM_OK) {
            close_stage(handle, &handle->adapters);
            handle->adapters = stage;
        }
    }
    if (status == CM_OK)
        status = call(handle, CM_RUN);
    cm_stage_fetch(stage, 0);
    return status;
}

cm_status cm_handle_call(cm_handle *handle, const cm_scene *scene, bool update, int spoiled)
{
    close_stage(handle, &handle->call);
    open_call(handle, scene, spoiled);
    return perform(handle, update);
}

void cm_handle_rewrite(cm_handle *handle, const cm_scene *scene)
{
    cm_stage *stage = handle->call;
    const cm_pristine *values = &scene->values;
    for (int n = 0; values->test_case.op->arguments[n].name; n++) {
        cm_tensor *tensor = &stage->tensors[n];
        void *data = tensor->dl.data;
        DLDevice device = tensor->dl.device;
        cm_role role = values->test_case.op->arguments[n].role;
        stage->arguments[n] = values->arguments[n] ? &tensor->dl : NULL;
        if (!values->arguments[n] || role == CM_WEIGHT)
            continue;
        memset(data, CM_CANARY, cm_tensor_extent(&tensor->dl));
        cm_pristine_layout(&values->test_case, n, tensor);
        tensor->dl.data = data;
        tensor->dl.device = device;
        memset(data, CM_CANARY, cm_tensor_extent(&tensor->dl));
        if (role != CM_OUTPUT)
            cm_tensor_copy(&tensor->dl, values->arguments[n]);
    }
    stage->hosted.call.dims = values->test_case.dims;
    stage->hosted.error.message[0] = 0;
}

cm_status cm_handle_repeat(cm_handle *handle, bool update, const char *when)
{
    // Says where we were if the kernel takes the process with it.
    snprintf(handle->trial->outcome->bad_pattern, sizeof handle->trial->outcome->bad_pattern, "%s", when);
    return perform(handle, update);
}

cm_verdict cm_handle_compare(const cm_handle *handle, const cm_scene *scene, const char *when)
{
    const cm_trial *trial = handle->trial;
    const cm_op *op = trial->pristine->test_case.op;
    for (int n = 0; op->arguments[n].name; n++) {
        int64_t flat;
        const DLTensor *got = handle->call->arguments[n], *fresh = &scene->results[n].dl;
        if (op->arguments[n].compare == CM_COMPARE_NONE)
            continue;
        trial->outcome->compared += cm_tensor_count(got);
        if (!trial->kernel->nondeterministic && !cm_tensor_equal(got, fresh, &flat))
            return cm_conclude(
                trial->outcome, CM_FAIL,
                "%s, `%s` differs from that of a fresh state, first at element %lld: %a, should be %a", when,
                op->arguments[n].name, (long long)flat, cm_tensor_get(got, flat), cm_tensor_get(fresh, flat));
    }
    return CM_PASS;
}

cm_verdict cm_handle_step(cm_handle *handle, const cm_scene *scene, bool update, const char *when)
{
    // Says where we were if the kernel takes the process with it.
    snprintf(handle->trial->outcome->bad_pattern, sizeof handle->trial->outcome->bad_pattern, "%s", when);
    cm_status status = cm_handle_call(handle, scene, update, CM_NOT_SPOILED);
    if (status != CM_OK)
        return cm_conclude(handle->trial->outcome, status == CM_DEVICE_FAULT ? CM_FAIL : CM_ERROR,
                           "%s, the kernel returned \"%s\": %s", when, cm_status_name(status),
                           cm_handle_sentence(handle));
    return cm_handle_compare(handle, scene, when);
}

cm_verdict cm_handle_refusal(const cm_handle *handle, cm_status status)
{
    if (status != CM_DEVICE_FAULT)
        return CM_PASS;
    return cm_conclude(handle->trial->outcome, CM_FAIL, "%s", cm_handle_sentence(handle));
}

const char *cm_handle_sentence(const cm_handle *handle)
{
    const char *sentence = handle->call ? handle->call->hosted.error.message : "";
    return sentence[0] ? sentence : "it gave no reason";
}

void cm_handle_close(cm_handle *handle)
{
    if (handle->trial && handle->trial->kernel->release)
        handle->trial->kernel->release(handle->state);
    close_stage(handle, &handle->call);
    close_stage(handle, &handle->adapters);
    close_stage(handle, &handle->packed);
    *handle = (cm_handle){0};
}
