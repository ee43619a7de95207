// SPDX-License-Identifier: Apache-2.0
// moe_forward/packed: the weights become fp32 in prepare, the adapters in update (their unused ranks left
// out), and run reads nothing but these copies and its inputs.
#include <checkmoe.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GATE, UP, DOWN, PROJECTIONS };

// [experts, out, in]; LoRA: A is [adapters, experts, r, in], B is [adapters, experts, out, r].
struct projection {
    float *w, *a, *b; // NULL: absent
    int64_t experts, out, in;
};

struct state {
    struct projection routed[PROJECTIONS], shared[PROJECTIONS];
    float *router;  // [H], sigmoid of it times x weighs the shared expert; NULL: weight 1
    float *scaling; // [L]
    int32_t *rank;  // [L]
    int64_t H, I, D, L, r, k;
};

static const char *const words[PROJECTIONS] = {"gate", "up", "down"};

static const DLTensor *find(const cm_call *call, const char *start, const char *end)
{
    char name[48];
    snprintf(name, sizeof name, "%s%s", start, end);
    return call->host->argument(call, name);
}

static float widen(DLDataType dtype, const char *at)
{
    float value;
    uint16_t half;
    uint32_t bits;
    if (dtype.bits == 32) {
        memcpy(&value, at, 4);
        return value;
    }
    memcpy(&half, at, 2);
    if (dtype.code == kDLBfloat) {
        bits = (uint32_t)half << 16;
        memcpy(&value, &bits, 4);
        return value;
    }
    int exponent = half >> 10 & 31, mantissa = half & 1023;
    value = exponent == 31 ? (mantissa ? NAN : INFINITY)
            : exponent     ? ldexpf(1024.0f + (float)mantissa, exponent - 25)
                           : ldexpf((float)mantissa, -24);
    return half & 0x8000 ? -value : value;
}

static void narrow(DLDataType dtype, char *at, float value)
{
    uint32_t bits;
    uint16_t half;
    if (dtype.bits == 32) {
        memcpy(at, &value, 4);
        return;
    }
    memcpy(&bits, &value, 4);
    if (dtype.code == kDLBfloat) {
        half = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    } else if (!(fabsf(value) < 65520.0f)) {
        half = isnan(value) ? 0x7e00 : 0x7c00;
    } else { // in units of the last place; a carry goes into the exponent
        int exponent = value != 0 && ilogbf(value) > -14 ? ilogbf(value) : -14;
        half = (uint16_t)(nearbyintf(ldexpf(fabsf(value), 10 - exponent)) + (float)(exponent + 14) * 1024);
    }
    half |= (uint16_t)(dtype.code == kDLBfloat ? 0 : bits >> 16 & 0x8000);
    memcpy(at, &half, 2);
}

// A contiguous copy in fp32, owned by the caller; NULL for an absent tensor.
static float *pack(const DLTensor *tensor, bool *failed)
{
    int64_t count = 1, index[CM_MAX_RANK] = {0};
    if (!tensor)
        return NULL;
    for (int d = 0; d < tensor->ndim; d++)
        count *= tensor->shape[d];
    float *copy = malloc((size_t)(count ? count : 1) * sizeof *copy);
    *failed = *failed || !copy;
    for (int64_t n = 0; copy && n < count; n++) {
        int64_t offset = 0;
        for (int d = 0; d < tensor->ndim; d++)
            offset += index[d] * tensor->strides[d];
        copy[n] = widen(tensor->dtype,
                        (const char *)tensor->data + tensor->byte_offset + offset * (tensor->dtype.bits / 8));
        for (int d = tensor->ndim - 1; d >= 0 && ++index[d] == tensor->shape[d]; d--)
            index[d] = 0;
    }
    return copy;
}

static void drop_adapters(struct state *state)
{
    for (int p = 0; p < PROJECTIONS; p++) {
        struct projection *both[] = {&state->routed[p], &state->shared[p]};
        for (int n = 0; n < 2; n++) {
            free(both[n]->a);
            free(both[n]->b);
            both[n]->a = both[n]->b = NULL;
        }
    }
    free(state->scaling);
    free(state->rank);
    state->scaling = NULL;
    state->rank = NULL;
}

static void release(void *pointer)
{
    struct state *state = pointer;
    if (!state)
        return;
    drop_adapters(state);
    for (int p = 0; p < PROJECTIONS; p++) {
        free(state->routed[p].w);
        free(state->shared[p].w);
    }
    free(state->router);
    free(state);
}

static cm_status prepare(const cm_call *call, void **pointer)
{
    const cm_host *host = call->host;
    bool failed = false;
    cm_status status = host->validate(call);
    if (status != CM_OK)
        return status;
    struct state *state = calloc(1, sizeof *state);
    if (!state)
        return host->fail(call, CM_NO_MEMORY, "no memory for the state");
    state->H = host->dim(call, 'H');
    state->I = host->dim(call, 'I');
    state->D = host->dim(call, 'D');
    state->k = host->dim(call, 'k');
    for (int p = 0; p < PROJECTIONS; p++) {
        state->routed[p] = (struct projection){.w = pack(find(call, "w_", words[p]), &failed),
                                               .experts = host->dim(call, 'E'),
                                               .out = p == DOWN ? state->H : state->I,
                                               .in = p == DOWN ? state->I : state->H};
        state->shared[p] = (struct projection){.w = pack(find(call, "shared_", words[p]), &failed),
                                               .experts = 1,
                                               .out = p == DOWN ? state->H : state->D,
                                               .in = p == DOWN ? state->D : state->H};
    }
    state->router = pack(host->argument(call, "shared_router"), &failed);
    if (failed) {
        release(state);
        return host->fail(call, CM_NO_MEMORY, "no memory for packed weights");
    }
    *pointer = state;
    return CM_OK;
}

static cm_status update(const cm_call *call, void *pointer)
{
    struct state *state = pointer;
    bool failed = false;
    cm_status status = call->host->validate(call);
    if (status != CM_OK)
        return status;
    if (!state)
        return call->host->fail(call, CM_BAD_STATE, "update before prepare");
    drop_adapters(state);
    state->L = call->host->dim(call, 'L');
    state->r = call->host->dim(call, 'r');
    for (int p = 0; p < PROJECTIONS; p++) {
        state->routed[p].a = pack(find(call, "lora_a_", words[p]), &failed);
        state->routed[p].b = pack(find(call, "lora_b_", words[p]), &failed);
        state->shared[p].a = pack(find(call, "shared_lora_a_", words[p]), &failed);
        state->shared[p].b = pack(find(call, "shared_lora_b_", words[p]), &failed);
    }
    const DLTensor *rank = call->host->argument(call, "lora_rank");
    state->scaling = pack(call->host->argument(call, "lora_scaling"), &failed);
    if (rank) {
        state->rank = malloc((size_t)(state->L ? state->L : 1) * sizeof *state->rank);
        failed = failed || !state->rank;
        for (int64_t a = 0; state->rank && a < state->L; a++)
            memcpy(&state->rank[a], (const char *)rank->data + rank->byte_offset + 4 * a * rank->strides[0],
                   4);
    }
    if (failed) {
        drop_adapters(state);
        return call->host->fail(call, CM_NO_MEMORY, "no memory for packed adapters");
    }
    return CM_OK;
}

static float dot(const float *row, const float *x, int64_t count)
{
    float sum = 0;
    for (int64_t n = 0; n < count; n++)
        sum += row[n] * x[n];
    return sum;
}

// out = W x + s B A x
static void project(const struct state *state, const struct projection *p, int64_t expert, int64_t adapter,
                    const float *x, float *v, float *out)
{
    int32_t rank = adapter >= 0 && p->a ? state->rank[adapter] : 0;
    int64_t matrix = rank ? adapter * p->experts + expert : 0;
    for (int32_t j = 0; j < rank; j++)
        v[j] = state->scaling[adapter] * dot(p->a + (matrix * state->r + j) * p->in, x, p->in);
    for (int64_t o = 0; o < p->out; o++) {
        out[o] = dot(p->w + (expert * p->out + o) * p->in, x, p->in);
        if (rank)
            out[o] += dot(p->b + (matrix * p->out + o) * state->r, v, rank);
    }
}

// y += weight * down(silu(gate x) up x)
static void add_expert(const struct state *state, const struct projection *p, int64_t expert, int64_t adapter,
                       float weight, const float *x, float *memory, float *y)
{
    int64_t width = p[GATE].out;
    float *gate = memory, *up = gate + width, *down = up + width, *v = down + state->H;
    project(state, &p[GATE], expert, adapter, x, v, gate);
    project(state, &p[UP], expert, adapter, x, v, up);
    for (int64_t i = 0; i < width; i++)
        gate[i] = gate[i] / (1 + expf(-gate[i])) * up[i];
    project(state, &p[DOWN], expert, adapter, gate, v, down);
    for (int64_t o = 0; o < state->H; o++)
        y[o] += weight * down[o];
}

static const char *element(const DLTensor *tensor, int64_t i, int64_t j)
{
    int64_t offset = i * tensor->strides[0] + (tensor->ndim > 1 ? j * tensor->strides[1] : 0);
    return (const char *)tensor->data + tensor->byte_offset + offset * (tensor->dtype.bits / 8);
}

static cm_status run(const cm_call *call, void *pointer)
{
    const cm_host *host = call->host;
    struct state *state = pointer;
    cm_status status = host->validate(call);
    if (status != CM_OK)
        return status;
    if (!state)
        return host->fail(call, CM_BAD_STATE, "run before prepare");
    const DLTensor *hidden = host->argument(call, "hidden"), *output = host->argument(call, "output");
    const DLTensor *ids = host->argument(call, "topk_ids"), *weights = host->argument(call, "topk_weights");
    const DLTensor *token_adapter = host->argument(call, "token_adapter");
    if (token_adapter && !state->rank)
        return host->fail(call, CM_BAD_STATE, "tokens with adapters before update");
    int64_t width = state->I > state->D ? state->I : state->D;
    float *x = host->scratch(call, (size_t)(3 * state->H + 2 * width + state->r) * sizeof *x, sizeof *x);
    if (!x)
        return host->fail(call, CM_NO_MEMORY, "no scratch memory");
    float *y = x + state->H, *memory = y + state->H;
    for (int64_t t = 0; t < host->dim(call, 'T'); t++) {
        int32_t adapter = -1, expert;
        if (token_adapter)
            memcpy(&adapter, element(token_adapter, t, 0), 4);
        for (int64_t i = 0; i < state->H; i++) {
            x[i] = widen(hidden->dtype, element(hidden, t, i));
            y[i] = 0;
        }
        if (state->shared[GATE].w) {
            float weight = state->router ? 1 / (1 + expf(-dot(state->router, x, state->H))) : 1;
            add_expert(state, state->shared, 0, adapter, weight, x, memory, y);
        }
        for (int64_t j = 0; j < state->k; j++) {
            memcpy(&expert, element(ids, t, j), 4);
            if (expert >= 0)
                add_expert(state, state->routed, expert, adapter,
                           widen(weights->dtype, element(weights, t, j)), x, memory, y);
        }
        for (int64_t o = 0; o < state->H; o++)
            narrow(output->dtype, (char *)element(output, t, o), y[o]);
    }
    return CM_OK;
}

static bool supports(const cm_call *call, char *reason, size_t size)
{
    DLDataType dtype = call->host->argument(call, "w_gate")->dtype;
    if (dtype.code != kDLFloat && dtype.code != kDLBfloat) {
        snprintf(reason, size, "integer weights are not implemented");
        return false;
    }
    for (int p = 0; p < PROJECTIONS; p++)
        if (find(call, "bias_", words[p])) {
            snprintf(reason, size, "biases are not implemented");
            return false;
        }
    if (call->host->argument(call, "expert_map")) {
        snprintf(reason, size, "expert_map is not implemented");
        return false;
    }
    static const char *const attributes[] = {"activation", "weight_on_input", "act_quant"};
    for (int n = 0; n < 3; n++)
        if (call->host->attribute(call, attributes[n]) != 0) {
            snprintf(reason, size, "%s is not implemented", attributes[n]);
            return false;
        }
    return true;
}

static const cm_kernel packed = {
    .size = sizeof(cm_kernel),
    .name = "moe_forward/packed",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .supports = supports,
    .prepare = prepare,
    .update = update,
    .run = run,
    .release = release,
};

const cm_kernel *const *checkmoe_plugin_1(uint32_t abi_version);
const cm_kernel *const *checkmoe_plugin_1(uint32_t abi_version)
{
    static const cm_kernel *const kernels[] = {&packed, NULL};
    return abi_version == CM_ABI_VERSION ? kernels : NULL;
}
