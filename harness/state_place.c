// SPDX-License-Identifier: Apache-2.0
// Other values, and other sizes, at the same addresses: what a kernel made of an argument and keeps under the
// address at which it lay shows as the bits of a former call.
#include "harness/state.h"

static bool fits(const cm_handle *handle, const cm_scene *scene)
{
    const cm_pristine *first = handle->trial->pristine;
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++) {
        const DLTensor *tensor = scene->values.arguments[n];
        if (tensor &&
            (!first->arguments[n] || cm_tensor_extent(tensor) > cm_tensor_extent(first->arguments[n])))
            return false;
    }
    return true;
}

cm_verdict cm_state_place(const cm_scenes *scenes)
{
    static const struct {
        cm_scene_kind scene;
        bool update, refusable;
        const char *when;
    } steps[] = {
        {CM_SCENE_INPUTS, false, false, "with other inputs at the same addresses"},
        {CM_SCENE_ADAPTERS, true, false, "after an update of the adapters at the same addresses"},
        {CM_SCENE_TOKENS, true, false, "with fewer tokens at the same addresses"},
        {CM_SCENE_SMALL, true, true, "with fewer, smaller adapters at the same addresses"},
        {CM_SCENE_FIRST, true, false, "with the first values at the same addresses again"},
    };
    cm_handle handle = {0};
    cm_verdict verdict = CM_PASS;
    if (cm_handle_open(scenes->trial, &scenes->list[CM_SCENE_FIRST], CM_NOT_SPOILED, &handle) != CM_OK)
        verdict =
            cm_conclude(scenes->trial->outcome, CM_ERROR, "prepare failed: %s", cm_handle_sentence(&handle));
    if (verdict == CM_PASS)
        verdict = cm_handle_step(&handle, &scenes->list[CM_SCENE_FIRST], true, "in the first call");
    for (size_t n = 0; n < sizeof steps / sizeof *steps && verdict == CM_PASS; n++) {
        const cm_scene *scene = &scenes->list[steps[n].scene];
        if (!scene->open || !fits(&handle, scene))
            continue;
        cm_handle_rewrite(&handle, scene);
        cm_status status = cm_handle_repeat(&handle, steps[n].update, steps[n].when);
        if (status == CM_OK)
            verdict = cm_handle_compare(&handle, scene, steps[n].when);
        else if (!steps[n].refusable || (status != CM_BAD_STATE && status != CM_UNSUPPORTED))
            verdict = cm_conclude(scenes->trial->outcome, status == CM_DEVICE_FAULT ? CM_FAIL : CM_ERROR,
                                  "%s, the kernel returned \"%s\": %s", steps[n].when, cm_status_name(status),
                                  cm_handle_sentence(&handle));
    }
    cm_handle_close(&handle);
    return verdict;
}
