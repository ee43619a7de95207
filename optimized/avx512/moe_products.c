// SPDX-License-Identifier: Apache-2.0
#include "optimized/avx512/multiply.h"

const cm_path cm_avx512_paths[] = {
    [CM_AVX512_STREAM] = {"stream", "an expert's weights are read once, for a block of rows"},
    [CM_AVX512_PASSES] = {"passes", "several blocks of rows take turns"},
    [CM_AVX512_PIECES] = {"pieces", "they do so piece by piece of the weights"},
    [CM_AVX512_BLOCKS] = {"blocks", "an expert has more rows than a product takes"},
    {0},
};

unsigned cm_avx512_path(const struct cm_product *product, int64_t rows)
{
    if (product->rows <= CM_BLOCK_ROWS)
        return 1u << CM_AVX512_STREAM | (rows > CM_ROW_BLOCK ? 1u << CM_AVX512_BLOCKS : 0);
    unsigned paths = 1u << CM_AVX512_PASSES;
    // Integers are taken to bf16 a few lines at a time, whatever the width.
    bool unpacked = product->format == CM_FORMAT_I8 || product->format == CM_FORMAT_I4;
    int64_t lines = product->lines * (product->format == CM_FORMAT_I8 ? 2 : 4);
    if (unpacked ? lines > CM_UNPACKED_LINES : product->lines * product->panels > CM_PIECE_LINES * CM_WIDE)
        paths |= 1u << CM_AVX512_PIECES;
    return rows > CM_ROW_BLOCK ? paths | 1u << CM_AVX512_BLOCKS : paths;
}

const struct cm_products cm_avx512_products = {
    .multiply =
        {
            [CM_FORMAT_BF16] = cm_avx512_multiply_bf16,
            [CM_FORMAT_BF16_F32] = cm_avx512_multiply_bf16_f32,
            [CM_FORMAT_I8] = cm_avx512_multiply_i8,
            [CM_FORMAT_I4] = cm_avx512_multiply_i4,
            [CM_FORMAT_I8_CODES] = cm_avx512_multiply_i8_codes,
            [CM_FORMAT_I4_CODES] = cm_avx512_multiply_i4_codes,
        },
    .add = cm_avx512_add,
    .round = cm_avx512_round_row,
    .activate = cm_avx512_activate,
    .quantise = cm_avx512_quantise,
    .combine = cm_avx512_combine,
    .paths = cm_avx512_path,
};
