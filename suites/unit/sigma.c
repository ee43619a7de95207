// SPDX-License-Identifier: Apache-2.0
// Monte Carlo validation of the references' sigma: kernels that form each sum as a chain in a random order,
// and round at every rounding point of the contract, by fp32 arithmetic or by a random error of up to half an
// ulp at each point (`injected`). rms(err / sigma) must be near 1 and no element outside its bound.
#include "suites/unit/sigma.h"
#include "harness/compare.h"
#include "harness/op.h"
#include "harness/registry.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What rms(err / sigma) may be: a few percent of scatter, and the rounding that power-of-two scalings spare.
#define LEAST          (CM_UNIT_SLOW ? 0.8 : 0.85)
#define LEAST_OF_CODES 0.6
#define MOST           (CM_UNIT_SLOW ? 1.25 : 1.12)

static const struct subject {
    const char *op;
    void (*run)(struct cm_sigma_kernel *kernel);
    char rounds_to;  // dtype variable of the rounding points inside; 0: there are none
    char factors[2]; // dtype variables of the first products
} subjects[] = {
    {"moe_forward", cm_sigma_moe_forward, 'x', {'x', 'w'}},
    {"sgmv_shrink", cm_sigma_shrink, 0, {'x', 'a'}},
    {"sgmv_expand", cm_sigma_expand, 'y', {'v', 'a'}},
    {"sgmv", cm_sigma_pair, 'y', {'x', 'a'}},
};

// Where products of the inputs leave room in fp32 (bf16: 16 of 24 bits), most additions are exact, and sigma,
// which lets each of them round, is too large: `lost` says by how much. The same shapes with wide weights
// show the same sums without that.
static const struct combination {
    const char *op, *dtypes, *shape;
    bool positive; // all values are made positive: sums grow, where otherwise they wander
    bool single;   // leaves out accuracy MODEL
    bool codes;    // rows are quantised: sigma is half a step at least where a code may well move
} combinations[] = {
#define DTYPES(op, wide, shape, positive)                                                                    \
    {op, "bf16", shape, positive, 0, 0}, {op, "f16", shape, positive, 0, 0},                                 \
        {op, "f32", shape, positive, 0, 0}, {op, "bf16-" wide, shape, positive, 1, 0},                       \
        {op, "f16-" wide, shape, positive, 1, 0},
    // clang-format off
    DTYPES("moe_forward", "wf32-pf32-af32", "t80-k2-e4-h64-i48", false)
    DTYPES("moe_forward", "wf32-pf32-af32", "t80-k2-e4-h64-i48-r8x3-full", false)
    DTYPES("moe_forward", "wf32-pf32-af32", "t20-k2-e4-h256-i96-r16x2-full", false)
    DTYPES("moe_forward", "wf32-pf32-af32", "t54-k2-e4-h96-i160-d64-r8x3-yf32", false)
    DTYPES("moe_forward", "wf32-pf32-af32", "t80-k1-e4-h64-i48-r8x3-full", true)
    DTYPES("sgmv_shrink", "af32", "t160-r16x3-K64-S2-vf32-full", false)
    DTYPES("sgmv_shrink", "af32", "t320-r16x3-K320-full", false)
    DTYPES("sgmv_shrink", "af32", "t320-r16x3-K160-full", true)
    DTYPES("sgmv_expand", "af32", "t80-r8x3-n65-S2-full", false)
    DTYPES("sgmv_expand", "af32", "t80-r32x3-n65-yf32-full", false)
    DTYPES("sgmv_expand", "af32", "t80-r16x3-n65-full-accumulate=0", true)
    DTYPES("sgmv", "af32", "t80-r16x3-K160-n65-S2-full", false)
    DTYPES("sgmv", "af32", "t80-r32x3-K160-n65-yf32-full", false)
    DTYPES("sgmv", "af32", "t80-r16x3-K64-n65-full-accumulate=0", true)
    // clang-format on
    {"moe_forward", "bf16-wi8", "t80-k2-e4-h64-i48-r8x3-full", false, false, false},
    {"moe_forward", "f32-wi4", "t20-k2-e4-h256-i96-g32-r16x2-full", false, false, false},
    {"moe_forward", "bf16-wi8-yf32", "t80-k2-e4-h64-i48-r8x3-full-act_quant=int8_row", false, false, true},
    {"moe_forward", "bf16-wi8-yf32", "t20-k2-e4-h256-i96-r16x2-full-act_quant=int8_row", false, false, true},
    {"moe_forward", "f32", "t40-k2-e4-h96-i160-d64-r8x3-act_quant=int8_row", false, false, true},
    {"moe_forward", "bf16-yf32", "t80-k2-e4-h64-i48-r8x3-full-act_quant=int8_row-act_quant_source=model",
     false, false, true},
};

struct measure {
    const struct combination *row;
    const struct subject *subject;
    const cm_op *op;
    cm_accuracy accuracy;
    bool injected;         // roundings are random errors, else fp32 arithmetic
    bool narrow, adapters; // products of the inputs leave room in fp32; the cases have LoRA
    int64_t count, beyond; // elements with a sigma; elements outside their bound
    // squares of err / sigma, of sigma, of what additions lost and should lose, of the output and its LoRA
    double errors, sigma, lost, expected, want, delta;
};

static void make_positive(const cm_pristine *pristine)
{
    for (int n = 0; pristine->test_case.op->arguments[n].name; n++)
        if (pristine->arguments[n] && cm_dtype_is_float(pristine->tensors[n].dtype))
            for (int64_t i = 0; i < cm_tensor_count(pristine->arguments[n]); i++)
                cm_tensor_set(pristine->arguments[n], i, fabs(cm_tensor_get(pristine->arguments[n], i)));
}

static void measure_errors(struct measure *measure, const cm_want *want, cm_dtype dtype, const double *got)
{
    for (int64_t n = 0; n < want->count; n++) {
        double error = got[n] - want->value[n], sigma = want->sigma[n];
        double last = cm_sigma_rounded(dtype, got[n]) - want->value[n]; // with the output's own rounding
        measure->beyond += !(fabs(last) <= cm_bound(want, n, dtype));
        measure->sigma += sigma * sigma;
        measure->errors += sigma > 0 ? error * error / (sigma * sigma) : 0;
        measure->count += sigma > 0;
    }
}

static void measure_share(struct measure *measure, const cm_pristine *pristine, const cm_want *want)
{
    cm_want base[CM_MAX_ARGUMENTS];
    int out = cm_op_argument_count(measure->op) - 1;
    cm_oracle_want(pristine, cm_oracle_lora_terms(measure->op), measure->accuracy, base);
    for (int64_t n = 0; n < want->count; n++) {
        double delta = want->value[n] - base[out].value[n];
        measure->want += want->value[n] * want->value[n];
        measure->delta += delta * delta;
    }
    cm_oracle_close_wants(base);
}

static cm_status measure_case(const char *text, void *self)
{
    struct measure *measure = self;
    cm_pristine *pristine = cm_new(1, sizeof *pristine);
    struct cm_sigma_kernel kernel;
    cm_oracle_open_case(measure->op, text, pristine);
    const cm_case *test_case = &pristine->test_case;
    if (cm_oracle_argument(pristine, "shared_gate"))
        cm_oracle_add_argument(pristine, "shared_router", -1);
    if (measure->row->positive)
        make_positive(pristine);
    ck_assert_int_eq(cm_pristine_want(pristine, measure->accuracy, NULL), CM_OK);
    int out = cm_op_argument_count(measure->op) - 1;
    const cm_want *want = &pristine->want[measure->accuracy][out];
    if (test_case->seed == 1)
        measure_share(measure, pristine, want);
    measure->adapters = cm_oracle_lora_terms(measure->op) && test_case->dims[cm_dim_index('L')] > 0;
    int bits = 0;
    for (int n = 0; n < 2; n++) { // integers times their scale are fp32
        int precision = cm_dtype_precision(test_case->dtypes[(int)measure->subject->factors[n]]);
        bits += precision ? precision : 24;
    }
    measure->narrow = bits <= 24;
    cm_sigma_open(pristine, test_case->dtypes[(int)measure->subject->rounds_to], measure->accuracy,
                  measure->injected, &kernel);
    measure->subject->run(&kernel);
    measure_errors(measure, want, pristine->tensors[out].dtype, kernel.output);
    free(kernel.output);
    measure->lost += kernel.lost;
    measure->expected += kernel.expected;
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++)
        free(kernel.values[n]);
    cm_pristine_close(pristine);
    free(pristine);
    return CM_OK;
}

static struct measure measure_accuracy(const struct combination *row, const struct subject *subject,
                                       cm_accuracy accuracy, bool injected)
{
    char pattern[CM_CASE_TEXT];
    struct measure measure = {.row = row, .subject = subject, .accuracy = accuracy, .injected = injected};
    measure.op = cm_registry_find_op(row->op, strlen(row->op));
    snprintf(pattern, sizeof pattern, "%s-%s-random-s{1..%d}", row->dtypes, row->shape, SEEDS);
    ck_assert_int_eq(cm_case_expand(pattern, measure_case, &measure, NULL), CM_OK);
    return measure;
}

// `exact_additions`: sums are the only rounding points and most of their additions are exact.
static void judge(const struct measure *measure, bool exact_additions)
{
    double rms = sqrt(measure->errors / (double)measure->count);
    double lost = sqrt(measure->lost / measure->expected), share = sqrt(measure->delta / measure->want);
    double least = measure->row->codes ? LEAST_OF_CODES : LEAST;
    least *= exact_additions && !measure->injected ? fmin(1, lost) : 1;
    bool good = measure->beyond == 0 && rms >= least && rms <= MOST && lost <= MOST &&
                (measure->adapters ? share >= 0.3 : share == 0);
    if (!good || getenv("CM_VERBOSE"))
        fprintf(stderr,
                "%-11s %-6s %-10s %-14s %-36s%s  rms(err/sigma) %.3f (at least %.2f)  additions lose %.2f  "
                "beyond %lld of %lld  LoRA %3.0f %%\n",
                measure->row->op, measure->accuracy == CM_ACCURACY_MODEL ? "MODEL" : "SINGLE",
                measure->injected ? "injected" : "arithmetic", measure->row->dtypes, measure->row->shape,
                measure->row->positive ? " +" : "  ", rms, least, lost, (long long)measure->beyond,
                (long long)measure->count, 100 * share);
    ck_assert(good);
}

START_TEST(sigma_is_the_error)
{
    const struct combination *row = &combinations[_i];
    const struct subject *subject = subjects;
    while (strcmp(subject->op, row->op) != 0)
        subject++;
    for (int injected = 0; injected < 2; injected++) {
        struct measure single = measure_accuracy(row, subject, CM_ACCURACY_SINGLE, injected);
        judge(&single, single.narrow);
        if (row->single || !subject->rounds_to)
            continue;
        struct measure model = measure_accuracy(row, subject, CM_ACCURACY_MODEL, injected);
        judge(&model, model.narrow && model.sigma < 4 * single.sigma);
    }
}
END_TEST

Suite *cm_unit_sigma(void);
Suite *cm_unit_sigma(void)
{
    Suite *suite = suite_create("sigma");
    TCase *tcase = tcase_create("sigma");
    tcase_set_timeout(tcase, 300);
    tcase_add_loop_test(tcase, sigma_is_the_error, 0, sizeof combinations / sizeof *combinations);
    suite_add_tcase(suite, tcase);
    suite_add_tcase(suite, cm_unit_sigma_range());
    return suite;
}
