// SPDX-License-Identifier: Apache-2.0
// state: what a kernel keeps between calls never shows. One state is used for several calls (other inputs,
// other adapters after update, the first call again) and each result has the bits of a fresh state's; run
// before prepare is refused; release takes NULL. Cannot see: wrong results that fresh states share (see
// numerics).
#include "harness/op.h"
#include "harness/stage.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

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

// Copies of the outputs of a call, in memory that a forked process can fill.
struct results {
    cm_tensor tensors[CM_MAX_ARGUMENTS];
    char *memory; // shared mapping
    size_t mapped;
};

static void results_open(const cm_pristine *pristine, struct results *results)
{
    *results = (struct results){.mapped = 1};
    for (int n = 0; pristine->test_case.op->arguments[n].name; n++)
        if (pristine->test_case.op->arguments[n].compare != CM_COMPARE_NONE) {
            cm_pristine_layout(&pristine->test_case, n, &results->tensors[n]);
            results->mapped += cm_tensor_extent(&results->tensors[n].dl);
        }
    results->memory = mmap(NULL, results->mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (results->memory == MAP_FAILED)
        cm_broken("no memory for the results of %s", pristine->name);
    char *next = results->memory;
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++)
        if (results->tensors[n].dl.ndim) {
            results->tensors[n].dl.data = next;
            next += cm_tensor_extent(&results->tensors[n].dl);
        }
}

// The call on a state of its own, in a process of its own: nothing global is left over from another call.
static cm_verdict perform_fresh(const cm_trial *trial, const cm_pristine *values, struct results *results)
{
    cm_stage_options options = {.place = CM_PLACE_END, .poison = CM_CANARY};
    cm_trial with = {trial->kernel, values, trial->outcome};
    int status;
    results_open(values, results);
    trial->outcome->verdict = CM_CRASH; // until the process says otherwise
    pid_t process = fork();
    if (process < 0)
        cm_broken("fork failed");
    if (process == 0) {
        cm_stage stage;
        cm_stage_open(&with, &options, &stage);
        if (cm_stage_run(&with, &options, &stage)) {
            for (int n = 0; n < CM_MAX_ARGUMENTS; n++)
                if (results->tensors[n].dl.ndim)
                    cm_tensor_copy(&results->tensors[n].dl, stage.arguments[n]);
            trial->outcome->verdict = CM_PASS;
        }
        _exit(0);
    }
    if (waitpid(process, &status, 0) != process)
        cm_broken("waitpid failed");
    if (trial->outcome->verdict == CM_CRASH && !trial->outcome->reason[0])
        cm_conclude(trial->outcome, CM_CRASH, "the kernel ended its process");
    return trial->outcome->verdict;
}

// The call on a state that was used before; the stage keeps arguments and outputs.
static bool perform(const cm_trial *trial, const cm_pristine *values, bool update, void *state,
                    cm_stage *stage)
{
    cm_stage_options options = {.place = CM_PLACE_END, .poison = CM_CANARY};
    cm_trial with = {trial->kernel, values, trial->outcome};
    cm_stage_open(&with, &options, stage);
    const cm_call *call = &stage->hosted.call;
    int blocks = stage->arena.count;
    cm_status status = CM_OK;
    if (update && trial->kernel->update)
        status = trial->kernel->update(call, state);
    if (status == CM_OK)
        status = trial->kernel->run(call, state);
    cm_arena_drop(&stage->arena, blocks);
    if (status != CM_OK)
        cm_conclude(trial->outcome, CM_ERROR, "a call on a used state returned \"%s\": %s",
                    cm_status_name(status), stage->hosted.error.message);
    return status == CM_OK;
}

static cm_verdict compare(const cm_trial *trial, const cm_stage *used, const struct results *fresh,
                          const char *when)
{
    const cm_op *op = trial->pristine->test_case.op;
    for (int n = 0; op->arguments[n].name; n++) {
        int64_t flat;
        if (op->arguments[n].compare == CM_COMPARE_NONE)
            continue;
        trial->outcome->compared += cm_tensor_count(used->arguments[n]);
        if (!trial->kernel->nondeterministic &&
            !cm_tensor_equal(used->arguments[n], &fresh->tensors[n].dl, &flat))
            return cm_conclude(
                trial->outcome, CM_FAIL,
                "%s, `%s` differs from that of a fresh state, first at element %lld: %a, should be %a", when,
                op->arguments[n].name, (long long)flat, cm_tensor_get(used->arguments[n], flat),
                cm_tensor_get(&fresh->tensors[n].dl, flat));
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
    struct results fresh[CALLS];
    cm_stage used[CALLS], packed;
    cm_verdict verdict = CM_PASS;
    void *state = NULL;
    int opened = 0, performed = 0;
    for (; opened < CALLS && verdict == CM_PASS; opened++) {
        mix(trial->pristine, other, roles[opened], &values[opened]);
        verdict = perform_fresh(trial, &values[opened], &fresh[opened]);
    }
    // What prepare sees stays valid until release.
    cm_stage_open(&(cm_trial){trial->kernel, trial->pristine, trial->outcome},
                  &(cm_stage_options){.place = CM_PLACE_END, .poison = CM_CANARY}, &packed);
    int blocks = packed.arena.count;
    if (verdict == CM_PASS && trial->kernel->prepare &&
        trial->kernel->prepare(&packed.hosted.call, &state) != CM_OK)
        verdict = cm_conclude(trial->outcome, CM_ERROR, "prepare failed: %s", packed.hosted.error.message);
    cm_arena_drop(&packed.arena, blocks);
    for (; performed < CALLS && verdict == CM_PASS; performed++) {
        // The adapters change at the first call, with the update and back again.
        bool update = performed != 1;
        verdict = perform(trial, &values[performed], update, state, &used[performed])
                      ? compare(trial, &used[performed], &fresh[performed], when[performed])
                      : trial->outcome->verdict;
    }
    if (trial->kernel->release) {
        trial->kernel->release(state);
        trial->kernel->release(NULL);
    }
    while (performed > 0)
        cm_stage_close(&used[--performed]);
    cm_stage_close(&packed);
    while (opened > 0) {
        opened--;
        munmap(fresh[opened].memory, fresh[opened].mapped);
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
    // Exact data of another seed may not exist: a few are tried.
    for (int tries = 0; cm_pristine_open(&test_case, trial->pristine->source, other, &error) != CM_OK;
         tries++) {
        if (tries == 8)
            cm_broken("%s", error.message);
        test_case.seed++;
        error.message[0] = 0;
    }
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
