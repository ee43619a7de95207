// SPDX-License-Identifier: Apache-2.0
// bounds: a kernel touches no byte outside its arguments and writes every output element that the op says.
// Each argument lies flush against a guard page, behind it and before it in turn; gaps and slack are
// canaried; outputs start with two different poisons, and what keeps both was never written. Cannot see: a
// read that stays inside an argument (see isolation).
#include "harness/op.h"
#include "harness/stage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const unsigned char poisons[2] = {CM_CANARY, 0x7e};

// Canaries around the blocks and in the gaps between the rows of outputs.
static cm_verdict check_outside(const cm_trial *trial, const cm_stage *stage)
{
    const cm_op *op = trial->pristine->test_case.op;
    int64_t distance;
    const cm_block *block = cm_arena_broken(&stage->arena, &distance);
    if (block)
        return cm_conclude(trial->outcome, CM_FAIL, "write %lld bytes %s `%s`",
                           (long long)(distance < 0 ? -distance : distance - (int64_t)block->size),
                           distance < 0 ? "before the start of" : "past the end of", block->name);
    for (int n = 0; op->arguments[n].name; n++) {
        const DLTensor *tensor = stage->arguments[n];
        if (!tensor || tensor->ndim < 2 || cm_tensor_count(tensor) == 0)
            continue;
        int64_t columns = tensor->shape[tensor->ndim - 1], bits = tensor->dtype.bits;
        int64_t gap = tensor->strides[tensor->ndim - 2] - columns, rows = cm_tensor_count(tensor) / columns;
        for (int64_t row = 0; gap > 0 && row + 1 < rows; row++) {
            const unsigned char *c = tensor->data;
            int64_t end = cm_tensor_offset(tensor, row * columns) + columns;
            for (int64_t i = (end * bits + 7) / 8; i < (end + gap) * bits / 8; i++)
                if (c[i] != CM_CANARY)
                    return cm_conclude(trial->outcome, CM_FAIL, "write into the gap behind row %lld of `%s`",
                                       (long long)row, op->arguments[n].name);
        }
    }
    return CM_PASS;
}

// Notes in `kept` which elements of the output still hold the poison.
static void note_kept(const DLTensor *tensor, unsigned char poison, uint8_t *kept)
{
    for (int64_t n = 0; n < cm_tensor_count(tensor); n++)
        kept[n] += cm_tensor_is_poison(tensor, n, poison);
}

static cm_verdict check_written(const cm_trial *trial, int n, const uint8_t *kept)
{
    const cm_pristine *pristine = trial->pristine;
    const cm_argument *argument = &pristine->test_case.op->arguments[n];
    const DLTensor *tensor = pristine->arguments[n];
    int64_t count = cm_tensor_count(tensor), missing = 0, first = -1;
    for (int64_t i = 0; i < count; i++)
        if (kept[i] == 2) {
            missing++;
            first = first < 0 ? i : first;
        }
    trial->outcome->compared += count;
    if (!missing)
        return CM_PASS;
    int64_t index[CM_MAX_RANK];
    char place[96] = "";
    cm_tensor_unravel(tensor, first, index);
    for (int d = 0, at = 0; d < tensor->ndim; d++)
        at += snprintf(place + at, sizeof place - (size_t)at, "%s%lld", d ? "," : "", (long long)index[d]);
    trial->outcome->bad_count = missing;
    return cm_conclude(trial->outcome, CM_FAIL, "`%s`[%s] was never written, as %lld of %lld elements",
                       argument->name, place, (long long)missing, (long long)count);
}

static cm_verdict run(const cm_trial *trial)
{
    const cm_pristine *pristine = trial->pristine;
    const cm_op *op = pristine->test_case.op;
    uint8_t *kept[CM_MAX_ARGUMENTS] = {0};
    cm_verdict verdict = CM_PASS;
    for (int n = 0; op->arguments[n].name; n++)
        if (op->arguments[n].role == CM_OUTPUT)
            kept[n] = cm_new((size_t)cm_tensor_count(pristine->arguments[n]), 1);
    for (int pass = 0; pass < 2 && verdict == CM_PASS; pass++) {
        cm_stage_options options = {.place = pass ? CM_PLACE_START : CM_PLACE_END, .poison = poisons[pass]};
        cm_stage stage;
        cm_stage_open(trial, &options, &stage);
        verdict =
            cm_stage_run(trial, &options, &stage) ? check_outside(trial, &stage) : trial->outcome->verdict;
        for (int n = 0; op->arguments[n].name; n++)
            if (kept[n])
                note_kept(stage.arguments[n], poisons[pass], kept[n]);
        cm_stage_close(&stage);
    }
    for (int n = 0; op->arguments[n].name; n++) {
        if (kept[n] && verdict == CM_PASS)
            verdict = check_written(trial, n, kept[n]);
        free(kept[n]);
    }
    return verdict;
}

const cm_check cm_check_bounds = {
    .name = "bounds",
    .proves = "no access outside the arguments, and every output element written",
    .blind_to = "reads of the wrong place inside an argument",
    .run = run,
    .claims = {[CM_TOUCH_GUARD] = true},
};
