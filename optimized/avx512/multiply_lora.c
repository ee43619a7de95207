// SPDX-License-Identifier: Apache-2.0
// Products of adapters. A sees rows of bf16 (multiply_bf16.c) or, where rows are quantised for the weights,
// rows of fp32; so does B. fp32 rows are multiplied in fp32 with bf16 made wide, which costs 2 instructions
// where VDPBF16PS takes one.
#include "optimized/avx512/multiply.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512VNNI__)

#include "optimized/avx512/blocks.h"

// Both elements of 16 pairs.
INLINE __m512 even_of(__m512i pairs)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
}

INLINE __m512 odd_of(__m512i pairs)
{
    return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000)));
}

// sum + pair `line` of a row times a line of weights.
INLINE __m512 add_pair(const bool wide, __m512 sum, const char *x, int64_t line, __m512i weight)
{
    int both;
    float pair[2];
    if (wide) {
        memcpy(pair, x + 8 * line, sizeof pair);
        sum = _mm512_fmadd_ps(_mm512_set1_ps(pair[0]), even_of(weight), sum);
        return _mm512_fmadd_ps(_mm512_set1_ps(pair[1]), odd_of(weight), sum);
    }
    memcpy(&both, x + 4 * line, sizeof both);
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(both), (__m512bh)weight);
}

// A: rows of fp32, no scales. `rows` and `panels` are constants where this is called.
INLINE void block(const int rows, const int panels, const struct cm_piece *piece)
{
    const struct cm_product *product = piece->product;
    const char *x[CM_BLOCK_ROWS], *w = piece->w;
    const int lines = CM_BLOCK_SUMS / panels; // of a step
    float *kept = product->sums + piece->row * CM_COLUMNS;
    __m512 sum[CM_BLOCK_ROWS][CM_BLOCK_SUMS];
    for (int m = 0; m < rows; m++)
        x[m] = product->x[piece->row + m];
#pragma GCC unroll 6
    for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
        for (int n = 0; n < CM_BLOCK_SUMS; n++)
            sum[m][n] = piece->first == 0 ? _mm512_setzero_ps()
                                          : _mm512_load_ps(kept + m * CM_COLUMNS + n * CM_LANES);
    for (int64_t line = piece->first; line < piece->last; line += lines, w += CM_BLOCK_SUMS * CM_LINE)
#pragma GCC unroll 4
        for (int n = 0; n < CM_BLOCK_SUMS; n++) {
            __m512i weight = _mm512_load_si512(w + n * CM_LINE);
#pragma GCC unroll 6
            for (int m = 0; m < rows; m++)
                sum[m][n] = add_pair(true, sum[m][n], x[m], line + n / panels, weight);
        }
#pragma GCC unroll 6
    for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
        for (int n = 0; n < CM_BLOCK_SUMS; n++)
            _mm512_store_ps(kept + m * CM_COLUMNS + n * CM_LANES, sum[m][n]);
}

CM_BLOCK_TABLE(wide, block)

void cm_avx512_multiply_bf16_f32(const struct cm_product *product)
{
    cm_multiply_blocks(wide, product);
    cm_end_rows(product, product->sums);
}

// B: `rows` rows from `row` on, and `panels` panels of each half.
INLINE void add_block(const int rows, const int panels, const int halves, const bool f32,
                      const struct cm_addition *addition, int64_t row)
{
    const char *v[CM_BLOCK_ROWS];
    __m512 sum[CM_BLOCK_ROWS][CM_BLOCK_SUMS];
    for (int m = 0; m < rows; m++)
        v[m] = addition->v[row + m];
#pragma GCC unroll 6
    for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
        for (int n = 0; n < panels * halves; n++)
            sum[m][n] = _mm512_setzero_ps();
    for (int64_t line = 0; line < addition->lines; line++)
#pragma GCC unroll 4
        for (int n = 0; n < panels * halves; n++) {
            int64_t second = n < panels ? 0 : addition->second;
            const char *b = addition->b[n / panels] + (line * panels + n % panels) * CM_LINE;
            __m512i weight = _mm512_load_si512(b);
#pragma GCC unroll 6
            for (int m = 0; m < rows; m++)
                sum[m][n] = add_pair(f32, sum[m][n], v[m] + second, line, weight);
        }
    __m512 s = _mm512_set1_ps(addition->s);
#pragma GCC unroll 6
    for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
        for (int n = 0; n < panels * halves; n++) {
            float *to = addition->out + (row + m) * CM_COLUMNS + n * CM_LANES;
            _mm512_store_ps(to, _mm512_fmadd_ps(sum[m][n], s, _mm512_load_ps(to)));
        }
}

INLINE void add_rows(const int panels, const int halves, const bool f32, const struct cm_addition *addition)
{
    int64_t row = 0;
    for (; row + CM_BLOCK_ROWS <= addition->rows; row += CM_BLOCK_ROWS)
        add_block(CM_BLOCK_ROWS, panels, halves, f32, addition, row);
    for (; row + 2 <= addition->rows; row += 2)
        add_block(2, panels, halves, f32, addition, row);
    if (row < addition->rows)
        add_block(1, panels, halves, f32, addition, row);
}

INLINE void add_columns(const bool f32, const struct cm_addition *addition)
{
    if (addition->halves == 2 && addition->panels == 2)
        add_rows(2, 2, f32, addition);
    else if (addition->halves == 2)
        add_rows(1, 2, f32, addition);
    else if (addition->panels == 4)
        add_rows(4, 1, f32, addition);
    else if (addition->panels == 2)
        add_rows(2, 1, f32, addition);
    else
        add_rows(1, 1, f32, addition);
}

void cm_avx512_add(const struct cm_addition *addition)
{
    if (addition->wide)
        add_columns(true, addition);
    else
        add_columns(false, addition);
}

#else

void cm_avx512_multiply_bf16_f32(const struct cm_product *product)
{
    (void)product;
}
void cm_avx512_add(const struct cm_addition *addition)
{
    (void)addition;
}

#endif
