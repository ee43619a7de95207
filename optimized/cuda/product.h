// SPDX-License-Identifier: Apache-2.0
// A block's product on tensor cores: sums [ROWS, 64] += X [ROWS, K] W [64, K]^T for one or two W at once.
// Rows of X are gathered, rows of W follow each other; both stream through three stages of 64 of K in shared
// memory by cp.async. 16 rows for few slots of an expert, where W's bytes count; 64 for many, where products
// do.
#ifndef CM_CUDA_PRODUCT_H
#define CM_CUDA_PRODUCT_H

#include "optimized/cuda/arrays.h"

namespace
{

enum {
    CM_PRODUCT_COLUMNS = 64,
    CM_PRODUCT_STEP = 64, // of K, a stage
    CM_PRODUCT_PITCH = CM_PRODUCT_STEP + 8,
    CM_PRODUCT_STAGES = 3,
    CM_PRODUCT_THREADS = 128,
    CM_PRODUCT_CHUNKS = CM_PRODUCT_STEP / 8,                       // of 16 bytes in a row of a stage
    CM_PRODUCT_LINES = CM_PRODUCT_THREADS / CM_PRODUCT_CHUNKS,     // rows that the threads load at once
    CM_PRODUCT_TURNS = CM_PRODUCT_COLUMNS / (int)CM_PRODUCT_LINES, // to load 64 rows
};

// Where the stages begin, behind what a kernel keeps of its tile.
template <int ROWS> inline constexpr uint32_t cm_product_start = ROWS * 16;
template <int ROWS, int FACTORS>
inline constexpr uint32_t cm_product_stage = (ROWS + FACTORS * CM_PRODUCT_COLUMNS) * CM_PRODUCT_PITCH;
template <int ROWS, int FACTORS>
inline constexpr size_t cm_product_bytes =
    cm_product_start<ROWS> + CM_PRODUCT_STAGES *cm_product_stage<ROWS, FACTORS> * 2;

// W: element first + column * pitch begins the row of a column, 0 <= column < count <= 64.
template <typename T> struct cm_factor {
    cm_global<const T> memory;
    int64_t first, pitch;
    int count;
    bool vectors; // rows begin at multiples of 16 bytes
};

// X: element first + index[n] * pitch begins row n; rows before `begin` and from `end` on are 0.
template <typename T> struct cm_gather {
    cm_global<const T> memory;
    cm_shared<int32_t> index;
    int64_t first, pitch;
    int begin, end;
    bool vectors;
};

// Fragments of a thread's sums. Warps stand side by side over 16 rows, or two by two over 64.
template <int ROWS> struct cm_fragments {
    enum {
        WARP_ROWS = ROWS == 16 ? 1 : 2, // warps over each other
        TILES = ROWS / 16 / WARP_ROWS,  // of 16 rows
        PAIRS = WARP_ROWS,              // of 8 columns: 64 / (4 / WARP_ROWS) / 16
    };
    float sum[TILES][2 * PAIRS][4];

    static CM_METHOD int first_row(void)
    {
        return (int)threadIdx.x / 32 % WARP_ROWS * TILES * 16;
    }
    static CM_METHOD int first_column(void)
    {
        return (int)threadIdx.x / 32 / WARP_ROWS * PAIRS * 16;
    }
    // Of sum[tile][eight][2 half] and the next one, which stands in the column behind.
    static CM_METHOD int row(int tile, int half)
    {
        return first_row() + 16 * tile + (int)threadIdx.x % 32 / 4 + 8 * half;
    }
    static CM_METHOD int column(int eight)
    {
        return first_column() + 8 * eight + 2 * ((int)threadIdx.x % 4);
    }
};

// What a thread loads of each stage: the same 16 bytes of some rows.
template <typename T, int ROWS, int FACTORS> struct cm_loader {
    enum { LINES = CM_PRODUCT_LINES };
    int64_t x[ROWS / LINES], w[FACTORS], K; // where its rows begin, -1: a row of zeros; of w the first one
    int row, column;

    CM_METHOD cm_loader(const cm_gather<T> &from, const cm_factor<T> *factors, int64_t summed)
        : K(summed), row((int)threadIdx.x / CM_PRODUCT_CHUNKS),
          column((int)threadIdx.x % CM_PRODUCT_CHUNKS * 8)
    {
        CM_UNROLL
        for (int n = 0; n < ROWS / LINES; n++) {
            int line = row + n * LINES;
            x[n] = line >= from.begin && line < from.end
                       ? from.first + from.index.get((uint32_t)line) * from.pitch
                       : -1;
        }
        CM_UNROLL
        for (int f = 0; f < FACTORS; f++)
            w[f] = factors[f].first + row * factors[f].pitch;
    }

    // Elements from `valid` on are 0.
    static CM_METHOD void copy(cm_shared<T> stage, uint32_t to, const cm_global<const T> &memory,
                               int64_t source, int valid, bool vectors)
    {
        if (vectors) {
            cm_async_copy(stage, to, memory, valid > 0 ? source : 0, valid);
            return;
        }
        struct alignas(16) {
            T elements[8];
        } some;
        CM_UNROLL
        for (int n = 0; n < 8; n++)
            some.elements[n] = n < valid ? memory.get(source + n) : T{0};
        stage.set_vector(to, cm_bits<uint4>(some));
    }

    // Tensor cores take 16 columns and 16 of K at a time: what is behind them is not looked at.
    CM_METHOD void load(const cm_gather<T> &from, const cm_factor<T> *factors, cm_shared<T> stage,
                        int step) const
    {
        int64_t k = (int64_t)step * CM_PRODUCT_STEP + column, left = K - k;
        int valid = left > 8 ? 8 : left > 0 ? (int)left : 0;
        if (left + column % 16 <= 0)
            return;
        CM_UNROLL
        for (int n = 0; n < ROWS / LINES; n++)
            copy(stage, (uint32_t)((row + n * LINES) * CM_PRODUCT_PITCH + column), from.memory, x[n] + k,
                 x[n] < 0 ? 0 : valid, from.vectors);
        CM_UNROLL
        for (int f = 0; f < FACTORS; f++) {
            CM_UNROLL
            for (int n = 0; n < CM_PRODUCT_TURNS; n++) {
                int line = row + n * LINES;
                if (n * LINES < factors[f].count)
                    copy(stage,
                         (uint32_t)((ROWS + f * CM_PRODUCT_COLUMNS + line) * CM_PRODUCT_PITCH + column),
                         factors[f].memory, w[f] + n * LINES * factors[f].pitch + k,
                         line < factors[f].count ? valid : 0, factors[f].vectors);
            }
        }
    }
};

// Adds a stage of which `left` of K are there.
template <typename T, int ROWS, int FACTORS>
CM_DEVICE void cm_multiply(cm_shared<T> stage, int64_t left, const cm_factor<T> *factors,
                           cm_fragments<ROWS> *sums)
{
    typedef cm_fragments<ROWS> Part;
    int lane = (int)threadIdx.x % 32, first = Part::first_column();
    for (int k = 0; k < CM_PRODUCT_STEP && k < left; k += 16) {
        uint32_t x[Part::TILES][4];
        CM_UNROLL
        for (int tile = 0; tile < Part::TILES; tile++) {
            int row = Part::first_row() + 16 * tile + lane % 16;
            cm_load_matrices<4>(x[tile], stage, (uint32_t)(row * CM_PRODUCT_PITCH + k + lane / 16 * 8));
        }
        CM_UNROLL
        for (int f = 0; f < FACTORS; f++) {
            CM_UNROLL
            for (int pair = 0; pair < Part::PAIRS; pair++) {
                uint32_t w[4];
                int column = first + 16 * pair,
                    row = ROWS + f * CM_PRODUCT_COLUMNS + column + lane / 16 * 8 + lane % 8;
                if (column >= factors[f].count)
                    continue;
                cm_load_matrices<4>(w, stage, (uint32_t)(row * CM_PRODUCT_PITCH + k + lane / 8 % 2 * 8));
                CM_UNROLL
                for (int tile = 0; tile < Part::TILES; tile++)
                    cm_mma_row<T, 2>(sums[f].sum[tile] + 2 * pair, x[tile], w);
            }
        }
    }
}

template <typename T, int ROWS, int FACTORS> CM_DEVICE cm_shared<T> cm_stage(int step)
{
    const uint32_t size = cm_product_stage<ROWS, FACTORS>;
    return cm_shared_array<T>(
        cm_product_start<ROWS> + (uint32_t)(step % CM_PRODUCT_STAGES) * size * (uint32_t)sizeof(T), size);
}

// All threads of the block call it; x.index was written before a barrier.
template <typename T, int ROWS, int FACTORS>
CM_DEVICE void cm_product(const cm_gather<T> &x, const cm_factor<T> *factors, int64_t K,
                          cm_fragments<ROWS> *sums)
{
    const int ahead = CM_PRODUCT_STAGES - 1;
    cm_loader<T, ROWS, FACTORS> loader(x, factors, K);
    int steps = (int)((K + CM_PRODUCT_STEP - 1) / CM_PRODUCT_STEP);
    for (int step = 0; step < ahead; step++) {
        if (step < steps)
            loader.load(x, factors, cm_stage<T, ROWS, FACTORS>(step), step);
        cm_async_commit();
    }
    for (int step = 0; step < steps; step++) {
        cm_async_wait<ahead - 1>();
        cm_barrier(); // this stage is there, and the one before it is free
        if (step + ahead < steps)
            loader.load(x, factors, cm_stage<T, ROWS, FACTORS>(step + ahead), step + ahead);
        cm_async_commit();
        cm_multiply<T, ROWS, FACTORS>(cm_stage<T, ROWS, FACTORS>(step), K - (int64_t)step * CM_PRODUCT_STEP,
                                      factors, sums);
    }
    cm_barrier();
}

} // namespace

#endif
