// SPDX-License-Identifier: Apache-2.0
// The relations of an op on a kernel.
#include "harness/compare.h"
#include "harness/op.h"
#include "harness/parts.h"
#include "harness/relations.h"
#include "harness/stage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double OPERATIONS = 1.5e8; // of the kernel's calls on one case, about
enum {
    LEAST_TURNS = 3,
    EMULATION = 100,   // an emulated operation is so many
    LARGE = 256 << 20, // bytes of arguments from which no relation is tried: each call packs all of them anew
};

struct subject {
    const cm_trial *trial;
    bool exact, started; // started: the kernel has taken the case itself
};

static void open_call(const cm_pristine *values, cm_hosted *hosted)
{
    *hosted = (cm_hosted){.call = {.size = sizeof(cm_call),
                                   .op = values->test_case.op,
                                   .host = &cm_host_services,
                                   .arguments = values->arguments,
                                   .attributes = values->test_case.attributes,
                                   .dims = values->test_case.dims,
                                   .device = kDLCPU}};
}

// Reordering a summed dimension changes no more than the order of sums, which numerics bounds: relations are
// about what indices choose, and about tokens.
static bool is_for_kernels(const cm_pristine *pristine, const cm_symmetry *symmetry)
{
    const cm_argument *arguments = pristine->test_case.op->arguments;
    bool chosen = symmetry->kind != CM_SYMMETRY_PERMUTE || symmetry->letter == 'T';
    for (int n = 0; arguments[n].name && !chosen; n++)
        chosen = arguments[n].index_into == symmetry->letter;
    return chosen;
}

// Relations that a case is tried on: all, or as many as its size allows, others for another case.
static bool is_in_turn(const cm_pristine *pristine, int number, int count, double operations)
{
    int turns = (int)(OPERATIONS / (operations > 1 ? operations : 1));
    uint64_t first = pristine->test_case.seed;
    for (const char *at = pristine->name; *at; at++)
        first = first * 31 + (unsigned char)*at;
    turns = turns < LEAST_TURNS ? LEAST_TURNS : turns;
    return (number + count - (int)(first % (uint64_t)count)) % count < turns;
}

static double operations_of(const cm_pristine *pristine)
{
    cm_counts counts;
    cm_hosted hosted;
    open_call(pristine, &hosted);
    pristine->test_case.op->counts(&hosted.call, &counts);
    return counts.operations;
}

static bool is_exact(const cm_pristine *values)
{
    cm_hosted hosted;
    open_call(values, &hosted);
    return values->test_case.op->exact(&hosted.call) == CM_OK;
}

static void read_bounds(const struct subject *subject, cm_pristine *values, cm_results *results)
{
    cm_accuracy accuracy = subject->trial->kernel->accuracy;
    cm_error error = {{0}};
    if (cm_pristine_want(values, accuracy, &error) != CM_OK)
        cm_broken("%s", error.message);
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++)
        for (int64_t i = 0; results->bound[n] && i < values->want[accuracy][n].count; i++)
            results->bound[n][i] = cm_bound(&values->want[accuracy][n], i, values->tensors[n].dtype);
}

static cm_relation_end run_kernel(cm_evaluator *evaluator, cm_pristine *values, bool bounds,
                                  cm_results *results)
{
    struct subject *subject = evaluator->self;
    cm_stage_options options = {.place = CM_PLACE_END, .poison = CM_CANARY};
    cm_trial trial = {subject->trial->kernel, values, subject->trial->outcome};
    cm_relation_end end = CM_RELATION_HOLDS;
    cm_stage stage;
    if (subject->exact && subject->started && !evaluator->moved && !is_exact(values))
        return CM_RELATION_IDLE; // nobody promises bits on these values
    cm_stage_open(&trial, &options, &stage);
    if (!cm_stage_run(&trial, &options, &stage))
        end = subject->started && trial.outcome->verdict == CM_SKIP ? CM_RELATION_IDLE : CM_RELATION_FAILED;
    for (int n = 0; end == CM_RELATION_HOLDS && n < CM_MAX_ARGUMENTS; n++)
        for (int64_t i = 0; results->value[n] && i < cm_tensor_count(stage.arguments[n]); i++)
            results->value[n][i] = cm_tensor_get(stage.arguments[n], i);
    cm_stage_close(&stage);
    if (end == CM_RELATION_HOLDS && bounds)
        read_bounds(subject, values, results);
    return end;
}

static cm_verdict fail(const cm_trial *trial, const cm_symmetry *symmetry, const cm_violation *violation)
{
    const cm_pristine *pristine = trial->pristine;
    int64_t index[CM_MAX_RANK];
    char place[96] = "";
    const DLTensor *tensor = pristine->arguments[violation->argument];
    cm_tensor_unravel(tensor, violation->flat, index);
    for (int d = 0, at = 0; d < tensor->ndim && at < (int)sizeof place; d++)
        at += snprintf(place + at, sizeof place - (size_t)at, "%s%lld", d ? "," : "", (long long)index[d]);
    return cm_conclude(trial->outcome, CM_FAIL,
                       "relation `%s` broken: %lld of %lld elements differ, first `%s`[%s] = %.9g, should be "
                       "%.9g +- %.2g",
                       symmetry->name, (long long)violation->violated, (long long)violation->compared,
                       pristine->test_case.op->arguments[violation->argument].name, place, violation->got,
                       violation->want, violation->allowed);
}

cm_verdict cm_relations_run(const cm_trial *trial)
{
    cm_outcome *outcome = trial->outcome;
    const cm_symmetry *symmetry = trial->pristine->test_case.op->symmetries;
    struct subject subject = {
        .trial = trial, .exact = !strcmp(cm_case_word(&trial->pristine->test_case, CM_AXIS_TIER), "exact")};
    cm_evaluator evaluator = {
        .evaluate = run_kernel, .row_invariant = trial->kernel->row_invariant, .self = &subject};
    cm_pristine *base = cm_new(1, sizeof *base);
    cm_error error = {{0}};
    cm_results results;
    cm_verdict verdict = CM_PASS;
    bool emulated = !strcmp(cm_kernel_mode(trial->kernel), "emulated");
    double operations = operations_of(trial->pristine) * (emulated ? EMULATION : 1);
    int held = 0, idle = 0, left_out = 0, number = 0, count = 0;
    for (const cm_symmetry *row = symmetry; row->name; row++)
        count += is_for_kernels(trial->pristine, row);
    if (trial->pristine->bytes >= LARGE && cm_effect_terms(trial->pristine->test_case.op) && !subject.exact) {
        cm_outcome_metric(outcome, "relations_left_out", count); // gains were judged
        free(base);
        return CM_PASS;
    }
    if (cm_pristine_copy(trial->pristine, base, &error) != CM_OK)
        cm_broken("%s", error.message);
    cm_results_open(base, !subject.exact, &results);
    if (run_kernel(&evaluator, base, !subject.exact, &results) != CM_RELATION_HOLDS)
        verdict = outcome->verdict;
    subject.started = true;
    for (; verdict == CM_PASS && symmetry->name; symmetry++) {
        cm_violation violation;
        if (!is_for_kernels(base, symmetry))
            continue;
        if (!is_in_turn(base, number++, count, operations)) {
            left_out++;
            continue;
        }
        cm_relation_end end =
            cm_relation_hold(symmetry, trial->pristine, &results, NULL, &evaluator, &violation);
        outcome->compared += violation.compared;
        held += end == CM_RELATION_HOLDS;
        idle += end == CM_RELATION_IDLE;
        if (end == CM_RELATION_FAILED)
            verdict = outcome->verdict;
        else if (end == CM_RELATION_BROKEN)
            verdict = fail(trial, symmetry, &violation);
        else
            outcome->reason[0] = 0; // of a transformed case that the kernel does not take
    }
    cm_results_close(&results);
    cm_pristine_close(base);
    free(base);
    cm_outcome_metric(outcome, "relations_held", held);
    cm_outcome_metric(outcome, "relations_idle", idle);
    cm_outcome_metric(outcome, "relations_left_out", left_out);
    if (verdict == CM_PASS && held == 0)
        return cm_conclude(outcome, CM_VACUOUS, "no relation of the op has anything to compare on this case");
    return verdict;
}
