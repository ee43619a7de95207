// SPDX-License-Identifier: Apache-2.0
// Products and activation of the avx512 kernels; the one file compiled for AVX512-BF16.
// Products: blocks of up to 6 rows by 4 panels keep 24 sums in registers; a step multiplies one pair of
// inputs of each row with one pair of 64 outputs. VDPBF16PS forms each sum in one chain, odd element of a
// pair first, each addition rounded to nearest; denormals, bf16 inputs and fp32 sums alike, count as zero.
#include "optimized/avx512/products.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)

#include "optimized/avx512/exponential.h"

const bool cm_avx512_built = true;

enum { ROWS = CM_AVX512_ROWS, PANELS = 4, LANES = CM_AVX512_LANES };

#define INLINE static inline __attribute__((always_inline))

// `rows` and `panels` are constants where this is called, so that all sums are registers.
INLINE void multiply_block(const int rows, const int panels, const uint16_t *x, int64_t x_stride,
                           const uint16_t *w, int64_t pairs, float scale, bool keep, float *out,
                           int64_t out_stride)
{
    __m512 sum[ROWS][PANELS];
#pragma GCC unroll 6
    for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
        for (int p = 0; p < panels; p++)
            sum[m][p] = _mm512_setzero_ps();
    for (int64_t pair = 0; pair < pairs; pair++) {
        __m512bh weight[PANELS];
#pragma GCC unroll 4
        for (int p = 0; p < panels; p++)
            weight[p] = (__m512bh)_mm512_load_si512(w + (p * pairs + pair) * 2 * LANES);
#pragma GCC unroll 6
        for (int m = 0; m < rows; m++) {
            int both;
            memcpy(&both, x + m * x_stride + 2 * pair, sizeof both);
            __m512bh input = (__m512bh)_mm512_set1_epi32(both);
#pragma GCC unroll 4
            for (int p = 0; p < panels; p++)
                sum[m][p] = _mm512_dpbf16_ps(sum[m][p], input, weight[p]);
        }
    }
    __m512 factor = _mm512_set1_ps(scale);
#pragma GCC unroll 6
    for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
        for (int p = 0; p < panels; p++) {
            float *to = out + m * out_stride + (int64_t)p * LANES;
            __m512 before = keep ? _mm512_load_ps(to) : _mm512_setzero_ps();
            _mm512_store_ps(to, _mm512_fmadd_ps(sum[m][p], factor, before));
        }
}

INLINE void multiply_rows(int64_t rows, const int panels, const uint16_t *x, int64_t x_stride,
                          const uint16_t *w, int64_t pairs, float scale, bool keep, float *out,
                          int64_t out_stride)
{
    for (; rows >= ROWS; rows -= ROWS, x += ROWS * x_stride, out += ROWS * out_stride)
        multiply_block(ROWS, panels, x, x_stride, w, pairs, scale, keep, out, out_stride);
    switch (rows) {
    case 5:
        multiply_block(5, panels, x, x_stride, w, pairs, scale, keep, out, out_stride);
        break;
    case 4:
        multiply_block(4, panels, x, x_stride, w, pairs, scale, keep, out, out_stride);
        break;
    case 3:
        multiply_block(3, panels, x, x_stride, w, pairs, scale, keep, out, out_stride);
        break;
    case 2:
        multiply_block(2, panels, x, x_stride, w, pairs, scale, keep, out, out_stride);
        break;
    case 1:
        multiply_block(1, panels, x, x_stride, w, pairs, scale, keep, out, out_stride);
        break;
    default:
        break;
    }
}

void cm_avx512_multiply(const uint16_t *x, int64_t x_stride, int64_t rows, const uint16_t *w, int64_t panels,
                        int64_t pairs, float scale, bool keep, float *out, int64_t out_stride)
{
    for (; panels >= PANELS;
         panels -= PANELS, w += PANELS * pairs * 2 * LANES, out += (int64_t)PANELS * LANES)
        multiply_rows(rows, PANELS, x, x_stride, w, pairs, scale, keep, out, out_stride);
    for (; panels > 0; panels--, w += pairs * 2 * LANES, out += LANES)
        multiply_rows(rows, 1, x, x_stride, w, pairs, scale, keep, out, out_stride);
}

// Lanes of the 16 elements from n on that lie below count.
INLINE __mmask16 lanes_below(int64_t n, int64_t count)
{
    int64_t left = count - n;
    return (__mmask16)(left >= LANES ? 0xffff : left > 0 ? (1u << left) - 1 : 0);
}

// VCVTNEPS2BF16: nearest even, denormals become zero, NaN stays NaN.
INLINE void store_bf16(uint16_t *to, __mmask16 lanes, __m512 value)
{
    _mm256_store_si256((__m256i *)to, (__m256i)_mm512_maskz_cvtneps_pbh(lanes, value));
}

void cm_avx512_round(const float *from, int64_t count, uint16_t *to)
{
    for (int64_t n = 0; n < count; n += LANES)
        store_bf16(to + n, lanes_below(n, count), _mm512_load_ps(from + n));
}

void cm_avx512_swiglu(const float *gate, const float *up, int64_t count, uint16_t *h)
{
    for (int64_t n = 0; n < count; n += LANES) {
        __m512 value = _mm512_mul_ps(cm_avx512_silu(_mm512_load_ps(gate + n)), _mm512_load_ps(up + n));
        store_bf16(h + n, lanes_below(n, count), value);
    }
}

#else

const bool cm_avx512_built = false;

void cm_avx512_multiply(const uint16_t *x, int64_t x_stride, int64_t rows, const uint16_t *w, int64_t panels,
                        int64_t pairs, float scale, bool keep, float *out, int64_t out_stride)
{
    (void)x, (void)x_stride, (void)rows, (void)w, (void)panels, (void)pairs;
    (void)scale, (void)keep, (void)out, (void)out_stride;
}

void cm_avx512_round(const float *from, int64_t count, uint16_t *to)
{
    (void)from, (void)count, (void)to;
}

void cm_avx512_swiglu(const float *gate, const float *up, int64_t count, uint16_t *h)
{
    (void)gate, (void)up, (void)count, (void)h;
}

#endif
