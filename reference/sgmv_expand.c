// SPDX-License-Identifier: Apache-2.0
// sgmv_expand: y[t,n] (+)= s_a sum_j B[a,n,j] v[t,slice(n),j] for the tokens of each segment; columns
// slice_offset[s] .. slice_offset[s+1] belong to slice s. Accumulating, the rows of tokens without adapter
// stay as they are; overwriting, they become zero.
#include "reference/sgmv_segments.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { V, SLICES, PERMUTATION, OFFSET, ADAPTER, RANK, SCALING, B, Y };

static const cm_argument arguments[] = {
    [V] = {.name = "v",
           .role = CM_INPUT,
           .dtypes = SGMV_FLOATS,
           .dtype_variable = 'v',
           .shape = "T S r",
           .fill = {.kind = "dense"},
           .meaning = "A x; columns from the adapter's rank on are padding"},
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
                    .exact_nonzeros = 4},
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
    {"delta", 'y', false, "s B v, before it is added to y"},
    {"y", 'y', true, "y, once"},
    {0},
};
static const cm_term terms[] = {
    {"lora", "s B v", "lora_b", true}, {"base", "y before the call", "y", false}, {0}};
static const cm_symmetry symmetries[] = {
    {.name = "tokens permuted", .kind = CM_SYMMETRY_PERMUTE, .letter = 'T'},
    {.name = "adapters permuted", .kind = CM_SYMMETRY_PERMUTE, .letter = 'L'},
    {.name = "tokens without adapter", .kind = CM_SYMMETRY_NONE, .letter = 'L'},
    {.name = "y and B scaled", .kind = CM_SYMMETRY_SCALE, .arguments = "y lora_b"},
    {.name = "scaling 0 is base",
     .kind = CM_SYMMETRY_OMIT,
     .letter = 'L',
     .arguments = "lora_scaling",
     .terms = 1},
    {.name = "B doubled, scaling halved",
     .kind = CM_SYMMETRY_BALANCE,
     .arguments = "lora_b",
     .halved = "lora_scaling"},
    {.name = "linear in the scaling", .kind = CM_SYMMETRY_LINEAR, .arguments = "lora_scaling"},
    {0},
};

struct expand {
    const cm_call *call;
    cm_want *want;
    int64_t S, N, r, *slice; // slice of each column
    bool accumulate, lora, model;
    double *v, *b, *y;
};

static void close(struct expand *expand)
{
    free(expand->v);
    free(expand->slice);
}

static cm_status open(struct expand *expand, const cm_call *call, struct sgmv_plan *plan)
{
    sgmv_open(call, plan);
    *expand = (struct expand){.call = call,
                              .S = cm_dim(call, 'S'),
                              .N = cm_dim(call, 'N'),
                              .r = cm_dim(call, 'r'),
                              .accumulate = call->host->attribute(call, "accumulate") != 0};
    expand->v = malloc((size_t)(expand->S * expand->r + expand->r + expand->N + 1) * sizeof(double));
    expand->slice = malloc((size_t)(expand->N + 1) * sizeof *expand->slice);
    if (!expand->v || !expand->slice)
        return CM_NO_MEMORY;
    expand->b = expand->v + expand->S * expand->r;
    expand->y = expand->b + expand->r;
    for (int64_t s = 0; s < expand->S; s++)
        for (int64_t n = cm_index1(call->arguments[SLICES], s); n < cm_index1(call->arguments[SLICES], s + 1);
             n++)
            expand->slice[n] = s;
    return CM_OK;
}

static void load_token(struct expand *expand, int64_t token)
{
    for (int64_t s = 0; s < expand->S; s++)
        cm_row(expand->call->arguments[V], (int64_t[]){token, s}, expand->v + s * expand->r);
    cm_row(expand->call->arguments[Y], &token, expand->y);
}

static cm_status compute(const struct sgmv_token *token, void *self)
{
    struct expand *expand = self;
    const DLTensor *y = expand->call->arguments[Y];
    double s = token->adapter < 0 ? 0 : cm_element(expand->call->arguments[SCALING], token->adapter);
    load_token(expand, token->token);
    for (int64_t n = 0; n < expand->N; n++) {
        double base = expand->accumulate ? expand->y[n] : 0, value = base, magnitude = fabs(base);
        cm_error_size error = {0};
        if (token->rank > 0 && expand->lora) {
            cm_sum sum = {0};
            const double *v = expand->v + expand->slice[n] * expand->r;
            cm_row(expand->call->arguments[B], (int64_t[]){token->adapter, n}, expand->b);
            for (int64_t j = 0; j < token->rank; j++)
                cm_sum_product(&sum, expand->b[j], v[j]);
            double delta = s * sum.value;
            value += delta;
            magnitude += fabs(s) * sum.magnitude;
            error = cm_sum_error(&sum, true);
            error.variance = s * s * error.variance + CM_FP32_VARIANCE * (delta * delta + value * value);
            error.order *= s * s;
            error.worst = fabs(s) * error.worst + CM_FP32_UNIT * (fabs(delta) + fabs(value));
            if (cm_is_small(delta) || cm_is_small(value))
                cm_error_add(&error, 2 * CM_FP32_LEAST);
            if (expand->model && expand->accumulate) {
                error.variance += cm_rounding_variance(y->dtype, delta);
                error.worst += cm_ulp(y->dtype, delta) / 2;
            }
        }
        cm_want_set(&expand->want[Y], token->token * expand->N + n, value, magnitude, error);
    }
    return CM_OK;
}

static cm_status reference(const cm_call *call, uint64_t omit, cm_accuracy accuracy, cm_want *want)
{
    struct expand expand;
    struct sgmv_plan plan;
    cm_status status = open(&expand, call, &plan);
    expand.want = want;
    expand.model = accuracy == CM_ACCURACY_MODEL;
    expand.lora = !(omit & 1);
    if (omit >> 1 & 1)
        expand.accumulate = false;
    if (status == CM_OK)
        status = sgmv_each(&plan, compute, &expand);
    close(&expand);
    return status;
}

static cm_status prove(const struct sgmv_token *token, void *self)
{
    struct expand *expand = self;
    int bits = cm_significand_bits(expand->call->arguments[Y]->dtype);
    double s = token->adapter < 0 ? 0 : cm_element(expand->call->arguments[SCALING], token->adapter);
    load_token(expand, token->token);
    for (int64_t n = 0; n < expand->N && token->rank > 0; n++) {
        cm_exact sum = {0};
        if (expand->accumulate)
            cm_exact_add(&sum, expand->y[n]);
        const double *v = expand->v + expand->slice[n] * expand->r;
        cm_row(expand->call->arguments[B], (int64_t[]){token->adapter, n}, expand->b);
        for (int64_t j = 0; j < token->rank; j++)
            cm_exact_add(&sum, s * expand->b[j] * v[j]);
        if (!cm_exact_fits(&sum, bits))
            return expand->call->host->fail(expand->call, CM_BAD_VALUE, "not exact in %d bits: y[%lld,%lld]",
                                            bits, (long long)token->token, (long long)n);
    }
    return CM_OK;
}

static cm_status exact(const cm_call *call)
{
    struct expand expand;
    struct sgmv_plan plan;
    cm_status status = open(&expand, call, &plan);
    if (status == CM_OK)
        status = sgmv_each(&plan, prove, &expand);
    close(&expand);
    return status;
}

static cm_status mark_v(const struct sgmv_token *token, void *self)
{
    const struct expand *expand = ((void **)self)[0];
    uint8_t *mask = ((void **)self)[1];
    for (int64_t s = 0; s < expand->S; s++)
        memset(mask + (token->token * expand->S + s) * expand->r, CM_READS, (size_t)token->rank);
    return CM_OK;
}

static cm_status mark_y(const struct sgmv_token *token, void *self)
{
    const struct expand *expand = ((void **)self)[0];
    uint8_t *mask = ((void **)self)[1];
    if (token->rank > 0)
        memset(mask + token->token * expand->N, CM_READS | CM_WRITES, (size_t)expand->N);
    return CM_OK;
}

static cm_status addressed(const cm_call *call, int argument, uint8_t *mask)
{
    struct expand expand;
    struct sgmv_plan plan;
    bool *used = NULL;
    cm_status status = open(&expand, call, &plan);
    if (status != CM_OK)
        goto done;
    used = calloc((size_t)plan.L + 1, sizeof *used);
    if (!used) {
        status = CM_NO_MEMORY;
        goto done;
    }
    sgmv_used(&plan, used);
    if (argument == V) {
        memset(mask, 0, (size_t)(plan.T * expand.S * expand.r));
        status = sgmv_each(&plan, mark_v, (void *[]){&expand, mask});
    } else if (argument == B) {
        for (int64_t a = 0; a < plan.L; a++)
            for (int64_t n = 0; n < expand.N; n++, mask += expand.r) {
                int64_t rank = used[a] ? cm_index1(plan.rank, a) : 0;
                memset(mask, CM_READS, (size_t)rank);
                memset(mask + rank, 0, (size_t)(expand.r - rank));
            }
    } else if (argument == SCALING) {
        for (int64_t a = 0; a < plan.L; a++)
            mask[a] = used[a] && cm_index1(plan.rank, a) > 0 ? CM_READS : 0;
    } else if (argument == Y) {
        memset(mask, expand.accumulate ? 0 : CM_WRITES, (size_t)(plan.T * expand.N));
        if (expand.accumulate)
            status = sgmv_each(&plan, mark_y, (void *[]){&expand, mask});
    } else {
        int64_t count[] = {[SLICES] = expand.S + 1,
                           [PERMUTATION] = plan.T,
                           [OFFSET] = plan.L + 2,
                           [ADAPTER] = plan.L + 1,
                           [RANK] = plan.L};
        memset(mask, CM_READS, (size_t)count[argument]);
    }
done:
    free(used);
    close(&expand);
    return status;
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
    counts->operations *= (double)(cm_dim(call, 'N'));
    cm_count_bytes(call, counts);
}

const cm_op cm_sgmv_expand = {
    .name = "sgmv_expand",
    .formula = "y[t,n] (+)= s_a B[a,n,:rank] v[t,slice(n),:rank], a the adapter of t's segment",
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
