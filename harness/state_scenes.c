// SPDX-License-Identifier: Apache-2.0
// The calls of the check state, made from the case: same weights, other inputs, adapters, sizes.
#include "harness/op.h"
#include "harness/registry.h"
#include "harness/state.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static int64_t dim_of(const cm_case *test_case, char letter)
{
    return test_case->dims[cm_dim_index(letter)];
}

static void set_dim(cm_case *test_case, char letter, int64_t value)
{
    test_case->dims[cm_dim_index(letter)] = value;
}

static bool set_word(cm_case *test_case, cm_axis_kind axis, const char *name)
{
    const cm_word *words = cm_registry_axes()[axis].words;
    for (int word = 0; words[word].name; word++)
        if (!strcmp(words[word].name, name)) {
            test_case->words[axis] = word;
            return true;
        }
    return false;
}

// The values of a call: those of `base`, with the arguments of some roles from `other`. Values that are exact
// with their own partners need not be so with others: then they count as random ones.
static void mix(const cm_pristine *base, const cm_pristine *other, unsigned roles, cm_pristine *mixed)
{
    cm_error error = {{0}};
    if (cm_pristine_copy(base, mixed, &error) != CM_OK)
        cm_broken("%s", error.message);
    for (int n = 0; other && base->test_case.op->arguments[n].name; n++)
        if (base->arguments[n] && roles & 1u << base->test_case.op->arguments[n].role)
            cm_tensor_copy(mixed->arguments[n], other->arguments[n]);
    if (other && !cm_pristine_is_exact(mixed))
        set_word(&mixed->test_case, CM_AXIS_TIER, "random");
}

// Whether every argument of the adapters may be absent.
static bool adapters_are_optional(const cm_op *op)
{
    for (int n = 0; op->arguments[n].name; n++)
        if (op->arguments[n].role == CM_ADAPTER && !op->arguments[n].optional)
            return false;
    return true;
}

static bool source_has(const cm_source *source, const char *name)
{
    const cm_pristine *base = ((const cm_trial *)source->self)->pristine;
    int n = cm_op_argument_index(base->test_case.op, name);
    cm_role role = base->test_case.op->arguments[n].role;
    bool adapters = source->dims[cm_dim_index('L')] > 0;
    return base->arguments[n] && (role == CM_WEIGHT || (role == CM_ADAPTER && adapters));
}

// The leading block of the case's own tensor; ranks end at the new r.
static cm_status source_fill(const cm_source *source, const char *name, const DLTensor *tensor,
                             cm_error *error)
{
    const cm_pristine *base = ((const cm_trial *)source->self)->pristine;
    int n = cm_op_argument_index(base->test_case.op, name);
    const DLTensor *from = base->arguments[n];
    double r = (double)source->dims[cm_dim_index('r')];
    bool same = from->ndim == tensor->ndim;
    for (int d = 0; d < tensor->ndim && same; d++)
        if (tensor->shape[d] > from->shape[d])
            return cm_fail(error, CM_BAD_SHAPE, "%s is larger than that of the case", name);
        else
            same = tensor->shape[d] == from->shape[d];
    if (same && !base->test_case.op->arguments[n].is_rank) {
        cm_tensor_copy(tensor, from);
        return CM_OK;
    }
    for (int64_t i = 0; i < cm_tensor_count(tensor); i++) {
        int64_t index[CM_MAX_RANK], flat = 0;
        cm_tensor_unravel(tensor, i, index);
        for (int d = 0; d < tensor->ndim; d++)
            flat = flat * from->shape[d] + index[d];
        double value = cm_tensor_get(from, flat);
        cm_tensor_set(tensor, i, base->test_case.op->arguments[n].is_rank && value > r ? r : value);
    }
    return CM_OK;
}

// A call of other sizes on the same weights. Random values: they need not be exact to be compared by bits.
static bool resize(cm_scenes *scenes, const cm_case *test_case, cm_pristine *values)
{
    cm_error error = {{0}};
    memcpy(scenes->source.dims, test_case->dims, sizeof scenes->source.dims);
    if (cm_pristine_open(test_case, &scenes->source, values, &error) != CM_OK)
        cm_broken("%s", error.message);
    cm_pristine_ask_once(values);
    return true;
}

static bool make_unloaded(cm_scenes *scenes, cm_case test_case, cm_pristine *values)
{
    if (dim_of(&test_case, 'L') == 0)
        return false;
    if (!set_word(&test_case, CM_AXIS_ADAPTERS, "null"))
        return false;
    if (adapters_are_optional(test_case.op) && cm_op_has_dim(test_case.op, 'r')) {
        set_dim(&test_case, 'L', 0);
        set_dim(&test_case, 'r', 0);
    }
    return resize(scenes, &test_case, values);
}

// Another batch of the same size; false where such a batch can't be, e.g. when a token needs all experts.
static bool make_batch(cm_scenes *scenes, cm_case test_case, cm_axis_kind axis, const char *word,
                       cm_pristine *values)
{
    char needed = axis == CM_AXIS_ADAPTERS ? 'L' : 'E';
    cm_error error = {{0}};
    if (axis == CM_AXIS_ROUTING && !strcmp(cm_case_word(&test_case, axis), word))
        word = "idle";
    if (dim_of(&test_case, needed) == 0 || !set_word(&test_case, axis, word))
        return false;
    memcpy(scenes->source.dims, test_case.dims, sizeof scenes->source.dims);
    if (cm_pristine_open(&test_case, &scenes->source, values, &error) != CM_OK)
        return false;
    cm_pristine_ask_once(values);
    return true;
}

static bool make_tokens(cm_scenes *scenes, cm_case test_case, cm_pristine *values)
{
    int64_t T = dim_of(&test_case, 'T');
    set_dim(&test_case, 'T', T > 1 ? T / 2 : T + 1);
    return resize(scenes, &test_case, values);
}

static bool make_small(cm_scenes *scenes, cm_case test_case, cm_pristine *values)
{
    int64_t L = dim_of(&test_case, 'L'), r = dim_of(&test_case, 'r');
    if (L == 0 || r == 0)
        return false;
    set_dim(&test_case, 'T', 1);
    set_dim(&test_case, 'L', L > 1 ? L / 2 : 1);
    set_dim(&test_case, 'r', r > 1 ? r / 2 : 1);
    return resize(scenes, &test_case, values);
}

// Halves what can be halved evenly, so that a kernel that wants multiples of a power of two still has them.
static bool make_shape(cm_scenes *scenes, cm_case test_case, cm_pristine *values)
{
    static const char letters[] = "HIDKN";
    cm_error error = {{0}};
    if (scenes->trial->pristine->source)
        return false; // of files, which have one shape
    for (const char *letter = letters; *letter; letter++) {
        int64_t extent = dim_of(&test_case, *letter);
        set_dim(&test_case, *letter, extent % 64 == 0 ? extent / 2 : 2 * extent);
    }
    set_dim(&test_case, 'T', dim_of(&test_case, 'T') + 3);
    test_case.seed++;
    if (cm_pristine_open(&test_case, NULL, values, &error) != CM_OK)
        return false;
    cm_pristine_ask_once(values);
    return true;
}

static void open_results(cm_scene *scene)
{
    const cm_pristine *values = &scene->values;
    scene->mapped = 1;
    for (int n = 0; values->test_case.op->arguments[n].name; n++)
        if (values->test_case.op->arguments[n].compare != CM_COMPARE_NONE) {
            cm_pristine_layout(&values->test_case, n, &scene->results[n]);
            scene->mapped += cm_tensor_extent(&scene->results[n].dl);
        }
    scene->memory = mmap(NULL, scene->mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (scene->memory == MAP_FAILED)
        cm_broken("no memory for the results of %s", values->name);
    char *next = scene->memory;
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++)
        if (scene->results[n].dl.ndim) {
            scene->results[n].dl.data = next;
            next += cm_tensor_extent(&scene->results[n].dl);
        }
}

// The call on a state of its own, in a process of its own: nothing global is left over from another call.
static cm_verdict run_fresh(const cm_trial *trial, cm_scene *scene)
{
    cm_stage_options options = {.place = CM_PLACE_END, .poison = CM_CANARY};
    cm_trial with = {trial->kernel, &scene->values, trial->outcome};
    int status;
    open_results(scene);
    trial->outcome->verdict = CM_CRASH; // until the process says otherwise
    pid_t process = fork();
    if (process < 0)
        cm_broken("fork failed");
    if (process == 0) {
        cm_stage stage;
        cm_stage_open(&with, &options, &stage);
        if (cm_stage_run(&with, &options, &stage)) {
            for (int n = 0; n < CM_MAX_ARGUMENTS; n++)
                if (scene->results[n].dl.ndim)
                    cm_tensor_copy(&scene->results[n].dl, stage.arguments[n]);
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

// Another seed of the case. Real files have one set of values: then only inputs that are made are others.
// Exact data of another seed may not exist: a few are tried.
static void open_other(const cm_pristine *base, cm_pristine *other)
{
    cm_error error = {{0}};
    cm_case test_case = base->test_case;
    for (int tries = 0;; tries++) {
        test_case.seed++;
        error.message[0] = 0;
        if (cm_pristine_open(&test_case, base->source, other, &error) == CM_OK) {
            cm_pristine_ask_once(other);
            return;
        }
        if (tries == 8)
            cm_broken("%s", error.message);
    }
}

bool cm_scenes_have_graphs(const cm_trial *trial)
{
    const cm_side *side = cm_kernel_side(trial->kernel);
    return trial->kernel->capturable && side && side->capture;
}

cm_verdict cm_scenes_open(const cm_trial *trial, cm_scenes *scenes)
{
    static const struct {
        cm_axis_kind axis;
        const char *word;
    } batches[CM_SCENE_COUNT] = {[CM_SCENE_NULL] = {CM_AXIS_ADAPTERS, "null"},
                                 [CM_SCENE_LAST] = {CM_AXIS_ADAPTERS, "last"},
                                 [CM_SCENE_EVERY] = {CM_AXIS_ADAPTERS, "full"},
                                 [CM_SCENE_ROUTED] = {CM_AXIS_ROUTING, "uniform"}};
    const cm_pristine *base = trial->pristine;
    cm_pristine other;
    cm_case random = base->test_case;
    cm_verdict verdict = CM_PASS;
    *scenes = (cm_scenes){
        .trial = trial, .source = {.has = source_has, .fill = source_fill, .self = (void *)(uintptr_t)trial}};
    set_word(&random, CM_AXIS_TIER, "random");
    open_other(base, &other);
    for (int kind = 0; kind < CM_SCENE_COUNT && verdict == CM_PASS; kind++) {
        cm_scene *scene = &scenes->list[kind];
        const unsigned inputs = 1u << CM_INPUT | 1u << CM_INOUT, adapters = 1u << CM_ADAPTER;
        scene->open = true;
        scene->mixed = kind == CM_SCENE_INPUTS || kind == CM_SCENE_ADAPTERS;
        if (kind == CM_SCENE_FIRST || kind == CM_SCENE_INPUTS || kind == CM_SCENE_ADAPTERS)
            mix(base, &other,
                kind == CM_SCENE_INPUTS     ? inputs
                : kind == CM_SCENE_ADAPTERS ? adapters
                                            : 0,
                &scene->values);
        else if (kind == CM_SCENE_UNLOADED)
            scene->open = make_unloaded(scenes, random, &scene->values);
        else if (kind == CM_SCENE_TOKENS)
            scene->open = make_tokens(scenes, random, &scene->values);
        else if (kind == CM_SCENE_SMALL)
            scene->open = make_small(scenes, random, &scene->values);
        else if (kind == CM_SCENE_SHAPE)
            scene->open = make_shape(scenes, random, &scene->values);
        else
            scene->open = cm_scenes_have_graphs(trial) &&
                          make_batch(scenes, random, batches[kind].axis, batches[kind].word, &scene->values);
        if (scene->open)
            verdict = run_fresh(trial, scene);
        if (verdict == CM_SKIP && kind >= CM_SCENE_UNLOADED) { // supported in this form only
            scene->open = false;
            verdict = trial->outcome->verdict = CM_PASS;
            trial->outcome->reason[0] = 0;
        }
    }
    cm_pristine_close(&other);
    return verdict;
}

void cm_scenes_close(cm_scenes *scenes)
{
    for (int kind = 0; kind < CM_SCENE_COUNT; kind++) {
        if (scenes->list[kind].mapped)
            munmap(scenes->list[kind].memory, scenes->list[kind].mapped);
        cm_pristine_close(&scenes->list[kind].values);
    }
    *scenes = (cm_scenes){0};
}
