// SPDX-License-Identifier: Apache-2.0
// What the avx512 kernels of sgmv, sgmv_shrink and sgmv_expand are made of.
#ifndef CM_AVX512_SGMV_TARGET_H
#define CM_AVX512_SGMV_TARGET_H

#include "optimized/avx512/sgmv_products.h"
#include "optimized/cpu/sgmv.h"

static inline size_t cm_avx512_sgmv_room(int64_t K)
{
    (void)K;
    return 0;
}

static inline void cm_avx512_sgmv_shrink(const char *const *x, int64_t rows, int64_t K, int64_t step,
                                         const uint16_t *a, int64_t rank, float *out, int64_t out_stride,
                                         char *room)
{
    (void)room;
    cm_avx512_dots(x, rows, K, step, a, rank, out, out_stride);
}

enum { CM_AVX512_SGMV_BLOCK = 48 }; // tokens for which A and B are read once

static const cm_path cm_avx512_sgmv_paths[] = {
    [CM_SGMV_FEW] = {"few", "segments of fewer tokens than a product has rows"},
    [CM_SGMV_BLOCKS] = {"blocks", "segments of at least as many"},
    {0}};
static const cm_switch_point cm_avx512_sgmv_points[] = {{"rows", CM_EXPAND_ROWS, "from few to blocks"},
                                                        {"rows", CM_AVX512_SGMV_BLOCK + 1, "a second block"},
                                                        {0}};

static const struct cm_sgmv_target cm_avx512_sgmv = {
    .ready = cm_avx512_available,
    .order = {cm_avx512_dots_elements, cm_avx512_dots_pack, CM_EXPAND_PANELS},
    .step = CM_DOTS_STEP,
    .block = CM_AVX512_SGMV_BLOCK,
    .rows = CM_EXPAND_ROWS,
    .parts = 3,
    .room = cm_avx512_sgmv_room,
    .shrink = cm_avx512_sgmv_shrink,
    .expand = cm_avx512_expand,
};

#endif
