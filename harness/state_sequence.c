// SPDX-License-Identifier: Apache-2.0
// One state for many calls: other inputs, other adapters after an update, no adapters, adapters again,
// another number of tokens, the first call again. And a state whose prepare saw less than it is given later.
#include "harness/state.h"

// An update that changes how many adapters there are, or their largest rank, may be refused; wrong bits may
// not come out. A refusal is a metric of the record.
static cm_verdict step_or_refusal(cm_handle *handle, const cm_scene *scene, const char *when,
                                  const char *metric)
{
    cm_status status = cm_handle_call(handle, scene, true, CM_NOT_SPOILED);
    if (status == CM_BAD_STATE || status == CM_UNSUPPORTED) {
        cm_outcome_metric(handle->trial->outcome, metric, 1);
        return CM_PASS;
    }
    if (status != CM_OK)
        return cm_conclude(handle->trial->outcome, CM_FAIL,
                           "%s, the kernel returned \"%s\"; only \"bad state\" or \"unsupported\" refuse "
                           "another capacity: %s",
                           when, cm_status_name(status), cm_handle_sentence(handle));
    return cm_handle_compare(handle, scene, when);
}

cm_verdict cm_state_sequence(const cm_scenes *scenes)
{
    static const struct {
        cm_scene_kind scene;
        bool update;
        const char *when, *metric; // metric: may be refused
    } steps[] = {
        {CM_SCENE_FIRST, true, "in the first call", NULL},
        {CM_SCENE_INPUTS, false, "in a second call with other inputs", NULL},
        {CM_SCENE_ADAPTERS, true, "after an update of the adapters", NULL},
        {CM_SCENE_UNLOADED, true, "after the adapters were unloaded", "unload_refused"},
        {CM_SCENE_ADAPTERS, true, "after the adapters were loaded again", NULL},
        {CM_SCENE_TOKENS, true, "with another number of tokens", NULL},
        {CM_SCENE_FIRST, false, "in the first call, repeated", NULL},
    };
    cm_handle handle = {0};
    cm_verdict verdict = CM_PASS;
    if (cm_handle_open(scenes->trial, &scenes->list[CM_SCENE_FIRST], CM_NOT_SPOILED, &handle) != CM_OK)
        verdict =
            cm_conclude(scenes->trial->outcome, CM_ERROR, "prepare failed: %s", cm_handle_sentence(&handle));
    for (size_t n = 0; n < sizeof steps / sizeof *steps && verdict == CM_PASS; n++) {
        const cm_scene *scene = &scenes->list[steps[n].scene];
        bool update =
            steps[n].update || (steps[n].scene == CM_SCENE_FIRST && !scenes->list[CM_SCENE_TOKENS].open);
        if (scene->open)
            verdict = steps[n].metric ? step_or_refusal(&handle, scene, steps[n].when, steps[n].metric)
                                      : cm_handle_step(&handle, scene, update, steps[n].when);
    }
    cm_handle_close(&handle);
    if (scenes->trial->kernel->release)
        scenes->trial->kernel->release(NULL);
    return verdict;
}

cm_verdict cm_state_capacity(const cm_scenes *scenes)
{
    static const struct {
        cm_scene_kind scene;
        const char *when, *metric;
    } rows[] = {
        {CM_SCENE_UNLOADED, "with adapters that came after prepare", "first_load_refused"},
        {CM_SCENE_SMALL, "with more adapters, of a higher rank, than prepare saw", "capacity_refused"},
    };
    cm_verdict verdict = CM_PASS;
    for (size_t n = 0; n < sizeof rows / sizeof *rows && verdict == CM_PASS; n++) {
        const cm_scene *before = &scenes->list[rows[n].scene];
        cm_handle handle = {0};
        if (!before->open || !scenes->trial->kernel->prepare)
            continue;
        if (cm_handle_open(scenes->trial, before, CM_NOT_SPOILED, &handle) != CM_OK)
            verdict = cm_conclude(scenes->trial->outcome, CM_ERROR, "prepare failed: %s",
                                  cm_handle_sentence(&handle));
        if (verdict == CM_PASS)
            verdict = step_or_refusal(&handle, &scenes->list[CM_SCENE_FIRST], rows[n].when, rows[n].metric);
        cm_handle_close(&handle);
    }
    return verdict;
}
