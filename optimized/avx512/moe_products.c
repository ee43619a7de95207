// SPDX-License-Identifier: Apache-2.0
#include "optimized/avx512/multiply.h"

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
};
