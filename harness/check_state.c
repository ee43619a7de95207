// SPDX-License-Identifier: Apache-2.0
// state: what a kernel keeps between calls never shows. One state is used for several calls (other inputs,
// other adapters after update, the first call again) and each result has the bits of a fresh state's; run
// before prepare is refused; release takes NULL. Cannot see: wrong results that fresh states share (see
// numerics).
#include "harness/op.h"
#include "harness/stage.h"

#include <stdlib.h>
#include <string.h>

// The values of a call: those of `base`, with the arguments of some roles from `other`.
static void mix(const cm_pristine *base, const cm_pristine *other, unsigned roles, cm_pristine *mixed)
{
    cm_error error = {{0}};
    if (cm_pristine_copy(base, mixed, &error) != CM_OK)
        cm_broken("%s", error.message);
    for (int n = 0; base->test_case.op->arguments[n].name; n++)
        if (base->arguments[n] && roles & 1u << base->test_case.op->arguments[n].role)
            cm_tensor_copy(mixed->arguments[n], other->arguments[n]);
}

// One call on a state of its own, or on *state when it is given; the stage keeps arguments and outputs.
static bool perform(const cm_trial *trial, const cm_pristine *values, bool update, void **state,
                    cm_stage *stage)
{
    cm_stage_options options = {.place = CM_PLACE_END, .poison = CM_CANARY};
    cm_trial with = {trial->kernel, values, trial->outcome};
    cm_stage_open(&with, &options, stage);
    if (!state)
        return cm_stage_run(&with, &options, stage);
    const cm_call *call = &stage->hosted.call;
    int blocks = stage->arena.count;
    cm_status status = CM_OK;
    if (update && trial->kernel->update)
        status = trial->kernel->update(call, *state);
    if (status == CM_OK)
        status = trial->kernel->run(call, *state);
    cm_arena_drop(&stage->arena, blocks);
    if (status != CM_OK)
        cm_conclude(trial->outcome, CM_ERROR, "a call on a used state returned \"%s\": %s",
                    cm_status_name(status), stage->hosted.error.message);
    return status == CM_OK;
}

static cm_verdict compare(const cm_trial *trial, const cm_stage *used, const cm_stage *fresh,
                          const char *when)
{
    const cm_op *op = trial->pristine->test_case.op;
    for (int n = 0; op->arguments[n].name; n++) {
        int64_t flat;
        if (op->arguments[n].compare == CM_COMPARE_NONE)
            continue;
        trial->outcome->compared += cm_tensor_count(used->arguments[n]);
        if (!trial->kernel->nondeterministic &&
            !cm_tensor_equal(used->arguments[n], fresh->arguments[n], &flat))
            return cm_conclude(
                trial->outcome, CM_FAIL,
                "%s, `%s` differs from that of a fresh state, first at element %lld: %a, should be %a", when,
                op->arguments[n].name, (long long)flat, cm_tensor_get(used->arguments[n], flat),
                cm_tensor_get(fresh->arguments[n], flat));
    }
    return CM_PASS;
}

static cm_verdict run_sequence(const cm_trial *trial, const cm_pristine *other)
{
    enum { CALLS = 4 };
    static const char *const when[CALLS] = {"in the first call", "in a second call with other inputs",
                                            "after an update of the adapters", "in the first call, repeated"};
    const unsigned inputs = 1u << CM_INPUT | 1u << CM_INOUT, adapters = 1u << CM_ADAPTER;
    const unsigned roles[CALLS] = {0, inputs, adapters, 0};
    cm_pristine *values = cm_new(CALLS, sizeof *values);
    cm_stage fresh[CALLS], used[CALLS];
    cm_verdict verdict = CM_PASS;
    void *state = NULL;
    int opened = 0, performed = 0;
    for (; opened < CALLS && verdict == CM_PASS; opened++) {
        mix(trial->pristine, other, roles[opened], &values[opened]);
        if (!perform(trial, &values[opened], true, NULL, &fresh[opened]))
            verdict = trial->outcome->verdict;
    }
    if (verdict == CM_PASS && trial->kernel->prepare) {
        cm_arena_activate(&fresh[0].arena);
        if (trial->kernel->prepare(&fresh[0].hosted.call, &state) != CM_OK)
            verdict = cm_conclude(trial->outcome, CM_ERROR, "prepare failed the second time");
    }
    for (; performed < CALLS && verdict == CM_PASS; performed++) {
        // The adapters change at the first call, with the update and back again.
        bool update = performed != 1;
        verdict = perform(trial, &values[performed], update, &state, &used[performed])
                      ? compare(trial, &used[performed], &fresh[performed], when[performed])
                      : trial->outcome->verdict;
    }
    if (trial->kernel->release) {
        trial->kernel->release(state);
        trial->kernel->release(NULL);
    }
    while (performed > 0)
        cm_stage_close(&used[--performed]);
    while (opened > 0) {
        cm_stage_close(&fresh[--opened]);
        cm_pristine_close(&values[opened]);
    }
    free(values);
    return verdict;
}

// A kernel with a prepare can tell that it was not called.
static cm_verdict run_too_early(const cm_trial *trial)
{
    cm_stage_options options = {.place = CM_PLACE_END, .poison = CM_CANARY};
    cm_stage stage;
    cm_verdict verdict = CM_PASS;
    if (!trial->kernel->prepare)
        return CM_PASS;
    cm_stage_open(trial, &options, &stage);
    cm_status status = trial->kernel->run(&stage.hosted.call, NULL);
    if (status == CM_OK)
        verdict = cm_conclude(trial->outcome, CM_FAIL, "run before prepare was accepted");
    cm_stage_close(&stage);
    return verdict;
}

static cm_verdict run(const cm_trial *trial)
{
    cm_pristine *other = cm_new(1, sizeof *other);
    cm_error error = {{0}};
    cm_case test_case = trial->pristine->test_case;
    test_case.seed++;
    // Real files have one set of values: then the second call is the first again, with generated input.
    if (cm_pristine_open(&test_case, trial->pristine->source, other, &error) != CM_OK)
        cm_broken("%s", error.message);
    cm_verdict verdict = run_sequence(trial, other);
    if (verdict == CM_PASS)
        verdict = run_too_early(trial);
    cm_pristine_close(other);
    free(other);
    if (verdict == CM_PASS && trial->outcome->compared == 0)
        return cm_conclude(trial->outcome, CM_VACUOUS, "there is no output element to compare");
    return verdict;
}

const cm_check cm_check_state = {
    .name = "state",
    .proves = "nothing that a kernel keeps between calls shows in a later result",
    .blind_to = "wrong results that a fresh state has, too",
    .run = run,
};
