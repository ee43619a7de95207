// SPDX-License-Identifier: Apache-2.0
// Monte Carlo validation of the references' sigma: kernels that form each sum as a chain in a random order,
// and round at every rounding point of the contract, by fp32 arithmetic or by a random error of up to half an
// ulp at each point (`injected`). rms(err / sigma) must be near 1 and no element outside its bound.
#include "harness/compare.h"
#include "harness/op.h"
#include "harness/registry.h"
#include "harness/rng.h"
#include "suites/unit/oracle.h"

#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(FLT_EVAL_METHOD == 0, "float arithmetic must round to float");

// What rms(err / sigma) may be: a few percent of scatter, and the rounding that power-of-two scalings spare.
#define LEAST (CM_UNIT_SLOW ? 0.8 : 0.85)
#define MOST  (CM_UNIT_SLOW ? 1.25 : 1.12)

enum { LONGEST = 1024, SEEDS = CM_UNIT_SLOW ? 1 : 4 }; // LONGEST: of any dimension of a case here

// A simulated kernel on one case. Arguments are contiguous floats; a sum collects its terms first.
struct kernel {
    const cm_pristine *pristine;
    float *values[CM_MAX_ARGUMENTS];
    double *output; // before its own rounding
    cm_dtype dtype; // that intermediates are rounded to
    bool model, injected;
    cm_rng rng;
    uint64_t drawn;
    uint32_t block[4];
    double terms[LONGEST];
    int64_t count;
    double lost, expected; // squared errors of all additions, and what a full significand would lose
};

static int64_t dim(const struct kernel *kernel, char letter)
{
    return kernel->pristine->test_case.dims[cm_dim_index(letter)];
}

// NULL: the case does not have it.
static float *values_of(const struct kernel *kernel, const char *name)
{
    return kernel->values[cm_op_argument_index(kernel->pristine->test_case.op, name)];
}

static int64_t index_at(const struct kernel *kernel, const char *name, int64_t n)
{
    return (int64_t)values_of(kernel, name)[n];
}

static void kernel_open(const cm_pristine *pristine, cm_dtype dtype, cm_accuracy accuracy, bool injected,
                        struct kernel *out)
{
    const cm_op *op = pristine->test_case.op;
    *out = (struct kernel){.pristine = pristine, .dtype = dtype, .rng = {pristine->test_case.seed, 0x73696d}};
    out->model = accuracy == CM_ACCURACY_MODEL;
    out->injected = injected;
    for (int n = 0; op->arguments[n].name; n++) {
        if (!pristine->arguments[n])
            continue;
        int64_t count = cm_tensor_count(pristine->arguments[n]);
        if (op->arguments[n].compare == CM_COMPARE_BOUNDED)
            out->output = cm_new((size_t)count, sizeof *out->output);
        out->values[n] = cm_new((size_t)count, sizeof(float));
        for (int64_t i = 0; i < count && op->arguments[n].role != CM_OUTPUT; i++)
            out->values[n][i] = (float)cm_tensor_get(pristine->arguments[n], i);
    }
}

static double rounded(cm_dtype dtype, double value)
{
    char storage[8];
    cm_store(storage, dtype, 0, value);
    return cm_load(storage, dtype, 0);
}

static uint32_t draw(struct kernel *kernel)
{
    uint64_t drawn = kernel->drawn++;
    if (drawn % 4 == 0)
        cm_rng_block(kernel->rng, drawn, kernel->block);
    return kernel->block[drawn % 4];
}

// One rounding to the format: as arithmetic does it, or an error that is uniform in half an ulp.
static double round_to(struct kernel *kernel, cm_dtype dtype, double exact)
{
    if (!kernel->injected)
        return rounded(dtype, exact);
    return exact == 0 ? 0 : exact + ((double)draw(kernel) * 0x1p-32 - 0.5) * cm_dtype_ulp(dtype, exact);
}

// A rounding point that only kernels of accuracy MODEL use.
static double point(struct kernel *kernel, double value)
{
    return kernel->model ? round_to(kernel, kernel->dtype, value) : value;
}

static double plus(struct kernel *kernel, double a, double b)
{
    double exact = a + b, sum = round_to(kernel, CM_F32, exact);
    kernel->lost += (sum - exact) * (sum - exact);
    // ulp^2 / 12, and the mean of 1/m^2 over log-uniform significands m in [1, 2) is 3 / (8 ln 2)
    kernel->expected += exact * exact * (0x1p-46 / 12 * 0.375 / M_LN2);
    return sum;
}

// A product rounds where it does not fit fp32.
static double times(struct kernel *kernel, double a, double b)
{
    double exact = a * b;
    return (double)(float)exact == exact ? exact : round_to(kernel, CM_F32, exact);
}

// sigmoid(g) with four roundings: exp is allowed 2 ulp, which is two of them.
static double sigmoid(struct kernel *kernel, double g)
{
    if (!kernel->injected)
        return 1 / (1 + (double)expf((float)-g)); // rounded by the caller's product
    double e = exp(-g);
    e += 2 * (round_to(kernel, CM_F32, e) - e);
    return 1 / plus(kernel, 1, e);
}

// The terms' sum, one after the other in a random order.
static double total(struct kernel *kernel)
{
    double *terms = kernel->terms, sum = 0;
    for (int64_t left = kernel->count; left > 0; left--) {
        int64_t choice = (int64_t)(draw(kernel) * (uint64_t)left >> 32);
        sum = left == kernel->count ? terms[choice] : plus(kernel, sum, terms[choice]);
        terms[choice] = terms[left - 1];
    }
    kernel->count = 0;
    return sum;
}

static double dot_wide(struct kernel *kernel, const float *row, const double *x, int64_t count)
{
    for (int64_t n = 0; n < count; n++)
        kernel->terms[kernel->count++] = times(kernel, row[n], x[n]);
    return total(kernel);
}

static double dot(struct kernel *kernel, const float *row, const float *x, int64_t count)
{
    for (int64_t n = 0; n < count; n++)
        kernel->terms[kernel->count++] = times(kernel, row[n], x[n]);
    return total(kernel);
}

struct token {
    int64_t adapter, rank, expert; // expert -1: the shared one
    float scaling;
};

// out[n_out] = W in[n_in] + s B (A in)
static void project(struct kernel *kernel, const struct token *token, const char *name, const double *in,
                    int64_t n_in, double *out, int64_t n_out)
{
    char weight[32], a[32], b[32];
    bool shared = token->expert < 0;
    int64_t E = shared ? 1 : dim(kernel, 'E'), e = shared ? 0 : token->expert, r = dim(kernel, 'r');
    int64_t matrix = token->adapter * E + e;
    double v[LONGEST];
    snprintf(weight, sizeof weight, "%s%s", shared ? "shared_" : "w_", name);
    snprintf(a, sizeof a, "%slora_a_%s", shared ? "shared_" : "", name);
    snprintf(b, sizeof b, "%slora_b_%s", shared ? "shared_" : "", name);
    for (int64_t j = 0; j < token->rank; j++)
        v[j] = point(kernel, dot_wide(kernel, values_of(kernel, a) + (matrix * r + j) * n_in, in, n_in));
    for (int64_t o = 0; o < n_out; o++) {
        double value = dot_wide(kernel, values_of(kernel, weight) + (e * n_out + o) * n_in, in, n_in);
        if (token->rank > 0) {
            const float *row = values_of(kernel, b) + (matrix * n_out + o) * r;
            double delta = times(kernel, token->scaling, dot_wide(kernel, row, v, token->rank));
            value = plus(kernel, point(kernel, value), delta);
        }
        out[o] = point(kernel, value);
    }
}

// y[H] = weight * FFN(x)
static void ffn(struct kernel *kernel, const struct token *token, const float *hidden, double weight,
                double *y)
{
    int64_t H = dim(kernel, 'H'), width = dim(kernel, token->expert < 0 ? 'D' : 'I');
    double x[LONGEST], gate[LONGEST], h[LONGEST];
    for (int64_t i = 0; i < H; i++)
        x[i] = hidden[i];
    project(kernel, token, "gate", x, H, gate, width);
    project(kernel, token, "up", x, H, h, width);
    for (int64_t i = 0; i < width; i++) {
        double silu = round_to(kernel, CM_F32, gate[i] * sigmoid(kernel, gate[i]));
        h[i] = point(kernel, round_to(kernel, CM_F32, silu * h[i]));
    }
    project(kernel, token, "down", h, width, y, H);
    for (int64_t o = 0; o < H; o++)
        y[o] = times(kernel, weight, y[o]);
}

static void moe_forward(struct kernel *kernel)
{
    int64_t T = dim(kernel, 'T'), k = dim(kernel, 'k'), H = dim(kernel, 'H');
    double *slots = cm_new((size_t)((k + 1) * H), sizeof *slots);
    for (int64_t t = 0; t < T; t++) {
        const float *x = values_of(kernel, "hidden") + t * H;
        struct token token = {.adapter = -1, .expert = -1};
        int64_t used = 0;
        if (values_of(kernel, "token_adapter"))
            token.adapter = index_at(kernel, "token_adapter", t);
        if (token.adapter >= 0) {
            token.rank = index_at(kernel, "lora_rank", token.adapter);
            token.scaling = values_of(kernel, "lora_scaling")[token.adapter];
        }
        if (values_of(kernel, "shared_gate"))
            ffn(kernel, &token, x,
                round_to(kernel, CM_F32,
                         sigmoid(kernel, dot(kernel, values_of(kernel, "shared_router"), x, H))),
                slots + used++ * H);
        for (int64_t j = t * k; j < (t + 1) * k; j++) {
            token.expert = index_at(kernel, "topk_ids", j);
            if (token.expert >= 0)
                ffn(kernel, &token, x, values_of(kernel, "topk_weights")[j], slots + used++ * H);
        }
        for (int64_t o = 0; o < H; o++) {
            for (int64_t slot = 0; slot < used; slot++)
                kernel->terms[kernel->count++] = slots[slot * H + o];
            kernel->output[t * H + o] = total(kernel);
        }
    }
    free(slots);
}

// One token; every one has an adapter here.
static void shrink_token(struct kernel *kernel, int64_t t, int64_t adapter, int64_t rank)
{
    int64_t S = dim(kernel, 'S'), r = dim(kernel, 'r'), K = dim(kernel, 'K');
    for (int64_t row = 0; row < S * r; row++)
        if (row % r < rank)
            kernel->output[t * S * r + row] =
                dot(kernel, values_of(kernel, "lora_a") + (adapter * S * r + row) * K,
                    values_of(kernel, "x") + t * K, K);
}

static void expand_token(struct kernel *kernel, int64_t t, int64_t adapter, int64_t rank)
{
    int64_t S = dim(kernel, 'S'), r = dim(kernel, 'r'), N = dim(kernel, 'N'), s = 0;
    bool accumulate = kernel->pristine->test_case.attributes[0] != 0;
    for (int64_t n = 0; n < N; n++) {
        while (n >= index_at(kernel, "slice_offset", s + 1))
            s++;
        double base = values_of(kernel, "y")[t * N + n];
        double delta = times(kernel, values_of(kernel, "lora_scaling")[adapter],
                             dot(kernel, values_of(kernel, "lora_b") + (adapter * N + n) * r,
                                 values_of(kernel, "v") + (t * S + s) * r, rank));
        kernel->output[t * N + n] = accumulate ? plus(kernel, base, point(kernel, delta)) : delta;
    }
}

static void each_token(struct kernel *kernel,
                       void (*visit)(struct kernel *, int64_t t, int64_t adapter, int64_t rank))
{
    for (int64_t p = 0; p <= dim(kernel, 'L'); p++) {
        int64_t adapter = index_at(kernel, "segment_adapter", p);
        for (int64_t n = index_at(kernel, "segment_offset", p);
             n < index_at(kernel, "segment_offset", p + 1) && adapter >= 0; n++)
            visit(kernel, index_at(kernel, "permutation", n), adapter,
                  index_at(kernel, "lora_rank", adapter));
    }
}

static const struct subject {
    const char *op;
    void (*token)(struct kernel *kernel, int64_t t, int64_t adapter, int64_t rank); // NULL: moe_forward
    char rounds_to;  // dtype variable of the rounding points inside; 0: there are none
    char factors[2]; // dtype variables of the first products
} subjects[] = {
    {"moe_forward", NULL, 'x', {'x', 'w'}},
    {"sgmv_shrink", shrink_token, 0, {'x', 'a'}},
    {"sgmv_expand", expand_token, 'y', {'v', 'a'}},
};

// Where products of the inputs leave room in fp32 (bf16: 16 of 24 bits), most additions are exact, and sigma,
// which lets each of them round, is too large: `lost` says by how much. The same shapes with wide weights
// show the same sums without that.
static const struct combination {
    const char *op, *dtypes, *shape;
    bool positive; // all values are made positive: sums grow, where otherwise they wander
    bool single;   // leaves out accuracy MODEL
} combinations[] = {
#define DTYPES(op, wide, shape, positive)                                                                    \
    {op, "bf16", shape, positive, 0}, {op, "f16", shape, positive, 0}, {op, "f32", shape, positive, 0},      \
        {op, "bf16-" wide, shape, positive, 1}, {op, "f16-" wide, shape, positive, 1},
    // clang-format off
    DTYPES("moe_forward", "wf32-af32", "t80-k2-e4-h64-i48", false)
    DTYPES("moe_forward", "wf32-af32", "t80-k2-e4-h64-i48-r8x3-full", false)
    DTYPES("moe_forward", "wf32-af32", "t20-k2-e4-h256-i96-r16x2-full", false)
    DTYPES("moe_forward", "wf32-af32", "t54-k2-e4-h96-i160-d64-r8x3-yf32", false)
    DTYPES("moe_forward", "wf32-af32", "t80-k1-e4-h64-i48-r8x3-full", true)
    DTYPES("sgmv_shrink", "af32", "t160-r16x3-K64-S2-vf32-full", false)
    DTYPES("sgmv_shrink", "af32", "t320-r16x3-K320-full", false)
    DTYPES("sgmv_shrink", "af32", "t320-r16x3-K160-full", true)
    DTYPES("sgmv_expand", "af32", "t80-r8x3-n65-S2-full", false)
    DTYPES("sgmv_expand", "af32", "t80-r32x3-n65-yf32-full", false)
    DTYPES("sgmv_expand", "af32", "t80-r16x3-n65-full-accumulate=0", true)
    // clang-format on
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
        double last = rounded(dtype, got[n]) - want->value[n]; // with the output's own rounding
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
    struct kernel kernel;
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
    int bits = cm_dtype_precision(test_case->dtypes[(int)measure->subject->factors[0]]) +
               cm_dtype_precision(test_case->dtypes[(int)measure->subject->factors[1]]);
    measure->narrow = bits <= 24;
    kernel_open(pristine, test_case->dtypes[(int)measure->subject->rounds_to], measure->accuracy,
                measure->injected, &kernel);
    measure->subject->token ? each_token(&kernel, measure->subject->token) : moe_forward(&kernel);
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
    double least = LEAST * (exact_additions && !measure->injected ? fmin(1, lost) : 1);
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
    return suite;
}
