// SPDX-License-Identifier: Apache-2.0
// What a call of moe_forward may read, and the least work that it is: both follow from which experts,
// adapters and pairs of them the batch uses.
#include "reference/moe_forward.h"

#include <stdlib.h>
#include <string.h>

struct use {
    bool *expert, *adapter, *pair; // [E], [L], [L,E]
};

static void use_close(struct use *use)
{
    free(use->expert);
    free(use->adapter);
    free(use->pair);
}

static cm_status use_open(const struct moe_layer *layer, struct use *use)
{
    use->expert = calloc((size_t)layer->E + 1, sizeof(bool));
    use->adapter = calloc((size_t)layer->L + 1, sizeof(bool));
    use->pair = calloc((size_t)(layer->L * layer->E) + 1, sizeof(bool));
    if (!use->expert || !use->adapter || !use->pair)
        return CM_NO_MEMORY;
    for (int64_t t = 0; t < layer->T; t++) {
        int64_t adapter = moe_adapter(layer, t);
        if (adapter >= 0)
            use->adapter[adapter] = true;
        for (int64_t j = 0; j < layer->k; j++) {
            int64_t expert = moe_expert(layer, t, j);
            if (expert < 0)
                continue;
            use->expert[expert] = true;
            if (adapter >= 0)
                use->pair[adapter * layer->E + expert] = true;
        }
    }
    return CM_OK;
}

// Marks `count` elements of the mask and returns the place behind them.
static uint8_t *mark(uint8_t *mask, bool used, int64_t count)
{
    memset(mask, used ? CM_READS : 0, (size_t)count);
    return mask + count;
}

static int64_t count_of(const DLTensor *tensor, int first)
{
    int64_t count = 1;
    for (int d = first; d < tensor->ndim; d++)
        count *= tensor->shape[d];
    return count;
}

// A or B of [L, (E,) rows, columns]: A's rows and B's columns from the adapter's rank on are padding.
static void mark_lora(const struct moe_layer *layer, const struct use *use, const DLTensor *tensor, bool is_a,
                      uint8_t *mask)
{
    bool routed = tensor->ndim == 4;
    int64_t rows = tensor->shape[tensor->ndim - 2], columns = tensor->shape[tensor->ndim - 1];
    for (int64_t adapter = 0; adapter < layer->L; adapter++) {
        int64_t rank = moe_rank(layer, adapter);
        for (int64_t e = 0; e < (routed ? layer->E : 1); e++) {
            bool used = routed ? use->pair[adapter * layer->E + e] : use->adapter[adapter];
            for (int64_t row = 0; row < rows; row++) {
                int64_t live = is_a ? (row < rank ? columns : 0) : rank;
                mask = mark(mask, used, live);
                mask = mark(mask, false, columns - live);
            }
        }
    }
}

static bool starts(const char *name, const char *prefix)
{
    return !strncmp(name, prefix, strlen(prefix));
}

static void mark_slots(const struct moe_layer *layer, uint8_t *mask)
{
    for (int64_t t = 0; t < layer->T; t++)
        for (int64_t j = 0; j < layer->k; j++)
            mask = mark(mask, cm_index2(layer->ids, t, j) >= 0, 1);
}

static void mark_tokens(const struct moe_layer *layer, uint8_t *mask)
{
    for (int64_t t = 0; t < layer->T; t++) {
        bool used = layer->shared.gate.weight != NULL;
        for (int64_t j = 0; j < layer->k; j++)
            used = used || cm_index2(layer->ids, t, j) >= 0;
        mask = mark(mask, used, layer->H);
    }
}

cm_status moe_forward_addressed(const cm_call *call, int argument, uint8_t *mask)
{
    struct moe_layer layer;
    struct use use = {0};
    cm_status status = moe_open(call, &layer);
    if (status == CM_OK)
        status = use_open(&layer, &use);
    if (status != CM_OK)
        goto done;
    const char *name = call->op->arguments[argument].name;
    const DLTensor *tensor = call->arguments[argument];
    int64_t count = count_of(tensor, 0);
    if (call->op->arguments[argument].role == CM_OUTPUT)
        memset(mask, CM_WRITES, (size_t)count);
    else if (!strcmp(name, "hidden"))
        mark_tokens(&layer, mask);
    else if (!strcmp(name, "topk_weights"))
        mark_slots(&layer, mask);
    else if (starts(name, "w_") || starts(name, "bias_"))
        for (int64_t e = 0; e < layer.E; e++)
            mask = mark(mask, use.expert[e], count_of(tensor, 1));
    else if (!strcmp(name, "lora_scaling"))
        for (int64_t a = 0; a < layer.L; a++)
            mask = mark(mask, use.adapter[a] && moe_rank(&layer, a) > 0, 1);
    else if (strstr(name, "lora_a_"))
        mark_lora(&layer, &use, tensor, true, mask);
    else if (strstr(name, "lora_b_"))
        mark_lora(&layer, &use, tensor, false, mask);
    else // ids, ranks, shared weights
        mark(mask, starts(name, "shared_") ? layer.T > 0 : true, count);
done:
    use_close(&use);
    return status;
}

void moe_forward_counts(const cm_call *call, cm_counts *counts)
{
    struct moe_layer layer;
    *counts = (cm_counts){0};
    if (moe_open(call, &layer) != CM_OK)
        return;
    double I = (double)layer.routed.width, D = (double)layer.shared.width, H = (double)layer.H;
    for (int64_t t = 0; t < layer.T; t++) {
        double rank = (double)moe_rank(&layer, moe_adapter(&layer, t)), slots = 0;
        for (int64_t j = 0; j < layer.k; j++)
            slots += cm_index2(layer.ids, t, j) >= 0;
        // multiply-adds of three projections and of A and B beside each
        double lora = layer.routed.gate.a ? 3 * rank * (H + I) : 0;
        counts->operations += 2 * slots * (3 * H * I + lora);
        if (layer.shared.gate.weight)
            counts->operations += 2 * (3 * H * D + (layer.shared.gate.a ? 3 * rank * (H + D) : 0));
    }
    cm_count_bytes(call, counts);
}
