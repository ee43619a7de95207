// SPDX-License-Identifier: Apache-2.0
// The engine's state: made for the weights in `prepare`, given adapters in `update`.
#include "optimized/cpu/state.h"
#include "optimized/cpu/engine.h"
#include "optimized/layer.h"

static const char *const weight_names[CM_KINDS][CM_PARTS] = {{"w_gate", "w_up", "w_down"},
                                                             {"shared_gate", "shared_up", "shared_down"}};
static const char *const scale_names[CM_KINDS][CM_PARTS] = {
    {"w_gate_scale", "w_up_scale", "w_down_scale"},
    {"shared_gate_scale", "shared_up_scale", "shared_down_scale"}};
static const char *const bias_names[CM_PARTS] = {"bias_gate", "bias_up", "bias_down"};

enum { LONGEST_SUM = 131072 }; // 127 * 128 times that fits into an int32

static int64_t longest_row(const cm_call *call)
{
    int64_t H = call->host->dim(call, 'H'), I = call->host->dim(call, 'I'), D = call->host->dim(call, 'D');
    int64_t longest = H > I ? H : I;
    return D > longest ? D : longest;
}

bool cm_engine_supports(const cm_call *call, bool quantised, char *reason, size_t size)
{
    static const char *const adapters[] = {"lora_a_gate",        "lora_a_up",        "lora_a_down",
                                           "shared_lora_a_gate", "shared_lora_a_up", "shared_lora_a_down"};
    const DLTensor *weight = call->host->argument(call, "w_gate");
    bool integers = weight->dtype.code == kDLInt;
    int64_t group = call->host->dim(call, 'G'), unit = weight->dtype.bits == 4 ? 32 : 16;
    if (!cm_supports_layer(call, CM_HAS_INTEGERS | CM_HAS_BIASES | CM_HAS_ACT_QUANT, reason, size))
        return false;
    if (quantised != (call->host->attribute(call, "act_quant") != 0)) {
        snprintf(reason, size, "act_quant is %s", quantised ? "what this kernel is for" : "not implemented");
        return false;
    }
    if (!cm_is_bf16(call->host->argument(call, "hidden")) || (!integers && !cm_is_bf16(weight))) {
        snprintf(reason, size, "only bf16 activations, and bf16 or integer weights, are implemented");
        return false;
    }
    if (integers && group % unit != 0 && group < longest_row(call)) {
        snprintf(reason, size,
                 "scale groups of %lld are not implemented: int8 has multiples of 16, int4 of 32",
                 (long long)group);
        return false;
    }
    if (integers && quantised && longest_row(call) > LONGEST_SUM) {
        snprintf(reason, size, "rows of codes of more than %d elements are not implemented", LONGEST_SUM);
        return false;
    }
    for (size_t n = 0; n < sizeof adapters / sizeof *adapters; n++)
        if (!cm_is_bf16(call->host->argument(call, adapters[n]))) {
            snprintf(reason, size, "only bf16 adapters are implemented");
            return false;
        }
    return true;
}

static cm_status check(const cm_call *call, cm_engine_supported *supports)
{
    char reason[160];
    cm_status status = call->host->validate(call);
    if (status == CM_OK && !supports(call, reason, sizeof reason))
        status = call->host->fail(call, CM_UNSUPPORTED, "%s", reason);
    return status;
}

void cm_engine_release(void *state)
{
    struct cm_engine *engine = state;
    if (!engine)
        return;
    cm_adapters_close(engine);
    for (int kind = 0; kind < CM_KINDS; kind++) {
        cm_pack_close(&engine->gate_up[kind]);
        cm_pack_close(&engine->down[kind]);
    }
    for (int part = 0; part < CM_PARTS; part++)
        free(engine->bias[part]);
    free(engine);
}

static cm_format format_of(const DLTensor *weight, bool quantised)
{
    if (weight->dtype.code != kDLInt)
        return CM_FORMAT_BF16;
    if (weight->dtype.bits == 8)
        return quantised ? CM_FORMAT_I8_CODES : CM_FORMAT_I8;
    return quantised ? CM_FORMAT_I4_CODES : CM_FORMAT_I4;
}

static bool pack_weights(const cm_call *call, struct cm_engine *engine, int kind)
{
    const DLTensor *weights[CM_PARTS], *scales[CM_PARTS];
    for (int part = 0; part < CM_PARTS; part++) {
        weights[part] = call->host->argument(call, weight_names[kind][part]);
        scales[part] = call->host->argument(call, scale_names[kind][part]);
    }
    if (engine->width[kind] == 0)
        return true;
    struct cm_pack_source source = {.tensor = {weights[CM_PART_GATE], weights[CM_PART_UP]},
                                    .scale = {scales[CM_PART_GATE], scales[CM_PART_UP]},
                                    .adapter = -1,
                                    .n = engine->width[kind],
                                    .k = engine->H,
                                    .group = engine->group,
                                    .format = format_of(weights[CM_PART_GATE], engine->quantised),
                                    .widest = CM_WIDE,
                                    .threads = cm_team_limit(call)};
    if (!cm_pack_open(&engine->gate_up[kind], &source))
        return false;
    source.tensor[0] = weights[CM_PART_DOWN];
    source.scale[0] = scales[CM_PART_DOWN];
    source.tensor[1] = source.scale[1] = NULL;
    source.n = engine->H;
    source.k = engine->width[kind];
    return cm_pack_open(&engine->down[kind], &source);
}

// Biases as fp32, zeros behind a row.
static bool keep_biases(const cm_call *call, struct cm_engine *engine)
{
    for (int part = 0; part < CM_PARTS; part++) {
        const DLTensor *bias = call->host->argument(call, bias_names[part]);
        if (!bias)
            continue;
        int64_t n = bias->shape[1], stride = (n + CM_COLUMNS - 1) / CM_COLUMNS * CM_COLUMNS;
        engine->bias_stride[part] = stride;
        engine->bias[part] = calloc((size_t)(engine->E * stride) + 1, sizeof *engine->bias[part]);
        if (!engine->bias[part])
            return false;
        for (int64_t e = 0; e < engine->E; e++)
            for (int64_t i = 0; i < n; i++)
                engine->bias[part][e * stride + i] = cm_load_float(bias, cm_row_at(bias, 0, 0, e), i);
    }
    return true;
}

static void describe(const cm_call *call, struct cm_engine *engine)
{
    engine->E = call->host->dim(call, 'E');
    engine->H = call->host->dim(call, 'H');
    bool integers = call->host->argument(call, "w_gate")->dtype.code == kDLInt;
    engine->group = integers ? call->host->dim(call, 'G') : 0; // floats have no scales
    engine->width[CM_ROUTED] = call->host->dim(call, 'I');
    engine->width[CM_SHARED] = call->host->argument(call, "shared_gate") ? call->host->dim(call, 'D') : 0;
    engine->quantised = call->host->attribute(call, "act_quant") != 0;
    engine->round_h = call->host->attribute(call, "act_quant_source") != 0;
}

cm_status cm_engine_prepare(const cm_call *call, cm_engine_supported *supports, void **state)
{
    *state = NULL;
    cm_status status = check(call, supports);
    if (status != CM_OK)
        return status;
    struct cm_engine *engine = calloc(1, sizeof *engine);
    if (!engine)
        return call->host->fail(call, CM_NO_MEMORY, "no memory for the state");
    describe(call, engine);
    if (!pack_weights(call, engine, CM_ROUTED) || !pack_weights(call, engine, CM_SHARED) ||
        !keep_biases(call, engine)) {
        cm_engine_release(engine);
        return call->host->fail(call, CM_NO_MEMORY, "no memory for the packed weights");
    }
    *state = engine;
    return CM_OK;
}

cm_status cm_engine_check_state(const cm_call *call, cm_engine_supported *supports,
                                const struct cm_engine *engine)
{
    struct cm_engine now = {0};
    cm_status status = check(call, supports);
    if (status != CM_OK)
        return status;
    if (!engine)
        return call->host->fail(call, CM_BAD_STATE, "prepare was not called");
    describe(call, &now);
    if (engine->E != now.E || engine->H != now.H || engine->group != now.group ||
        engine->width[CM_ROUTED] != now.width[CM_ROUTED] || engine->width[CM_SHARED] != now.width[CM_SHARED])
        return call->host->fail(call, CM_BAD_STATE, "prepare was called for other shapes");
    if (engine->quantised != now.quantised || engine->round_h != now.round_h)
        return call->host->fail(call, CM_BAD_STATE, "prepare was called for another act_quant");
    return CM_OK;
}

cm_status cm_engine_update(const cm_call *call, cm_engine_supported *supports, void *state)
{
    struct cm_engine *engine = state;
    cm_status status = cm_engine_check_state(call, supports, engine);
    if (status == CM_OK && !cm_adapters_update(engine, call))
        status = call->host->fail(call, CM_NO_MEMORY, "no memory for the packed adapters");
    return status;
}
