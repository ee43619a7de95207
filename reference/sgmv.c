// SPDX-License-Identifier: Apache-2.0
// sgmv: sgmv_shrink and sgmv_expand as one, y[t,n] (+)= s_a sum_j B[a,n,j] v[t,slice(n),j] with
// v[t,s,j] = sum_i A[a,s,j,i] x[t,i] for the tokens of each segment. v is no argument: a kernel keeps it in
// fp32, or rounds it to the dtype of x. Accumulating, the rows of tokens without adapter stay as they are;
// overwriting, they become zero.
#include "reference/sgmv_segments.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { X, A, SLICES, PERMUTATION, OFFSET, ADAPTER, RANK, SCALING, B, Y };
enum { LORA, BASE }; // terms

static const cm_argument arguments[] = {
    [X] = {.name = "x",
           .role = CM_INPUT,
           .dtypes = SGMV_FLOATS,
           .dtype_variable = 'x',
           .shape = "T K",
           .fill = {.kind = "dense"},
           .meaning = "activations"},
    [A] = {.name = "lora_a",
           .role = CM_ADAPTER,
           .dtypes = SGMV_FLOATS,
           .dtype_variable = 'a',
           .shape = "L S r K",
           .fill = {.kind = "matrix", .fan_in = 'K', .exact_nonzeros = 4},
           .meaning = "A of each slice; rows from the adapter's rank on are padding"},
    [SLICES] = {.name = "slice_offset",
                .role = CM_INPUT,
                .dtypes = SGMV_I32,
                .shape = "S+1",
                .offset_into = 'N',
                .fill = {.kind = "slices"},
                .meaning = "first output column of each slice"},
    [PERMUTATION] = SGMV_PLAN_INPUTS,
    [SCALING] = {.name = "lora_scaling",
                 .role = CM_ADAPTER,
                 .dtypes = CM_DTYPE_BIT(CM_F32),
                 .shape = "L",
                 .fill = {.kind = "scaling"},
                 .meaning = "s of each adapter"},
    [B] = {.name = "lora_b",
           .role = CM_ADAPTER,
           .dtypes = SGMV_FLOATS,
           .dtype_variable = 'a',
           .shape = "L N r",
           .fill = {.kind = "matrix",
                    .fan_in = 'r',
                    .divided_by = "lora_scaling",
                    .within_rank = true,
                    .exact_nonzeros = 2},
           .meaning = "B; columns from the adapter's rank on are padding"},
    [Y] = {.name = "y",
           .role = CM_INOUT,
           .dtypes = SGMV_FLOATS,
           .dtype_variable = 'y',
           .shape = "T N",
           .fill = {.kind = "dense"},
           .compare = CM_COMPARE_BOUNDED,
           .meaning = "the base output, or only written"},
    {0},
};

static const cm_attribute attributes[] = {
    {"accumulate", 1, 0, 1, NULL, "1: add to y; 0: overwrite it"},
    {0},
};
static const cm_rounding roundings[] = {
    {"sums", 0, true, "every sum is formed in fp32, in any order"},
    {"v", 'x', false, "A x"},
    {"delta", 'y', false, "s B v, before it is added to y"},
    {"y", 'y', true, "y, once"},
    {0},
};
static const cm_term terms[] = {
    [LORA] = {"lora", "s B A x", "lora_b", true}, [BASE] = {"base", "y before the call", "y", false}, {0}};
static const cm_symmetry symmetries[] = {
    {.name = "tokens permuted", .kind = CM_SYMMETRY_PERMUTE, .letter = 'T'},
    {.name = "inputs permuted", .kind = CM_SYMMETRY_PERMUTE, .letter = 'K'},
    {.name = "adapters permuted", .kind = CM_SYMMETRY_PERMUTE, .letter = 'L'},
    {.name = "tokens without adapter", .kind = CM_SYMMETRY_NONE, .letter = 'L'},
    {.name = "y and A scaled", .kind = CM_SYMMETRY_SCALE, .arguments = "y lora_a"},
    {.name = "scaling 0 is base",
     .kind = CM_SYMMETRY_OMIT,
     .letter = 'L',
     .arguments = "lora_scaling",
     .terms = 1 << LORA},
    {.name = "B doubled, scaling halved",
     .kind = CM_SYMMETRY_BALANCE,
     .arguments = "lora_b",
     .halved = "lora_scaling"},
    {.name = "A doubled, B halved", .kind = CM_SYMMETRY_BALANCE, .arguments = "lora_a", .halved = "lora_b"},
    {.name = "linear in the scaling", .kind = CM_SYMMETRY_LINEAR, .arguments = "lora_scaling"},
    {0},
};

// A value with its magnitude and error.
struct number {
    double value, magnitude;
    cm_error_size error;
};

struct pair {
    const cm_call *call;
    cm_want *want;
    int64_t K, S, N, r, *slice; // slice of each column
    bool accumulate, lora, model;
    bool products; // a product of x and A does not fit fp32
    double *x, *a, *b, *y;
    struct number *v; // [S, r] of one token
};

static void close(struct pair *pair)
{
    free(pair->x);
    free(pair->v);
    free(pair->slice);
}

static cm_status open(struct pair *pair, const cm_call *call, struct sgmv_plan *plan)
{
    sgmv_open(call, plan);
    *pair = (struct pair){.call = call,
                          .K = cm_dim(call, 'K'),
                          .S = cm_dim(call, 'S'),
                          .N = cm_dim(call, 'N'),
                          .r = cm_dim(call, 'r'),
                          .accumulate = call->host->attribute(call, "accumulate") != 0};
    pair->products =
        cm_significand_bits(call->arguments[X]->dtype) + cm_significand_bits(call->arguments[A]->dtype) > 24;
    pair->x = malloc((size_t)(2 * pair->K + pair->r + pair->N + 1) * sizeof(double));
    pair->v = malloc((size_t)(pair->S * pair->r + 1) * sizeof *pair->v);
    pair->slice = malloc((size_t)(pair->N + 1) * sizeof *pair->slice);
    if (!pair->x || !pair->v || !pair->slice)
        return CM_NO_MEMORY;
    pair->a = pair->x + pair->K;
    pair->b = pair->a + pair->K;
    pair->y = pair->b + pair->r;
    const DLTensor *slices = call->arguments[SLICES];
    for (int64_t s = 0; s < pair->S; s++)
        for (int64_t n = cm_index1(slices, s); n < cm_index1(slices, s + 1); n++)
            pair->slice[n] = s;
    return CM_OK;
}

static bool has_columns(const cm_call *call, int64_t slice)
{
    return cm_index1(call->arguments[SLICES], slice) < cm_index1(call->arguments[SLICES], slice + 1);
}

// v of one token, with the errors of its sums and of its rounding.
static void shrink(struct pair *pair, const struct sgmv_token *token)
{
    const DLTensor *x = pair->call->arguments[X];
    cm_row(x, &token->token, pair->x);
    for (int64_t s = 0; s < pair->S; s++)
        for (int64_t j = 0; j < token->rank; j++) {
            struct number *v = &pair->v[s * pair->r + j];
            cm_sum sum = {0};
            cm_row(pair->call->arguments[A], (int64_t[]){token->adapter, s, j}, pair->a);
            for (int64_t i = 0; i < pair->K; i++)
                cm_sum_product(&sum, pair->a[i], pair->x[i]);
            *v = (struct number){sum.value, sum.magnitude, cm_sum_error(&sum, pair->products)};
            if (pair->model) {
                v->error.variance += cm_rounding_variance(x->dtype, sum.value);
                v->error.worst += cm_ulp(x->dtype, sum.value) / 2;
                if (cm_is_small(sum.value))
                    cm_error_add(&v->error, CM_FP32_LEAST);
            }
        }
}

// Column n of one token. The errors of v_j are independent of each other: each has its own row of A.
static struct number expand(struct pair *pair, const struct sgmv_token *token, int64_t n)
{
    const DLTensor *y = pair->call->arguments[Y];
    const struct number *v = pair->v + pair->slice[n] * pair->r;
    double base = pair->accumulate ? pair->y[n] : 0;
    struct number number = {.value = base, .magnitude = fabs(base)};
    if (token->rank == 0 || !pair->lora)
        return number;
    double s = cm_element(pair->call->arguments[SCALING], token->adapter);
    cm_sum sum = {0};
    cm_row(pair->call->arguments[B], (int64_t[]){token->adapter, n}, pair->b);
    for (int64_t j = 0; j < token->rank; j++) {
        double b = pair->b[j];
        cm_sum_product(&sum, b, v[j].value);
        sum.inherited.variance += b * b * v[j].error.variance;
        sum.inherited.order += b * b * v[j].error.order;
        sum.inherited.worst += fabs(b) * v[j].error.worst;
        number.magnitude += fabs(s * b) * v[j].magnitude;
    }
    double delta = s * sum.value;
    number.value += delta;
    cm_error_size error = cm_sum_error(&sum, true);
    error.variance =
        s * s * error.variance + CM_FP32_VARIANCE * (delta * delta + number.value * number.value);
    error.order *= s * s;
    error.worst = fabs(s) * error.worst + CM_FP32_UNIT * (fabs(delta) + fabs(number.value));
    if (cm_is_small(delta) || cm_is_small(number.value))
        cm_error_add(&error, 2 * CM_FP32_LEAST);
    if (pair->model && pair->accumulate) {
        error.variance += cm_rounding_variance(y->dtype, delta);
        error.worst += cm_ulp(y->dtype, delta) / 2;
    }
    number.error = error;
    return number;
}

static cm_status compute(const struct sgmv_token *token, void *self)
{
    struct pair *pair = self;
    if (pair->lora)
        shrink(pair, token);
    cm_row(pair->call->arguments[Y], &token->token, pair->y);
    for (int64_t n = 0; n < pair->N; n++) {
        struct number y = expand(pair, token, n);
        cm_want_set(&pair->want[Y], token->token * pair->N + n, y.value, y.magnitude, y.error);
    }
    return CM_OK;
}

static cm_status reference(const cm_call *call, uint64_t omit, cm_accuracy accuracy, cm_want *want)
{
    struct pair pair;
    struct sgmv_plan plan;
    cm_status status = open(&pair, call, &plan);
    pair.want = want;
    pair.model = accuracy == CM_ACCURACY_MODEL;
    pair.lora = !(omit >> LORA & 1);
    if (omit >> BASE & 1)
        pair.accumulate = false;
    if (status == CM_OK)
        status = sgmv_each(&plan, compute, &pair);
    close(&pair);
    return status;
}

// v fits the dtype of x, and every sum of y, base and LoRA together, that of y. s is a power of two: whether
// it multiplies v, B or the sum, the same bits are set.
static cm_status prove(const struct sgmv_token *token, void *self)
{
    struct pair *pair = self;
    const cm_call *call = pair->call;
    int v_bits = cm_significand_bits(call->arguments[X]->dtype);
    int y_bits = cm_significand_bits(call->arguments[Y]->dtype);
    double s = token->adapter < 0 ? 0 : cm_element(call->arguments[SCALING], token->adapter);
    cm_row(call->arguments[X], &token->token, pair->x);
    cm_row(call->arguments[Y], &token->token, pair->y);
    for (int64_t row = 0; row < pair->S * token->rank; row++) {
        int64_t slice = row / token->rank, j = row % token->rank;
        double *v = &pair->v[slice * pair->r + j].value;
        cm_exact sum = {0};
        *v = 0;
        cm_row(call->arguments[A], (int64_t[]){token->adapter, slice, j}, pair->a);
        for (int64_t i = 0; i < pair->K; i++) {
            cm_exact_add(&sum, pair->a[i] * pair->x[i]);
            *v += pair->a[i] * pair->x[i];
        }
        if (!cm_exact_fits(&sum, v_bits))
            return call->host->fail(call, CM_BAD_VALUE, "not exact in %d bits: v[%lld,%lld,%lld]", v_bits,
                                    (long long)token->token, (long long)slice, (long long)j);
    }
    for (int64_t n = 0; n < pair->N && token->rank > 0; n++) {
        cm_exact sum = {0};
        if (pair->accumulate)
            cm_exact_add(&sum, pair->y[n]);
        cm_row(call->arguments[B], (int64_t[]){token->adapter, n}, pair->b);
        for (int64_t j = 0; j < token->rank; j++)
            cm_exact_add(&sum, s * pair->b[j] * pair->v[pair->slice[n] * pair->r + j].value);
        if (!cm_exact_fits(&sum, y_bits))
            return call->host->fail(call, CM_BAD_VALUE, "not exact in %d bits: y[%lld,%lld]", y_bits,
                                    (long long)token->token, (long long)n);
    }
    return CM_OK;
}

static cm_status exact(const cm_call *call)
{
    struct pair pair;
    struct sgmv_plan plan;
    cm_status status = open(&pair, call, &plan);
    if (status == CM_OK)
        status = sgmv_each(&plan, prove, &pair);
    close(&pair);
    return status;
}

// Marks the rows [T, columns] of tokens that have an adapter.
struct mark {
    uint8_t *mask, bits;
    int64_t columns;
};

static cm_status mark_row(const struct sgmv_token *token, void *self)
{
    const struct mark *mark = self;
    if (token->rank > 0)
        memset(mark->mask + token->token * mark->columns, mark->bits, (size_t)mark->columns);
    return CM_OK;
}

static void mark_adapters(const cm_call *call, const struct sgmv_plan *plan, const bool *used, int argument,
                          uint8_t *mask)
{
    int64_t K = cm_dim(call, 'K'), S = cm_dim(call, 'S'), N = cm_dim(call, 'N'), r = cm_dim(call, 'r');
    for (int64_t a = 0; a < plan->L; a++) {
        int64_t rank = used[a] ? cm_index1(plan->rank, a) : 0;
        for (int64_t row = 0; argument == A && row < S * r; row++, mask += K)
            memset(mask, row % r < rank && has_columns(call, row / r) ? CM_READS : 0, (size_t)K);
        for (int64_t n = 0; argument == B && n < N; n++, mask += r) {
            memset(mask, CM_READS, (size_t)rank);
            memset(mask + rank, 0, (size_t)(r - rank));
        }
        if (argument == SCALING)
            mask[a] = rank > 0 ? CM_READS : 0;
    }
}

static cm_status addressed(const cm_call *call, int argument, uint8_t *mask)
{
    struct sgmv_plan plan;
    sgmv_open(call, &plan);
    bool accumulate = call->host->attribute(call, "accumulate") != 0;
    if (argument == X || argument == Y) {
        struct mark mark = {mask, argument == X ? CM_READS : CM_READS | CM_WRITES,
                            cm_dim(call, argument == X ? 'K' : 'N')};
        bool rows = argument == X || accumulate;
        memset(mask, rows ? 0 : CM_WRITES, (size_t)(plan.T * mark.columns));
        return rows ? sgmv_each(&plan, mark_row, &mark) : CM_OK;
    }
    if (argument == A || argument == B || argument == SCALING) {
        bool *used = calloc((size_t)plan.L + 1, sizeof *used);
        if (!used)
            return CM_NO_MEMORY;
        sgmv_used(&plan, used);
        mark_adapters(call, &plan, used, argument, mask);
        free(used);
        return CM_OK;
    }
    int64_t count[] = {[SLICES] = cm_dim(call, 'S') + 1,
                       [PERMUTATION] = plan.T,
                       [OFFSET] = plan.L + 2,
                       [ADAPTER] = plan.L + 1,
                       [RANK] = plan.L};
    memset(mask, CM_READS, (size_t)count[argument]);
    return CM_OK;
}

static cm_status add_operations(const struct sgmv_token *token, void *self)
{
    cm_counts *counts = self;
    counts->operations += 2.0 * (double)token->rank; // per element of x and slice, per column
    return CM_OK;
}

static void counts(const cm_call *call, cm_counts *counts)
{
    struct sgmv_plan plan;
    int64_t slices = 0;
    *counts = (cm_counts){0};
    sgmv_open(call, &plan);
    sgmv_each(&plan, add_operations, counts);
    for (int64_t s = 0; s < cm_dim(call, 'S'); s++)
        slices += has_columns(call, s);
    counts->operations *= (double)(slices * cm_dim(call, 'K') + cm_dim(call, 'N'));
    cm_count_bytes(call, counts);
}

const cm_op cm_sgmv = {
    .name = "sgmv",
    .formula = "y[t,n] (+)= s_a B[a,n,:rank] A[a,slice(n),:rank] x[t], a the adapter of t's segment",
    .arguments = arguments,
    .attributes = attributes,
    .roundings = roundings,
    .terms = terms,
    .symmetries = symmetries,
    .reference = reference,
    .exact = exact,
    .addressed = addressed,
    .counts = counts,
};
