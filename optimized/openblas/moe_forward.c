// SPDX-License-Identifier: Apache-2.0
// moe_forward/openblas: per expert, gather the tokens that chose it (sorted by adapter), sgemm for each
// projection and for each adapter's A and B, scatter weighted. Integer weights become fp32 first; with
// act_quant the product is one of codes in fp32. fp32 inside, one rounding at the output.
#include "optimized/kernels.h"
#include "optimized/layer.h"
#include "optimized/openblas/products.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct slot {
    int32_t token, adapter;
    float weight;
};

struct layer {
    const cm_call *call;
    const DLTensor *hidden, *ids, *map, *weights, *token_adapter, *rank, *scaling, *shared_router, *output;
    int64_t T, k, E, H, I, D, r;
    struct slot *slots;                           // of the expert in hand, sorted by adapter
    int64_t count;                                // of slots
    float *x, *gate, *up, *down, *v, *matrix, *y; // [T k, .] rows of the expert; matrix: one weight; y [T, H]
    float *code_rows, *row_scale; // with act_quant: rows of codes [T k, .], their scales [T k]
    int8_t *codes;                // one row; NULL: no act_quant
};

#define ARGUMENT(name) call->host->argument(call, name)

static int by_adapter(const void *left, const void *right)
{
    const struct slot *a = left, *b = right;
    if (a->adapter != b->adapter)
        return a->adapter < b->adapter ? -1 : 1;
    return (a->token > b->token) - (a->token < b->token);
}

// The product with W, which is in layer->matrix; with act_quant each row of `in` as codes times its scale.
static void multiply_base(struct layer *layer, const float *in, int64_t n_in, float *out, int64_t n_out)
{
    if (!layer->codes) {
        cm_multiply(layer->count, n_out, n_in, 1, in, n_in, layer->matrix, n_in, 0, out, n_out);
        return;
    }
    for (int64_t row = 0; row < layer->count; row++) {
        layer->row_scale[row] = cm_quantise_row(in + row * n_in, n_in, layer->codes);
        for (int64_t n = 0; n < n_in; n++)
            layer->code_rows[row * n_in + n] = layer->codes[n];
    }
    cm_multiply(layer->count, n_out, n_in, 1, layer->code_rows, n_in, layer->matrix, n_in, 0, out, n_out);
    for (int64_t n = 0; n < layer->count * n_out; n++)
        out[n] *= layer->row_scale[n / n_out];
}

// out[count, n_out] = in W^T + bias + s (in A^T) B^T, adapter by adapter. expert -1: the shared one.
static void project(struct layer *layer, const char *name, int64_t expert, const float *in, int64_t n_in,
                    float *out, int64_t n_out)
{
    const cm_call *call = layer->call;
    char weight_name[32], scale_name[48], bias_name[32], a_name[32], b_name[32];
    snprintf(weight_name, sizeof weight_name, "%s%s", expert < 0 ? "shared_" : "w_", name);
    snprintf(scale_name, sizeof scale_name, "%s_scale", weight_name);
    snprintf(bias_name, sizeof bias_name, "bias_%s", name);
    snprintf(a_name, sizeof a_name, "%slora_a_%s", expert < 0 ? "shared_" : "", name);
    snprintf(b_name, sizeof b_name, "%slora_b_%s", expert < 0 ? "shared_" : "", name);
    const DLTensor *weight = ARGUMENT(weight_name), *a = ARGUMENT(a_name), *b = ARGUMENT(b_name);
    const DLTensor *scale = ARGUMENT(scale_name), *bias = expert < 0 ? NULL : ARGUMENT(bias_name);
    if (scale)
        cm_gather_codes(weight, scale, expert, n_out, n_in, call->host->dim(call, 'G'), layer->matrix);
    else
        cm_gather_matrix(weight, 0, expert, n_out, n_in, layer->matrix);
    multiply_base(layer, in, n_in, out, n_out);
    for (int64_t n = 0; bias && n < layer->count * n_out; n++)
        out[n] += cm_load_float(bias, cm_row_at(bias, 0, 0, expert), n % n_out);
    for (int64_t begin = 0, end; a && begin < layer->count; begin = end) {
        int32_t adapter = layer->slots[begin].adapter;
        for (end = begin; end < layer->count && layer->slots[end].adapter == adapter; end++)
            ;
        int64_t rank = adapter < 0 ? 0 : cm_load_int(layer->rank, 0, adapter);
        if (rank == 0)
            continue;
        float s = cm_load_float(layer->scaling, layer->scaling->data, adapter);
        int64_t second = expert < 0 ? adapter : expert; // a shared tensor has no expert dimension
        cm_gather_matrix(a, adapter, second, rank, n_in, layer->matrix);
        cm_multiply(end - begin, rank, n_in, 1, in + begin * n_in, n_in, layer->matrix, n_in, 0, layer->v,
                    rank);
        cm_gather_matrix(b, adapter, second, n_out, rank, layer->matrix);
        cm_multiply(end - begin, n_out, rank, s, layer->v, rank, layer->matrix, rank, 1, out + begin * n_out,
                    n_out);
    }
}

// Adds the weighted output of one expert to the rows of y.
static void run_expert(struct layer *layer, int64_t expert, int64_t width)
{
    int64_t H = layer->H;
    if (layer->count == 0)
        return;
    qsort(layer->slots, (size_t)layer->count, sizeof *layer->slots, by_adapter);
    for (int64_t n = 0; n < layer->count; n++) {
        const char *row = cm_row_at(layer->hidden, 0, 0, layer->slots[n].token);
        for (int64_t i = 0; i < H; i++)
            layer->x[n * H + i] = cm_load_float(layer->hidden, row, i);
    }
    project(layer, "gate", expert, layer->x, H, layer->gate, width);
    project(layer, "up", expert, layer->x, H, layer->up, width);
    for (int64_t n = 0; n < layer->count * width; n++)
        layer->gate[n] = layer->gate[n] / (1 + expf(-layer->gate[n])) * layer->up[n];
    bool round_h = layer->codes && layer->call->host->attribute(layer->call, "act_quant_source") != 0;
    for (int64_t n = 0; round_h && n < layer->count * width; n++)
        layer->gate[n] = cm_round_float(layer->hidden, layer->gate[n]);
    project(layer, "down", expert, layer->gate, width, layer->down, H);
    for (int64_t n = 0; n < layer->count; n++) {
        float *y = layer->y + layer->slots[n].token * H;
        for (int64_t o = 0; o < H; o++)
            y[o] += layer->slots[n].weight * layer->down[n * H + o];
    }
}

// -1: the slot contributes nothing.
static int32_t expert_at(const struct layer *layer, int64_t t, int64_t j)
{
    int32_t id = cm_load_int(layer->ids, t, j);
    return id < 0 || !layer->map ? id : cm_load_int(layer->map, 0, id);
}

static void collect(struct layer *layer, int64_t expert)
{
    layer->count = 0;
    for (int64_t t = 0; t < layer->T; t++) {
        int32_t adapter = layer->token_adapter ? cm_load_int(layer->token_adapter, 0, t) : -1;
        if (expert < 0) {
            float weight = 1;
            if (layer->shared_router) {
                const char *x = cm_row_at(layer->hidden, 0, 0, t);
                float logit = 0;
                for (int64_t i = 0; i < layer->H; i++)
                    logit += cm_load_float(layer->shared_router, layer->shared_router->data, i) *
                             cm_load_float(layer->hidden, x, i);
                weight = 1 / (1 + expf(-logit));
            }
            layer->slots[layer->count++] = (struct slot){(int32_t)t, adapter, weight};
        }
        for (int64_t j = 0; expert >= 0 && j < layer->k; j++)
            if (expert_at(layer, t, j) == expert)
                layer->slots[layer->count++] =
                    (struct slot){(int32_t)t, adapter,
                                  cm_load_float(layer->weights, cm_row_at(layer->weights, 0, 0, t), j)};
    }
}

static bool take_scratch(struct layer *layer)
{
    const cm_call *call = layer->call;
    int64_t width = layer->I > layer->D ? layer->I : layer->D, longest = layer->H > width ? layer->H : width;
    int64_t rows = layer->T * layer->k, rank_matrix = longest * layer->r;
    int64_t matrix = layer->H * width > rank_matrix ? layer->H * width : rank_matrix;
    const struct {
        float **place;
        int64_t count;
    } wanted[] = {{&layer->x, rows * layer->H},    {&layer->gate, rows * width},
                  {&layer->up, rows * width},      {&layer->v, rows * layer->r},
                  {&layer->down, rows * layer->H}, {&layer->matrix, matrix},
                  {&layer->y, layer->T * layer->H}};
    for (size_t n = 0; n < sizeof wanted / sizeof *wanted; n++) {
        *wanted[n].place = call->host->scratch(call, (size_t)wanted[n].count * sizeof(float), 64);
        if (!*wanted[n].place)
            return false;
    }
    layer->slots = call->host->scratch(call, (size_t)rows * sizeof *layer->slots, 64);
    if (call->host->attribute(call, "act_quant") != 0) {
        layer->code_rows = call->host->scratch(call, (size_t)(rows * longest) * sizeof(float), 64);
        layer->row_scale = call->host->scratch(call, (size_t)rows * sizeof(float), 64);
        layer->codes = call->host->scratch(call, (size_t)longest, 64);
        if (!layer->code_rows || !layer->row_scale || !layer->codes)
            return false;
    }
    return layer->slots != NULL;
}

static bool supports(const cm_call *call, char *reason, size_t size)
{
    return cm_supports_layer(call, CM_HAS_INTEGERS | CM_HAS_BIASES | CM_HAS_ACT_QUANT | CM_HAS_MAP, reason,
                             size);
}

static cm_status run(const cm_call *call, void *state)
{
    (void)state;
    cm_status status = call->host->validate(call);
    if (status != CM_OK)
        return status;
    struct layer layer = {
        .call = call,
        .hidden = ARGUMENT("hidden"),
        .ids = ARGUMENT("topk_ids"),
        .map = ARGUMENT("expert_map"),
        .weights = ARGUMENT("topk_weights"),
        .token_adapter = ARGUMENT("token_adapter"),
        .rank = ARGUMENT("lora_rank"),
        .scaling = ARGUMENT("lora_scaling"),
        .shared_router = ARGUMENT("shared_router"),
        .output = ARGUMENT("output"),
        .T = call->host->dim(call, 'T'),
        .k = call->host->dim(call, 'k'),
        .E = call->host->dim(call, 'E'),
        .H = call->host->dim(call, 'H'),
        .I = call->host->dim(call, 'I'),
        .D = call->host->dim(call, 'D'),
        .r = call->host->dim(call, 'r'),
    };
    if (!take_scratch(&layer))
        return call->host->fail(call, CM_NO_MEMORY, "no scratch memory");
    for (int64_t n = 0; n < layer.T * layer.H; n++)
        layer.y[n] = 0;
    int threads = cm_limit_threads(call);
    if (layer.D > 0) {
        collect(&layer, -1);
        run_expert(&layer, -1, layer.D);
    }
    for (int64_t expert = 0; expert < layer.E; expert++) {
        collect(&layer, expert);
        run_expert(&layer, expert, layer.I);
    }
    cm_unlimit_threads(threads);
    for (int64_t t = 0; t < layer.T; t++) {
        char *row = (char *)cm_row_at(layer.output, 0, 0, t);
        for (int64_t o = 0; o < layer.H; o++)
            cm_store_float(layer.output, row, o, layer.y[t * layer.H + o]);
    }
    return CM_OK;
}

const cm_kernel cm_moe_forward_openblas = {
    .size = sizeof(cm_kernel),
    .name = "moe_forward/openblas",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .threads_change_bits = true, // sgemm cuts its tiles by the number of threads
    .supports = supports,
    .run = run,
};
