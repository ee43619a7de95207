// SPDX-License-Identifier: Apache-2.0
// Calls out of order, and calls after a refusal. What comes too early is refused; what was refused leaves a
// state that gives right bits or refuses until the next update.
#include "harness/op.h"
#include "harness/state.h"

#include <stdio.h>

// An argument without which a call can't be valid; adapters only: one of the adapters'. -1: there is none.
static int needed_argument(const cm_pristine *pristine, bool adapters)
{
    const cm_argument *arguments = pristine->test_case.op->arguments;
    for (int n = 0; arguments[n].name; n++)
        if (pristine->arguments[n] && (adapters ? arguments[n].role == CM_ADAPTER
                                                : !arguments[n].optional && arguments[n].role <= CM_WEIGHT))
            return n;
    return CM_NOT_SPOILED;
}

// A kernel with a prepare can tell that it was not called.
static cm_verdict before_prepare(const cm_scenes *scenes)
{
    const cm_kernel *kernel = scenes->trial->kernel;
    cm_stage_options options = {.place = CM_PLACE_END, .poison = CM_CANARY};
    cm_verdict verdict = CM_PASS;
    cm_stage stage;
    if (!kernel->prepare)
        return CM_PASS;
    void *state = NULL;
    cm_stage_open(scenes->trial, &options, &stage);
    if (cm_stage_call(&stage, CM_RUN, &state) == CM_OK)
        verdict = cm_conclude(scenes->trial->outcome, CM_FAIL, "run before prepare was accepted");
    else if (kernel->update && cm_stage_call(&stage, CM_UPDATE, &state) == CM_OK)
        verdict = cm_conclude(scenes->trial->outcome, CM_FAIL, "update before prepare was accepted");
    cm_stage_close(&stage);
    return verdict;
}

static cm_verdict after_failed_prepare(const cm_scenes *scenes)
{
    const cm_scene *scene = &scenes->list[CM_SCENE_FIRST];
    int spoiled = needed_argument(&scene->values, false);
    cm_handle handle = {0};
    cm_verdict verdict = CM_PASS;
    if (!scenes->trial->kernel->prepare || spoiled == CM_NOT_SPOILED)
        return CM_PASS;
    // A prepare that has no use for the argument may leave the refusal to run.
    if (cm_handle_open(scenes->trial, scene, spoiled, &handle) == CM_OK)
        verdict = CM_PASS;
    else if (handle.state)
        verdict =
            cm_conclude(scenes->trial->outcome, CM_FAIL, "prepare without `%s` failed, but left a state",
                        scene->values.test_case.op->arguments[spoiled].name);
    else if (cm_handle_call(&handle, scene, false, CM_NOT_SPOILED) == CM_OK)
        verdict = cm_conclude(scenes->trial->outcome, CM_FAIL, "run after a failed prepare was accepted");
    cm_handle_close(&handle);
    return verdict;
}

// Right bits or a refusal.
static cm_verdict right_or_refused(cm_handle *handle, const cm_scene *scene, const char *when)
{
    cm_status status = cm_handle_call(handle, scene, false, CM_NOT_SPOILED);
    if (status != CM_OK)
        return cm_handle_refusal(handle, status);
    return cm_handle_compare(handle, scene, when);
}

static cm_verdict spoiled_call(cm_handle *handle, const cm_scene *scene, bool update, int spoiled)
{
    cm_status status = cm_handle_call(handle, scene, update, spoiled);
    if (status != CM_OK)
        return cm_handle_refusal(handle, status);
    return cm_conclude(handle->trial->outcome, CM_FAIL, "%s without `%s` was accepted on a used state",
                       update ? "update" : "run", scene->values.test_case.op->arguments[spoiled].name);
}

static cm_verdict after_refusals(const cm_scenes *scenes)
{
    const cm_scene *first = &scenes->list[CM_SCENE_FIRST], *other = &scenes->list[CM_SCENE_ADAPTERS];
    const cm_scene *unloaded = &scenes->list[CM_SCENE_UNLOADED];
    int input = needed_argument(&first->values, false), adapter = needed_argument(&first->values, true);
    cm_handle handle = {0};
    cm_verdict verdict = CM_PASS;
    if (cm_handle_open(scenes->trial, first, CM_NOT_SPOILED, &handle) != CM_OK)
        verdict =
            cm_conclude(scenes->trial->outcome, CM_ERROR, "prepare failed: %s", cm_handle_sentence(&handle));
    if (verdict == CM_PASS && scenes->trial->kernel->update)
        verdict = right_or_refused(&handle, first, "in a call between prepare and the first update");
    if (verdict == CM_PASS)
        verdict = cm_handle_step(&handle, first, true, "in the first call");
    if (verdict == CM_PASS && input != CM_NOT_SPOILED)
        verdict = spoiled_call(&handle, first, false, input);
    if (verdict == CM_PASS)
        verdict = cm_handle_step(&handle, first, false, "after a run that was refused");
    if (verdict == CM_PASS && adapter != CM_NOT_SPOILED && scenes->trial->kernel->update) {
        verdict = spoiled_call(&handle, other, true, adapter);
        if (verdict == CM_PASS)
            verdict = right_or_refused(&handle, first, "after an update that was refused");
        if (verdict == CM_PASS)
            verdict = cm_handle_step(&handle, other, true, "with an update after one that was refused");
    }
    if (verdict == CM_PASS && unloaded->open)
        verdict = right_or_refused(&handle, unloaded, "in a call without adapters and without an update");
    cm_handle_close(&handle);
    return verdict;
}

cm_verdict cm_state_order(const cm_scenes *scenes)
{
    cm_verdict verdict = before_prepare(scenes);
    if (verdict != CM_PASS || scenes->trial->kernel->trusts_caller)
        return verdict;
    if ((verdict = after_failed_prepare(scenes)) == CM_PASS)
        verdict = after_refusals(scenes);
    return verdict;
}
