// SPDX-License-Identifier: Apache-2.0
#include "harness/kept.h"

#include <string.h>

enum { MOST = 1024 }; // evaluations of one case

struct cm_kept {
    int count; // valid ones
    size_t used;
    uint64_t key[MOST];
    size_t at[MOST]; // of doubles in values
    double values[];
};

static uint64_t mix(uint64_t digest, uint64_t word)
{
    digest = (digest ^ word) * 0x9e3779b97f4a7c15;
    return digest ^ digest >> 29;
}

// Four lanes, since a step waits for the one before it.
static uint64_t mix_bytes(uint64_t digest, const char *data, size_t size)
{
    uint64_t lanes[4] = {digest, digest + 1, digest + 2, digest + 3};
    size_t at = 0;
    for (; at + 32 <= size; at += 32)
        for (int lane = 0; lane < 4; lane++) {
            uint64_t word;
            memcpy(&word, data + at + 8 * lane, 8);
            lanes[lane] = mix(lanes[lane], word);
        }
    for (; at < size; at++)
        lanes[0] = mix(lanes[0], (unsigned char)data[at]);
    for (int lane = 0; lane < 4; lane++)
        digest = mix(digest, lanes[lane]);
    return mix(digest, size);
}

uint64_t cm_kept_key(const cm_call *call, const int *files, uint64_t omit, cm_accuracy accuracy)
{
    const cm_op *op = call->op;
    uint64_t digest = mix(mix(0, omit), accuracy);
    for (int n = 0; op->attributes[n].name; n++)
        digest = mix_bytes(digest, (const char *)&call->attributes[n], sizeof *call->attributes);
    for (int n = 0; op->arguments[n].name; n++) {
        const DLTensor *tensor = call->arguments[n];
        digest = mix(digest, (uint64_t)n << 1 | (tensor != NULL));
        if (!tensor)
            continue;
        digest = mix_bytes(digest, (const char *)tensor->shape, (size_t)tensor->ndim * sizeof *tensor->shape);
        digest =
            mix_bytes(digest, (const char *)tensor->strides, (size_t)tensor->ndim * sizeof *tensor->strides);
        if (op->arguments[n].role == CM_OUTPUT)
            continue;
        if (files[n])
            digest = mix(digest, (uint64_t)files[n]);
        else
            digest = mix_bytes(digest, tensor->data, cm_tensor_extent(tensor));
    }
    return digest;
}

// Copies between the outputs and one place of those that are kept; returns how many doubles it takes.
static size_t move(const cm_want *want, double *kept, bool store)
{
    size_t moved = 0;
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++) {
        double *parts[5] = {want[n].value, want[n].sigma, want[n].order, want[n].worst, want[n].magnitude};
        size_t count = want[n].value ? (size_t)want[n].count : 0;
        for (int part = 0; part < 5 && count; part++, moved += count)
            if (kept)
                memcpy(store ? kept + moved : parts[part], store ? parts[part] : kept + moved,
                       count * sizeof *kept);
    }
    return moved;
}

bool cm_kept_find(const struct cm_kept *kept, uint64_t key, cm_want *want)
{
    for (int n = 0; n < kept->count; n++)
        if (kept->key[n] == key) {
            move(want, (double *)kept->values + kept->at[n], false);
            return true;
        }
    return false;
}

void cm_kept_add(struct cm_kept *kept, uint64_t key, const cm_want *want)
{
    size_t size = move(want, NULL, true);
    size_t room = (CM_KEPT_BYTES - sizeof *kept) / sizeof *kept->values;
    if (kept->count == MOST || size > room - kept->used)
        return;
    move(want, kept->values + kept->used, true);
    kept->key[kept->count] = key;
    kept->at[kept->count] = kept->used;
    kept->used += size;
    kept->count++; // last
}
