// SPDX-License-Identifier: Apache-2.0
// effect: the adapter is judged on its own size. With D_p = want - want(term p left out), got - want is
// regressed on the D_p; the gain of p is 1 + its coefficient, and must be 1 for each, over the whole output
// and by expert, adapter and block of columns. Leave-one-out, since the layer is not linear. Beside it the
// op's metamorphic relations. Cannot see: an error that is orthogonal to every effect (see numerics),
// adapters of no effect.
#include "harness/explain.h"
#include "harness/gain_table.h"
#include "harness/op.h"
#include "harness/relations.h"
#include "harness/stage.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double SHARE = 0.30;     // least share of the output that the effects together make up
static const double OPERATIONS = 5e8; // of the reference, for the parts of one dimension

struct effect {
    const cm_trial *trial;
    cm_pristine values; // private copy: scaled until the effects have their share
    int output;         // the bounded output
    const cm_want *want;
    cm_parts terms; // those that change the output
};

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

// A factor of 1 hides whether it is applied at all.
static bool has_scaling_of_one(const struct effect *effect)
{
    const cm_op *op = effect->values.test_case.op;
    for (int n = 0; op->arguments[n].name; n++) {
        const DLTensor *tensor = effect->values.arguments[n];
        for (int64_t i = 0; tensor && cm_is_scaling(op, n) && i < cm_tensor_count(tensor); i++)
            if (cm_tensor_get(tensor, i) == 1)
                return true;
    }
    return false;
}

static bool double_scaling(struct effect *effect)
{
    const cm_op *op = effect->values.test_case.op;
    bool doubled = false;
    for (int n = 0; op->arguments[n].name; n++) {
        const DLTensor *tensor = effect->values.arguments[n];
        if (!tensor || !cm_is_scaling(op, n))
            continue;
        for (int64_t i = 0; i < cm_tensor_count(tensor); i++)
            cm_tensor_set(tensor, i, 2 * cm_tensor_get(tensor, i));
        doubled = true;
    }
    cm_pristine_changed(&effect->values);
    return doubled;
}

// Share of the output that the effects make up together; scales a small one up.
static double find_share(struct effect *effect)
{
    uint64_t terms = cm_effect_terms(effect->values.test_case.op);
    double natural = -1, share = 0;
    int doublings = 0;
    for (;; doublings++) {
        evaluate(effect);
        double *delta =
            cm_parts_delta(&effect->values, effect->trial->kernel->accuracy, effect->output, terms);
        double whole = norm(effect->want->value, effect->want->count);
        share = whole > 0 ? norm(delta, effect->want->count) / whole : 0;
        free(delta);
        natural = natural < 0 ? share : natural;
        if (share == 0 || (share >= SHARE && !has_scaling_of_one(effect)) || doublings == 40 ||
            !double_scaling(effect))
            break;
    }
    cm_outcome_metric(effect->trial->outcome, "natural_share", natural);
    if (doublings)
        cm_outcome_metric(effect->trial->outcome, "scaling_times", ldexp(1, doublings));
    return share;
}

// Without the sign of what prints as 0.
static double shown(double gain)
{
    return fabs(gain) < 0.005 ? 0 : gain;
}

// Appends the whole gains that are off, or those that are not.
static void print_gains(const cm_gain_table *table, bool off, char *text, size_t size)
{
    size_t at = strlen(text);
    for (int n = 0; n < table->wholes && at < size; n++)
        if (table->rows[n].off == off)
            at += (size_t)snprintf(text + at, size - at, "%s%s gain %.2f +- %.2f", at ? ", " : "",
                                   table->rows[n].term, shown(table->rows[n].gain), table->rows[n].error);
}

static cm_verdict fail_part(cm_outcome *outcome, const cm_gain_table *table)
{
    const cm_gain *worst = cm_gain_table_worst(table), *whole = table->rows;
    while (strcmp(whole->term, worst->term) != 0)
        whole++;
    return cm_conclude(outcome, CM_FAIL, "%s gain %.2f over all, but %.2f +- %.2f at %s (want 1)",
                       worst->term, shown(whole->gain), shown(worst->gain), worst->error, worst->part);
}

static cm_verdict fail_whole(struct effect *effect, const DLTensor *got, const cm_gain_table *table)
{
    char text[300] = "", explained[160] = "", *part = NULL;
    const cm_gain *worst = cm_gain_table_worst(table);
    for (int n = 0; n < table->wholes && worst; n++) // a part that is as far off as the whole tells nothing
        if (!part && !strcmp(table->rows[n].term, worst->term) &&
            fabs(worst->gain - table->rows[n].gain) > cm_gain_limit(worst->error, table->count))
            part = cm_text("; worst part: %s gain %.2f +- %.2f at %s", worst->term, shown(worst->gain),
                           worst->error, worst->part);
    print_gains(table, true, text, sizeof text);
    print_gains(table, false, text, sizeof text);
    cm_explain(&effect->values, effect->trial->kernel->accuracy, effect->output, got, explained,
               sizeof explained);
    cm_verdict verdict =
        cm_conclude(effect->trial->outcome, CM_FAIL, "%s%s (want 1)%s", explained, text, part ? part : "");
    free(part);
    return verdict;
}

static cm_verdict judge(struct effect *effect, const DLTensor *got)
{
    cm_outcome *outcome = effect->trial->outcome;
    cm_gain_table table;
    cm_verdict verdict = CM_PASS;
    double largest = 0;
    outcome->compared = effect->want->count;
    for (int64_t i = 0; i < effect->want->count; i++)
        if (!isfinite(cm_tensor_get(got, i)) && isfinite(effect->want->value[i]))
            return cm_conclude(outcome, CM_FAIL, "the output is not finite");
    cm_gain_table_make(&effect->values, effect->trial->kernel->accuracy, effect->output, &effect->terms, got,
                       OPERATIONS, &table);
    for (int n = 0; n < table.wholes; n++) {
        char name[24];
        snprintf(name, sizeof name, "gain_%.17s", table.rows[n].term);
        cm_outcome_metric(outcome, name, table.rows[n].gain);
        largest = table.strict[n].error > largest ? table.strict[n].error : largest;
    }
    cm_outcome_metric(outcome, "gain_error", largest);
    cm_outcome_metric(outcome, "parts_judged", table.count - table.wholes);
    cm_outcome_metric(outcome, "parts_not_judged", table.unjudged);
    cm_outcome_metric(outcome, "dimensions_not_cut", table.uncut);
    cm_gain_table_record(&table, outcome);
    if (!table.solvable)
        verdict = cm_conclude(outcome, CM_VACUOUS, "the effects of the terms are too alike to be told apart");
    else if (table.wholes_off)
        verdict = fail_whole(effect, got, &table);
    else if (cm_gain_table_worst(&table))
        verdict = fail_part(outcome, &table);
    else if (!(largest <= CM_GAIN_ERROR))
        verdict = cm_conclude(outcome, CM_VACUOUS, "the standard error of a gain is above %.2f: %.3f",
                              CM_GAIN_ERROR, largest);
    cm_gain_table_close(&table);
    return verdict;
}

static cm_verdict run_gains(const cm_trial *trial)
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
    double share = find_share(&effect);
    if (share == 0) {
        verdict = cm_conclude(trial->outcome, CM_VACUOUS, "the adapter changes nothing: is every B zero?");
    } else if (!(share >= SHARE)) {
        verdict = cm_conclude(
            trial->outcome, CM_VACUOUS,
            "the adapters make up only %.3g %% of the output, however large their scalings are", 100 * share);
    } else {
        cm_stage stage;
        cm_trial scaled = {trial->kernel, &effect.values, trial->outcome};
        cm_parts_terms(&effect.values, trial->kernel->accuracy, effect.output, &effect.terms);
        cm_stage_open(&scaled, &options, &stage);
        verdict = cm_stage_run(&scaled, &options, &stage) ? judge(&effect, stage.arguments[effect.output])
                                                          : trial->outcome->verdict;
        cm_stage_close(&stage);
    }
    cm_parts_close(&effect.terms);
    cm_pristine_close(&effect.values);
    return verdict;
}

static bool is_exact(const cm_pristine *pristine)
{
    return !strcmp(cm_case_word(&pristine->test_case, CM_AXIS_TIER), "exact");
}

// Gains where values are random, relations everywhere.
static cm_verdict run(const cm_trial *trial)
{
    cm_verdict verdict = CM_PASS;
    if (cm_effect_terms(trial->pristine->test_case.op) && !is_exact(trial->pristine))
        verdict = run_gains(trial);
    return verdict == CM_PASS ? cm_relations_run(trial) : verdict;
}

static bool has_adapters(const cm_op *op)
{
    for (int n = 0; op->arguments[n].name; n++)
        if (op->arguments[n].role == CM_ADAPTER)
            return true;
    return false;
}

// B, or A where the op has no term, or any input where it has no adapters: ranks and scalings are read for
// nothing when no slot of a token is used.
static bool changes_results(const cm_pristine *pristine, int n)
{
    const cm_op *op = pristine->test_case.op;
    bool found = false;
    for (int term = 0; op->terms[term].name; term++)
        found = found || (op->terms[term].effect && op->terms[term].arguments &&
                          cm_has_word(op->terms[term].arguments, op->arguments[n].name,
                                      strlen(op->arguments[n].name)));
    return cm_effect_terms(op) ? found
                               : op->arguments[n].role == (has_adapters(op) ? CM_ADAPTER : CM_INPUT) &&
                                     pristine->arguments[n] && cm_dtype_is_float(pristine->tensors[n].dtype);
}

static bool applies(const cm_pristine *pristine, char *reason, size_t size)
{
    const cm_op *op = pristine->test_case.op;
    int64_t reads = 0;
    for (int n = 0; op->arguments[n].name; n++)
        if (changes_results(pristine, n))
            reads += cm_pristine_reads(pristine, n);
    if (!cm_effect_terms(op) && !op->symmetries->name)
        snprintf(reason, size, "%s has neither an adapter term nor a relation", op->name);
    else if (reads == 0 && !has_adapters(op))
        snprintf(reason, size, "the case has no float input");
    else if (reads == 0)
        snprintf(reason, size, "no token of the case uses an adapter");
    else
        return true;
    return false;
}

const cm_check cm_check_effect = {
    .name = "effect",
    .proves = "each adapter term has a gain of 1, judged on its own size; the op's relations hold",
    .blind_to =
        "errors orthogonal to every effect that all related calls share; adapters that change nothing",
    .applies = applies,
    .run = run,
};
