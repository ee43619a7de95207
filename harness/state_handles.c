// SPDX-License-Identifier: Apache-2.0
// Two states in one process, their calls in turn: of one shape with other adapters, then of two shapes. What
// one call leaves in static memory shows in the other's.
#include "harness/state.h"

static cm_verdict open(const cm_scenes *scenes, cm_scene_kind scene, cm_handle *handle)
{
    if (cm_handle_open(scenes->trial, &scenes->list[scene], CM_NOT_SPOILED, handle) == CM_OK)
        return CM_PASS;
    return cm_conclude(scenes->trial->outcome, CM_ERROR, "prepare of a second state failed: %s",
                       cm_handle_sentence(handle));
}

static cm_verdict alternate(const cm_scenes *scenes, cm_scene_kind second_scene, const char *const when[5])
{
    const cm_scene *list = scenes->list;
    cm_handle first = {0}, second = {0};
    cm_verdict verdict = open(scenes, CM_SCENE_FIRST, &first);
    if (verdict == CM_PASS)
        verdict = cm_handle_step(&first, &list[CM_SCENE_FIRST], true, when[0]);
    if (verdict == CM_PASS)
        verdict = open(scenes, second_scene, &second);
    if (verdict == CM_PASS)
        verdict = cm_handle_step(&second, &list[second_scene], true, when[1]);
    if (verdict == CM_PASS)
        verdict = cm_handle_step(&first, &list[CM_SCENE_INPUTS], false, when[2]);
    if (verdict == CM_PASS)
        verdict = cm_handle_step(&second, &list[second_scene], false, when[3]);
    if (second.trial)
        cm_handle_close(&second);
    if (verdict == CM_PASS)
        verdict = cm_handle_step(&first, &list[CM_SCENE_FIRST], false, when[4]);
    cm_handle_close(&first);
    return verdict;
}

cm_verdict cm_state_handles(const cm_scenes *scenes)
{
    static const char *const one_shape[] = {"in the first of two states", "in the second of two states",
                                            "in a state after a call on another one with other adapters",
                                            "in a second state after a call on the first",
                                            "in a state after another one was released"};
    static const char *const two_shapes[] = {"in the first of two states",
                                             "in a second state of another shape",
                                             "in a state after a call on another one of another shape",
                                             "in a second state of another shape after a call on the first",
                                             "in a state after one of another shape was released"};
    cm_verdict verdict = alternate(scenes, CM_SCENE_ADAPTERS, one_shape);
    if (verdict == CM_PASS && scenes->list[CM_SCENE_SHAPE].open)
        return alternate(scenes, CM_SCENE_SHAPE, two_shapes);
    if (verdict == CM_PASS)
        cm_outcome_metric(scenes->trial->outcome, "no_second_shape", 1);
    return verdict;
}
