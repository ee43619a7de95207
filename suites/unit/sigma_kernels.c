// SPDX-License-Identifier: Apache-2.0
// Kernels that form each sum as a chain in a random order, and round at every rounding point of the contract.
#include "suites/unit/sigma.h"

#include "harness/op.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(FLT_EVAL_METHOD == 0, "float arithmetic must round to float");

static int64_t dim(const struct cm_sigma_kernel *kernel, char letter)
{
    return kernel->pristine->test_case.dims[cm_dim_index(letter)];
}

// NULL: the case does not have it.
static float *values_of(const struct cm_sigma_kernel *kernel, const char *name)
{
    return kernel->values[cm_op_argument_index(kernel->pristine->test_case.op, name)];
}

static int64_t index_at(const struct cm_sigma_kernel *kernel, const char *name, int64_t n)
{
    return (int64_t)values_of(kernel, name)[n];
}

void cm_sigma_open(const cm_pristine *pristine, cm_dtype dtype, cm_accuracy accuracy, bool injected,
                   struct cm_sigma_kernel *out)
{
    const cm_op *op = pristine->test_case.op;
    *out = (struct cm_sigma_kernel){
        .pristine = pristine, .dtype = dtype, .rng = {pristine->test_case.seed, 0x73696d}};
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

static double in_range(const struct cm_sigma_kernel *kernel, double value)
{
    return kernel->range == CM_SIGMA_FLUSHED && fabs(value) < 0x1p-126 ? 0 : value;
}

void cm_sigma_set_range(struct cm_sigma_kernel *kernel, enum cm_sigma_range range, double least)
{
    kernel->range = range;
    kernel->least = least;
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++)
        for (int64_t i = 0; kernel->values[n] && i < cm_tensor_count(kernel->pristine->arguments[n]); i++)
            kernel->values[n][i] = (float)in_range(kernel, kernel->values[n][i]);
}

double cm_sigma_rounded(cm_dtype dtype, double value)
{
    char storage[8];
    cm_store(storage, dtype, 0, value);
    return cm_load(storage, dtype, 0);
}

static uint32_t draw(struct cm_sigma_kernel *kernel)
{
    uint64_t drawn = kernel->drawn++;
    if (drawn % 4 == 0)
        cm_rng_block(kernel->rng, drawn, kernel->block);
    return kernel->block[drawn % 4];
}

// One rounding to the format: as arithmetic does it, or an error that is uniform in half an ulp.
static double round_to(struct cm_sigma_kernel *kernel, cm_dtype dtype, double exact)
{
    if (!kernel->injected)
        return in_range(kernel, cm_sigma_rounded(dtype, exact));
    return exact == 0 ? 0 : exact + ((double)draw(kernel) * 0x1p-32 - 0.5) * cm_dtype_ulp(dtype, exact);
}

// A rounding point that only kernels of accuracy MODEL use.
static double point(struct cm_sigma_kernel *kernel, double value)
{
    return kernel->model ? round_to(kernel, kernel->dtype, value) : value;
}

static double plus(struct cm_sigma_kernel *kernel, double a, double b)
{
    double exact = a + b, sum = round_to(kernel, CM_F32, exact);
    kernel->lost += (sum - exact) * (sum - exact);
    // ulp^2 / 12, and the mean of 1/m^2 over log-uniform significands m in [1, 2) is 3 / (8 ln 2)
    kernel->expected += exact * exact * (0x1p-46 / 12 * 0.375 / M_LN2);
    return sum;
}

// A product rounds where it does not fit fp32.
static double times(struct cm_sigma_kernel *kernel, double a, double b)
{
    double exact = a * b;
    return (double)(float)exact == exact ? in_range(kernel, exact) : round_to(kernel, CM_F32, exact);
}

// sigmoid(g) with four roundings: exp is allowed 2 ulp, which is two of them.
static double sigmoid(struct cm_sigma_kernel *kernel, double g)
{
    if (!kernel->injected)
        return fmax(in_range(kernel, 1 / (1 + (double)expf((float)-g))), // rounded by the caller's product
                    kernel->range == CM_SIGMA_CLAMPED ? kernel->least : 0);
    double e = exp(-g);
    e += 2 * (round_to(kernel, CM_F32, e) - e);
    return 1 / plus(kernel, 1, e);
}

// The terms' sum, one after the other in a random order.
static double total(struct cm_sigma_kernel *kernel)
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

static double dot_wide(struct cm_sigma_kernel *kernel, const float *row, const double *x, int64_t count)
{
    for (int64_t n = 0; n < count; n++)
        kernel->terms[kernel->count++] = times(kernel, row[n], x[n]);
    return total(kernel);
}

// The same of doubles.
static double dot_doubles(struct cm_sigma_kernel *kernel, const double *row, const double *x, int64_t count)
{
    for (int64_t n = 0; n < count; n++)
        kernel->terms[kernel->count++] = times(kernel, row[n], x[n]);
    return total(kernel);
}

static double attribute(const struct cm_sigma_kernel *kernel, const char *name)
{
    const cm_case *test_case = &kernel->pristine->test_case;
    for (int n = 0; test_case->op->attributes[n].name; n++)
        if (!strcmp(test_case->op->attributes[n].name, name))
            return test_case->attributes[n];
    return 0;
}

// Row `row`, counted over all experts, of a weight.
static void weight_row(struct cm_sigma_kernel *kernel, const char *name, int64_t row, int64_t n, double *out)
{
    char scale_name[48];
    snprintf(scale_name, sizeof scale_name, "%s_scale", name);
    const float *codes = values_of(kernel, name) + row * n, *scales = values_of(kernel, scale_name);
    int64_t size = dim(kernel, 'G') ? dim(kernel, 'G') : n, groups = (n + size - 1) / size;
    for (int64_t i = 0; i < n; i++)
        out[i] = scales ? point(kernel,
                                round_to(kernel, CM_F32, codes[i] * (double)scales[row * groups + i / size]))
                        : codes[i];
}

// What W sees of a row.
static void seen(struct cm_sigma_kernel *kernel, const double *in, int64_t n, double *out)
{
    double amax = 0;
    for (int64_t i = 0; i < n; i++) {
        out[i] = in[i];
        amax = fmax(amax, fabs(in[i]));
    }
    if (attribute(kernel, "act_quant") == 0 || amax == 0)
        return;
    double step = round_to(kernel, CM_F32, amax / 127), inverse = round_to(kernel, CM_F32, 1 / step);
    for (int64_t i = 0; i < n; i++) {
        double code = nearbyint(round_to(kernel, CM_F32, in[i] * inverse));
        out[i] = round_to(kernel, CM_F32, fmax(-127, fmin(127, code)) * step);
    }
}

static double dot(struct cm_sigma_kernel *kernel, const float *row, const float *x, int64_t count)
{
    for (int64_t n = 0; n < count; n++)
        kernel->terms[kernel->count++] = times(kernel, row[n], x[n]);
    return total(kernel);
}

struct token {
    int64_t adapter, rank, expert; // expert -1: the shared one
    float scaling;
};

// out[n_out] = W base[n_in] + s B (A in)
static void project(struct cm_sigma_kernel *kernel, const struct token *token, const char *name,
                    const double *in, const double *base, int64_t n_in, double *out, int64_t n_out)
{
    char weight[32], a[32], b[32];
    bool shared = token->expert < 0;
    int64_t E = shared ? 1 : dim(kernel, 'E'), e = shared ? 0 : token->expert, r = dim(kernel, 'r');
    int64_t matrix = token->adapter * E + e;
    double v[LONGEST], weight_values[LONGEST];
    snprintf(weight, sizeof weight, "%s%s", shared ? "shared_" : "w_", name);
    snprintf(a, sizeof a, "%slora_a_%s", shared ? "shared_" : "", name);
    snprintf(b, sizeof b, "%slora_b_%s", shared ? "shared_" : "", name);
    for (int64_t j = 0; j < token->rank; j++)
        v[j] = point(kernel, dot_wide(kernel, values_of(kernel, a) + (matrix * r + j) * n_in, in, n_in));
    for (int64_t o = 0; o < n_out; o++) {
        weight_row(kernel, weight, e * n_out + o, n_in, weight_values);
        double value = dot_doubles(kernel, weight_values, base, n_in);
        if (token->rank > 0) {
            const float *row = values_of(kernel, b) + (matrix * n_out + o) * r;
            double delta = times(kernel, token->scaling, dot_wide(kernel, row, v, token->rank));
            value = plus(kernel, point(kernel, value), delta);
        }
        out[o] = point(kernel, value);
    }
}

// y[H] = weight * FFN(x)
static void ffn(struct cm_sigma_kernel *kernel, const struct token *token, const float *hidden, double weight,
                double *y)
{
    int64_t H = dim(kernel, 'H'), width = dim(kernel, token->expert < 0 ? 'D' : 'I');
    double x[LONGEST], gate[LONGEST], h[LONGEST], base[LONGEST];
    bool round_h = attribute(kernel, "act_quant") != 0 && attribute(kernel, "act_quant_source") != 0;
    for (int64_t i = 0; i < H; i++)
        x[i] = hidden[i];
    seen(kernel, x, H, base);
    project(kernel, token, "gate", x, base, H, gate, width);
    project(kernel, token, "up", x, base, H, h, width);
    for (int64_t i = 0; i < width; i++) {
        double silu = round_to(kernel, CM_F32, gate[i] * sigmoid(kernel, gate[i]));
        h[i] = round_to(kernel, CM_F32, silu * h[i]);
        h[i] = round_h ? cm_sigma_rounded(kernel->dtype, h[i]) : h[i];
    }
    seen(kernel, h, width, base);
    for (int64_t i = 0; i < width; i++) {
        h[i] = round_h ? h[i] : point(kernel, h[i]);
        base[i] = attribute(kernel, "act_quant") != 0 ? base[i] : h[i];
    }
    project(kernel, token, "down", h, base, width, y, H);
    for (int64_t o = 0; o < H; o++)
        y[o] = times(kernel, weight, y[o]);
}

void cm_sigma_moe_forward(struct cm_sigma_kernel *kernel)
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
static void shrink_token(struct cm_sigma_kernel *kernel, int64_t t, int64_t adapter, int64_t rank)
{
    int64_t S = dim(kernel, 'S'), r = dim(kernel, 'r'), K = dim(kernel, 'K');
    for (int64_t row = 0; row < S * r; row++)
        if (row % r < rank)
            kernel->output[t * S * r + row] =
                dot(kernel, values_of(kernel, "lora_a") + (adapter * S * r + row) * K,
                    values_of(kernel, "x") + t * K, K);
}

static void expand_token(struct cm_sigma_kernel *kernel, int64_t t, int64_t adapter, int64_t rank)
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

// The fused pair: v is rounded to the dtype of x, delta to that of y.
static void pair_token(struct cm_sigma_kernel *kernel, int64_t t, int64_t adapter, int64_t rank)
{
    int64_t S = dim(kernel, 'S'), r = dim(kernel, 'r'), N = dim(kernel, 'N'), K = dim(kernel, 'K'), s = 0;
    const cm_case *test_case = &kernel->pristine->test_case;
    double v[LONGEST];
    for (int64_t row = 0; row < S * r; row++) {
        v[row] = 0;
        if (row % r < rank)
            v[row] = dot(kernel, values_of(kernel, "lora_a") + (adapter * S * r + row) * K,
                         values_of(kernel, "x") + t * K, K);
        v[row] = kernel->model ? round_to(kernel, test_case->dtypes['x'], v[row]) : v[row];
    }
    for (int64_t n = 0; n < N; n++) {
        while (n >= index_at(kernel, "slice_offset", s + 1))
            s++;
        const float *b = values_of(kernel, "lora_b") + (adapter * N + n) * r;
        double base = values_of(kernel, "y")[t * N + n];
        double delta =
            times(kernel, values_of(kernel, "lora_scaling")[adapter], dot_wide(kernel, b, v + s * r, rank));
        kernel->output[t * N + n] = delta;
        if (test_case->attributes[0] != 0) // accumulate
            kernel->output[t * N + n] = plus(kernel, base, point(kernel, delta));
    }
}

static void each_token(struct cm_sigma_kernel *kernel,
                       void (*visit)(struct cm_sigma_kernel *, int64_t t, int64_t adapter, int64_t rank))
{
    for (int64_t p = 0; p <= dim(kernel, 'L'); p++) {
        int64_t adapter = index_at(kernel, "segment_adapter", p);
        for (int64_t n = index_at(kernel, "segment_offset", p);
             n < index_at(kernel, "segment_offset", p + 1) && adapter >= 0; n++)
            visit(kernel, index_at(kernel, "permutation", n), adapter,
                  index_at(kernel, "lora_rank", adapter));
    }
}

void cm_sigma_shrink(struct cm_sigma_kernel *kernel)
{
    each_token(kernel, shrink_token);
}

void cm_sigma_expand(struct cm_sigma_kernel *kernel)
{
    each_token(kernel, expand_token);
}

void cm_sigma_pair(struct cm_sigma_kernel *kernel)
{
    each_token(kernel, pair_token);
}
