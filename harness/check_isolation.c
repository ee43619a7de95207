// SPDX-License-Identifier: Apache-2.0
// isolation: what a call does not address can't reach its output. Everything that the op's addressed() leaves
// out (idle experts and adapters, rank padding, slots of id -1) and the gaps between rows become NaN; then
// one token's own inputs. The outputs keep their bits. What is addressed does reach them
// (isolation_carry.c). Cannot see: a read whose value is thrown away, integers.
#include "harness/isolation.h"
#include "harness/op.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct probe {
    const cm_trial *trial;
    uint8_t *masks[CM_MAX_ARGUMENTS]; // hidden where 0; NULL: nothing is
    cm_stage clean;                   // of a run with nothing hidden but the gaps
    int64_t spared;                   // token whose output rows are not compared; -1: none
    int output;                       // where a difference was found
    int64_t flat;
};

static bool is_output(const cm_argument *argument)
{
    return argument->compare != CM_COMPARE_NONE;
}

// Runs with the masks; true if an addressed output element differs from the clean run.
static bool differs(struct probe *probe, uint8_t *const *masks, cm_verdict *verdict)
{
    const cm_pristine *pristine = probe->trial->pristine;
    const cm_op *op = pristine->test_case.op;
    cm_stage_options options = {.place = CM_PLACE_END, .poison = CM_CANARY, .hide = masks};
    cm_stage stage;
    bool found = false;
    cm_stage_open(probe->trial, &options, &stage);
    if (!cm_stage_run(probe->trial, &options, &stage))
        *verdict = probe->trial->outcome->verdict;
    for (int n = 0; op->arguments[n].name && *verdict == CM_PASS && !found; n++) {
        if (!is_output(&op->arguments[n]))
            continue;
        const DLTensor *got = stage.arguments[n], *want = probe->clean.arguments[n];
        int64_t count = cm_tensor_count(got), per_token = got->shape[0] ? count / got->shape[0] : 1;
        for (int64_t i = 0; i < count && !found; i++) {
            double is = cm_tensor_get(got, i), was = cm_tensor_get(want, i);
            bool spared =
                probe->spared >= 0 && op->arguments[n].shape[0] == 'T' && i / per_token == probe->spared;
            bool hidden = masks[n] && !masks[n][i]; // an inout row that is not addressed
            bool same = probe->trial->kernel->nondeterministic ? isfinite(is) || !isfinite(was)
                                                               : is == was || (isnan(is) && isnan(was));
            if (!same && !spared && !hidden) {
                found = true;
                probe->output = n;
                probe->flat = i;
            }
        }
    }
    cm_stage_close(&stage);
    return found;
}

// Narrows the hidden elements of argument n down to one that alone reaches the output. Gaps can't be
// narrowed.
static int64_t narrow(struct probe *probe, int n)
{
    int64_t count = cm_tensor_count(probe->trial->pristine->arguments[n]), low = 0, high = count;
    uint8_t *masks[CM_MAX_ARGUMENTS] = {0}, *part = cm_new((size_t)count, 1);
    cm_verdict verdict = CM_PASS;
    masks[n] = part;
    while (high - low > 1 && verdict == CM_PASS) {
        int64_t middle = low + (high - low) / 2;
        for (int64_t i = 0; i < count; i++)
            part[i] = i >= low && i < middle ? probe->masks[n][i] : 1;
        if (differs(probe, masks, &verdict))
            high = middle;
        else
            low = middle;
    }
    free(part);
    return low;
}

static cm_verdict explain(struct probe *probe, const char *what)
{
    const cm_pristine *pristine = probe->trial->pristine;
    const cm_op *op = pristine->test_case.op;
    char to[128], from[128] = "several arguments together";
    for (int n = 0; op->arguments[n].name; n++) {
        uint8_t *masks[CM_MAX_ARGUMENTS] = {0};
        cm_verdict verdict = CM_PASS;
        masks[n] = probe->masks[n];
        if (!masks[n] || !differs(probe, masks, &verdict))
            continue;
        cm_tensor_place(op->arguments[n].name, pristine->arguments[n], narrow(probe, n), from, sizeof from);
        differs(probe, masks, &verdict);
        break;
    }
    const DLTensor *output = pristine->arguments[probe->output];
    cm_tensor_place(op->arguments[probe->output].name, output, probe->flat, to, sizeof to);
    return cm_conclude(probe->trial->outcome, CM_FAIL, "NaN in %s %s reaches %s", what, from, to);
}

// Masks of what the call does not address; returns how many float elements they hide.
static int64_t hide_unaddressed(struct probe *probe)
{
    const cm_pristine *pristine = probe->trial->pristine;
    const cm_op *op = pristine->test_case.op;
    int64_t hidden = 0;
    for (int n = 0; op->arguments[n].name; n++) {
        const DLTensor *tensor = pristine->arguments[n];
        if (!tensor || op->arguments[n].role == CM_OUTPUT)
            continue;
        int64_t count = cm_tensor_count(tensor), here = 0;
        bool is_float = cm_dtype_is_float(pristine->tensors[n].dtype);
        uint8_t *mask = cm_new((size_t)count, 1);
        if (op->addressed(&probe->clean.hosted.call, n, mask) != CM_OK)
            cm_broken("op %s: addressed() failed for %s", op->name, op->arguments[n].name);
        for (int64_t i = 0; i < count; i++)
            here += !mask[i] && is_float;
        if (here)
            probe->masks[n] = mask;
        else
            free(mask);
        hidden += here;
    }
    return hidden;
}

// Masks that hide one token's rows of every float input that is ordered by token.
static int64_t hide_token(struct probe *probe, int64_t token)
{
    const cm_pristine *pristine = probe->trial->pristine;
    const cm_op *op = pristine->test_case.op;
    int64_t hidden = 0;
    for (int n = 0; op->arguments[n].name; n++) {
        const DLTensor *tensor = pristine->arguments[n];
        if (!tensor || op->arguments[n].shape[0] != 'T' || op->arguments[n].role == CM_OUTPUT ||
            !cm_dtype_is_float(pristine->tensors[n].dtype))
            continue;
        int64_t count = cm_tensor_count(tensor), row = tensor->shape[0] ? count / tensor->shape[0] : 0;
        probe->masks[n] = cm_new((size_t)count, 1);
        memset(probe->masks[n], 1, (size_t)count);
        memset(probe->masks[n] + token * row, 0, (size_t)row);
        hidden += row;
    }
    return hidden;
}

static void drop_masks(struct probe *probe)
{
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++) {
        free(probe->masks[n]);
        probe->masks[n] = NULL;
    }
}

// Gaps between rows are NaN in the clean run, too.
static cm_verdict check_clean(const struct probe *probe)
{
    const cm_trial *trial = probe->trial;
    const cm_op *op = trial->pristine->test_case.op;
    for (int n = 0; op->arguments[n].name; n++) {
        const cm_want *want = &trial->pristine->want[trial->kernel->accuracy][n];
        for (int64_t i = 0; is_output(&op->arguments[n]) && i < want->count; i++)
            if (!isfinite(cm_tensor_get(probe->clean.arguments[n], i)) && isfinite(want->value[i]))
                return cm_conclude(
                    trial->outcome, CM_FAIL,
                    "`%s` is not finite though all that is addressed is: a gap between rows was read, "
                    "or element %lld not written",
                    op->arguments[n].name, (long long)i);
    }
    return CM_PASS;
}

static cm_verdict run(const cm_trial *trial)
{
    struct probe probe = {.trial = trial, .spared = -1};
    cm_stage_options options = {.place = CM_PLACE_END, .poison = CM_CANARY};
    cm_verdict verdict = CM_PASS;
    int64_t hidden, T = trial->pristine->test_case.dims[cm_dim_index('T')];
    cm_stage_open(trial, &options, &probe.clean);
    if (!cm_stage_run(trial, &options, &probe.clean)) {
        verdict = trial->outcome->verdict;
        goto done;
    }
    if ((verdict = check_clean(&probe)) != CM_PASS)
        goto done;
    hidden = hide_unaddressed(&probe);
    trial->outcome->compared = hidden;
    if (hidden && differs(&probe, probe.masks, &verdict))
        verdict = explain(&probe, "unaddressed");
    drop_masks(&probe);
    if (verdict == CM_PASS && T > 1) {
        probe.spared = T / 2;
        int64_t of_token = hide_token(&probe, probe.spared);
        trial->outcome->compared += of_token;
        hidden += of_token;
        if (of_token && differs(&probe, probe.masks, &verdict))
            verdict = explain(&probe, "another token's");
        drop_masks(&probe);
    }
    if (verdict == CM_PASS)
        verdict = cm_isolation_carry(trial, &probe.clean);
    if (verdict == CM_PASS && hidden == 0)
        verdict = cm_conclude(trial->outcome, CM_VACUOUS, "the call addresses every element of its floats");
done:
    cm_stage_close(&probe.clean);
    return verdict;
}

static bool applies(const cm_pristine *pristine, char *reason, size_t size)
{
    const cm_op *op = pristine->test_case.op;
    for (int n = 0; op->arguments[n].name; n++)
        if (op->arguments[n].role != CM_OUTPUT && pristine->arguments[n] &&
            cm_dtype_is_float(pristine->tensors[n].dtype))
            return true;
    snprintf(reason, size, "%s has no float input that could be hidden", op->name);
    return false;
}

const cm_check cm_check_isolation = {
    .name = "isolation",
    .proves = "idle experts and adapters, rank padding, gaps and other tokens never reach an output; NaN and "
              "infinities in what is addressed do",
    .blind_to = "reads whose value is thrown away; integer arguments",
    .applies = applies,
    .run = run,
};
