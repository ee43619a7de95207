// SPDX-License-Identifier: Apache-2.0
// The arguments of moe_forward by meaning.
#include "reference/moe_forward.h"

static struct moe_ffn open_ffn(const cm_call *call, bool shared, int64_t width)
{
#define PART(name)    cm_arg(call, shared ? "shared_" name : "w_" name)
#define SCALES(name)  cm_arg(call, shared ? "shared_" name "_scale" : "w_" name "_scale")
#define ADAPTER(name) cm_arg(call, shared ? "shared_lora_" name : "lora_" name)
#define BIASES(name)  shared ? NULL : cm_arg(call, "bias_" name)
    return (struct moe_ffn){
        {PART("gate"), SCALES("gate"), BIASES("gate"), ADAPTER("a_gate"), ADAPTER("b_gate")},
        {PART("up"), SCALES("up"), BIASES("up"), ADAPTER("a_up"), ADAPTER("b_up")},
        {PART("down"), SCALES("down"), BIASES("down"), ADAPTER("a_down"), ADAPTER("b_down")},
        width};
}

cm_status moe_open(const cm_call *call, struct moe_layer *layer)
{
    *layer = (struct moe_layer){
        .T = cm_dim(call, 'T'),
        .k = cm_dim(call, 'k'),
        .E = cm_dim(call, 'E'),
        .H = cm_dim(call, 'H'),
        .L = cm_dim(call, 'L'),
        .r = cm_dim(call, 'r'),
        .hidden = cm_arg(call, "hidden"),
        .ids = cm_arg(call, "topk_ids"),
        .weights = cm_arg(call, "topk_weights"),
        .map = cm_arg(call, "expert_map"),
        .token_adapter = cm_arg(call, "token_adapter"),
        .rank = cm_arg(call, "lora_rank"),
        .scaling = cm_arg(call, "lora_scaling"),
        .shared_router = cm_arg(call, "shared_router"),
        .routed = open_ffn(call, false, cm_dim(call, 'I')),
        .shared = open_ffn(call, true, cm_dim(call, 'D')),
        .group = cm_dim(call, 'G'),
        .act_quant = call->host->attribute(call, "act_quant") != 0,
        .from_model = call->host->attribute(call, "act_quant_source") != 0,
    };
    if (call->host->attribute(call, "activation") != 0 || call->host->attribute(call, "weight_on_input") != 0)
        return call->host->fail(call, CM_UNSUPPORTED,
                                "the reference computes silu and weights on the output");
    return CM_OK;
}

int64_t moe_expert(const struct moe_layer *layer, int64_t t, int64_t j)
{
    int64_t slot = cm_index2(layer->ids, t, j);
    return slot < 0 || !layer->map ? slot : cm_index1(layer->map, slot);
}

int64_t moe_adapter(const struct moe_layer *layer, int64_t t)
{
    return layer->token_adapter ? cm_index1(layer->token_adapter, t) : -1;
}

int64_t moe_rank(const struct moe_layer *layer, int64_t adapter)
{
    return adapter < 0 ? 0 : cm_index1(layer->rank, adapter);
}

double moe_scaling(const struct moe_layer *layer, int64_t adapter)
{
    return adapter < 0 ? 0 : cm_element(layer->scaling, adapter);
}

void moe_row(const DLTensor *tensor, int64_t adapter, int64_t expert, int64_t row, double *values)
{
    int64_t index[3];
    int n = 0;
    if (adapter >= 0)
        index[n++] = adapter;
    if (expert >= 0)
        index[n++] = expert;
    index[n] = row;
    cm_row(tensor, index, values);
}
