// SPDX-License-Identifier: Apache-2.0
// Values of cases: the same name makes the same bytes, on every machine; exact cases are proven exact and
// their outputs are not nearly all zero. CHECKMOE_SHOW=1 with CK_FORK=no prints the numbers.
#include "suites/unit/cases.h"

#include "harness/arena.h"
#include "harness/op.h"
#include "harness/paths.h"
#include "harness/registry.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

cm_pristine *cm_unit_open(const char *op, const char *name)
{
    cm_case test_case = cm_unit_case(op, name);
    cm_pristine *pristine = cm_new(1, sizeof *pristine);
    cm_error error = {{0}};
    if (cm_pristine_open(&test_case, NULL, pristine, &error) != CM_OK)
        ck_abort_msg("%s", error.message);
    return pristine;
}

void cm_unit_close(cm_pristine *pristine)
{
    cm_pristine_close(pristine);
    free(pristine);
}

const DLTensor *cm_unit_argument(const cm_pristine *pristine, const char *name)
{
    int n = cm_op_argument_index(pristine->test_case.op, name);
    ck_assert_msg(n >= 0, "%s has no argument %s", pristine->test_case.op->name, name);
    return pristine->arguments[n];
}

static bool is_input(const cm_pristine *pristine, int n)
{
    return pristine->arguments[n] && pristine->test_case.op->arguments[n].role != CM_OUTPUT;
}

// Elements of all inputs that differ; both cases have the same shapes.
static int64_t differences(const cm_pristine *a, const cm_pristine *b)
{
    int64_t count = 0;
    for (int n = 0; a->test_case.op->arguments[n].name; n++) {
        if (!is_input(a, n))
            continue;
        const char *left = a->arguments[n]->data, *right = b->arguments[n]->data;
        for (size_t byte = 0; byte < cm_tensor_extent(a->arguments[n]); byte++)
            count += left[byte] != right[byte];
    }
    return count;
}

static void expect_repeatable(const cm_op *op, const char *name)
{
    cm_pristine *first = cm_unit_open(op->name, name), *second = cm_unit_open(op->name, first->name);
    int64_t count = differences(first, second);
    if (count)
        ck_abort_msg("%s: %lld bytes differ", name, (long long)count);
    cm_unit_close(first);
    cm_unit_close(second);
}

START_TEST(a_name_is_its_bytes)
{
    cm_unit_draw(40, expect_repeatable);
}
END_TEST

static const char *const seeded[][2] = {
    {"moe_forward", "t9-k2-e4-h32-i24-r8x2-bf16-random"},
    {"moe_forward", "t9-k2-e4-h32-i24-r8x2-f32-exact"},
    {"sgmv_shrink", "t9-r8x3-K32-f16-random"},
    {"sgmv_expand", "t9-r8x3-n32-f16-exact"},
    {"sgmv", "t9-r8x3-K32-n32-f16-exact"},
    {"sgmv_plan", "t31-l5-random"},
    {"quantize", "t9-K32-g8-f16-qi4-exact"},
    {"dequantize", "t9-K32-g8-f16-qi4-random"},
};

START_TEST(seeds_differ)
{
    char name[CM_CASE_TEXT];
    cm_pristine *cases[3];
    static const char *const seeds[] = {"1", "2", "4294967297"}; // the last differs from 1 in its upper half
    for (int n = 0; n < 3; n++) {
        snprintf(name, sizeof name, "%s-s%s", seeded[_i][1], seeds[n]);
        cases[n] = cm_unit_open(seeded[_i][0], name);
    }
    ck_assert_int_gt(differences(cases[0], cases[1]), 4);
    ck_assert_int_gt(differences(cases[0], cases[2]), 4);
    ck_assert_int_gt(differences(cases[1], cases[2]), 4);
    for (int n = 0; n < 3; n++)
        cm_unit_close(cases[n]);
}
END_TEST

// Gaps between rows stay canaries; a shared dimension has stride 0.
START_TEST(layouts)
{
    cm_pristine *padded = cm_unit_open("moe_forward", "t4-k2-e3-h33-i17-r5x2-f16-padded-s1");
    cm_pristine *shared = cm_unit_open("moe_forward", "t4-k2-e3-h33-i17-r5x2-f16-shared_outer-s1");
    const DLTensor *up = cm_unit_argument(padded, "w_up");
    ck_assert_int_eq(up->strides[1], 36);
    const unsigned char *gap = (const unsigned char *)up->data + 33 * 2;
    for (int64_t row = 0; row + 1 < 3 * 17; row++, gap += 36 * 2)
        for (int byte = 0; byte < 6; byte++)
            if (gap[byte] != CM_CANARY)
                ck_abort_msg("row %lld: %02x", (long long)row, gap[byte]);
    ck_assert_int_eq(cm_unit_argument(padded, "token_adapter")->strides[0], 1);
    static const char *const names[] = {"lora_a_gate", "lora_a_up", "lora_b_down", "lora_a_down", "w_up"};
    for (int n = 0; n < 5; n++) {
        const DLTensor *tensor = cm_unit_argument(shared, names[n]);
        int expert = tensor->ndim == 4;
        int shareable = cm_op_argument_index(shared->test_case.op, names[n]);
        bool may = shared->test_case.op->arguments[shareable].shareable == 'E';
        ck_assert_msg((tensor->strides[expert] == 0) == may, "%s", names[n]);
    }
    cm_unit_close(padded);
    cm_unit_close(shared);
}
END_TEST

static struct proven {
    int levels[CM_EXACT_LEVELS], cases, layers;
    double share; // of wanted outputs that are not 0, summed over layers
} proven;

static void prove(const cm_op *op, const char *name)
{
    cm_error error = {{0}};
    if (!strstr(name, "-exact-"))
        return;
    cm_pristine *pristine = cm_unit_open(op->name, name);
    proven.levels[pristine->level]++;
    proven.cases++;
    int n = cm_op_argument_index(op, "output");
    bool empty = strstr(name, "-none-") || strstr(name, "t0-");
    if (n >= 0 && !empty) {
        ck_assert_int_eq(cm_pristine_want(pristine, CM_ACCURACY_MODEL, &error), CM_OK);
        const cm_want *want = &pristine->want[CM_ACCURACY_MODEL][n];
        int64_t nonzero = 0;
        for (int64_t i = 0; i < want->count; i++)
            nonzero += want->value[i] != 0;
        proven.share += (double)nonzero / (double)want->count;
        proven.layers++;
    }
    cm_unit_close(pristine);
}

static cm_status prove_one(const char *text, void *self)
{
    prove(self, text);
    return CM_OK;
}

START_TEST(exact_cases_are_proven)
{
    cm_error error = {{0}};
    proven = (struct proven){0};
    for (const cm_suite *const *suite = cm_registry_suites(); *suite; suite++)
        for (const cm_row *row = (*suite)->rows; row->cases; row++) {
            const cm_op *op = cm_registry_find_op((*suite)->op, strlen((*suite)->op));
            if (!(row->sets & CM_SET_FUZZ) &&
                cm_paths_expand(row->cases, op, cm_registry_kernels(), prove_one, (void *)(uintptr_t)op,
                                &error) != CM_OK)
                ck_abort_msg("%s", error.message);
        }
    cm_unit_draw(150, prove);
    if (getenv("CHECKMOE_SHOW"))
        printf("%d exact cases, by level %d %d %d %d; of %d layers %.3f of the outputs are not 0\n",
               proven.cases, proven.levels[0], proven.levels[1], proven.levels[2], proven.levels[3],
               proven.layers, proven.share / proven.layers);
    ck_assert_int_gt(proven.cases, 300);
    ck_assert_int_gt(proven.layers, 100);
    ck_assert_msg(proven.share / proven.layers >= 0.5, "%.3f", proven.share / proven.layers);
}
END_TEST

// SHA-256 of names and bytes of all inputs: a change of any generator, or a machine that computes otherwise,
// shows here. After a deliberate change, the failing test's message has the new value.
static const char *const hashed[][3] = {
    {"moe_forward", "t17-k2-e8-h64-i40-d24-r16x3-bf16-yf32-skewed-random-s7",
     "d5adb4f306bea5e45c18f7651a0293a60a2aec8aeb75adce5e21e08778f2e713"},
    {"moe_forward", "t9-k4-e16-h33-i17-r8x5-f16-holes-rank0-padded-exact-s2",
     "55911fe38b2d4ac330d04a4a76ffe04d3317bf5b8674882b308a88b33fac9187"},
    {"sgmv_shrink", "t33-r24x6-K100-S3-f32-abf16-random-s99",
     "b6e70f1bec1d23e70fa3f4717b8782a63d2cdb5dcdb10059c615b0b5787aa8c8"},
    {"sgmv_expand", "t16-r16x4-n90-S3-bf16-vf32-last-exact-s3",
     "38b57dd1a26a01b1e94cfc6fa8e5e053a8749bc85cf9a82b0fc29d679f0e8f36"},
    {"sgmv", "t16-r16x4-K40-n90-S3-bf16-last-exact-s3",
     "5737c787c8505a3278d08486e439add0048860badf430564d5a523fb43c6cc5c"},
    {"quantize", "t16-K161-g32-bf16-qi8-tiny-random-s6",
     "4d4cf6b131d00b9d5eb8d48af89a4072aa0506efda663ddb963f9479a210aa7a"},
    {"quantize", "t12-K63-g32-f16-qi4-zeros-padded-exact-s8",
     "448134372e7b86988f73cb78f8e589c12cd1c3641b48f571f5345e9f7db6fad5"},
    {"dequantize", "t12-K63-g32-bf16-qi4-huge-padded-random-s6",
     "4cc81597115247fef819c33f0c76611c357d9c66dbacb4a663e2e9b1896a4d5a"},
    {"sgmv_plan", "t257-l7-random-s1", "bd8147e75e6f3cb94f6960fcc6e41046556149f70fb43e5b6915253022fd0807"},
};

START_TEST(known_bytes)
{
    cm_pristine *pristine = cm_unit_open(hashed[_i][0], hashed[_i][1]);
    ck_assert_str_eq(pristine->name, hashed[_i][1]);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    char text[65] = "";
    ck_assert(context && EVP_DigestInit_ex(context, EVP_sha256(), NULL));
    for (int n = 0; pristine->test_case.op->arguments[n].name; n++) {
        const char *name = pristine->test_case.op->arguments[n].name;
        if (!is_input(pristine, n))
            continue;
        ck_assert(EVP_DigestUpdate(context, name, strlen(name) + 1));
        ck_assert(EVP_DigestUpdate(context, pristine->arguments[n]->data,
                                   cm_tensor_extent(pristine->arguments[n])));
    }
    ck_assert(EVP_DigestFinal_ex(context, digest, &length) && length == 32);
    for (unsigned n = 0; n < length; n++)
        snprintf(text + 2 * n, 3, "%02x", digest[n]);
    EVP_MD_CTX_free(context);
    cm_unit_close(pristine);
    ck_assert_str_eq(text, hashed[_i][2]);
}
END_TEST

// What can't be made is refused with the case's name, and a close after it is harmless.
static const char *const refused[][3] = {
    {"moe_forward", "t1-k1-e1-h8-i8-xi32-s1", "hidden can't be i32"},
    {"moe_forward", "t1-k1-e1-h8-i8-xi8-s1", "hidden can't be i8"},
    {"sgmv_shrink", "t1-r1x1-K8-f32-vi8-s1", "v can't be i8"},
    {"moe_forward", "t1-k1-e1-h8-i8-f64-s1", "can't be f64"},
    {"moe_forward", "t1-k1-e1-h8-i8-bf16-activation=clamped_swiglu-exact-s1",
     "no level of sparsity is exact"},
};

START_TEST(refuses_values)
{
    cm_case test_case = cm_unit_case(refused[_i][0], refused[_i][1]);
    cm_pristine *pristine = cm_new(1, sizeof *pristine);
    cm_error error = {{0}};
    ck_assert_int_ne(cm_pristine_open(&test_case, NULL, pristine, &error), CM_OK);
    ck_assert_msg(strstr(error.message, refused[_i][2]) != NULL, "%s", error.message);
    ck_assert_msg(strstr(error.message, "case t1-") != NULL, "%s", error.message);
    ck_assert_int_eq(pristine->mapping_count, 0);
    cm_unit_close(pristine);
}
END_TEST

TCase *cm_unit_case_values(void)
{
    TCase *tcase = tcase_create("values");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, a_name_is_its_bytes);
    tcase_add_loop_test(tcase, seeds_differ, 0, (int)(sizeof seeded / sizeof *seeded));
    tcase_add_test(tcase, layouts);
    tcase_add_test(tcase, exact_cases_are_proven);
    tcase_add_loop_test(tcase, known_bytes, 0, (int)(sizeof hashed / sizeof *hashed));
    tcase_add_loop_test(tcase, refuses_values, 0, (int)(sizeof refused / sizeof *refused));
    return tcase;
}
