// SPDX-License-Identifier: Apache-2.0
// A NaN or an infinity in an addressed element comes out wherever the reference, given the same values, has
// none that is finite, and nowhere else. First in the inputs that are ordered by token, each in tokens of its
// own, then in one weight or adapter at a time: a clamp of the gate alone is only seen there.
#include "harness/isolation.h"
#include "harness/op.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

// References that a trial may cost beyond the first, in operations of the op: about 50 ms. Cases begin at
// different arguments.
static const double BUDGET = 1.5e7;
enum {
    MOST_RUNS = 6,    // with a weight or an adapter in each
    MOST_POISONS = 8, // of a run
    LARGE = 16 << 20  // bytes of arguments from which all this is left out
};

struct poison {
    int argument;
    int64_t flat, token; // token -1: not ordered by token
    double value;
};

struct carry {
    const cm_trial *trial;
    const cm_stage *clean;
    struct poison poisons[MOST_POISONS];
    int count;
};

static bool is_float_input(const cm_pristine *pristine, int n)
{
    return pristine->arguments[n] && pristine->test_case.op->arguments[n].role != CM_OUTPUT &&
           cm_dtype_is_float(pristine->tensors[n].dtype);
}

static bool by_token(const cm_pristine *pristine, int n)
{
    cm_role role = pristine->test_case.op->arguments[n].role;
    return pristine->test_case.op->arguments[n].shape[0] == 'T' && (role == CM_INPUT || role == CM_INOUT);
}

// The middle one of the elements of [first, first + count) that the call reads; -1: it reads none.
static int64_t middle_read(const struct carry *carry, int n, int64_t first, int64_t count)
{
    const cm_pristine *pristine = carry->trial->pristine;
    uint8_t *mask = cm_new((size_t)cm_tensor_count(pristine->arguments[n]), 1);
    int64_t reads = 0, place = -1;
    if (pristine->test_case.op->addressed(&carry->clean->hosted.call, n, mask) != CM_OK)
        cm_broken("op %s: addressed() failed", pristine->test_case.op->name);
    for (int64_t i = first; i < first + count; i++)
        reads += (mask[i] & CM_READS) != 0;
    for (int64_t i = first, seen = 0; i < first + count && place < 0; i++)
        if (mask[i] & CM_READS && seen++ == reads / 2)
            place = i;
    free(mask);
    return place;
}

static cm_verdict blame(const struct carry *carry, int output, int64_t flat, double got, double want)
{
    const cm_pristine *pristine = carry->trial->pristine;
    const cm_argument *arguments = pristine->test_case.op->arguments;
    const DLTensor *tensor = pristine->arguments[output];
    int64_t index[CM_MAX_RANK];
    char from[96], to[96];
    const struct poison *poison = &carry->poisons[0];
    cm_tensor_unravel(tensor, flat, index);
    for (int p = 0; p < carry->count; p++)
        if (arguments[output].shape[0] == 'T' && carry->poisons[p].token == index[0])
            poison = &carry->poisons[p];
    cm_tensor_place(arguments[output].name, tensor, flat, to, sizeof to);
    cm_tensor_place(arguments[poison->argument].name, pristine->arguments[poison->argument], poison->flat,
                    from, sizeof from);
    const char *what = isnan(poison->value) ? "NaN" : "an infinity";
    if (isfinite(want))
        return cm_conclude(carry->trial->outcome, CM_FAIL, "%s in %s changes %s, which does not depend on it",
                           what, from, to);
    return cm_conclude(carry->trial->outcome, CM_FAIL, "%s in %s is lost on the way to %s: %g", what, from,
                       to, got);
}

static cm_verdict compare(const struct carry *carry, const cm_stage *stage, const cm_pristine *poisoned)
{
    const cm_trial *trial = carry->trial;
    const cm_argument *arguments = poisoned->test_case.op->arguments;
    for (int n = 0; arguments[n].name; n++) {
        const cm_want *want = &poisoned->want[trial->kernel->accuracy][n];
        if (arguments[n].compare == CM_COMPARE_NONE)
            continue;
        for (int64_t i = 0; i < want->count; i++) {
            double got = cm_tensor_get(stage->arguments[n], i),
                   was = cm_tensor_get(carry->clean->arguments[n], i);
            // The sign of an infinity, and whether two of them meet, is left to the order of the sum. What an
            // integer becomes is free: it can't say that it is none, another output must.
            bool same = isfinite(want->value[i])
                            ? trial->kernel->nondeterministic ? isfinite(got) || !isfinite(was) : got == was
                            : !isfinite(got) || !cm_dtype_is_float(poisoned->tensors[n].dtype);
            trial->outcome->compared++;
            if (!same)
                return blame(carry, n, i, got, want->value[i]);
        }
    }
    return CM_PASS;
}

static cm_verdict run_poisoned(const struct carry *carry)
{
    const cm_trial *trial = carry->trial;
    cm_stage_options options = {.place = CM_PLACE_END, .poison = CM_CANARY};
    cm_error error = {{0}};
    cm_pristine poisoned;
    cm_stage stage;
    cm_verdict verdict;
    if (cm_pristine_copy(trial->pristine, &poisoned, &error) != CM_OK)
        cm_broken("%s", error.message);
    for (int p = 0; p < carry->count; p++) {
        int n = carry->poisons[p].argument;
        if (poisoned.files[n] && cm_pristine_own(&poisoned, n, &error) != CM_OK)
            cm_broken("%s", error.message);
        cm_tensor_set(&poisoned.tensors[n].dl, carry->poisons[p].flat, carry->poisons[p].value);
    }
    cm_pristine_changed(&poisoned);
    if (cm_pristine_want(&poisoned, trial->kernel->accuracy, &error) != CM_OK)
        cm_broken("%s", error.message);
    cm_trial with = {trial->kernel, &poisoned, trial->outcome};
    cm_stage_open(&with, &options, &stage);
    verdict =
        cm_stage_run(&with, &options, &stage) ? compare(carry, &stage, &poisoned) : trial->outcome->verdict;
    cm_stage_close(&stage);
    cm_pristine_close(&poisoned);
    return verdict;
}

// NaN and +Inf in each input that is ordered by token, as long as there are tokens.
static void poison_tokens(struct carry *carry)
{
    static const double values[] = {NAN, INFINITY};
    const cm_pristine *pristine = carry->trial->pristine;
    int64_t T = pristine->test_case.dims[cm_dim_index('T')], token = T - 1;
    for (int v = 0; v < 2; v++)
        for (int n = 0; pristine->test_case.op->arguments[n].name; n++) {
            if (!is_float_input(pristine, n) || !by_token(pristine, n))
                continue;
            int64_t row = T ? cm_tensor_count(pristine->arguments[n]) / T : 0, flat = -1;
            for (; token >= 0 && flat < 0; token--)
                flat = middle_read(carry, n, token * row, row);
            if (flat >= 0 && carry->count < MOST_POISONS)
                carry->poisons[carry->count++] = (struct poison){n, flat, token + 1, values[v]};
        }
}

static cm_verdict poison_weights(struct carry *carry)
{
    const cm_pristine *pristine = carry->trial->pristine;
    const cm_op *op = pristine->test_case.op;
    int arguments = cm_op_argument_count(op);
    cm_counts counts = {0};
    cm_verdict verdict = CM_PASS;
    op->counts(&carry->clean->hosted.call, &counts);
    double most = counts.operations > 0 ? 1 + BUDGET / counts.operations : MOST_RUNS;
    most = most < MOST_RUNS ? most : MOST_RUNS;
    uint32_t first = 0;
    for (const char *at = pristine->name; *at; at++)
        first = 31 * first + (unsigned char)*at;
    for (int a = 0; a < arguments && most >= 1 && verdict == CM_PASS; a++) {
        int n = (int)((first % (uint32_t)arguments + (uint32_t)a) % (uint32_t)arguments);
        if (!is_float_input(pristine, n) || by_token(pristine, n))
            continue;
        int64_t flat = middle_read(carry, n, 0, cm_tensor_count(pristine->arguments[n]));
        if (flat < 0)
            continue;
        carry->poisons[0] = (struct poison){n, flat, -1, NAN};
        carry->count = 1;
        verdict = run_poisoned(carry);
        most--;
    }
    return verdict;
}

cm_verdict cm_isolation_carry(const cm_trial *trial, const cm_stage *clean)
{
    struct carry carry = {.trial = trial, .clean = clean};
    if (trial->pristine->bytes >= LARGE)
        return CM_PASS;
    poison_tokens(&carry);
    cm_verdict verdict = carry.count ? run_poisoned(&carry) : CM_PASS;
    return verdict == CM_PASS ? poison_weights(&carry) : verdict;
}
