// SPDX-License-Identifier: Apache-2.0
// Products, and what is done with rows, of the avx512 kernel of moe_forward; see optimized/cpu/products.h.
#ifndef CM_AVX512_MULTIPLY_H
#define CM_AVX512_MULTIPLY_H

#include "harness/checkmoe.h"
#include "optimized/cpu/products.h"

// The switch points. Up to CM_BLOCK_ROWS rows take one pass over the weights, more take several, over pieces
// of them that stay in the first level of the cache.
enum {
    CM_BLOCK_ROWS = 6,
    CM_PIECE_BYTES = 16 << 10,
    CM_AHEAD_BYTES = 6 << 10,                            // in one pass, what is fetched lies so far ahead
    CM_PIECE_LINES = CM_PIECE_BYTES / CM_LINE / CM_WIDE, // of a group of 4 panels
    CM_UNPACKED_LINES = 64,                              // of bf16 that integers are taken to at a time
};

enum { CM_AVX512_STREAM, CM_AVX512_PASSES, CM_AVX512_PIECES, CM_AVX512_BLOCKS };
extern const cm_path cm_avx512_paths[];

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

// Bit n: a product of an expert with `rows` rows takes path n.
unsigned cm_avx512_path(const struct cm_product *product, int64_t rows);

// Files without the instructions are empty, and nothing of the above may be called.
extern const bool cm_avx512_moe_built;
bool cm_avx512_moe_available(char *reason, size_t size);

#endif
