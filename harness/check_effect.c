// SPDX-License-Identifier: Apache-2.0
// effect: the adapter is judged on its own size. With D_p = want - want(term p left out), got - want is
// regressed on the D_p; the gain of p is 1 + its coefficient, and must be 1 for each. Leave-one-out, since
// the layer is not linear. Cannot see: an error that is orthogonal to every effect (see numerics), adapters
// of no effect.
#include "harness/gains.h"
#include "harness/op.h"
#include "harness/stage.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double SHARE = 0.30;     // least share of the output that the effects together make up
static const double TOLERANCE = 0.02; // a gain may be off by this, or by 6 standard errors if that is more

struct effect {
    const cm_trial *trial;
    cm_pristine values; // private copy: scaled until the effects have their share
    int output;         // the bounded output
    const cm_want *want;
    int terms[CM_MAX_GAINS], count; // those that change the output
    double *deltas[CM_MAX_GAINS];   // D_p
};

static uint64_t effect_terms(const cm_op *op)
{
    uint64_t terms = 0;
    for (int n = 0; op->terms[n].name; n++)
        terms |= (uint64_t)op->terms[n].effect << n;
    return terms;
}

// want - want(terms left out), or NULL when nothing changes; the caller frees it.
static double *delta_of(struct effect *effect, uint64_t omit)
{
    cm_want without[CM_MAX_ARGUMENTS] = {0};
    cm_error error = {{0}};
    double *delta = NULL, size = 0;
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++) {
        size_t count = (size_t)effect->values.want[effect->trial->kernel->accuracy][n].count;
        double *memory = cm_new(5 * count + 1, sizeof *memory);
        without[n] =
            (cm_want){(int64_t)count,    memory, memory + count, memory + 2 * count, memory + 3 * count,
                      memory + 4 * count};
    }
    if (cm_pristine_without(&effect->values, omit, effect->trial->kernel->accuracy, without, &error) != CM_OK)
        cm_broken("%s", error.message);
    delta = cm_new((size_t)effect->want->count + 1, sizeof *delta);
    for (int64_t i = 0; i < effect->want->count; i++) {
        delta[i] = effect->want->value[i] - without[effect->output].value[i];
        size += fabs(delta[i]);
    }
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++)
        free(without[n].value);
    if (size > 0)
        return delta;
    free(delta);
    return NULL;
}

static double norm(const double *values, int64_t count)
{
    double squares = 0;
    for (int64_t i = 0; values && i < count; i++)
        squares += values[i] * values[i];
    return sqrt(squares);
}

static void evaluate(struct effect *effect)
{
    cm_error error = {{0}};
    if (cm_pristine_want(&effect->values, effect->trial->kernel->accuracy, &error) != CM_OK)
        cm_broken("%s", error.message);
    effect->want = &effect->values.want[effect->trial->kernel->accuracy][effect->output];
}

// Doubles the arguments whose vanishing leaves out every effect: the scalings of the adapters.
static bool double_scaling(struct effect *effect)
{
    const cm_op *op = effect->values.test_case.op;
    uint64_t terms = effect_terms(op);
    bool doubled = false;
    for (const cm_symmetry *symmetry = op->symmetries; symmetry->name; symmetry++) {
        if (symmetry->kind != CM_SYMMETRY_OMIT || (symmetry->terms & terms) != terms)
            continue;
        for (int n = 0; op->arguments[n].name; n++) {
            const DLTensor *tensor = effect->values.arguments[n];
            if (!tensor ||
                !cm_has_word(symmetry->arguments, op->arguments[n].name, strlen(op->arguments[n].name)))
                continue;
            for (int64_t i = 0; i < cm_tensor_count(tensor); i++)
                cm_tensor_set(tensor, i, 2 * cm_tensor_get(tensor, i));
            doubled = true;
        }
    }
    cm_pristine_changed(&effect->values);
    return doubled;
}

// Share of the output that the effects make up together; scales a small one up. False: there is no effect.
static bool find_share(struct effect *effect)
{
    uint64_t terms = effect_terms(effect->values.test_case.op);
    double natural = -1, share = 0;
    int doublings = 0;
    for (;; doublings++) {
        evaluate(effect);
        double *delta = delta_of(effect, terms), whole = norm(effect->want->value, effect->want->count);
        share = whole > 0 ? norm(delta, effect->want->count) / whole : 0;
        free(delta);
        natural = natural < 0 ? share : natural;
        if (share == 0 || share >= SHARE || doublings == 40 || !double_scaling(effect))
            break;
    }
    cm_outcome_metric(effect->trial->outcome, "natural_share", natural);
    if (doublings)
        cm_outcome_metric(effect->trial->outcome, "scaling_times", ldexp(1, doublings));
    return share > 0;
}

static void find_terms(struct effect *effect)
{
    const cm_op *op = effect->values.test_case.op;
    for (int n = 0; op->terms[n].name && effect->count < CM_MAX_GAINS; n++) {
        double *delta = op->terms[n].effect ? delta_of(effect, 1ull << n) : NULL;
        if (!delta)
            continue;
        effect->terms[effect->count] = n;
        effect->deltas[effect->count++] = delta;
    }
}

// Whether the output is that of a variant, want + factor * delta, within the bound that the variant would
// have.
static bool is_variant(const struct effect *effect, const DLTensor *got, const double *delta, double factor)
{
    cm_dtype dtype = effect->values.tensors[effect->output].dtype;
    for (int64_t i = 0; i < effect->want->count; i++) {
        double value = effect->want->value[i] + factor * delta[i];
        double wide = 2 * cm_bound(effect->want, i, dtype) - cm_dtype_ulp(dtype, effect->want->value[i]);
        double bound = (wide > 0 ? wide : 0) + cm_dtype_ulp(dtype, value);
        if (!(fabs(cm_tensor_get(got, i) - value) <= bound))
            return false;
    }
    return true;
}

static bool is_off(const cm_gains *gains, int p)
{
    double limit = 6 * gains->error[p] > TOLERANCE ? 6 * gains->error[p] : TOLERANCE;
    return !(fabs(gains->gain[p] - 1) <= limit);
}

static void print_gains(const struct effect *effect, const cm_gains *gains, bool off, char *text, size_t size)
{
    size_t at = strlen(text);
    for (int p = 0; p < gains->count && at < size; p++)
        if (is_off(gains, p) == off)
            at += (size_t)snprintf(text + at, size - at, "%s%s gain %.2f +- %.2f", at ? ", " : "",
                                   effect->values.test_case.op->terms[effect->terms[p]].name, gains->gain[p],
                                   gains->error[p]);
}

static cm_verdict judge(struct effect *effect, const DLTensor *got)
{
    cm_outcome *outcome = effect->trial->outcome;
    cm_dtype dtype = effect->values.tensors[effect->output].dtype;
    cm_gains gains;
    char text[400] = "";
    bool off = false;
    double largest = 0;
    outcome->compared = effect->want->count;
    for (int64_t i = 0; i < effect->want->count; i++)
        if (!isfinite(cm_tensor_get(got, i)) && isfinite(effect->want->value[i]))
            return cm_conclude(outcome, CM_FAIL, "the output is not finite");
    cm_gains_solve(got, dtype, effect->want, (const double *const *)effect->deltas, effect->count, NULL,
                   &gains);
    if (!gains.solvable)
        return cm_conclude(outcome, CM_VACUOUS, "the effects of the terms are too alike to be told apart");
    for (int p = 0; p < gains.count; p++) {
        char name[24];
        snprintf(name, sizeof name, "gain_%s", effect->values.test_case.op->terms[effect->terms[p]].name);
        cm_outcome_metric(outcome, name, gains.gain[p]);
        off = off || is_off(&gains, p);
        largest = gains.error[p] > largest ? gains.error[p] : largest;
    }
    cm_outcome_metric(outcome, "gain_error", largest);
    if (!off && largest > TOLERANCE)
        return cm_conclude(outcome, CM_VACUOUS, "the standard error of a gain is above %.2f: %.3f", TOLERANCE,
                           largest);
    if (!off)
        return CM_PASS;
    double *all = delta_of(effect, effect_terms(effect->values.test_case.op));
    const char *explained = "";
    if (all && is_variant(effect, got, all, -1))
        explained = "all effects dropped: the output is the base's; ";
    free(all);
    print_gains(effect, &gains, true, text, sizeof text);
    print_gains(effect, &gains, false, text, sizeof text);
    return cm_conclude(outcome, CM_FAIL, "%s%s (want 1)", explained, text);
}

static cm_verdict run(const cm_trial *trial)
{
    struct effect effect = {.trial = trial};
    const cm_op *op = trial->pristine->test_case.op;
    cm_stage_options options = {.place = CM_PLACE_END, .poison = CM_CANARY};
    cm_error error = {{0}};
    cm_verdict verdict;
    while (op->arguments[effect.output].compare != CM_COMPARE_BOUNDED)
        effect.output++;
    if (cm_pristine_copy(trial->pristine, &effect.values, &error) != CM_OK)
        cm_broken("%s", error.message);
    if (!find_share(&effect)) {
        verdict = cm_conclude(trial->outcome, CM_VACUOUS, "the adapter changes nothing: is every B zero?");
    } else {
        cm_stage stage;
        cm_trial scaled = {trial->kernel, &effect.values, trial->outcome};
        find_terms(&effect);
        cm_stage_open(&scaled, &options, &stage);
        verdict = cm_stage_run(&scaled, &options, &stage) ? judge(&effect, stage.arguments[effect.output])
                                                          : trial->outcome->verdict;
        cm_stage_close(&stage);
    }
    for (int p = 0; p < effect.count; p++)
        free(effect.deltas[p]);
    cm_pristine_close(&effect.values);
    return verdict;
}

static bool applies(const cm_pristine *pristine, char *reason, size_t size)
{
    const cm_op *op = pristine->test_case.op;
    int64_t reads = 0;
    for (int term = 0; op->terms[term].name; term++)
        for (int n = 0; op->arguments[n].name && op->terms[term].effect; n++)
            if (cm_has_word(op->terms[term].arguments, op->arguments[n].name, strlen(op->arguments[n].name)))
                reads += cm_pristine_reads(pristine, n);
    if (!strcmp(cm_case_word(&pristine->test_case, CM_AXIS_TIER), "exact"))
        snprintf(reason, size, "exact data: numerics decides to the bit");
    else if (!effect_terms(op))
        snprintf(reason, size, "%s has no adapter term", op->name);
    else if (reads == 0)
        snprintf(reason, size, "no token of the case uses an adapter");
    else
        return true;
    return false;
}

const cm_check cm_check_effect = {
    .name = "effect",
    .proves = "each adapter term is in the output with a gain of 1, judged on its own size",
    .blind_to = "errors orthogonal to every effect; adapters that change nothing",
    .applies = applies,
    .run = run,
};
