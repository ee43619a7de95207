// SPDX-License-Identifier: Apache-2.0
// The references' sigma where values leave the range of fp32: deep gates, whose exp overflows; products and
// LoRA terms below 2^-126; subnormal inputs; a shared expert whose router has closed. Kernels with gradual
// underflow, with flushing and with a clamped exp are clean and must be within the bound, and the bound must
// stay a few units of the smallest normal number: a clamp that is too early is beyond it.
#include "harness/compare.h"
#include "harness/op.h"
#include "harness/registry.h"
#include "suites/unit/sigma.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS(table) (int)(sizeof(table) / sizeof *(table))
#define LEAST       0x1p-126

// New values of an argument: factor * |old| or, with sign 0, factor * old.
struct change {
    const char *name;
    int sign;
    double factor;
};

static const struct row {
    const char *op, *text;
    struct change changes[6];
    double early; // a clamp of sigmoid that must be beyond the bound; 0: clamps do not matter here
} rows[] = {
#define MOE(dtype) "moe_forward", dtype "t20-k2-e4-h64-i48-r8x3-full-random-s3"
#define DEEP(dtype, depth)                                                                                   \
    {                                                                                                        \
        MOE(dtype), {{"hidden", 1, 1}, {"w_gate", -1, depth}, {"lora_b_gate", 0, 0.1}}, 0x1p-115             \
    }
    DEEP("f32-", 40),
    DEEP("f32-", 60),
    DEEP("f32-", 200),
    DEEP("bf16-yf32-", 50),
    DEEP("bf16-", 40),
    {MOE("f32-"), {{"hidden", 0, 1e-19}, {"w_up", 0, 1e-20}, {"lora_b_up", 0, 1e-20}}, 0},
    {MOE("f32-"), {{"hidden", 0, 0x1p-130}}, 0},
    {MOE("bf16-yf32-"), {{"hidden", 0, 0x1p-70}, {"w_up", 0, 0x1p-60}, {"lora_a_up", 0, 0x1p-60}}, 0},
    {MOE("f32-"), {{"w_down", 0, 0}, {"lora_b_down", 0, 1e-38}}, 0},
    {"moe_forward",
     "f32-t20-k2-e4-h64-i48-d40-random-s3",
     {{"topk_weights", 0, 0}, {"hidden", 1, 1}, {"shared_router", -1, 30}},
     0x1p-115},
    {"sgmv_shrink", "f32-t20-r8x3-K64-full-random-s3", {{"x", 0, 1e-20}, {"lora_a", 0, 1e-19}}, 0},
    {"sgmv_shrink", "bf16-vf32-t20-r8x3-K64-full-random-s3", {{"x", 0, 0x1p-130}}, 0},
    {"sgmv_expand",
     "f32-t20-r8x3-n65-full-accumulate=0-random-s3",
     {{"v", 0, 1e-20}, {"lora_b", 0, 1e-19}},
     0},
    {"sgmv", "f32-t20-r8x3-K64-n65-full-accumulate=0-random-s3", {{"x", 0, 1e-20}, {"lora_a", 0, 1e-19}}, 0},
    {"sgmv",
     "bf16-yf32-t20-r8x3-K64-n65-full-accumulate=0-random-s3",
     {{"lora_a", 0, 1e-20}, {"lora_b", 0, 1e-19}},
     0},
};

static void change_values(cm_pristine *pristine, const struct row *row)
{
    for (int n = 0; n < ROWS(row->changes) && row->changes[n].name; n++) {
        const struct change *change = &row->changes[n];
        const DLTensor *tensor = cm_oracle_argument(pristine, change->name);
        ck_assert_msg(tensor != NULL, "%s has no %s", row->text, change->name);
        for (int64_t i = 0; i < cm_tensor_count(tensor); i++) {
            double old = cm_tensor_get(tensor, i);
            cm_tensor_set(tensor, i, change->factor * (change->sign ? change->sign * fabs(old) : old));
        }
    }
}

struct outcome {
    int64_t count, beyond, far; // far: what relative errors alone would not allow
    double widest;              // bound, in LEAST
};

static struct outcome run(cm_pristine *pristine, const struct row *row, cm_accuracy accuracy,
                          enum cm_sigma_range range, double least)
{
    struct outcome outcome = {0};
    struct cm_sigma_kernel kernel;
    const cm_case *test_case = &pristine->test_case;
    int out = cm_op_argument_count(test_case->op) - 1;
    const cm_want *want = &pristine->want[accuracy][out];
    cm_dtype dtype = pristine->tensors[out].dtype;
    bool moe = !strcmp(row->op, "moe_forward");
    cm_sigma_open(pristine, test_case->dtypes[moe ? 'x' : 'y'], accuracy, false, &kernel);
    cm_sigma_set_range(&kernel, range, least);
    (moe                               ? cm_sigma_moe_forward
     : !strcmp(row->op, "sgmv_shrink") ? cm_sigma_shrink
     : !strcmp(row->op, "sgmv_expand") ? cm_sigma_expand
                                       : cm_sigma_pair)(&kernel);
    for (int64_t n = 0; n < want->count; n++) {
        double got = cm_sigma_rounded(dtype, kernel.output[n]), error = fabs(got - want->value[n]);
        double bound = cm_bound(want, n, dtype);
        outcome.beyond += !(error <= bound);
        outcome.far += error > 0.5 * fabs(want->value[n]);
        outcome.widest = fmax(outcome.widest, bound / LEAST);
    }
    outcome.count = want->count;
    free(kernel.output);
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++)
        free(kernel.values[n]);
    return outcome;
}

START_TEST(holds_outside_the_range)
{
    static const cm_accuracy accuracies[] = {CM_ACCURACY_SINGLE, CM_ACCURACY_MODEL};
    static const char *const words[] = {"gradual", "flushed", "clamped"};
    const struct row *row = &rows[_i];
    cm_pristine *pristine = cm_new(1, sizeof *pristine);
    cm_oracle_open_case(cm_registry_find_op(row->op, strlen(row->op)), row->text, pristine);
    if (cm_oracle_argument(pristine, "shared_gate"))
        cm_oracle_add_argument(pristine, "shared_router", -1);
    change_values(pristine, row);
    int64_t far = 0;
    for (int n = 0; n < ROWS(accuracies); n++) {
        cm_accuracy accuracy = accuracies[n];
        ck_assert_int_eq(cm_pristine_want(pristine, accuracy, NULL), CM_OK);
        for (int range = CM_SIGMA_GRADUAL; range <= CM_SIGMA_CLAMPED; range++) {
            struct outcome clean = run(pristine, row, accuracy, (enum cm_sigma_range)range, LEAST);
            if (getenv("CM_VERBOSE"))
                fprintf(stderr,
                        "%-52s %-6s %-7s beyond %lld, off by half %lld of %lld, bound at most %.3g FLT_MIN\n",
                        row->text, accuracy == CM_ACCURACY_MODEL ? "MODEL" : "SINGLE", words[range],
                        (long long)clean.beyond, (long long)clean.far, (long long)clean.count, clean.widest);
            ck_assert_int_eq(clean.beyond, 0);
            far += clean.far;
        }
        if (row->early > 0) {
            struct outcome early = run(pristine, row, accuracy, CM_SIGMA_CLAMPED, row->early);
            ck_assert_msg(early.beyond > early.count / 2, "%s: a clamp at %g passes", row->text, row->early);
        }
    }
    ck_assert_int_gt(far, 0); // the case is one in which the range matters
    cm_pristine_close(pristine);
    free(pristine);
}
END_TEST

TCase *cm_unit_sigma_range(void)
{
    TCase *tcase = tcase_create("range");
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, holds_outside_the_range, 0, ROWS(rows));
    return tcase;
}
