// SPDX-License-Identifier: Apache-2.0
// moe_forward/naive: what one writes first. Token by token, slot by slot, plain dot products in fp32; one
// rounding, at the output. Weights in f32, f16, bf16, i8 or i4; biases; act_quant; silu.
#include "optimized/kernels.h"
#include "optimized/layer.h"

#include <math.h>

// How rows reach W.
struct quantisation {
    int64_t group; // elements of a weight's row that share a scale
    bool rows;     // x and h are quantised for W
    bool round_h;  // h is rounded to the dtype of x
    int8_t *codes; // of one row
    float *values; // the same times their scale
};

struct projection {
    const struct quantisation *quantisation;
    const DLTensor *weight, *scale, *bias, *a, *b;
};

struct layer {
    const DLTensor *hidden, *ids, *map, *weights, *token_adapter, *rank, *scaling, *shared_router, *output;
    struct projection gate, up, down, shared_gate, shared_up, shared_down;
    int64_t T, k, H, I, D, r;
    float *x, *v, *g, *u, *d, *y; // one token's rows
    struct quantisation quantisation;
};

static void open_layer(const cm_call *call, struct layer *layer)
{
#define ARGUMENT(name) call->host->argument(call, name)
#define PROJECTION(weight, lora, name)                                                                       \
    {&layer->quantisation,   ARGUMENT(weight name),    ARGUMENT(weight name "_scale"),                       \
     ARGUMENT("bias_" name), ARGUMENT(lora "a_" name), ARGUMENT(lora "b_" name)}
    *layer = (struct layer){
        .hidden = ARGUMENT("hidden"),
        .ids = ARGUMENT("topk_ids"),
        .map = ARGUMENT("expert_map"),
        .weights = ARGUMENT("topk_weights"),
        .token_adapter = ARGUMENT("token_adapter"),
        .rank = ARGUMENT("lora_rank"),
        .scaling = ARGUMENT("lora_scaling"),
        .shared_router = ARGUMENT("shared_router"),
        .output = ARGUMENT("output"),
        .gate = PROJECTION("w_", "lora_", "gate"),
        .up = PROJECTION("w_", "lora_", "up"),
        .down = PROJECTION("w_", "lora_", "down"),
        .shared_gate = PROJECTION("shared_", "shared_lora_", "gate"),
        .shared_up = PROJECTION("shared_", "shared_lora_", "up"),
        .shared_down = PROJECTION("shared_", "shared_lora_", "down"),
        .T = call->host->dim(call, 'T'),
        .k = call->host->dim(call, 'k'),
        .H = call->host->dim(call, 'H'),
        .I = call->host->dim(call, 'I'),
        .D = call->host->dim(call, 'D'),
        .r = call->host->dim(call, 'r'),
        .quantisation = {.group = call->host->dim(call, 'G'),
                         .rows = call->host->attribute(call, "act_quant") != 0,
                         .round_h = call->host->attribute(call, "act_quant_source") != 0},
    };
    layer->shared_gate.bias = layer->shared_up.bias = layer->shared_down.bias = NULL;
}

static float dot(const DLTensor *tensor, const char *row, const float *x, int64_t count)
{
    float sum = 0;
    for (int64_t n = 0; n < count; n++)
        sum += cm_load_float(tensor, row, n) * x[n];
    return sum;
}

// The same of row o of an integer weight.
static float dot_codes(const struct projection *p, int64_t expert, int64_t o, const float *x, int64_t count)
{
    const char *row = cm_row_at(p->weight, 0, expert, o), *scales = cm_row_at(p->scale, 0, expert, o);
    int64_t group = p->quantisation->group ? p->quantisation->group : count;
    float sum = 0;
    for (int64_t n = 0; n < count; n++) {
        float scale = cm_load_float(p->scale, scales, n / group);
        sum += (float)cm_load_code(p->weight, row, n) * scale * x[n];
    }
    return sum;
}

// The row that W sees: x, or its codes times their scale.
static const float *seen(const struct quantisation *quantisation, const float *x, int64_t count)
{
    if (!quantisation->rows)
        return x;
    float scale = cm_quantise_row(x, count, quantisation->codes);
    for (int64_t n = 0; n < count; n++)
        quantisation->values[n] = (float)quantisation->codes[n] * scale;
    return quantisation->values;
}

// out[n_out] = W x + bias + s B (A x); rank 0: W x + bias.
static void project(const struct projection *p, int64_t expert, int64_t adapter, int64_t rank, float s,
                    const float *x, int64_t n_in, float *v, float *out, int64_t n_out)
{
    bool lora = p->a && rank > 0;
    for (int64_t j = 0; lora && j < rank; j++)
        v[j] = dot(p->a, cm_row_at(p->a, adapter, p->a->ndim == 4 ? expert : adapter, j), x, n_in);
    x = seen(p->quantisation, x, n_in);
    for (int64_t o = 0; o < n_out; o++) {
        if (p->scale)
            out[o] = dot_codes(p, expert, o, x, n_in);
        else
            out[o] = dot(p->weight, cm_row_at(p->weight, 0, expert, o), x, n_in);
        if (p->bias)
            out[o] += cm_load_float(p->bias, cm_row_at(p->bias, 0, 0, expert), o);
        if (lora)
            out[o] += s * dot(p->b, cm_row_at(p->b, adapter, p->b->ndim == 4 ? expert : adapter, o), v, rank);
    }
}

static float silu(float g)
{
    return g / (1 + expf(-g));
}

// y += weight * FFN(x)
static void add_ffn(const struct layer *layer, const struct projection *gate, const struct projection *up,
                    const struct projection *down, int64_t width, int64_t expert, int64_t adapter,
                    float weight)
{
    int64_t rank = adapter < 0 ? 0 : cm_load_int(layer->rank, 0, adapter);
    float s = adapter < 0 ? 0 : cm_load_float(layer->scaling, layer->scaling->data, adapter);
    project(gate, expert, adapter, rank, s, layer->x, layer->H, layer->v, layer->g, width);
    project(up, expert, adapter, rank, s, layer->x, layer->H, layer->v, layer->u, width);
    for (int64_t i = 0; i < width; i++)
        layer->g[i] = silu(layer->g[i]) * layer->u[i];
    for (int64_t i = 0; layer->quantisation.rows && layer->quantisation.round_h && i < width; i++)
        layer->g[i] = cm_round_float(layer->hidden, layer->g[i]);
    project(down, expert, adapter, rank, s, layer->g, width, layer->v, layer->d, layer->H);
    for (int64_t o = 0; o < layer->H; o++)
        layer->y[o] += weight * layer->d[o];
}

static void run_token(const struct layer *layer, int64_t t)
{
    int64_t adapter = layer->token_adapter ? cm_load_int(layer->token_adapter, 0, t) : -1;
    for (int64_t i = 0; i < layer->H; i++) {
        layer->x[i] = cm_load_float(layer->hidden, cm_row_at(layer->hidden, 0, 0, t), i);
        layer->y[i] = 0;
    }
    if (layer->shared_gate.weight) {
        float weight = 1;
        if (layer->shared_router)
            weight =
                1 / (1 + expf(-dot(layer->shared_router, layer->shared_router->data, layer->x, layer->H)));
        add_ffn(layer, &layer->shared_gate, &layer->shared_up, &layer->shared_down, layer->D, 0, adapter,
                weight);
    }
    for (int64_t j = 0; j < layer->k; j++) {
        int64_t expert = cm_load_int(layer->ids, t, j);
        if (expert < 0)
            continue;
        float weight = cm_load_float(layer->weights, cm_row_at(layer->weights, 0, 0, t), j);
        if (layer->map)
            expert = cm_load_int(layer->map, 0, expert);
        add_ffn(layer, &layer->gate, &layer->up, &layer->down, layer->I, expert, adapter, weight);
    }
    for (int64_t o = 0; o < layer->H; o++)
        cm_store_float(layer->output, (char *)cm_row_at(layer->output, 0, 0, t), o, layer->y[o]);
}

static bool supports(const cm_call *call, char *reason, size_t size)
{
    return cm_supports_layer(call, CM_HAS_INTEGERS | CM_HAS_BIASES | CM_HAS_ACT_QUANT | CM_HAS_MAP, reason,
                             size);
}

static cm_status run(const cm_call *call, void *state)
{
    struct layer layer;
    (void)state;
    cm_status status = call->host->validate(call);
    if (status != CM_OK)
        return status;
    open_layer(call, &layer);
    int64_t width = layer.I > layer.D ? layer.I : layer.D;
    layer.x = call->host->scratch(call, (size_t)layer.H * sizeof(float), sizeof(float));
    layer.v = call->host->scratch(call, (size_t)layer.r * sizeof(float), sizeof(float));
    layer.g = call->host->scratch(call, (size_t)width * sizeof(float), sizeof(float));
    layer.u = call->host->scratch(call, (size_t)width * sizeof(float), sizeof(float));
    layer.d = call->host->scratch(call, (size_t)layer.H * sizeof(float), sizeof(float));
    layer.y = call->host->scratch(call, (size_t)layer.H * sizeof(float), sizeof(float));
    int64_t longest = width > layer.H ? width : layer.H;
    layer.quantisation.values = call->host->scratch(call, (size_t)longest * sizeof(float), sizeof(float));
    layer.quantisation.codes = call->host->scratch(call, (size_t)longest, 1);
    if (!layer.x || !layer.v || !layer.g || !layer.u || !layer.d || !layer.y || !layer.quantisation.values ||
        !layer.quantisation.codes)
        return call->host->fail(call, CM_NO_MEMORY, "no scratch memory");
    for (int64_t t = 0; t < layer.T; t++)
        run_token(&layer, t);
    return CM_OK;
}

const cm_kernel cm_moe_forward_naive = {
    .size = sizeof(cm_kernel),
    .name = "moe_forward/naive",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .supports = supports,
    .row_invariant = true,
    .run = run,
};
