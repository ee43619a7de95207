// SPDX-License-Identifier: Apache-2.0
// A layer of experts as its kernels see it: projections, the slots of a tile, and what travels from launch to
// launch in scratch memory.
#ifndef CM_CUDA_MOE_LAYER_H
#define CM_CUDA_MOE_LAYER_H

#include "optimized/cuda/moe_sort.h"
#include "optimized/cuda/product.h"

namespace
{

// Rows of [L, E, n, K]; what a tensor doesn't have is a stride of 0.
template <typename T> struct cm_moe_matrix {
    cm_rows<const T> rows;
    bool vectors; // they begin at multiples of 16 bytes

    CM_METHOD bool is_there(void) const
    {
        return rows.memory.count > 0;
    }
    // 64 rows from `first` on, of which `end` is the end.
    CM_METHOD cm_factor<T> factor(int64_t adapter, int64_t expert, int64_t first, int64_t end) const
    {
        int64_t left = is_there() ? end - first : 0;
        return {rows.memory, rows.at(adapter, expert, first), rows.stride[2],
                left > CM_PRODUCT_COLUMNS ? (int)CM_PRODUCT_COLUMNS
                : left > 0                ? (int)left
                                          : 0,
                vectors};
    }
};

// p(x) = W x + bias + s B (A x).
template <typename T> struct cm_moe_projection {
    cm_moe_matrix<T> w, a, b;
    cm_rows<const T> bias; // [E, n] or absent
};

template <typename T> struct cm_moe_experts {
    cm_moe_projection<T> gate, up, down;
    int64_t width; // I or D
};

template <typename T> struct cm_moe_layer {
    cm_moe_slots slots;
    cm_moe_experts<T> routed, shared; // shared: number E of the experts
    cm_rows<const T> hidden, router;  // [T, H], [1, H] or absent
    cm_rows<const float> weights;     // [T, k]
    cm_global<const float> scaling;   // [L]
    cm_global<T> v, h, y;             // [slots, 2, v_pitch], [slots, h_pitch], [slots, y_pitch]
    int64_t H, v_pitch, h_pitch, y_pitch;
    bool vectors; // rows of hidden begin at multiples of 16 bytes

    CM_METHOD const cm_moe_experts<T> &experts(int expert) const
    {
        return expert == slots.E ? shared : routed;
    }
};

// The slots of a block, in shared memory: [ROWS] each.
struct cm_moe_tile {
    cm_shared<int32_t> slots, tokens, adapters; // adapter -1: none, or one of rank 0
    cm_shared<int32_t> ends;                    // behind the last row of the same adapter
    int count, expert;                          // count 0: there is nothing to do
};

// Tile blockIdx.x; all threads of the block call it.
template <typename T, int ROWS> CM_DEVICE cm_moe_tile cm_moe_open_tile(const cm_moe_layer<T> &layer)
{
    uint4 found = layer.slots.tiles.template get_vector<uint4>((int64_t)blockIdx.x * 4);
    cm_moe_tile tile = {cm_shared_array<int32_t>(0, ROWS),
                        cm_shared_array<int32_t>(ROWS * 4, ROWS),
                        cm_shared_array<int32_t>(ROWS * 8, ROWS),
                        cm_shared_array<int32_t>(ROWS * 12, ROWS),
                        (int)found.z,
                        (int)found.x};
    uint32_t n = threadIdx.x;
    if (tile.count == 0)
        return tile;
    if ((int)n < tile.count) {
        int slot = layer.slots.sorted.get((int)found.y + (int)n), token = slot / layer.slots.per_token;
        int adapter = layer.slots.adapter(token);
        tile.slots.set(n, slot);
        tile.tokens.set(n, token);
        tile.adapters.set(n, adapter >= 0 && layer.slots.rank.get(adapter) > 0 ? adapter : -1);
    }
    cm_barrier();
    if ((int)n < tile.count) {
        uint32_t end = n + 1;
        while ((int)end < tile.count && tile.adapters.get(end) == tile.adapters.get(n))
            end++;
        tile.ends.set(n, (int32_t)end);
    }
    cm_barrier();
    return tile;
}

// Rows begin .. end - 1 of a tile have one adapter.
struct cm_moe_run {
    int begin, end, adapter, rank;
};

// The next one that has an adapter, from run->end on; false: there is none.
template <typename T>
CM_DEVICE bool cm_moe_next_run(const cm_moe_layer<T> &layer, const cm_moe_tile &tile, cm_moe_run *run)
{
    while (layer.slots.L > 0 && run->end < tile.count) {
        run->begin = run->end;
        run->end = tile.ends.get((uint32_t)run->begin);
        run->adapter = tile.adapters.get((uint32_t)run->begin);
        if (run->adapter < 0)
            continue;
        run->rank = layer.slots.rank.get(run->adapter);
        return true;
    }
    return false;
}

template <typename T> CM_DEVICE cm_global<const T> cm_reading(const cm_global<T> &memory)
{
    return cm_global<const T>{memory.data, memory.count};
}

// Two neighbours of a row, the first of them at an even place.
template <typename T>
CM_DEVICE void cm_moe_store(const cm_global<T> &memory, int64_t at, float first, float second)
{
    struct alignas(4) {
        T elements[2];
    } pair;
    cm_narrow(first, &pair.elements[0]);
    cm_narrow(second, &pair.elements[1]);
    memory.set_vector(at, cm_bits<uint32_t>(pair));
}

} // namespace

#endif
