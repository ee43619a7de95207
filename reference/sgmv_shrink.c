// SPDX-License-Identifier: Apache-2.0
// sgmv_shrink: v[t,s,j] = sum_i A[a,s,j,i] x[t,i] for the tokens of each segment. Every element of v is
// written: zero for tokens without adapter and from the adapter's rank on.
#include "reference/sgmv_segments.h"

#include <stdlib.h>
#include <string.h>

enum { X, A, PERMUTATION, OFFSET, ADAPTER, RANK, V };

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
           .fill = {.kind = "matrix", .fan_in = 'K', .exact_nonzeros = 8},
           .meaning = "A of each slice; rows from the adapter's rank on are padding"},
    [PERMUTATION] = SGMV_PLAN_INPUTS,
    [V] = {.name = "v",
           .role = CM_OUTPUT,
           .dtypes = SGMV_FLOATS,
           .dtype_variable = 'v',
           .shape = "T S r",
           .compare = CM_COMPARE_BOUNDED,
           .meaning = "A x"},
    {0},
};

static const cm_attribute attributes[] = {{0}};
static const cm_rounding roundings[] = {
    {"sums", 0, true, "every sum is formed in fp32, in any order"},
    {"v", 'v', true, "v, once"},
    {0},
};
static const cm_term terms[] = {{0}};
static const cm_symmetry symmetries[] = {
    {.name = "tokens permuted", .kind = CM_SYMMETRY_PERMUTE, .letter = 'T'},
    {.name = "inputs permuted", .kind = CM_SYMMETRY_PERMUTE, .letter = 'K'},
    {.name = "slices permuted", .kind = CM_SYMMETRY_PERMUTE, .letter = 'S'},
    {.name = "adapters permuted", .kind = CM_SYMMETRY_PERMUTE, .letter = 'L'},
    {.name = "tokens without adapter", .kind = CM_SYMMETRY_NONE, .letter = 'L'},
    {.name = "A scaled", .kind = CM_SYMMETRY_SCALE, .arguments = "lora_a"},
    {.name = "linear in A", .kind = CM_SYMMETRY_LINEAR, .arguments = "lora_a"},
    {0},
};

struct shrink {
    const cm_call *call;
    cm_want *want;
    int64_t K, S, r;
    double *x, *a;
    bool products; // a product of x and A does not fit fp32
};

static cm_status open(struct shrink *shrink, const cm_call *call, struct sgmv_plan *plan)
{
    sgmv_open(call, plan);
    *shrink =
        (struct shrink){.call = call, .K = cm_dim(call, 'K'), .S = cm_dim(call, 'S'), .r = cm_dim(call, 'r')};
    shrink->products =
        cm_significand_bits(call->arguments[X]->dtype) + cm_significand_bits(call->arguments[A]->dtype) > 24;
    shrink->x = malloc((size_t)(2 * shrink->K + 1) * sizeof(double));
    shrink->a = shrink->x + shrink->K;
    return shrink->x ? CM_OK : CM_NO_MEMORY;
}

static cm_status compute(const struct sgmv_token *token, void *self)
{
    struct shrink *shrink = self;
    cm_row(shrink->call->arguments[X], &token->token, shrink->x);
    for (int64_t s = 0; s < shrink->S; s++)
        for (int64_t j = 0; j < token->rank; j++) {
            cm_sum sum = {0};
            cm_row(shrink->call->arguments[A], (int64_t[]){token->adapter, s, j}, shrink->a);
            for (int64_t i = 0; i < shrink->K; i++)
                cm_sum_product(&sum, shrink->a[i], shrink->x[i]);
            int64_t n = (token->token * shrink->S + s) * shrink->r + j;
            cm_want_set(&shrink->want[V], n, sum.value, sum.magnitude, cm_sum_error(&sum, shrink->products));
        }
    return CM_OK;
}

static cm_status reference(const cm_call *call, uint64_t omit, cm_accuracy accuracy, cm_want *want)
{
    (void)omit;
    (void)accuracy; // there is no rounding point inside
    struct shrink shrink;
    struct sgmv_plan plan;
    cm_status status = open(&shrink, call, &plan);
    shrink.want = want;
    for (int64_t n = 0; n < want[V].count; n++)
        cm_want_set(&want[V], n, 0, 0, (cm_error_size){0});
    if (status == CM_OK)
        status = sgmv_each(&plan, compute, &shrink);
    free(shrink.x);
    return status;
}

static cm_status prove(const struct sgmv_token *token, void *self)
{
    struct shrink *shrink = self;
    int bits = cm_significand_bits(shrink->call->arguments[V]->dtype);
    int x_bits = cm_significand_bits(shrink->call->arguments[X]->dtype);
    bits = x_bits < bits ? x_bits : bits;
    cm_row(shrink->call->arguments[X], &token->token, shrink->x);
    for (int64_t s = 0; s < shrink->S; s++)
        for (int64_t j = 0; j < token->rank; j++) {
            cm_exact sum = {0};
            cm_row(shrink->call->arguments[A], (int64_t[]){token->adapter, s, j}, shrink->a);
            for (int64_t i = 0; i < shrink->K; i++)
                cm_exact_add(&sum, shrink->a[i] * shrink->x[i]);
            if (!cm_exact_fits(&sum, bits))
                return shrink->call->host->fail(shrink->call, CM_BAD_VALUE,
                                                "not exact in %d bits: v[%lld,%lld,%lld]", bits,
                                                (long long)token->token, (long long)s, (long long)j);
        }
    return CM_OK;
}

static cm_status exact(const cm_call *call)
{
    struct shrink shrink;
    struct sgmv_plan plan;
    cm_status status = open(&shrink, call, &plan);
    if (status == CM_OK)
        status = sgmv_each(&plan, prove, &shrink);
    free(shrink.x);
    return status;
}

static cm_status addressed(const cm_call *call, int argument, uint8_t *mask)
{
    struct sgmv_plan plan;
    sgmv_open(call, &plan);
    int64_t K = cm_dim(call, 'K'), S = cm_dim(call, 'S'), r = cm_dim(call, 'r');
    if (argument == V) {
        memset(mask, CM_WRITES, (size_t)(plan.T * S * r));
    } else if (argument == X) {
        memset(mask, 0, (size_t)(plan.T * K));
        for (int64_t p = 0; p < plan.segments; p++) {
            int64_t adapter = cm_index1(plan.adapter, p);
            if (adapter < 0 || cm_index1(plan.rank, adapter) == 0)
                continue;
            for (int64_t n = cm_index1(plan.offset, p); n < cm_index1(plan.offset, p + 1); n++)
                memset(mask + cm_index1(plan.permutation, n) * K, CM_READS, (size_t)K);
        }
    } else if (argument == A) {
        bool *used = calloc((size_t)plan.L + 1, sizeof *used);
        if (!used)
            return CM_NO_MEMORY;
        sgmv_used(&plan, used);
        for (int64_t a = 0; a < plan.L; a++)
            for (int64_t row = 0; row < S * r; row++, mask += K)
                memset(mask, used[a] && row % r < cm_index1(plan.rank, a) ? CM_READS : 0, (size_t)K);
        free(used);
    } else {
        int64_t count[] = {
            [PERMUTATION] = plan.T, [OFFSET] = plan.L + 2, [ADAPTER] = plan.L + 1, [RANK] = plan.L};
        memset(mask, CM_READS, (size_t)count[argument]);
    }
    return CM_OK;
}

static cm_status add_operations(const struct sgmv_token *token, void *self)
{
    cm_counts *counts = self;
    counts->operations += 2.0 * (double)token->rank; // per column: multiply and add
    return CM_OK;
}

static void counts(const cm_call *call, cm_counts *counts)
{
    struct sgmv_plan plan;
    *counts = (cm_counts){0};
    sgmv_open(call, &plan);
    sgmv_each(&plan, add_operations, counts);
    counts->operations *= (double)(cm_dim(call, 'S') * cm_dim(call, 'K'));
    cm_count_bytes(call, counts);
}

const cm_op cm_sgmv_shrink = {
    .name = "sgmv_shrink",
    .formula = "v[t,s,:rank] = A[a,s] x[t], a the adapter of t's segment",
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
