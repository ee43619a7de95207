// SPDX-License-Identifier: Apache-2.0
// Tokens sorted by adapter, then slots (token t, place j: t per_token + j) by expert, and cut into tiles of
// an expert. A block for each adapter or expert counts what comes before it and lists its own: stable,
// nothing is atomic, and nothing depends on values but the contents of the tables. Two launches (one without
// adapters); each block reads all ids twice.
#ifndef CM_CUDA_MOE_SORT_H
#define CM_CUDA_MOE_SORT_H

#include "optimized/cuda/arrays.h"

namespace
{

enum { CM_SORT_THREADS = 512 }; // most of a block

struct cm_moe_slots {
    cm_rows<const int32_t> ids;                   // [T, k]
    cm_global<const int32_t> token_adapter, rank; // [T], [L]
    cm_global<int32_t> tokens;                    // [T]: by adapter, then by number; unused without adapters
    cm_global<int32_t> sorted; // [T per_token]: slots by expert, adapter, number; none of -1
    cm_global<int32_t> tiles;  // [tile_count, 4]: expert, first of `sorted`, count (0: none)
    cm_global<int32_t> bad;    // [2]: an adapter or rank, or any of these or an id, is outside its range
    cm_refusal refusal;        // where that is said
    int64_t T;
    int k, per_token; // places of a token: k, and one more for the shared expert, which is number E
    int E, experts;   // experts: with the shared one
    int L, r;         // L 0: no adapters
    int tile_rows, tile_count;

    // Where the tiles of an expert begin if its slots begin at `offset`: each expert but those without slots
    // adds one tile that is not full, at most.
    CM_METHOD int first_tile(int offset, int expert) const
    {
        return is_sparse() ? offset : offset / tile_rows + expert;
    }
    CM_METHOD bool is_sparse(void) const
    {
        return tile_count == T * per_token;
    }
    CM_METHOD int adapter(int64_t token) const
    {
        return L > 0 ? token_adapter.get(token) : -1;
    }
};

struct cm_moe_span {
    int begin, end;
    bool bad;
};

enum { CM_MOE_NOWHERE = -1, CM_MOE_BAD = -2 }; // keys of what is left out, and of what makes the call wrong

// Lists the items whose key is `own`, in their order, behind all those with a smaller one; says which part of
// the list they are. Items has count, key(n), name(n) and refuse(n). `bad`: this thread knows of something
// wrong; with that or a bad key nothing is listed.
template <typename Items>
CM_DEVICE cm_moe_span cm_moe_list(const Items &items, int own, cm_global<int32_t> list, bool bad)
{
    cm_shared<uint64_t> counts = cm_shared_array<uint64_t>(0, CM_SORT_THREADS / 32);
    cm_shared<int32_t> faults = cm_shared_array<int32_t>(CM_SORT_THREADS / 4, CM_SORT_THREADS / 32);
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, warps = (int)blockDim.x / 32;
    int64_t chunk = (items.count + 32 * warps - 1) / (32 * warps) * 32, first = warp * chunk;
    int64_t last = first + chunk < items.count ? first + chunk : items.count;
    uint64_t count = 0; // own ones in the upper half, smaller ones in the lower
    for (int64_t n = first + lane; n < last; n += 32) {
        int key = items.key(n);
        count += key == own ? 1ull << 32 : key >= 0 && key < own;
        if (key == CM_MOE_BAD && own == 0)
            items.refuse(n);
        bad = bad || key == CM_MOE_BAD;
    }
    for (int distance = 16; distance > 0; distance /= 2)
        count += cm_shuffle_xor(count, distance);
    bad = cm_ballot(bad) != 0;
    if (lane == 0) {
        counts.set((uint32_t)warp, count);
        faults.set((uint32_t)warp, bad);
    }
    cm_barrier();
    uint64_t all = 0, before = 0;
    bad = false;
    for (int w = 0; w < warps; w++) {
        uint64_t of_warp = counts.get((uint32_t)w);
        all += of_warp;
        before += w < warp ? of_warp : 0;
        bad = bad || faults.get((uint32_t)w);
    }
    cm_moe_span span = {(int)(uint32_t)all, (int)(uint32_t)all + (int)(all >> 32), bad};
    int next = span.begin + (int)(before >> 32);
    for (int64_t n = first + lane; n - lane < last && !bad; n += 32) {
        bool mine = n < last && items.key(n) == own;
        unsigned votes = cm_ballot(mine);
        if (mine)
            list.set(next + cm_popcount(votes & ((1u << lane) - 1)), items.name(n));
        next += cm_popcount(votes);
    }
    return span;
}

// Tokens by adapter; -1 comes first.
struct cm_moe_tokens {
    const cm_moe_slots &slots;
    int64_t count;

    CM_METHOD int key(int64_t token) const
    {
        int adapter = slots.token_adapter.get(token);
        return adapter < -1 || adapter >= slots.L ? CM_MOE_BAD : adapter + 1;
    }
    CM_METHOD void refuse(int64_t token) const
    {
        cm_refuse(slots.refusal, CM_REFUSED_TOKEN_ADAPTER, token);
    }
    CM_METHOD int name(int64_t token) const
    {
        return (int)token;
    }
};

// Places of the tokens in that order.
struct cm_moe_places {
    const cm_moe_slots &slots;
    int64_t count;

    CM_METHOD int64_t token(int64_t n) const
    {
        return slots.L > 0 ? slots.tokens.get(n / slots.per_token) : n / slots.per_token;
    }
    CM_METHOD int key(int64_t n) const
    {
        int place = (int)(n % slots.per_token);
        if (place == slots.k)
            return slots.E;
        int expert = slots.ids.memory.get(slots.ids.at(0, 0, token(n)) + place);
        return expert < -1 || expert >= slots.E ? CM_MOE_BAD : expert;
    }
    CM_METHOD void refuse(int64_t n) const
    {
        cm_refuse(slots.refusal, CM_REFUSED_TOPK_IDS, token(n) * slots.k + n % slots.per_token);
    }
    CM_METHOD int name(int64_t n) const
    {
        return (int)(token(n) * slots.per_token + n % slots.per_token);
    }
};

// Grid L + 1. Ranks are held against 0..r, too.
__global__ void CM_THREADS(CM_SORT_THREADS) cm_moe_sort_tokens(CM_PARAMETER(cm_moe_slots) slots)
{
    bool bad = false;
    for (int a = (int)threadIdx.x; a < slots.L; a += (int)blockDim.x) {
        int rank = slots.rank.get(a);
        if (rank >= 0 && rank <= slots.r)
            continue;
        bad = true;
        if (blockIdx.x == 0)
            cm_refuse(slots.refusal, CM_REFUSED_LORA_RANK, a);
    }
    cm_moe_span span = cm_moe_list(cm_moe_tokens{slots, slots.T}, (int)blockIdx.x, slots.tokens, bad);
    if (blockIdx.x == 0 && threadIdx.x == 0)
        slots.bad.set(0, span.bad);
}

// Grid `experts`. With a bad id there are no tiles.
__global__ void CM_THREADS(CM_SORT_THREADS) cm_moe_sort_slots(CM_PARAMETER(cm_moe_slots) slots)
{
    int own = (int)blockIdx.x, first = 0, end = 0;
    cm_moe_span span = {0, 0, slots.L > 0 && slots.bad.get(0)};
    if (!span.bad)
        span = cm_moe_list(cm_moe_places{slots, slots.T * slots.per_token}, own, slots.sorted, false);
    if (own == 0 && threadIdx.x == 0)
        slots.bad.set(1, span.bad);
    if (!span.bad) {
        first = slots.first_tile(span.begin, own);
        end = own == slots.experts - 1 ? slots.tile_count : slots.first_tile(span.end, own + 1);
    } else if (own == 0) {
        end = slots.tile_count;
    }
    for (int tile = first + (int)threadIdx.x; tile < end; tile += (int)blockDim.x) {
        int begin = span.begin + (tile - first) * slots.tile_rows, left = span.bad ? 0 : span.end - begin;
        int count = left > slots.tile_rows ? slots.tile_rows : left > 0 ? left : 0;
        slots.tiles.set_vector((int64_t)tile * 4, uint4{(uint32_t)own, (uint32_t)begin, (uint32_t)count, 0});
    }
}

} // namespace

#endif
