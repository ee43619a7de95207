// SPDX-License-Identifier: Apache-2.0
// What kernels of moe_forward share: what they refuse, rows in int8, the slots of a call sorted by expert and
// adapter, and the weighted sum of their outputs.
#ifndef CM_OPTIMIZED_LAYER_H
#define CM_OPTIMIZED_LAYER_H

#include "optimized/view.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

// What a kernel has beyond float weights without biases, act_quant and a map of experts.
enum { CM_HAS_INTEGERS = 1, CM_HAS_BIASES = 2, CM_HAS_ACT_QUANT = 4, CM_HAS_MAP = 8 };

// Silu, weights on the output, and what `has` says.
static inline bool cm_supports_layer(const cm_call *call, int has, char *reason, size_t size)
{
    const cm_host *host = call->host;
    if (!(has & CM_HAS_INTEGERS) && !cm_is_float(host->argument(call, "w_gate"))) {
        snprintf(reason, size, "integer weights are not implemented");
        return false;
    }
    if (!(has & CM_HAS_BIASES) && (host->argument(call, "bias_gate") || host->argument(call, "bias_up") ||
                                   host->argument(call, "bias_down"))) {
        snprintf(reason, size, "biases are not implemented");
        return false;
    }
    if (!(has & CM_HAS_ACT_QUANT) && host->attribute(call, "act_quant") != 0) {
        snprintf(reason, size, "act_quant is not implemented");
        return false;
    }
    if (!(has & CM_HAS_MAP) && host->argument(call, "expert_map")) {
        snprintf(reason, size, "a map of experts is not implemented");
        return false;
    }
    if (host->attribute(call, "activation") != 0 || host->attribute(call, "weight_on_input") != 0) {
        snprintf(reason, size, "only silu and weights on the output are implemented");
        return false;
    }
    return true;
}

// Codes of a row, to nearest even, and the number that they are multiplied by: amax/127. A NaN or an infinity
// in the row makes that number NaN.
static inline float cm_quantise_row(const float *x, int64_t count, int8_t *codes)
{
    float amax = 0, finite = 0;
    for (int64_t n = 0; n < count; n++) {
        amax = fabsf(x[n]) > amax ? fabsf(x[n]) : amax;
        finite += x[n] * 0; // NaN from then on
    }
    float scale = amax / 127;
    for (int64_t n = 0; n < count; n++) {
        float code = rintf(x[n] / scale); // NaN in a row of zeros
        codes[n] = fabsf(code) <= 127 ? (int8_t)code : 0;
    }
    return scale + finite;
}

// A plain layer whose activations, weights and adapters are bf16; the output is any float.
static inline bool cm_supports_bf16_layer(const cm_call *call, char *reason, size_t size)
{
    static const char *const adapters[] = {"lora_a_gate",        "lora_a_up",        "lora_a_down",
                                           "shared_lora_a_gate", "shared_lora_a_up", "shared_lora_a_down"};
    if (!cm_supports_layer(call, 0, reason, size))
        return false;
    if (!cm_is_bf16(call->host->argument(call, "hidden")) ||
        !cm_is_bf16(call->host->argument(call, "w_gate"))) {
        snprintf(reason, size, "only bf16 activations and weights are implemented");
        return false;
    }
    for (size_t n = 0; n < sizeof adapters / sizeof *adapters; n++)
        if (!cm_is_bf16(call->host->argument(call, adapters[n]))) {
            snprintf(reason, size, "only bf16 adapters are implemented");
            return false;
        }
    return true;
}

// One expert of one token. The shared expert has the number E and stands in slot k.
struct cm_slot {
    int32_t expert, adapter, token, slot;
};

struct cm_slots {
    struct cm_slot *slots; // [count], ascending in expert, adapter, token, slot
    int32_t *place;        // [T, per_token]: where a token's slot stands in `slots`; -1: nowhere
    int64_t count, per_token;
    int64_t largest; // number of slots of the busiest expert
};

static inline int cm_slot_order(const void *left, const void *right)
{
    const struct cm_slot *a = left, *b = right;
    if (a->expert != b->expert)
        return a->expert < b->expert ? -1 : 1;
    if (a->adapter != b->adapter)
        return a->adapter < b->adapter ? -1 : 1;
    if (a->token != b->token)
        return a->token < b->token ? -1 : 1;
    return (a->slot > b->slot) - (a->slot < b->slot);
}

static inline int64_t cm_slots_expert_end(const struct cm_slots *slots, int64_t begin)
{
    int64_t end = begin;
    while (end < slots->count && slots->slots[end].expert == slots->slots[begin].expert)
        end++;
    return end;
}

// End of the run of slots of one adapter within [begin, expert_end).
static inline int64_t cm_slots_adapter_end(const struct cm_slots *slots, int64_t begin, int64_t expert_end)
{
    int64_t end = begin;
    while (end < expert_end && slots->slots[end].adapter == slots->slots[begin].adapter)
        end++;
    return end;
}

// Lists the slots of the call in scratch memory; slots of id -1 are left out. False: no memory.
static inline bool cm_slots_open(const cm_call *call, struct cm_slots *slots)
{
    const DLTensor *ids = call->host->argument(call, "topk_ids");
    const DLTensor *token_adapter = call->host->argument(call, "token_adapter");
    bool shared = call->host->argument(call, "shared_gate") != NULL;
    int64_t T = call->host->dim(call, 'T'), k = call->host->dim(call, 'k'), E = call->host->dim(call, 'E');
    *slots = (struct cm_slots){.per_token = k + shared};
    size_t most = (size_t)(T * slots->per_token);
    slots->slots = call->host->scratch(call, most * sizeof *slots->slots, sizeof(int32_t));
    slots->place = call->host->scratch(call, most * sizeof *slots->place, sizeof(int32_t));
    if (!slots->slots || !slots->place)
        return false;
    for (int64_t t = 0; t < T; t++) {
        int32_t adapter = token_adapter ? cm_load_int(token_adapter, 0, t) : -1;
        for (int64_t j = 0; j < slots->per_token; j++) {
            int32_t expert = j < k ? cm_load_int(ids, t, j) : (int32_t)E;
            slots->place[t * slots->per_token + j] = -1;
            if (expert >= 0)
                slots->slots[slots->count++] = (struct cm_slot){expert, adapter, (int32_t)t, (int32_t)j};
        }
    }
    if (slots->count > 0)
        qsort(slots->slots, (size_t)slots->count, sizeof *slots->slots, cm_slot_order);
    for (int64_t n = 0; n < slots->count; n++)
        slots->place[slots->slots[n].token * slots->per_token + slots->slots[n].slot] = (int32_t)n;
    for (int64_t begin = 0, end; begin < slots->count; begin = end) {
        end = cm_slots_expert_end(slots, begin);
        slots->largest = end - begin > slots->largest ? end - begin : slots->largest;
    }
    return true;
}

// sigmoid of the router's row times x; 1 where there is no router.
static inline float cm_shared_weight(const cm_call *call, int64_t t)
{
    const DLTensor *router = call->host->argument(call, "shared_router");
    const DLTensor *hidden = call->host->argument(call, "hidden");
    if (!router)
        return 1;
    const char *row = cm_row_at(router, 0, 0, 0), *x = cm_row_at(hidden, 0, 0, t);
    float logit = 0;
    for (int64_t i = 0; i < call->host->dim(call, 'H'); i++)
        logit += cm_load_float(router, row, i) * cm_load_float(hidden, x, i);
    return 1 / (1 + expf(-logit));
}

// output[t] = sum over t's slots, in their order, of weight * down[place]: independent of the other tokens.
// down [count, stride]; y [H] is scratch.
static inline void cm_slots_combine(const cm_call *call, const struct cm_slots *slots, const float *down,
                                    int64_t stride, float *y)
{
    const DLTensor *weights = call->host->argument(call, "topk_weights");
    const DLTensor *output = call->host->argument(call, "output");
    int64_t T = call->host->dim(call, 'T'), k = call->host->dim(call, 'k'), H = call->host->dim(call, 'H');
    for (int64_t t = 0; t < T; t++) {
        for (int64_t o = 0; o < H; o++)
            y[o] = 0;
        for (int64_t j = 0; j < slots->per_token; j++) {
            int32_t place = slots->place[t * slots->per_token + j];
            if (place < 0)
                continue;
            const float *row = down + place * stride;
            float weight =
                j < k ? cm_load_float(weights, cm_row_at(weights, 0, 0, t), j) : cm_shared_weight(call, t);
            for (int64_t o = 0; o < H; o++)
                y[o] += weight * row[o];
        }
        char *row = (char *)cm_row_at(output, 0, 0, t);
        for (int64_t o = 0; o < H; o++)
            cm_store_float(output, row, o, y[o]);
    }
}

#endif
