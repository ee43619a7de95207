// SPDX-License-Identifier: Apache-2.0
#include "optimized/avx512/lora.h"

#include <stdlib.h>

const char *const cm_weight_names[CM_EXPERT_KINDS][CM_PROJECTIONS] = {
    {"w_gate", "w_up", "w_down"}, {"shared_gate", "shared_up", "shared_down"}};
const char *const cm_scale_names[CM_EXPERT_KINDS][CM_PROJECTIONS] = {
    {"w_gate_scale", "w_up_scale", "w_down_scale"},
    {"shared_gate_scale", "shared_up_scale", "shared_down_scale"}};
const char *const cm_lora_a_names[CM_EXPERT_KINDS][CM_PROJECTIONS] = {
    {"lora_a_gate", "lora_a_up", "lora_a_down"},
    {"shared_lora_a_gate", "shared_lora_a_up", "shared_lora_a_down"}};
static const char *const b_names[CM_EXPERT_KINDS][CM_PROJECTIONS] = {
    {"lora_b_gate", "lora_b_up", "lora_b_down"},
    {"shared_lora_b_gate", "shared_lora_b_up", "shared_lora_b_down"}};

static void close_packs(struct cm_avx512_pack *packs, int64_t count)
{
    for (int64_t n = 0; packs && n < count; n++)
        cm_avx512_pack_close(&packs[n]);
    free(packs);
}

void cm_avx512_lora_close(struct cm_avx512_lora *lora)
{
    for (int shared = 0; shared < CM_EXPERT_KINDS; shared++)
        for (int p = 0; p < CM_PROJECTIONS; p++) {
            close_packs(lora->pairs[shared][p].a, lora->L);
            close_packs(lora->pairs[shared][p].b, lora->L);
        }
    *lora = (struct cm_avx512_lora){0};
}

static bool pack_pair(const cm_call *call, struct cm_avx512_pair *pair, const DLTensor *a, const DLTensor *b,
                      int64_t L)
{
    const DLTensor *rank = call->host->argument(call, "lora_rank");
    pair->a = calloc((size_t)L, sizeof *pair->a);
    pair->b = calloc((size_t)L, sizeof *pair->b);
    bool packed = pair->a && pair->b;
    for (int64_t adapter = 0; packed && adapter < L; adapter++) {
        int64_t r = cm_load_int(rank, 0, adapter), k = a->shape[a->ndim - 1], n = b->shape[b->ndim - 2];
        packed = cm_avx512_pack_open(&pair->a[adapter], a, adapter, r, k) &&
                 cm_avx512_pack_open(&pair->b[adapter], b, adapter, n, r);
    }
    return packed;
}

bool cm_avx512_lora_update(struct cm_avx512_lora *lora, const cm_call *call)
{
    cm_avx512_lora_close(lora);
    lora->L = call->host->dim(call, 'L');
    lora->present = call->host->argument(call, "lora_rank") != NULL;
    for (int n = 0; n < CM_EXPERT_KINDS * CM_PROJECTIONS; n++) {
        int shared = n / CM_PROJECTIONS, p = n % CM_PROJECTIONS;
        const DLTensor *a = call->host->argument(call, cm_lora_a_names[shared][p]);
        const DLTensor *b = call->host->argument(call, b_names[shared][p]);
        if (a && lora->L > 0 && !pack_pair(call, &lora->pairs[shared][p], a, b, lora->L)) {
            cm_avx512_lora_close(lora);
            return false;
        }
    }
    lora->updated = true;
    return true;
}

bool cm_avx512_lora_fits(const struct cm_avx512_lora *lora, const cm_call *call)
{
    bool present = call->host->argument(call, "lora_rank") != NULL;
    return lora->L == call->host->dim(call, 'L') && lora->present == present && (!present || lora->updated);
}
