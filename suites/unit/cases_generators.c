// SPDX-License-Identifier: Apache-2.0
// What the words of a case promise: who is routed where, who has which adapter, ranks and scalings, exact
// data that visits every place. Read from the values, with counting alone.
#include "suites/unit/cases.h"

#include "harness/op.h"
#include "harness/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// How often each expert is used, and how the slots of a token relate.
struct routed {
    int64_t T, k, E, holes, in_first, repeats; // repeats: a slot equal to an earlier one, -1 left out
    int64_t used[64];
};

static struct routed route(const char *word, int64_t k)
{
    char name[CM_CASE_TEXT];
    snprintf(name, sizeof name, "t400-k%lld-e16-h8-i8-%s-s3", (long long)k, word);
    cm_pristine *pristine = cm_unit_open("moe_forward", name);
    const DLTensor *ids = cm_unit_argument(pristine, "topk_ids");
    struct routed routed = {.T = ids->shape[0], .k = ids->shape[1], .E = 16};
    for (int64_t n = 0; n < routed.T * k; n++) {
        int64_t expert = (int64_t)cm_tensor_get(ids, n);
        bool again = false;
        for (int64_t before = n - n % k; before < n; before++)
            again = again || cm_tensor_get(ids, before) == (double)expert;
        ck_assert_int_ge(expert, -1);
        ck_assert_int_lt(expert, routed.E);
        routed.holes += expert < 0;
        routed.repeats += again && expert >= 0;
        routed.in_first += n % k == 0 && expert == routed.E - 1;
        if (expert >= 0)
            routed.used[expert]++;
    }
    cm_unit_close(pristine);
    return routed;
}

static void expect_distinct(const struct routed *routed)
{
    ck_assert_int_eq(routed->repeats, 0);
    ck_assert_int_eq(routed->holes, 0);
}

START_TEST(routing_uniform)
{
    struct routed routed = route("uniform", 4);
    expect_distinct(&routed);
    for (int expert = 0; expert < 16; expert++) // 100 expected, s.d. 9
        ck_assert_msg(routed.used[expert] > 55 && routed.used[expert] < 145, "expert %d: %lld tokens", expert,
                      (long long)routed.used[expert]);
}
END_TEST

START_TEST(routing_skewed)
{
    struct routed routed = route("skewed", 2);
    int64_t low = 0;
    expect_distinct(&routed);
    for (int expert = 0; expert < 16; expert++) {
        low += expert < 4 ? routed.used[expert] : 0;
        ck_assert_int_gt(routed.used[expert], 0);
    }
    ck_assert_int_gt(low, 400 * 2 * 2 / 5); // a quarter of the experts, half of the slots
}
END_TEST

START_TEST(routing_hot)
{
    struct routed routed = route("hot", 4);
    expect_distinct(&routed);
    ck_assert_int_eq(routed.in_first, routed.T);
    ck_assert_int_eq(routed.used[15], routed.T);
}
END_TEST

START_TEST(routing_idle)
{
    struct routed routed = route("idle", 4);
    expect_distinct(&routed);
    for (int expert = 0; expert < 16; expert++)
        ck_assert_msg((routed.used[expert] == 0) == (expert % 2 == 1), "expert %d", expert);
}
END_TEST

START_TEST(routing_duplicate)
{
    struct routed routed = route("duplicate", 4);
    ck_assert_int_eq(routed.holes, 0);
    ck_assert_int_gt(routed.repeats, 400 * 3 * 2 / 5); // half of all slots but the first
    ck_assert_int_lt(routed.repeats, 400 * 3 * 3 / 5);
}
END_TEST

START_TEST(routing_holes)
{
    struct routed routed = route("holes", 4);
    ck_assert_int_eq(routed.repeats, 0);
    ck_assert_int_gt(routed.holes, 1600 / 5);
    ck_assert_int_lt(routed.holes, 1600 * 3 / 10);
    ck_assert_int_eq(route("none", 4).holes, 1600);
}
END_TEST

START_TEST(routing_of_all_experts)
{
    static const char *const words[] = {"uniform", "skewed", "hot"};
    struct routed routed = route(words[_i], 16);
    expect_distinct(&routed);
    for (int expert = 0; expert < 16; expert++)
        ck_assert_int_eq(routed.used[expert], 400);
}
END_TEST

static const struct crowded {
    const char *name, *part; // part NULL: fine
} crowded[] = {
    {"t3-k5-e4-h8-i8-s1", "routing uniform: k = 5 is more than the 4 experts in use"},
    {"t3-k3-e4-h8-i8-idle-s1", "routing idle: k = 3 is more than the 2 experts in use"},
    {"t3-k5-e4-h8-i8-holes-s1", "more than the 4 experts"},
    {"t3-k5-e4-h8-i8-none-s1", NULL},
    {"t3-k1-e1-h8-i8-idle-s1", NULL},
    {"t3-k2-e3-h8-i8-idle-s1", NULL},
};

START_TEST(refuses_too_few_experts)
{
    cm_case test_case = cm_unit_case("moe_forward", crowded[_i].name);
    cm_pristine *pristine = cm_new(1, sizeof *pristine);
    cm_error error = {{0}};
    cm_status status = cm_pristine_open(&test_case, NULL, pristine, &error);
    ck_assert_msg(status == (crowded[_i].part ? CM_BAD_VALUE : CM_OK), "%s", error.message);
    if (crowded[_i].part)
        ck_assert_msg(strstr(error.message, crowded[_i].part) != NULL, "%s", error.message);
    cm_unit_close(pristine);
}
END_TEST

// Tokens, ranks and scalings of each word: 300 tokens, 5 adapters, r = 8.
static const struct adapted {
    const char *word;
    int least_none, most_none; // tokens without adapter
    bool last_only, odd_zero, full_rank;
} adapted[] = {
    {"mixed", 30, 90, false, false, false}, {"full", 0, 0, false, false, true},
    {"null", 300, 300, false, false, true}, {"last", 1, 1, true, false, true},
    {"rank0", 0, 0, false, true, false},
};

START_TEST(adapters_by_word)
{
    const struct adapted *row = &adapted[_i];
    char name[CM_CASE_TEXT];
    snprintf(name, sizeof name, "t300-k1-e2-h8-i8-r8x5-%s-%s-s%d", row->word, _i % 2 ? "exact" : "random",
             _i);
    cm_pristine *pristine = cm_unit_open("moe_forward", name);
    const DLTensor *adapter = cm_unit_argument(pristine, "token_adapter");
    const DLTensor *rank = cm_unit_argument(pristine, "lora_rank"),
                   *scaling = cm_unit_argument(pristine, "lora_scaling");
    int none = 0, used[5] = {0}, different = 0;
    for (int64_t t = 0; t < 300; t++) {
        int a = (int)cm_tensor_get(adapter, t);
        ck_assert(a >= -1 && a < 5);
        none += a < 0;
        if (a >= 0)
            used[a]++;
    }
    ck_assert_msg(none >= row->least_none && none <= row->most_none, "%d of 300 have none", none);
    for (int a = 0; a < 5; a++) {
        double s = cm_tensor_get(scaling, a), r = cm_tensor_get(rank, a);
        int exponent;
        ck_assert_int_eq(used[a] > 0, row->most_none < 300 && (!row->last_only || a == 4));
        ck_assert_msg(r >= 0 && r <= 8 && (r == 0) == (row->odd_zero && a % 2 == 1), "rank %g", r);
        ck_assert(!row->full_rank || r == 8);
        different += r != 8;
        ck_assert_msg(s != 1 && s > 0, "scaling %g", s);
        ck_assert_msg(_i % 2 == 0 || frexp(s, &exponent) == 0.5, "scaling %g is no power of 2", s);
        ck_assert(a == 0 || s != cm_tensor_get(scaling, a - 1));
    }
    ck_assert(cm_tensor_get(rank, 0) == 8);
    ck_assert_int_eq(different > 0, !row->full_rank);
    cm_unit_close(pristine);
}
END_TEST

// The generated plan, sgmv_plan's reference and the adapters of the tokens tell the same story.
START_TEST(plans_agree)
{
    static const char *const words[] = {"mixed", "full", "null", "last", "rank0"};
    char name[CM_CASE_TEXT];
    cm_error error = {{0}};
    snprintf(name, sizeof name, "t37-r8x5-K16-%s-s4", words[_i]);
    cm_pristine *shrink = cm_unit_open("sgmv_shrink", name);
    snprintf(name, sizeof name, "t37-l5-%s-s4", words[_i % 4]);
    cm_pristine *plan = cm_unit_open("sgmv_plan", name);
    ck_assert_int_eq(cm_pristine_want(plan, CM_ACCURACY_MODEL, &error), CM_OK);
    static const char *const parts[] = {"permutation", "segment_offset", "segment_adapter"};
    for (int part = 0; part < 3 && _i < 4; part++) {
        const DLTensor *got = cm_unit_argument(shrink, parts[part]);
        const cm_want *want =
            &plan->want[CM_ACCURACY_MODEL][cm_op_argument_index(plan->test_case.op, parts[part])];
        ck_assert_int_eq(cm_tensor_count(got), want->count);
        for (int64_t n = 0; n < want->count; n++)
            ck_assert_msg(cm_tensor_get(got, n) == want->value[n], "%s[%lld]", parts[part], (long long)n);
    }
    const DLTensor *permutation = cm_unit_argument(shrink, "permutation"),
                   *offset = cm_unit_argument(shrink, "segment_offset");
    bool seen[37] = {false};
    for (int64_t n = 0; n < 37; n++) {
        int64_t t = (int64_t)cm_tensor_get(permutation, n);
        ck_assert(t >= 0 && t < 37 && !seen[t]);
        seen[t] = true;
    }
    ck_assert(cm_tensor_get(offset, 0) == 0 && cm_tensor_get(offset, 6) == 37);
    cm_unit_close(shrink);
    cm_unit_close(plan);
}
END_TEST

// Exact matrices: powers of two, no more non-zeros than the table says, below the rank where it says so,
// every column visited, the first row at the last place and the second at the first.
static void expect_exact_matrix(const cm_pristine *pristine, const char *name)
{
    const DLTensor *tensor = cm_unit_argument(pristine, name);
    const cm_op *op = pristine->test_case.op;
    const cm_fill *fill = &op->arguments[cm_op_argument_index(op, name)].fill;
    int64_t columns = tensor->shape[tensor->ndim - 1], rows = cm_tensor_count(tensor) / columns;
    int64_t per_matrix = tensor->shape[tensor->ndim - 2], visited = 0;
    bool *seen = cm_new((size_t)columns, sizeof *seen);
    for (int64_t row = 0; row < rows; row++) {
        int nonzeros = 0, exponent;
        for (int64_t column = 0; column < columns; column++) {
            double value = cm_tensor_get(tensor, row * columns + column);
            nonzeros += value != 0;
            seen[column] = seen[column] || value != 0;
            ck_assert_msg(value == 0 || fabs(frexp(value, &exponent)) == 0.5, "%s: %g", name, value);
        }
        ck_assert_msg(nonzeros <= fill->exact_nonzeros, "%s: %d non-zeros in row %lld", name, nonzeros,
                      (long long)row);
        if (!fill->within_rank && row % per_matrix < 2)
            ck_assert_msg(cm_tensor_get(tensor, row * columns + (row % per_matrix ? 0 : columns - 1)) != 0,
                          "%s: row %lld", name, (long long)row);
    }
    for (int64_t column = 0; column < columns; column++)
        visited += seen[column];
    bool enough = rows * fill->exact_nonzeros >= 8 * columns; // places are drawn, not counted through
    ck_assert_msg(visited == columns || (!enough && 4 * visited >= 3 * columns), "%s: %lld of %lld columns",
                  name, (long long)visited, (long long)columns);
    free(seen);
}

START_TEST(exact_matrices)
{
    static const char *const names[] = {"w_gate",      "w_up",      "w_down",
                                        "lora_a_gate", "lora_a_up", "lora_a_down"};
    cm_pristine *layer = cm_unit_open("moe_forward", "t9-k2-e8-h64-i40-r8x3-bf16-exact-s1");
    ck_assert_int_eq(layer->level, 0);
    for (size_t n = 0; n < sizeof names / sizeof *names; n++)
        expect_exact_matrix(layer, names[n]);
    const DLTensor *b = cm_unit_argument(layer, "lora_b_up"), *rank = cm_unit_argument(layer, "lora_rank");
    for (int64_t n = 0; n < cm_tensor_count(b); n++) // [L, E, I, r]
        if (n % 8 >= (int64_t)cm_tensor_get(rank, n / (8 * 40 * 8)))
            ck_assert_msg(cm_tensor_get(b, n) == 0, "lora_b_up[%lld] is behind its rank", (long long)n);
    const DLTensor *weights = cm_unit_argument(layer, "topk_weights");
    for (int64_t n = 0; n < cm_tensor_count(weights); n++)
        ck_assert(cm_tensor_get(weights, n) == 0.5 || cm_tensor_get(weights, n) == 0.25);
    cm_unit_close(layer);
}
END_TEST

// Random values have the s.d. that the table asks for, to within a factor of 1.3, and no mean.
START_TEST(random_values)
{
    static const struct {
        const char *name;
        double deviation;
    } rows[] = {{"hidden", 1}, {"w_gate", 0.0625}, {"w_down", 0.125}, {"lora_a_up", 0.0625}};
    cm_pristine *layer = cm_unit_open("moe_forward", "t16-k2-e4-h256-i64-r8x3-f32-random-s1");
    for (size_t m = 0; m < sizeof rows / sizeof *rows; m++) {
        const DLTensor *tensor = cm_unit_argument(layer, rows[m].name);
        double count = (double)cm_tensor_count(tensor), sum = 0, squares = 0;
        for (int64_t n = 0; n < cm_tensor_count(tensor); n++) {
            double value = cm_tensor_get(tensor, n) / rows[m].deviation;
            sum += value;
            squares += value * value;
        }
        ck_assert_msg(fabs(sum) < 5 * sqrt(count), "%s: mean %g", rows[m].name, sum / count);
        ck_assert_msg(squares / count > 1 / 1.69 && squares / count < 1.69, "%s: variance %g", rows[m].name,
                      squares / count);
    }
    const DLTensor *weights = cm_unit_argument(layer, "topk_weights");
    for (int64_t n = 0; n < cm_tensor_count(weights); n++) {
        double value = cm_tensor_get(weights, n);
        ck_assert(value >= 0x1p-4 && value <= 0.5 && value * 1024 == floor(value * 1024));
    }
    cm_unit_close(layer);
}
END_TEST

// The known answer of Random123, and the ranges of what is derived from it.
START_TEST(philox)
{
    philox4x32_ctr_t counter = {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}};
    philox4x32_key_t key = {{0xa4093822, 0x299f31d0}};
    philox4x32_ctr_t bits = philox4x32(counter, key);
    ck_assert_uint_eq(bits.v[0], 0xd16cfe09);
    ck_assert_uint_eq(bits.v[1], 0x94fdcceb);
    ck_assert_uint_eq(bits.v[2], 0x5001e420);
    ck_assert_uint_eq(bits.v[3], 0x24126ea1);
    cm_rng rng = {7, 1};
    int counts[5] = {0};
    for (uint64_t n = 0; n < 10000; n++) {
        int64_t below = cm_rng_below(rng, n, 5);
        int32_t normal = cm_rng_normal(rng, n);
        if (below < 0 || below >= 5 || normal <= -(1 << 18) || normal >= 1 << 18)
            ck_abort_msg("%lld, %d", (long long)below, normal);
        counts[below]++;
    }
    for (int n = 0; n < 5; n++)
        ck_assert(counts[n] > 1800 && counts[n] < 2200);
    ck_assert_int_eq(cm_rng_below(rng, 1, 1), 0);
    ck_assert(cm_rng_bits(rng, 1) != cm_rng_bits((cm_rng){8, 1}, 1));
    ck_assert(cm_rng_bits(rng, 1) != cm_rng_bits((cm_rng){7, 2}, 1));
    ck_assert(cm_rng_bits(rng, 1) != cm_rng_bits((cm_rng){7ull << 32, 1}, 1));
    ck_assert(cm_rng_bits(rng, 1) != cm_rng_bits(rng, 1ull << 32 | 1));
}
END_TEST

TCase *cm_unit_case_generators(void)
{
    TCase *tcase = tcase_create("generators");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, routing_uniform);
    tcase_add_test(tcase, routing_skewed);
    tcase_add_test(tcase, routing_hot);
    tcase_add_test(tcase, routing_idle);
    tcase_add_test(tcase, routing_duplicate);
    tcase_add_test(tcase, routing_holes);
    tcase_add_loop_test(tcase, routing_of_all_experts, 0, 3);
    tcase_add_loop_test(tcase, refuses_too_few_experts, 0, (int)(sizeof crowded / sizeof *crowded));
    tcase_add_loop_test(tcase, adapters_by_word, 0, (int)(sizeof adapted / sizeof *adapted));
    tcase_add_loop_test(tcase, plans_agree, 0, 5);
    tcase_add_test(tcase, exact_matrices);
    tcase_add_test(tcase, random_values);
    tcase_add_test(tcase, philox);
    return tcase;
}
