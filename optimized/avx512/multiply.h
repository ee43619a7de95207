// SPDX-License-Identifier: Apache-2.0
// Products, and what is done with rows, of the avx512 kernel of moe_forward; see optimized/cpu/products.h.
#ifndef CM_AVX512_MULTIPLY_H
#define CM_AVX512_MULTIPLY_H

#include "optimized/cpu/products.h"

void cm_avx512_multiply_bf16(const struct cm_product *product);
void cm_avx512_multiply_bf16_f32(const struct cm_product *product);
void cm_avx512_multiply_i8(const struct cm_product *product);
void cm_avx512_multiply_i4(const struct cm_product *product);
void cm_avx512_multiply_i8_codes(const struct cm_product *product);
void cm_avx512_multiply_i4_codes(const struct cm_product *product);
void cm_avx512_add(const struct cm_addition *addition);

void cm_avx512_round_row(const float *from, int64_t count, int64_t padded, uint16_t *to);
void cm_avx512_activate(const struct cm_activation *activation);
void cm_avx512_quantise(const struct cm_quantisation *quantisation);
void cm_avx512_combine(const struct cm_combination *combination);

extern const struct cm_products cm_avx512_products;

// Files without the instructions are empty, and nothing of the above may be called.
extern const bool cm_avx512_moe_built;
bool cm_avx512_moe_available(char *reason, size_t size);

#endif
