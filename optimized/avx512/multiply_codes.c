// SPDX-License-Identifier: Apache-2.0
// Products of int8 rows, by VPDPBUSD: unsigned weights (w + 128, w + 8) times signed codes. What the offset
// adds to a sum does not depend on the column: sums begin with its opposite. Sums of 32 bits wrap around and
// are exact as long as the result fits.
#include "optimized/avx512/multiply.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512VNNI__)

#include "optimized/avx512/blocks.h"

INLINE __m512i quad_at(const char *x, int64_t quad)
{
    int four;
    memcpy(&four, x + 4 * quad, sizeof four);
    return _mm512_set1_epi32(four);
}

// Four lines of weights; of nibbles, those of one half.
INLINE void load_weights(const char *w, const bool nibbles, const bool high, __m512i weight[CM_BLOCK_SUMS])
{
    const __m512i mask = _mm512_set1_epi8(15);
#pragma GCC unroll 4
    for (int n = 0; n < CM_BLOCK_SUMS; n++) {
        weight[n] = _mm512_load_si512(w + n * CM_LINE);
        if (nibbles)
            weight[n] = _mm512_and_si512(high ? _mm512_srli_epi32(weight[n], 4) : weight[n], mask);
    }
}

// `rows`, `panels` and `nibbles` are constants where this is called, so that all sums are registers.
INLINE void block(const int rows, const int panels, const bool nibbles, const struct cm_piece *piece)
{
    const struct cm_product *product = piece->product;
    const char *x[CM_BLOCK_ROWS], *w = piece->w, *ahead = piece->ahead;
    const int fetch = piece->fetch, lines = CM_BLOCK_SUMS / panels, halves = nibbles ? 2 : 1;
    for (int m = 0; m < rows; m++)
        x[m] = product->x[piece->row + m];
    for (int64_t at = piece->first, end; at < piece->last; at = end) {
        int64_t group = at / product->group, limit = (group + 1) * product->group;
        end = limit < piece->last ? limit : piece->last;
        float *kept = product->sums + piece->row * CM_COLUMNS;
        __m512i sum[CM_BLOCK_ROWS][CM_BLOCK_SUMS];
        bool begins = at == group * product->group;
#pragma GCC unroll 6
        for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
            for (int n = 0; n < CM_BLOCK_SUMS; n++)
                if (!begins)
                    sum[m][n] = _mm512_load_si512(kept + m * CM_COLUMNS + n * CM_LANES);
                else
                    sum[m][n] =
                        n < panels ? quad_at(x[m] + product->totals_at, group) : _mm512_setzero_si512();
        for (int64_t line = at; line < end; line += lines, w += CM_BLOCK_SUMS * CM_LINE) {
            if (fetch)
                ahead = cm_fetch(ahead, fetch);
#pragma GCC unroll 2
            for (int half = 0; half < halves; half++) {
                __m512i weight[CM_BLOCK_SUMS];
                load_weights(w, nibbles, half == 1, weight);
#pragma GCC unroll 6
                for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
                    for (int n = 0; n < CM_BLOCK_SUMS; n++)
                        sum[m][n] = _mm512_dpbusd_epi32(sum[m][n], weight[n],
                                                        quad_at(x[m], (line + n / panels) * halves + half));
            }
        }
        bool complete = end == limit || end == product->lines;
#pragma GCC unroll 6
        for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
            for (int n = 0; n < CM_BLOCK_SUMS; n++) {
                if (complete)
                    cm_add_group(product, group, piece->row + m, n, _mm512_cvtepi32_ps(sum[m][n]));
                else
                    _mm512_store_si512(kept + m * CM_COLUMNS + n * CM_LANES, sum[m][n]);
            }
    }
}

INLINE void block_i8(const int rows, const int panels, const struct cm_piece *piece)
{
    block(rows, panels, false, piece);
}

INLINE void block_i4(const int rows, const int panels, const struct cm_piece *piece)
{
    block(rows, panels, true, piece);
}

CM_BLOCK_TABLE(i8, block_i8)
CM_BLOCK_TABLE(i4, block_i4)

void cm_avx512_multiply_i8_codes(const struct cm_product *product)
{
    cm_multiply_blocks(i8, product);
    cm_end_rows(product, product->out);
}

void cm_avx512_multiply_i4_codes(const struct cm_product *product)
{
    cm_multiply_blocks(i4, product);
    cm_end_rows(product, product->out);
}

#else

void cm_avx512_multiply_i8_codes(const struct cm_product *product)
{
    (void)product;
}
void cm_avx512_multiply_i4_codes(const struct cm_product *product)
{
    (void)product;
}

#endif
