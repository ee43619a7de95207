// SPDX-License-Identifier: Apache-2.0
// The power of the effect check: outputs with the errors of a clean kernel (normal, of the reference's sigma,
// then rounded to the output's dtype) in which one adapter term has a gain of 0.95, 1 or 1.05, on every
// random ci fixture, for every term. A wrong gain is always found and named, a right one never fails, parts
// included.
#include "harness/gain_table.h"
#include "harness/op.h"
#include "harness/paths.h"
#include "harness/registry.h"
#include "harness/rng.h"
#include "suites/unit/oracle.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EVERY = CM_UNIT_SLOW ? 9 : 1 }; // cases that are taken, one of so many

static const double OPERATIONS = 2e7; // for the parts

struct power {
    const cm_op *op;
    int cases, trials[3], failed[3], misnamed, parts; // by gain: 0.95, 1, 1.05
};

static const double gains[3] = {0.95, 1, 1.05};

// want + (gain - 1) effect + error, rounded.
static void make_output(const cm_want *want, const cm_effect *effect, double gain, cm_rng rng,
                        const cm_tensor *output)
{
    int64_t row = want->count / output->shape[0];
    double *sum = cm_new((size_t)want->count, sizeof *sum);
    for (int64_t i = 0; i < effect->row_count * row; i++)
        sum[effect->rows[i / row] * row + i % row] = (gain - 1) * effect->values[i];
    for (int64_t i = 0; i < want->count; i++) {
        double normal = cm_rng_normal(rng, (uint64_t)i) / (65536 * sqrt(8.0 / 12));
        cm_tensor_set(&output->dl, i, want->value[i] + sum[i] + want->sigma[i] * normal);
    }
    free(sum);
}

static void try_term(struct power *power, const cm_pristine *pristine, cm_accuracy accuracy, int output,
                     const cm_parts *terms, int term)
{
    const cm_want *want = &pristine->want[accuracy][output];
    const char *name = power->op->terms[terms->items[term].term].name;
    cm_tensor got;
    cm_tensor_init(&got, pristine->tensors[output].dtype, pristine->tensors[output].dl.ndim,
                   pristine->tensors[output].shape, cm_new((size_t)want->count, 8));
    for (int g = 0; g < 3; g++) {
        cm_gain_table table;
        bool failed = false, named = false;
        double furthest = 0;
        cm_rng rng = {pristine->test_case.seed, (uint32_t)(0x656666 + 64 * term + 2 * g + (int)accuracy)};
        make_output(want, &terms->items[term].effect, gains[g], rng, &got);
        cm_gain_table_make(pristine, accuracy, output, terms, &got.dl, gains[g] == 1 ? OPERATIONS : 0,
                           &table);
        ck_assert_msg(table.solvable, "%s: the effects are too alike", pristine->name);
        for (int n = 0; n < table.count; n++) {
            failed = failed || table.rows[n].off;
            if (n < table.wholes && fabs(table.rows[n].gain - 1) > furthest) {
                furthest = fabs(table.rows[n].gain - 1);
                named = !strcmp(table.rows[n].term, name) && table.rows[n].off;
            }
        }
        power->trials[g]++;
        power->failed[g] += failed;
        power->misnamed += g != 1 && !named;
        power->parts += table.count - table.wholes;
        if (failed != (g != 1) || (g != 1 && !named))
            fprintf(stderr, "%s/%s accuracy %d: gain %.2f of %s: %s, found %.4f +- %.4f\n", power->op->name,
                    pristine->name, (int)accuracy, gains[g], name, failed ? "FAIL" : "PASS",
                    table.rows[term].gain, table.rows[term].error);
        cm_gain_table_close(&table);
    }
    free(got.dl.data);
}

static cm_status try_case(const char *text, void *self)
{
    struct power *power = self;
    if (!strstr(text, "-random-") || power->cases++ % EVERY)
        return CM_OK;
    cm_pristine *pristine = cm_new(1, sizeof *pristine);
    int output = 0;
    cm_oracle_open_case(power->op, text, pristine);
    while (power->op->arguments[output].compare != CM_COMPARE_BOUNDED)
        output++;
    for (int accuracy = 0; accuracy < 2; accuracy++) {
        cm_parts terms;
        ck_assert_int_eq(cm_pristine_want(pristine, (cm_accuracy)accuracy, NULL), CM_OK);
        cm_parts_terms(pristine, (cm_accuracy)accuracy, output, &terms);
        for (int term = 0; term < terms.count; term++)
            try_term(power, pristine, (cm_accuracy)accuracy, output, &terms, term);
        cm_parts_close(&terms);
    }
    cm_pristine_close(pristine);
    free(pristine);
    return CM_OK;
}

START_TEST(wrong_gains_are_found_and_right_ones_pass)
{
    int trials = 0;
    for (const cm_suite *const *suite = cm_registry_suites(); *suite; suite++) {
        struct power power = {.op = cm_registry_find_op((*suite)->op, strlen((*suite)->op))};
        if (!cm_effect_terms(power.op))
            continue;
        for (const cm_row *row = (*suite)->rows; row->cases; row++)
            if (row->sets & (CM_SET_CI | CM_SET_SMOKE) &&
                (!row->checks || cm_has_word(row->checks, "effect", strlen("effect"))))
                ck_assert_int_eq(
                    cm_paths_expand(row->cases, power.op, cm_registry_kernels(), try_case, &power, NULL),
                    CM_OK);
        if (getenv("CM_VERBOSE"))
            fprintf(stderr,
                    "%-12s gain 0.95: %d of %d failed; 1: %d of %d, %d parts judged; 1.05: %d of %d; "
                    "misnamed %d\n",
                    power.op->name, power.failed[0], power.trials[0], power.failed[1], power.trials[1],
                    power.parts, power.failed[2], power.trials[2], power.misnamed);
        ck_assert_int_eq(power.failed[0], power.trials[0]);
        ck_assert_int_eq(power.failed[1], 0);
        ck_assert_int_eq(power.failed[2], power.trials[2]);
        ck_assert_int_eq(power.misnamed, 0);
        trials += power.trials[0] + power.trials[1] + power.trials[2];
    }
    ck_assert_int_ge(trials, CM_UNIT_SLOW ? 50 : 500);
}
END_TEST

Suite *cm_unit_effect(void);
Suite *cm_unit_effect(void)
{
    Suite *suite = suite_create("effect");
    TCase *tcase = tcase_create("power");
    tcase_set_timeout(tcase, 300);
    tcase_add_test(tcase, wrong_gains_are_found_and_right_ones_pass);
    suite_add_tcase(suite, tcase);
    return suite;
}
