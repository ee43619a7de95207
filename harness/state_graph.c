// SPDX-License-Identifier: Apache-2.0
// A run captured in a graph of the kernel's device with one batch, and replayed with others of the same size
// at the same addresses: what the host looked up while it was captured (segments, ranks, addresses) shows as
// the bits of that batch. A replay is held against a fresh state's bits and against the reference. Outputs
// are poisoned before each, so that nothing is left over from the one before.
#include "harness/judge.h"
#include "harness/op.h"
#include "harness/state.h"

#include <stdio.h>
#include <string.h>

struct graph {
    cm_handle handle;
    void *graph;
    int blocks; // of the stage's arena, without what the captured run took
};

static cm_verdict failed(struct graph *graph, cm_status status, const char *when)
{
    return cm_conclude(graph->handle.trial->outcome, status == CM_DEVICE_FAULT ? CM_FAIL : CM_ERROR,
                       "%s, the kernel returned \"%s\": %s", when, cm_status_name(status),
                       cm_handle_sentence(&graph->handle));
}

// What a captured run may not do yet.
static cm_verdict outputs_untouched(const cm_handle *handle, const cm_scene *scene)
{
    const cm_argument *arguments = scene->values.test_case.op->arguments;
    for (int n = 0; arguments[n].name; n++) {
        const DLTensor *tensor = handle->call->arguments[n];
        int64_t flat = 0, count = tensor ? cm_tensor_count(tensor) : 0;
        bool same = true;
        if (tensor && arguments[n].role == CM_INOUT)
            same = cm_tensor_equal(tensor, scene->values.arguments[n], &flat);
        else if (arguments[n].role == CM_OUTPUT)
            while (flat < count && (same = cm_tensor_is_poison(tensor, flat, CM_CANARY)))
                flat++;
        if (!same)
            return cm_conclude(handle->trial->outcome, CM_FAIL,
                               "while it was captured, the kernel wrote to `%s`, element %lld: only a replay "
                               "may",
                               arguments[n].name, (long long)flat);
    }
    return CM_PASS;
}

static void drop(struct graph *graph)
{
    cm_stage *stage = graph->handle.call;
    if (!graph->graph)
        return;
    stage->site.side->forget(graph->graph);
    graph->graph = NULL;
    cm_site_drop(&stage->site, graph->blocks);
}

// After a plain run of the same batch, as a serving engine does: what is loaded at the first launch is there,
// and what the host keeps of a run is of this one.
static cm_verdict capture(struct graph *graph, const cm_scene *scene, const char *when)
{
    cm_handle *handle = &graph->handle;
    drop(graph);
    cm_handle_rewrite(handle, scene);
    cm_status status = cm_handle_repeat(handle, true, when);
    if (status != CM_OK)
        return failed(graph, status, when);
    cm_handle_rewrite(handle, scene);
    graph->blocks = handle->call->arena.count;
    status = cm_stage_capture(handle->call, handle->state, &graph->graph);
    cm_stage_fetch(handle->call, 0);
    if (status != CM_OK)
        return failed(graph, status, when);
    return outputs_untouched(handle, scene);
}

// Inputs and adapters of two exact cases.
static bool is_mixed(const cm_scene *scene)
{
    const cm_case *test_case = &scene->values.test_case;
    return !strcmp(cm_case_word(test_case, CM_AXIS_TIER), "exact") && scene->mixed;
}

// update: the scene has other adapters; a kernel that packs them is told, outside of the graph.
static cm_verdict replay(struct graph *graph, cm_scene *scene, bool update, const char *when)
{
    cm_handle *handle = &graph->handle;
    const cm_trial *trial = handle->trial;
    cm_outcome judged = {0}; // its figures would stand for the case's own
    cm_error error;
    cm_status status = CM_OK;
    snprintf(trial->outcome->bad_pattern, sizeof trial->outcome->bad_pattern, "%s", when);
    cm_handle_rewrite(handle, scene);
    if (update && trial->kernel->update) {
        int blocks = handle->call->arena.count;
        status = cm_stage_call(handle->call, CM_UPDATE, &handle->state);
        cm_site_drop(&handle->call->site, blocks);
    }
    if (status == CM_OK)
        status = cm_stage_replay(handle->call, graph->graph, graph->blocks);
    cm_stage_fetch(handle->call, 0);
    if (status != CM_OK)
        return failed(graph, status, when);
    cm_verdict verdict = cm_handle_compare(handle, scene, when);
    if (verdict != CM_PASS)
        return verdict;
    if (is_mixed(scene)) // nobody has proven that to be exact: the bits must do
        return CM_PASS;
    if (cm_pristine_want(&scene->values, trial->kernel->accuracy, &error) != CM_OK)
        cm_broken("%s", error.message);
    if (cm_judge_outputs(&(cm_trial){trial->kernel, &scene->values, &judged}, handle->call->arguments) ==
        CM_FAIL)
        return cm_conclude(trial->outcome, CM_FAIL, "%s, %s", when, judged.reason);
    return CM_PASS;
}

cm_verdict cm_state_graph(const cm_scenes *scenes)
{
    static const struct {
        cm_scene_kind captured, replayed;
        bool update;
        const char *when;
    } rows[] = {
        {CM_SCENE_FIRST, CM_SCENE_FIRST, false, "replayed with the captured batch"},
        {CM_SCENE_FIRST, CM_SCENE_NULL, false, "replayed without any adapter"},
        {CM_SCENE_FIRST, CM_SCENE_EVERY, false, "replayed with a batch of all adapters"},
        {CM_SCENE_FIRST, CM_SCENE_LAST, false, "replayed with a batch of one adapter"},
        {CM_SCENE_FIRST, CM_SCENE_ROUTED, false, "replayed with other experts"},
        {CM_SCENE_FIRST, CM_SCENE_INPUTS, false, "replayed with other inputs"},
        {CM_SCENE_FIRST, CM_SCENE_ADAPTERS, true, "replayed with other adapters"},
        {CM_SCENE_NULL, CM_SCENE_EVERY, true, "captured without any adapter, replayed with all"},
        {CM_SCENE_NULL, CM_SCENE_ADAPTERS, true,
         "captured without any adapter, replayed with other adapters"},
        {CM_SCENE_NULL, CM_SCENE_FIRST, true, "captured without any adapter, replayed with the first batch"},
    };
    const cm_scene *first = &scenes->list[CM_SCENE_FIRST];
    struct graph graph = {0};
    cm_scene_kind captured = CM_SCENE_COUNT;
    cm_verdict verdict = CM_PASS;
    if (!cm_scenes_have_graphs(scenes->trial))
        return CM_PASS;
    if (cm_handle_open(scenes->trial, first, CM_NOT_SPOILED, &graph.handle) != CM_OK)
        verdict = cm_conclude(scenes->trial->outcome, CM_ERROR, "prepare failed: %s",
                              cm_handle_sentence(&graph.handle));
    if (verdict == CM_PASS)
        verdict = cm_handle_step(&graph.handle, first, true, "in the first call");
    for (size_t n = 0; n < sizeof rows / sizeof *rows && verdict == CM_PASS; n++) {
        cm_scene *scene = &((cm_scenes *)(uintptr_t)scenes)->list[rows[n].replayed];
        const cm_scene *batch = &scenes->list[rows[n].captured];
        if (!scene->open || !batch->open)
            continue;
        if (captured != rows[n].captured)
            verdict =
                capture(&graph, batch,
                        rows[n].captured == CM_SCENE_FIRST ? "while a run was captured"
                                                           : "while a run without adapters was captured");
        captured = rows[n].captured;
        if (verdict == CM_PASS)
            verdict = replay(&graph, scene, rows[n].update, rows[n].when);
    }
    if (graph.handle.call)
        drop(&graph);
    cm_handle_close(&graph.handle);
    return verdict;
}
