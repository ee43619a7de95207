// SPDX-License-Identifier: Apache-2.0
// Every symmetry that an op's table lists, held against its reference: what is transformed follows from the
// table alone. Relations that are wrong on purpose show that the comparison would notice.
#include "harness/op.h"
#include "harness/registry.h"
#include "harness/relations.h"
#include "suites/unit/oracle.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOLERANCE 1e-12 // of sum |terms|: permuting changes the order of sums

// The reference in the place of a kernel; bounds are for the order of sums.
static cm_relation_end run_reference(cm_evaluator *evaluator, cm_pristine *values, bool bounds,
                                     cm_results *results)
{
    cm_want wants[CM_MAX_ARGUMENTS];
    (void)evaluator;
    cm_oracle_want(values, 0, CM_ACCURACY_SINGLE, wants);
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++)
        for (int64_t i = 0; results->value[n] && i < wants[n].count; i++) {
            results->value[n][i] = wants[n].value[i];
            if (bounds)
                results->bound[n][i] = TOLERANCE * wants[n].magnitude[i];
        }
    cm_oracle_close_wants(wants);
    return CM_RELATION_HOLDS;
}

// Elements that differ between values of 0 and terms that are left out.
static int64_t violations_of_terms(const cm_pristine *pristine, const cm_symmetry *symmetry)
{
    cm_pristine *zero = cm_new(1, sizeof *zero);
    cm_want with_zero[CM_MAX_ARGUMENTS], without[CM_MAX_ARGUMENTS];
    int64_t bad = 0;
    ck_assert_int_eq(cm_pristine_copy(pristine, zero, NULL), CM_OK);
    for (int n = 0; pristine->test_case.op->arguments[n].name; n++) {
        const char *name = pristine->test_case.op->arguments[n].name;
        if (zero->arguments[n] && cm_has_word(symmetry->arguments, name, strlen(name)))
            for (int64_t i = 0; i < cm_tensor_count(zero->arguments[n]); i++)
                cm_tensor_set(zero->arguments[n], i, 0);
    }
    cm_pristine_changed(zero);
    cm_oracle_want(zero, 0, CM_ACCURACY_SINGLE, with_zero);
    cm_oracle_want(pristine, symmetry->terms, CM_ACCURACY_SINGLE, without);
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++)
        for (int64_t i = 0; i < without[n].count; i++)
            bad += with_zero[n].value[i] != without[n].value[i];
    cm_oracle_close_wants(with_zero);
    cm_oracle_close_wants(without);
    cm_pristine_close(zero);
    free(zero);
    return bad;
}

static const char *const nothing[] = {NULL};

// Returns the number of violations, -1 if the case has nothing to transform.
static int64_t violations_of(const cm_op *op, const cm_symmetry *symmetry, const char *text,
                             const char *const *added, const char *only, int64_t *compared)
{
    cm_pristine *pristine = cm_new(1, sizeof *pristine);
    cm_evaluator evaluator = {.evaluate = run_reference};
    cm_results base;
    cm_violation violation;
    cm_oracle_open_case(op, text, pristine);
    for (; *added; added++)
        cm_oracle_add_argument(pristine, *added, -2);
    cm_pristine_changed(pristine);
    cm_results_open(pristine, true, &base);
    run_reference(&evaluator, pristine, true, &base);
    cm_relation_end end = cm_relation_hold(symmetry, pristine, &base, only, &evaluator, &violation);
    ck_assert_int_ne(end, CM_RELATION_FAILED);
    *compared += violation.compared;
    int64_t bad = end == CM_RELATION_IDLE ? -1 : violation.violated;
    if (symmetry->kind == CM_SYMMETRY_OMIT) {
        int64_t terms = violations_of_terms(pristine, symmetry);
        bad = terms > bad ? terms : bad;
    }
    cm_results_close(&base);
    cm_pristine_close(pristine);
    free(pristine);
    return bad;
}

struct search {
    const cm_op *op;
    int64_t compared[24]; // by symmetry
    int cases;
};

static cm_status try_case(const char *text, void *self)
{
    struct search *search = self;
    for (int n = 0; search->op->symmetries[n].name; n++) {
        const cm_symmetry *symmetry = &search->op->symmetries[n];
        int64_t bad = violations_of(search->op, symmetry, text, nothing, NULL, &search->compared[n]);
        ck_assert_msg(bad <= 0, "%s/%s: \"%s\" is violated by %lld elements of the reference",
                      search->op->name, text, symmetry->name, (long long)bad);
    }
    search->cases++;
    return CM_OK;
}

// Cases of each op.
static const struct cases {
    const char *op, *pattern;
} cases[] = {
    {"moe_forward", "t{1,9}-k{1,3}-e5-h33-i17-{,d20}-r8x3-{bf16,f32}-{uniform,holes,duplicate}-random-s1"},
    {"moe_forward", "t9-k2-e4-h48-i32-d24-r8x3-f16-{padded,shared_outer}-{full,rank0}-random-s2"},
    {"moe_forward", "t9-k2-e4-h48-i32-{bf16,f16,f32}-random-s3"},
    {"moe_forward", "t9-k2-e4-h48-i32-d24-r8x3-{bf16,f32}-exact-s4"},
    {"moe_forward",
     "t9-k2-e5-h33-i17-d20-r8x3-bf16-{map_reversed,map_shuffled,map_replicated}-{random,exact}-s5"},
    {"sgmv_shrink",
     "t{1,9}-r{1,8}x3-K{33,64}-S{1,3}-{bf16,f32}-{mixed,last,rank0}-{packed,padded}-random-s1"},
    {"sgmv_shrink", "t9-r8x3-K64-S3-bf16-vf32-{mixed,full}-exact-s2"},
    {"sgmv_expand",
     "t{1,9}-r{1,8}x3-n{33,64}-S{1,3}-{bf16,f32}-{,accumulate=0}-{mixed,last,rank0}-random-s1"},
    {"sgmv_expand", "t9-r8x3-n64-S3-bf16-vf32-{mixed,full,padded}-exact-s2"},
    {"sgmv",
     "t{1,9}-r{1,8}x3-K{33,64}-n{33,64}-S{1,3}-{bf16,f32}-{,accumulate=0}-{mixed,last,rank0}-random-s1"},
    {"sgmv", "t9-r8x3-K64-n64-S3-bf16-yf32-{mixed,full,padded}-exact-s2"},
    {"sgmv_plan", "t9-l3-{mixed,full}-random-s1"},
    {"quantize", "t{1,9}-K{1,33,64}-{,g32}-{bf16,f16,f32}-{qi8,qi4}-{ordinary,zeros,huge}-{random,exact}-s1"},
    {"dequantize", "t{1,9}-K{1,33,64}-{,g32}-{bf16,f16,f32}-{qi8,qi4}-{zeros,tiny}-{random,exact}-s1"},
};

START_TEST(every_listed_symmetry_holds)
{
    for (const cm_op *const *op = cm_registry_ops(); *op; op++) {
        struct search search = {.op = *op};
        for (size_t n = 0; n < sizeof cases / sizeof *cases; n++)
            if (!strcmp(cases[n].op, (*op)->name))
                ck_assert_int_eq(cm_case_expand(cases[n].pattern, try_case, &search, NULL), CM_OK);
        ck_assert_msg(search.cases > 0, "no case of %s is tried here", (*op)->name);
        for (int n = 0; (*op)->symmetries[n].name; n++) {
            ck_assert_msg(search.compared[n] > 0, "%s: nothing showed \"%s\"", (*op)->name,
                          (*op)->symmetries[n].name);
            if (getenv("CM_VERBOSE"))
                fprintf(stderr, "%-12s %-22s %8lld elements\n", (*op)->name, (*op)->symmetries[n].name,
                        (long long)search.compared[n]);
        }
    }
}
END_TEST

// With arguments that no case has yet.
START_TEST(symmetries_hold_with_optional_arguments)
{
    static const char *const added[] = {"bias_gate", "bias_up", "bias_down", "shared_router", NULL};
    const cm_op *op = cm_registry_find_op("moe_forward", strlen("moe_forward"));
    for (int n = 0; op->symmetries[n].name; n++) {
        int64_t compared = 0,
                bad = violations_of(op, &op->symmetries[n], "t9-k2-e4-h48-i32-d24-r8x3-f32-holes-random-s5",
                                    added, NULL, &compared);
        ck_assert_msg(bad == 0, "\"%s\" is violated by %lld elements of the reference with biases",
                      op->symmetries[n].name, (long long)bad);
    }
}
END_TEST

#define MOE    "moe_forward", "t9-k2-e4-h48-i32-r8x3-bf16-random-s1"
#define SHRINK "sgmv_shrink", "t9-r8x3-K64-S3-bf16-random-s1"
#define CODES  "dequantize", "t9-K64-g32-bf16-qi8-random-s1"
#define EXPAND "sgmv_expand", "t9-r8x3-n64-S3-bf16-random-s1"
#define PAIR   "sgmv", "t9-r8x3-K64-n64-S3-bf16-random-s1"

static const struct wrong {
    const char *op, *cases;
    const char *only; // of the arguments that should be permuted; NULL: all
    cm_symmetry symmetry;
} wrong[] = {
    {MOE, "w_gate", {"", CM_SYMMETRY_PERMUTE, 'I', NULL, 0, NULL}},
    {MOE, "w_gate w_up w_down", {"", CM_SYMMETRY_PERMUTE, 'I', NULL, 0, NULL}},
    {MOE, "topk_ids", {"", CM_SYMMETRY_PERMUTE, 'E', NULL, 0, NULL}},
    {MOE, "topk_ids", {"", CM_SYMMETRY_PERMUTE, 'k', NULL, 0, NULL}},
    {MOE, "hidden w_gate w_up lora_a_gate lora_a_up", {"", CM_SYMMETRY_PERMUTE, 'H', NULL, 0, NULL}},
    {MOE, NULL, {"", CM_SYMMETRY_SCALE, 0, "w_gate", 0, NULL}},
    {MOE, NULL, {"", CM_SYMMETRY_SCALE, 0, "w_down", 0, NULL}},
    {MOE, NULL, {"", CM_SYMMETRY_OMIT, 0, "lora_scaling", 1, NULL}},
    {MOE, NULL, {"", CM_SYMMETRY_OMIT, 0, "w_up", 7, NULL}},
    {SHRINK, "lora_a", {"", CM_SYMMETRY_PERMUTE, 'K', NULL, 0, NULL}},
    {SHRINK, "segment_adapter", {"", CM_SYMMETRY_PERMUTE, 'L', NULL, 0, NULL}},
    {EXPAND, NULL, {"", CM_SYMMETRY_PERMUTE, 'N', NULL, 0, NULL}},
    {CODES, "scale", {"", CM_SYMMETRY_PERMUTE, 'T', NULL, 0, NULL}},
    {EXPAND, NULL, {"", CM_SYMMETRY_SCALE, 0, "y", 0, NULL}},
    {EXPAND, NULL, {"", CM_SYMMETRY_OMIT, 0, "lora_scaling", 2, NULL}},
    {PAIR, "x", {"", CM_SYMMETRY_PERMUTE, 'K', NULL, 0, NULL}},
    {PAIR, NULL, {"", CM_SYMMETRY_SCALE, 0, "y lora_a lora_b", 0, NULL}},
    {PAIR, NULL, {"", CM_SYMMETRY_BALANCE, 0, "lora_a lora_b", 0, "lora_scaling"}},
    {PAIR, NULL, {"", CM_SYMMETRY_LINEAR, 0, "lora_a lora_b", 0, NULL}},
    {MOE, NULL, {"", CM_SYMMETRY_OMIT, 'L', "lora_b_down", 4, NULL}},
    {MOE, NULL, {"", CM_SYMMETRY_BALANCE, 0, "lora_scaling", 0, "lora_b_down lora_b_up"}},
    {MOE, NULL, {"", CM_SYMMETRY_LINEAR, 0, "lora_scaling", 0, NULL}},
    {MOE, NULL, {"", CM_SYMMETRY_LINEAR, 0, "lora_b_gate", 0, NULL}},
};

START_TEST(a_wrong_symmetry_is_noticed)
{
    int64_t compared = 0;
    const struct wrong *row = &wrong[_i];
    const cm_op *op = cm_registry_find_op(row->op, strlen(row->op));
    int64_t bad = violations_of(op, &row->symmetry, row->cases, nothing, row->only, &compared);
    ck_assert_msg(bad * 3 > compared, "only %lld of %lld elements notice", (long long)bad,
                  (long long)compared);
}
END_TEST

Suite *cm_unit_symmetry(void);
Suite *cm_unit_symmetry(void)
{
    Suite *suite = suite_create("symmetry");
    TCase *tcase = tcase_create("symmetry");
    tcase_set_timeout(tcase, 300);
    tcase_add_test(tcase, every_listed_symmetry_holds);
    tcase_add_test(tcase, symmetries_hold_with_optional_arguments);
    tcase_add_loop_test(tcase, a_wrong_symmetry_is_noticed, 0, sizeof wrong / sizeof *wrong);
    suite_add_tcase(suite, tcase);
    return suite;
}
