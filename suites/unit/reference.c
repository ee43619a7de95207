// SPDX-License-Identifier: Apache-2.0
// The references against the oracle and against themselves, on every case that the suites run: values,
// omitted terms, adapters taken away, accuracies, empty batches, and how much of the output the LoRA is.
#include "harness/op.h"
#include "harness/paths.h"
#include "harness/registry.h"
#include "suites/unit/oracle.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Difference to the oracle allowed, in sum |terms|: 4096 roundings of double are 5e-13.
#define TOLERANCE 1e-12

enum {
    TERMS = 64,
    EVERY = CM_UNIT_SLOW ? 7 : 1, // of the cases; 7 divides no count of them
    LARGEST = 1 << 21,            // elements of E H I: the oracle needs minutes for a full-size layer
};

// What was seen on the cases of a suite.
struct tally {
    const cm_op *op;
    unsigned sets;
    int visited, cases, empty, narrowed;
    int64_t elements, bad;
    double worst; // |reference - oracle| / magnitude
    char worst_case[CM_CASE_TEXT];
    int64_t mattered[TERMS];  // tokens on which leaving out the term changed the output
    int shares, small_shares; // cases of the CI set with adapters, and those with a small share of LoRA
    double least_share;
    char least_share_case[CM_CASE_TEXT];
};

static bool verbose(void)
{
    return getenv("CM_VERBOSE") != NULL;
}

static bool is_random(const cm_pristine *pristine)
{
    return !strcmp(cm_case_word(&pristine->test_case, CM_AXIS_TIER), "random");
}

static const cm_want *want_of(cm_pristine *pristine, cm_accuracy accuracy)
{
    cm_error error = {{0}};
    cm_status status = cm_pristine_want(pristine, accuracy, &error);
    ck_assert_msg(status == CM_OK, "%s", error.message);
    return pristine->want[accuracy];
}

// Oracle ---------------------------------------------------------------------------------------------

static void compare(struct tally *tally, const cm_pristine *pristine, int argument, const cm_want *want,
                    const double *oracle)
{
    const cm_argument *row = &pristine->test_case.op->arguments[argument];
    for (int64_t n = 0; n < want->count; n++) {
        double difference = fabs(want->value[n] - oracle[n]);
        double size = row->compare == CM_COMPARE_BOUNDED ? want->magnitude[n] : 0;
        bool good = difference <= TOLERANCE * size; // false for NaN; size 0: equal
        double ratio = good && size == 0 ? 0 : difference / size;
        if (row->compare == CM_COMPARE_BOUNDED && size == 0)
            good = good && want->value[n] == 0;
        if (!(ratio <= tally->worst)) {
            tally->worst = ratio;
            snprintf(tally->worst_case, sizeof tally->worst_case, "%s", pristine->name);
        }
        if (!good && tally->bad++ < 20)
            fprintf(stderr, "%s/%s  %s[%lld]  reference %.17g  oracle %.17g  magnitude %g  ratio %g\n",
                    pristine->test_case.op->name, pristine->name, row->name, (long long)n, want->value[n],
                    oracle[n], size, ratio);
    }
    tally->elements += want->count;
}

// Holds `wants`, of the values that the case has now, against the oracle.
static void agree(const cm_pristine *pristine, const cm_want wants[CM_MAX_ARGUMENTS], struct tally *tally)
{
    double *values[CM_MAX_ARGUMENTS] = {NULL};
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++)
        if (wants[n].value)
            values[n] = cm_new((size_t)wants[n].count, sizeof *values[n]);
    ck_assert_int_eq(cm_oracle(pristine, values), CM_OK);
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++) {
        if (values[n])
            compare(tally, pristine, n, &wants[n], values[n]);
        free(values[n]);
    }
}

// Terms ----------------------------------------------------------------------------------------------

static int64_t index_at(const cm_pristine *pristine, const char *name, int64_t n)
{
    return (int64_t)cm_tensor_get(cm_oracle_argument(pristine, name), n);
}

// Rank of the adapter of token t, 0 without one.
static int64_t rank_of(const cm_pristine *pristine, int64_t t)
{
    int64_t adapter = -1;
    const DLTensor *segments = cm_oracle_argument(pristine, "segment_adapter");
    if (cm_oracle_argument(pristine, "token_adapter"))
        adapter = index_at(pristine, "token_adapter", t);
    for (int64_t p = 0; segments && p < segments->shape[0]; p++)
        for (int64_t n = index_at(pristine, "segment_offset", p);
             n < index_at(pristine, "segment_offset", p + 1); n++)
            if (index_at(pristine, "permutation", n) == t)
                adapter = index_at(pristine, "segment_adapter", p);
    return adapter < 0 ? 0 : index_at(pristine, "lora_rank", adapter);
}

static bool has_slot(const cm_pristine *pristine, int64_t t)
{
    int64_t k = pristine->test_case.dims[cm_dim_index('k')];
    for (int64_t j = 0; j < k; j++)
        if (index_at(pristine, "topk_ids", t * k + j) >= 0)
            return true;
    return false;
}

static bool is_empty(const cm_pristine *pristine, int64_t t)
{
    const DLTensor *hidden = cm_oracle_argument(pristine, "hidden");
    if (!hidden)
        return false;
    for (int64_t i = t * hidden->shape[1]; i < (t + 1) * hidden->shape[1]; i++)
        if (cm_tensor_get(hidden, i) != 0)
            return false;
    return true;
}

// Whether leaving out a term can change the row of token t.
static bool has_term(const cm_pristine *pristine, const char *term, int64_t t)
{
    bool routed = !cm_oracle_argument(pristine, "topk_ids") || has_slot(pristine, t);
    bool shared = cm_oracle_argument(pristine, "shared_gate") != NULL;
    bool bias = cm_oracle_argument(pristine, "bias_gate") || cm_oracle_argument(pristine, "bias_up") ||
                cm_oracle_argument(pristine, "bias_down");
    if (strcmp(term, "bias") != 0 && is_empty(pristine, t) && !bias)
        return false;
    if (!strcmp(term, "shared"))
        return shared;
    if (!strcmp(term, "shared_lora"))
        return shared && rank_of(pristine, t) > 0;
    if (!strcmp(term, "bias"))
        return routed && bias;
    if (!strcmp(term, "base"))
        return pristine->test_case.attributes[0] != 0; // accumulate
    ck_assert_msg(!strncmp(term, "lora", 4), "the test does not know the term %s", term);
    return routed && rank_of(pristine, t) > 0;
}

// What the reference says without a term is what the oracle says with the term's arguments set to 0.
static void agree_without(const cm_pristine *pristine, const cm_term *term,
                          const cm_want wants[CM_MAX_ARGUMENTS], struct tally *tally)
{
    const cm_argument *arguments = pristine->test_case.op->arguments;
    double *saved[CM_MAX_ARGUMENTS] = {NULL};
    for (int n = 0; arguments[n].name; n++) {
        if (!pristine->arguments[n] ||
            !cm_has_word(term->arguments, arguments[n].name, strlen(arguments[n].name)))
            continue;
        int64_t count = cm_tensor_count(pristine->arguments[n]);
        saved[n] = cm_new((size_t)count, sizeof *saved[n]);
        for (int64_t i = 0; i < count; i++) {
            saved[n][i] = cm_tensor_get(pristine->arguments[n], i);
        }
        for (int64_t i = 0; i < count; i++) // apart from saving: with a stride of 0 elements are one
            cm_tensor_set(pristine->arguments[n], i, 0);
    }
    agree(pristine, wants, tally);
    for (int n = 0; arguments[n].name; n++) {
        for (int64_t i = 0; saved[n] && i < cm_tensor_count(pristine->arguments[n]); i++)
            cm_tensor_set(pristine->arguments[n], i, saved[n][i]);
        free(saved[n]);
    }
}

// Per term and token: a term that is present matters (exact data may be 0 there), one that is not does not.
static void check_terms(cm_pristine *pristine, struct tally *tally)
{
    const cm_op *op = pristine->test_case.op;
    int out = cm_op_argument_count(op) - 1;
    const cm_want *full = &want_of(pristine, CM_ACCURACY_MODEL)[out];
    int64_t T = pristine->test_case.dims[cm_dim_index('T')], row = T ? full->count / T : 0;
    cm_want less[CM_MAX_ARGUMENTS];
    for (int term = 0; op->terms[term].name; term++) {
        const char *name = op->terms[term].name;
        cm_oracle_want(pristine, 1ull << term, CM_ACCURACY_MODEL, less);
        for (int64_t t = 0; t < T; t++) {
            int64_t differing = 0;
            for (int64_t n = t * row; n < (t + 1) * row; n++)
                differing += full->value[n] != less[out].value[n];
            bool present = has_term(pristine, name, t);
            if (!present && differing > 0)
                ck_abort_msg("%s: token %lld has no %s, but leaving it out matters", pristine->name,
                             (long long)t, name);
            if (present && differing == 0 && is_random(pristine))
                ck_abort_msg("%s: token %lld has %s, but leaving it out does not matter", pristine->name,
                             (long long)t, name);
            tally->mattered[term] += differing > 0;
        }
        if (pristine->bytes < 1 << 20 && op->terms[term].arguments)
            agree_without(pristine, &op->terms[term], less, tally);
        cm_oracle_close_wants(less);
    }
}

static void measure_share(const cm_pristine *pristine, const cm_want *want, const cm_want *base,
                          struct tally *tally)
{
    double delta = 0, whole = 0;
    for (int64_t n = 0; n < want->count; n++) {
        double difference = want->value[n] - base->value[n];
        delta += difference * difference;
        whole += want->value[n] * want->value[n];
    }
    double share = sqrt(delta / whole);
    if (tally->shares++ == 0 || share < tally->least_share) {
        tally->least_share = share;
        snprintf(tally->least_share_case, sizeof tally->least_share_case, "%s", pristine->name);
    }
    tally->small_shares += share < 0.3;
    if (share < 0.3 && verbose())
        fprintf(stderr, "LoRA is %.3f of the output of %s\n", share, pristine->name);
}

// All LoRA terms left out: the same as a batch in which no token has an adapter. Changes the case.
static void check_without_lora(cm_pristine *pristine, struct tally *tally)
{
    const cm_op *op = pristine->test_case.op;
    int out = cm_op_argument_count(op) - 1, assigned = cm_op_argument_index(op, "token_adapter");
    int64_t T = pristine->test_case.dims[cm_dim_index('T')], with = 0;
    if (assigned < 0)
        assigned = cm_op_argument_index(op, "segment_adapter");
    if (!cm_oracle_lora_terms(op) || !pristine->arguments[assigned])
        return;
    for (int64_t t = 0; t < T; t++)
        with += has_term(pristine, "lora", t);
    cm_want base[CM_MAX_ARGUMENTS], nobody[CM_MAX_ARGUMENTS];
    cm_oracle_want(pristine, cm_oracle_lora_terms(op), CM_ACCURACY_MODEL, base);
    if (tally->sets & CM_SET_CI && with > 0 && is_random(pristine))
        measure_share(pristine, &pristine->want[CM_ACCURACY_MODEL][out], &base[out], tally);
    for (int64_t n = 0; n < cm_tensor_count(pristine->arguments[assigned]); n++)
        cm_tensor_set(pristine->arguments[assigned], n, -1);
    cm_pristine_changed(pristine);
    cm_oracle_want(pristine, 0, CM_ACCURACY_MODEL, nobody);
    for (int64_t n = 0; n < base[out].count; n++)
        if (base[out].value[n] != nobody[out].value[n] || base[out].sigma[n] != nobody[out].sigma[n])
            ck_abort_msg("%s: element %lld: %.17g with LoRA left out, %.17g without adapters", pristine->name,
                         (long long)n, base[out].value[n], nobody[out].value[n]);
    agree(pristine, nobody, tally);
    cm_oracle_close_wants(base);
    cm_oracle_close_wants(nobody);
}

// Accuracies -----------------------------------------------------------------------------------------

// Both have the same values, and MODEL has all rounding points of SINGLE.
static void check_accuracies(cm_pristine *pristine)
{
    const cm_op *op = pristine->test_case.op;
    const cm_want *model = want_of(pristine, CM_ACCURACY_MODEL),
                  *single = want_of(pristine, CM_ACCURACY_SINGLE);
    const double more = 1 + 1e-12;
    for (int out = 0; op->arguments[out].name; out++)
        for (int64_t n = 0; n < model[out].count; n++) {
            if (model[out].value[n] != single[out].value[n])
                ck_abort_msg("%s: element %lld depends on the accuracy", pristine->name, (long long)n);
            if (op->arguments[out].compare != CM_COMPARE_BOUNDED)
                continue;
            if (!(model[out].magnitude[n] == single[out].magnitude[n] &&
                  fabs(model[out].value[n]) <= model[out].magnitude[n] * more))
                ck_abort_msg("%s: element %lld: magnitude", pristine->name, (long long)n);
            if (!(model[out].sigma[n] * more >= single[out].sigma[n] && single[out].sigma[n] >= 0))
                ck_abort_msg("%s: element %lld: sigma %g of MODEL < %g of SINGLE", pristine->name,
                             (long long)n, model[out].sigma[n], single[out].sigma[n]);
            if (!(single[out].order[n] <= single[out].sigma[n] * more &&
                  model[out].order[n] <= model[out].sigma[n] * more))
                ck_abort_msg("%s: element %lld: the order's part of sigma is above sigma", pristine->name,
                             (long long)n);
        }
}

// Tests ----------------------------------------------------------------------------------------------

// Halves the widest dimension of a layer until the oracle can take it. Everything else stays as it is.
static bool narrow(const cm_op *op, char text[CM_CASE_TEXT])
{
    cm_case test_case;
    bool narrowed = false;
    ck_assert_int_eq(cm_case_parse(op, text, &test_case, NULL), CM_OK);
    for (;; narrowed = true) {
        double elements = 1;
        int64_t *widest = NULL;
        for (const char *letter = "EHID"; *letter; letter++) {
            int64_t *dim = &test_case.dims[cm_dim_index(*letter)];
            elements *= *letter == 'D' || *dim == 0 ? 1 : (double)*dim;
            widest = !widest || *dim > *widest ? dim : widest;
        }
        if (elements <= LARGEST)
            break;
        *widest /= 2;
    }
    cm_case_print(&test_case, text);
    return narrowed;
}

static cm_status visit(const char *listed, void *self)
{
    struct tally *tally = self;
    char text[CM_CASE_TEXT];
    if (tally->visited++ % EVERY != 0)
        return CM_OK;
    snprintf(text, sizeof text, "%s", listed);
    tally->narrowed += narrow(tally->op, text);
    cm_pristine *pristine = cm_new(1, sizeof *pristine);
    cm_oracle_open_case(tally->op, text, pristine);
    agree(pristine, want_of(pristine, CM_ACCURACY_MODEL), tally);
    check_accuracies(pristine);
    check_terms(pristine, tally);
    check_without_lora(pristine, tally);
    tally->cases++;
    tally->empty += pristine->test_case.dims[cm_dim_index('T')] == 0;
    cm_pristine_close(pristine);
    free(pristine);
    return CM_OK;
}

static void report(const char *suite, const struct tally *tally)
{
    if (tally->bad || verbose())
        fprintf(stderr, "%-12s %4d cases %9lld elements, worst |reference - oracle| / magnitude %.2e (%s)\n",
                suite, tally->cases, (long long)tally->elements, tally->worst, tally->worst_case);
    if (tally->narrowed && verbose())
        fprintf(stderr, "%-12s %4d of them with E, H, I and D halved until E H I <= %d\n", suite,
                tally->narrowed, LARGEST);
    if (tally->small_shares * 10 > tally->shares || (tally->shares && verbose()))
        fprintf(stderr, "%-12s LoRA is below 30 %% of the output in %d of %d cases; least %.3f (%s)\n", suite,
                tally->small_shares, tally->shares, tally->least_share, tally->least_share_case);
    ck_assert_int_eq(tally->bad, 0);
}

START_TEST(every_case_of_a_suite)
{
    const cm_suite *suite = cm_registry_suites()[_i];
    struct tally tally = {.op = cm_registry_find_op(suite->op, strlen(suite->op))};
    for (const cm_row *row = suite->rows; row->cases; row++) {
        tally.sets = row->sets;
        if (row->sets & (CM_SET_SMOKE | CM_SET_CI))
            ck_assert_int_eq(
                cm_paths_expand(row->cases, tally.op, cm_registry_kernels(), visit, &tally, NULL), CM_OK);
    }
    report(suite->name, &tally);
    if (tally.cases == 0) {
        ck_assert_ptr_nonnull(suite->files);
        return;
    }
    // What follows is asked of an op's own suite; and of every seventh case it would be too much.
    if (EVERY > 1 || strcmp(suite->name, suite->op) != 0)
        return;
    ck_assert_int_gt(tally.empty, 0);
    // The checks that judge LoRA on its own size need one: 30 % of the output in nine cases of ten.
    ck_assert_int_le(tally.small_shares * 10, tally.shares);
    for (int term = 0; tally.op->terms[term].name; term++)
        ck_assert_msg(tally.mattered[term] > 0 || !strcmp(tally.op->terms[term].name, "bias"),
                      "no case of %s has the term %s", suite->name, tally.op->terms[term].name);
}
END_TEST

// Biases and the router of the shared expert in all combinations.
START_TEST(optional_arguments)
{
    static const char *const names[] = {"bias_gate", "bias_up", "bias_down", "shared_router"};
    static const char *const texts[] = {"t9-k2-e4-h64-i48-d24-r8x2-f32-random-s1",
                                        "t9-k3-e4-h33-i17-d20-r8x2-bf16-holes-padded-random-s2",
                                        "t9-k2-e4-h64-i48-d24-f16-random-s3"};
    struct tally tally = {.op = cm_registry_find_op("moe_forward", strlen("moe_forward"))};
    cm_pristine *pristine = cm_new(1, sizeof *pristine);
    for (size_t text = 0; text < sizeof texts / sizeof *texts; text++)
        for (unsigned chosen = 0; chosen < 1u << 4; chosen++) {
            cm_oracle_open_case(tally.op, texts[text], pristine);
            for (int n = 0; n < 4; n++)
                if (chosen >> n & 1)
                    ck_assert(cm_oracle_add_argument(pristine, names[n], n < 3 ? -1 : -3));
            agree(pristine, want_of(pristine, CM_ACCURACY_MODEL), &tally);
            check_accuracies(pristine);
            check_terms(pristine, &tally);
            tally.cases++;
            cm_pristine_close(pristine);
        }
    free(pristine);
    report("optional", &tally);
    for (int term = 0; tally.op->terms[term].name; term++)
        ck_assert_int_gt(tally.mattered[term], 0);
}
END_TEST

Suite *cm_unit_reference(void);
Suite *cm_unit_reference(void)
{
    Suite *suite = suite_create("reference");
    TCase *tcase = tcase_create("reference");
    int suites = 0;
    while (cm_registry_suites()[suites])
        suites++;
    tcase_set_timeout(tcase, 300);
    tcase_add_loop_test(tcase, every_case_of_a_suite, 0, suites);
    tcase_add_test(tcase, optional_arguments);
    suite_add_tcase(suite, tcase);
    return suite;
}
