// SPDX-License-Identifier: Apache-2.0
// What the amx kernels of sgmv, sgmv_shrink and sgmv_expand are made of. Included by files that are compiled
// for AMX, behind blocks.h.
#ifndef CM_AMX_SGMV_TARGET_H
#define CM_AMX_SGMV_TARGET_H

#include "optimized/amx/blocks.h"
#include "optimized/cpu/sgmv.h"

static void cm_amx_sgmv_pack_a(const DLTensor *a, int64_t adapter, int64_t slice, int64_t rank, int64_t K,
                               uint16_t *to)
{
    cm_sgmv_pack_panels(a, adapter, slice, rank, K, 1, to);
}

enum { CM_AMX_SGMV_ROWS = 32, CM_AMX_SGMV_BLOCK = 48 }; // two tiles; tokens for which A and B are read once

static size_t cm_amx_sgmv_room(int64_t K)
{
    return (size_t)(CM_AMX_SGMV_BLOCK * cm_avx512_stride(K)) * sizeof(uint16_t);
}

// A bf16 row of `count` elements, with zeros behind it up to its stride.
static void cm_amx_copy_row(const char *from, int64_t count, uint16_t *to)
{
    memcpy(to, from, (size_t)count * sizeof *to);
    memset(to + count, 0, (size_t)(cm_avx512_stride(count) - count) * sizeof *to);
}

// Tiles need rows at one distance, and whole pairs of K.
static void cm_amx_sgmv_shrink(const char *const *x, int64_t rows, int64_t K, int64_t step, const uint16_t *a,
                               int64_t rank, float *out, int64_t out_stride, char *room)
{
    (void)step; // there is one
    uint16_t *inputs = (uint16_t *)room;
    int64_t stride = cm_avx512_stride(K);
    for (int64_t n = 0; n < rows; n++)
        cm_amx_copy_row(x[n], K, inputs + n * stride);
    cm_tiles_multiply(CM_TILES_BF16, inputs, 2 * stride, rows, a, cm_avx512_stride(rank) / CM_AVX512_LANES,
                      cm_avx512_pairs(K), false, out, 4 * out_stride);
}

static void cm_amx_sgmv_expand(const uint16_t *v, int64_t rows, int64_t v_stride, int64_t parts,
                               int64_t part_stride, const uint16_t *b, int64_t panels, int64_t pairs,
                               float *out, int64_t out_stride)
{
    for (int64_t part = 0; part < parts; part++)
        cm_tiles_multiply(CM_TILES_BF16, v + part * part_stride, 2 * v_stride, rows, b, panels, pairs,
                          part > 0, out, 4 * out_stride);
}

static const cm_path cm_amx_sgmv_paths[] = {
    [CM_SGMV_FEW] = {"few", "segments of fewer tokens than a product has rows"},
    [CM_SGMV_BLOCKS] = {"blocks", "segments of at least as many"},
    {0}};
static const cm_switch_point cm_amx_sgmv_points[] = {
    {"rows", CM_AMX_SGMV_ROWS, "from few to blocks"}, {"rows", CM_AMX_SGMV_BLOCK + 1, "a second block"}, {0}};

static const struct cm_sgmv_target cm_amx_sgmv = {
    .ready = cm_amx_ready,
    .order = {cm_sgmv_panel_elements, cm_amx_sgmv_pack_a, 1},
    .step = 0,
    .block = CM_AMX_SGMV_BLOCK,
    .rows = CM_AMX_SGMV_ROWS,
    .parts = 3,
    .room = cm_amx_sgmv_room,
    .shrink = cm_amx_sgmv_shrink,
    .expand = cm_amx_sgmv_expand,
};

#endif
