// SPDX-License-Identifier: Apache-2.0
// Adapters of the engine, packed in `update`.
#include "optimized/cpu/state.h"

#include <stdlib.h>

static const char *const a_names[CM_KINDS][CM_PARTS] = {
    {"lora_a_gate", "lora_a_up", "lora_a_down"},
    {"shared_lora_a_gate", "shared_lora_a_up", "shared_lora_a_down"}};
static const char *const b_names[CM_KINDS][CM_PARTS] = {
    {"lora_b_gate", "lora_b_up", "lora_b_down"},
    {"shared_lora_b_gate", "shared_lora_b_up", "shared_lora_b_down"}};

void cm_adapters_close(struct cm_engine *engine)
{
    for (int64_t l = 0; engine->adapters && l < engine->L; l++)
        for (int n = 0; n < CM_KINDS * CM_PARTS; n++) {
            cm_pack_close(&engine->adapters[l].a[n / CM_PARTS][n % CM_PARTS]);
            cm_pack_close(&engine->adapters[l].b[n / CM_PARTS][n % CM_PARTS]);
        }
    free(engine->adapters);
    engine->adapters = NULL;
    engine->updated = false;
}

static bool pack_pair(const cm_call *call, struct cm_adapter *adapter, int64_t l, int kind, int part)
{
    const DLTensor *a = call->host->argument(call, a_names[kind][part]);
    const DLTensor *b = call->host->argument(call, b_names[kind][part]);
    if (!a)
        return true;
    struct cm_pack_source source = {.adapter = l,
                                    .tensor = {a},
                                    .n = adapter->rank,
                                    .k = a->shape[a->ndim - 1],
                                    .format = CM_FORMAT_BF16,
                                    .widest = CM_WIDE,
                                    .threads = cm_team_limit(call)};
    if (!cm_pack_open(&adapter->a[kind][part], &source))
        return false;
    source.tensor[0] = b;
    source.n = b->shape[b->ndim - 2];
    source.k = adapter->rank;
    source.widest = part == CM_PART_DOWN ? CM_WIDE : CM_WIDE / 2;
    return cm_pack_open(&adapter->b[kind][part], &source);
}

// Which projections have adapters, a bit each.
static unsigned adapted(const cm_call *call)
{
    unsigned parts = 0;
    for (int n = 0; n < CM_KINDS * CM_PARTS; n++)
        if (call->host->argument(call, a_names[n / CM_PARTS][n % CM_PARTS]))
            parts |= 1u << n;
    return parts;
}

bool cm_adapters_update(struct cm_engine *engine, const cm_call *call)
{
    const DLTensor *rank = call->host->argument(call, "lora_rank");
    cm_adapters_close(engine);
    engine->L = call->host->dim(call, 'L');
    engine->r = call->host->dim(call, 'r');
    engine->present = rank != NULL;
    engine->parts = adapted(call);
    engine->updated = true;
    if (!rank || engine->L == 0)
        return true;
    engine->adapters = calloc((size_t)engine->L, sizeof *engine->adapters);
    bool packed = engine->adapters != NULL;
    for (int64_t l = 0; packed && l < engine->L; l++) {
        engine->adapters[l].rank = cm_load_int(rank, 0, l);
        for (int n = 0; packed && n < CM_KINDS * CM_PARTS; n++)
            packed = pack_pair(call, &engine->adapters[l], l, n / CM_PARTS, n % CM_PARTS);
    }
    if (!packed)
        cm_adapters_close(engine);
    return packed;
}

bool cm_adapters_fit(const struct cm_engine *engine, const cm_call *call)
{
    bool present = call->host->argument(call, "lora_rank") != NULL;
    return engine->L == call->host->dim(call, 'L') && engine->present == present &&
           (!present ||
            (engine->updated && engine->r == call->host->dim(call, 'r') && engine->parts == adapted(call)));
}
