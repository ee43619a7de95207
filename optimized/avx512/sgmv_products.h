// SPDX-License-Identifier: Apache-2.0
// What sgmv, sgmv_shrink and sgmv_expand need of AVX-512: sums along rows of A, products with panels of B,
// and rows of v and y in any float. Nothing may be called before cm_avx512_available has said yes.
#ifndef CM_AVX512_SGMV_PRODUCTS_H
#define CM_AVX512_SGMV_PRODUCTS_H

#include "optimized/avx512/lanes.h"

// A of one slice, [rank, K], in the order in which sums along its rows are formed: ranks 8 by 8,
// [K/STEP][rank/8][STEP/32][8][32], the last steps and blocks being as long as what is left. Zeros fill K to
// a multiple of 32.
enum { CM_DOTS_STEP = 1024, CM_DOTS_LINE = 32, CM_DOTS_RANKS = 8, CM_DOTS_ROWS = 3 };

int64_t cm_avx512_dots_elements(int64_t rank, int64_t K);
void cm_avx512_dots_pack(const DLTensor *a, int64_t adapter, int64_t slice, int64_t rank, int64_t K,
                         uint16_t *to);
// out[m, j] = sum over step `step` of a[j, k] x[m, k] for `rows` rows of x, which begin at element 0 of K.
// Each sum is formed in 16 chains in the same order, whatever the other rows are. a: the whole slice.
void cm_avx512_dots(const char *const *x, int64_t rows, int64_t K, int64_t step, const uint16_t *a,
                    int64_t rank, float *out, int64_t out_stride);

// v[part][j] for j < stride: part after part rounds to bf16 what those before it left over of
// sums[0][j] + sums[1][j] + ...; zeros from the rank on. Infinity and NaN are in the first part. Parts are
// `part_stride` elements apart, terms `sum_stride` floats.
void cm_avx512_split_sum(const float *sums, int64_t terms, int64_t sum_stride, int64_t rank, int64_t parts,
                         uint16_t *v, int64_t part_stride);
// The sum alone: out[j] for j < stride, zeros from the rank on.
void cm_avx512_plain_sum(const float *sums, int64_t terms, int64_t sum_stride, int64_t rank, float *out);

enum { CM_EXPAND_ROWS = 6, CM_EXPAND_PANELS = 4 };
// out[m, n] = sum over parts and j of b[n, j] v[m, part, j] for the columns of `panels` panels, the first of
// which begins a group of CM_EXPAND_PANELS; b: that group, of a matrix of rank 2 `pairs`. rows <=
// CM_EXPAND_ROWS; v: parts [parts] of rows [rows, v_stride] are part_stride elements apart.
void cm_avx512_expand(const uint16_t *v, int64_t rows, int64_t v_stride, int64_t parts, int64_t part_stride,
                      const uint16_t *b, int64_t panels, int64_t pairs, float *out, int64_t out_stride);

// Element 0 .. count - 1 of a row of y: round(y + scaling delta), or round(scaling delta). y needs no
// alignment but its element's.
void cm_avx512_add_row(DLDataType dtype, char *y, const float *delta, int64_t count, float scaling,
                       bool accumulate);

#endif
