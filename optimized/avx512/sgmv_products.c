// SPDX-License-Identifier: Apache-2.0
// Compiled for AVX512-BF16. VDPBF16PS adds the odd product of a pair first, each addition rounded to nearest;
// denormals, bf16 inputs and fp32 sums alike, count as zero. Both products read their matrix once, from its
// first element to its last.
#include "optimized/avx512/sgmv_products.h"

static int64_t whole_lines(int64_t k)
{
    return (k + CM_DOTS_LINE - 1) / CM_DOTS_LINE;
}

static int64_t step_lines(int64_t K, int64_t step)
{
    int64_t left = K - step * CM_DOTS_STEP;
    return whole_lines(left < CM_DOTS_STEP ? left : CM_DOTS_STEP);
}

int64_t cm_avx512_dots_elements(int64_t rank, int64_t K)
{
    return rank * whole_lines(K) * CM_DOTS_LINE;
}

void cm_avx512_dots_pack(const DLTensor *a, int64_t adapter, int64_t slice, int64_t rank, int64_t K,
                         uint16_t *to)
{
    for (int64_t j = 0; j < rank; j++) {
        const char *from = cm_row_at(a, adapter, slice, j);
        int64_t first = j / CM_DOTS_RANKS * CM_DOTS_RANKS;
        int64_t ranks = rank - first < CM_DOTS_RANKS ? rank - first : CM_DOTS_RANKS;
        for (int64_t k = 0; k < K; k += CM_DOTS_LINE) {
            int64_t step = k / CM_DOTS_STEP, left = K - k < CM_DOTS_LINE ? K - k : CM_DOTS_LINE;
            int64_t line = step * CM_DOTS_STEP / CM_DOTS_LINE * rank + first * step_lines(K, step) +
                           k % CM_DOTS_STEP / CM_DOTS_LINE * ranks + (j - first);
            memcpy(to + line * CM_DOTS_LINE, from + 2 * k, (size_t)left * sizeof *to);
        }
    }
}

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)

#include <immintrin.h>

const bool cm_avx512_built = true;

enum { LANES = CM_AVX512_LANES, AHEAD = 4096 / 2 };

#define INLINE static inline __attribute__((always_inline))

// Lane n: the sum of sums[n].
INLINE __m256 sum_lanes(const __m512 sums[CM_DOTS_RANKS])
{
    __m256 half[CM_DOTS_RANKS];
#pragma GCC unroll 8
    for (int n = 0; n < CM_DOTS_RANKS; n++)
        half[n] = _mm256_add_ps(_mm512_castps512_ps256(sums[n]),
                                _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(sums[n]), 1)));
    __m256 low = _mm256_hadd_ps(_mm256_hadd_ps(half[0], half[1]), _mm256_hadd_ps(half[2], half[3]));
    __m256 high = _mm256_hadd_ps(_mm256_hadd_ps(half[4], half[5]), _mm256_hadd_ps(half[6], half[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
}

// `ranks` and `rows` are constants where this is called, so that all sums are registers. x: at the step.
INLINE void dots_block(const int ranks, const int rows, const char *const *x, int64_t offset, int64_t count,
                       const uint16_t *a, float *out, int64_t out_stride)
{
    __m512 sum[CM_DOTS_ROWS][CM_DOTS_RANKS];
#pragma GCC unroll 3
    for (int m = 0; m < CM_DOTS_ROWS; m++)
#pragma GCC unroll 8
        for (int j = 0; j < CM_DOTS_RANKS; j++)
            sum[m][j] = _mm512_setzero_ps();
    for (int64_t k = 0; k < count; k += CM_DOTS_LINE, a += ranks * CM_DOTS_LINE) {
        __m512bh input[CM_DOTS_ROWS];
        __mmask32 there = count - k < CM_DOTS_LINE ? (1u << (count - k)) - 1 : ~0u;
#pragma GCC unroll 3
        for (int m = 0; m < rows; m++)
            input[m] = (__m512bh)_mm512_maskz_loadu_epi16(there, x[m] + 2 * (offset + k));
#pragma GCC unroll 8
        for (int j = 0; j < ranks; j++) {
            __m512bh weight = (__m512bh)_mm512_load_si512(a + j * CM_DOTS_LINE);
            _mm_prefetch(a + j * CM_DOTS_LINE + AHEAD, _MM_HINT_T0);
#pragma GCC unroll 3
            for (int m = 0; m < rows; m++)
                sum[m][j] = _mm512_dpbf16_ps(sum[m][j], weight, input[m]);
        }
    }
    __mmask8 stored = (__mmask8)((1u << ranks) - 1);
#pragma GCC unroll 3
    for (int m = 0; m < rows; m++)
        _mm256_mask_storeu_ps(out + m * out_stride, stored, sum_lanes(sum[m]));
}

INLINE void dots_rows(const int ranks, const char *const *x, int64_t rows, int64_t offset, int64_t count,
                      const uint16_t *a, float *out, int64_t out_stride)
{
    for (; rows >= 3; rows -= 3, x += 3, out += 3 * out_stride)
        dots_block(ranks, 3, x, offset, count, a, out, out_stride);
    if (rows == 2)
        dots_block(ranks, 2, x, offset, count, a, out, out_stride);
    else if (rows == 1)
        dots_block(ranks, 1, x, offset, count, a, out, out_stride);
}

void cm_avx512_dots(const char *const *x, int64_t rows, int64_t K, int64_t step, const uint16_t *a,
                    int64_t rank, float *out, int64_t out_stride)
{
    int64_t offset = step * CM_DOTS_STEP, lines = step_lines(K, step);
    int64_t count = K - offset < CM_DOTS_STEP ? K - offset : CM_DOTS_STEP;
    a += offset * rank;
    for (int64_t first = 0; first < rank; first += CM_DOTS_RANKS) {
        const uint16_t *block = a + first * lines * CM_DOTS_LINE;
        int64_t ranks = rank - first;
#define BLOCK(n)                                                                                             \
    case n:                                                                                                  \
        dots_rows(n, x, rows, offset, count, block, out + first, out_stride);                                \
        break;
        switch (ranks) {
            BLOCK(1)
            BLOCK(2)
            BLOCK(3)
            BLOCK(4)
            BLOCK(5)
            BLOCK(6)
            BLOCK(7)
        default:
            dots_rows(8, x, rows, offset, count, block, out + first, out_stride);
        }
#undef BLOCK
    }
}

INLINE __mmask16 lanes_below(int64_t n, int64_t count)
{
    int64_t left = count - n;
    return left >= LANES ? 0xffff : left <= 0 ? 0 : (__mmask16)((1u << left) - 1);
}

INLINE __m512 sum_terms(const float *sums, int64_t terms, int64_t sum_stride, __mmask16 lanes)
{
    __m512 sum = _mm512_maskz_loadu_ps(lanes, sums);
    for (int64_t term = 1; term < terms; term++)
        sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(lanes, sums + term * sum_stride));
    return sum;
}

INLINE __m512 widen(__m256i bits)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

void cm_avx512_split_sum(const float *sums, int64_t terms, int64_t sum_stride, int64_t rank, int64_t parts,
                         uint16_t *v, int64_t part_stride)
{
    const __m512 largest = _mm512_set1_ps(0x1.fffffep+127f), most = _mm512_set1_ps(0x1.fep+127f); // of bf16
    for (int64_t n = 0; n < cm_avx512_stride(rank); n += LANES) {
        __m512 rest = sum_terms(sums + n, terms, sum_stride, lanes_below(n, rank));
        for (int64_t part = 0; part < parts; part++) {
            __mmask16 finite = _mm512_cmp_ps_mask(_mm512_abs_ps(rest), largest, _CMP_LE_OQ);
            __m512 part_of = _mm512_mask_min_ps(rest, finite, rest, most); // or it would round to infinity
            part_of = _mm512_mask_max_ps(part_of, finite, part_of, _mm512_sub_ps(_mm512_setzero_ps(), most));
            __m256i bits = (__m256i)_mm512_cvtneps_pbh(part_of);
            _mm256_storeu_si256((__m256i *)(v + part * part_stride + n), bits);
            rest = _mm512_maskz_sub_ps(finite, rest, widen(bits));
        }
    }
}

void cm_avx512_plain_sum(const float *sums, int64_t terms, int64_t sum_stride, int64_t rank, float *out)
{
    for (int64_t n = 0; n < cm_avx512_stride(rank); n += LANES)
        _mm512_storeu_ps(out + n, sum_terms(sums + n, terms, sum_stride, lanes_below(n, rank)));
}

// `rows`, `panels` and `parts` are constants where this is called.
INLINE void expand_block(const int rows, const int panels, const int parts, const uint16_t *v,
                         int64_t v_stride, int64_t part_stride, const uint16_t *b, int64_t pairs, float *out,
                         int64_t out_stride)
{
    __m512 sum[CM_EXPAND_ROWS][CM_EXPAND_PANELS];
#pragma GCC unroll 6
    for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
        for (int p = 0; p < panels; p++)
            sum[m][p] = _mm512_setzero_ps();
    for (int64_t pair = 0; pair < pairs; pair++, b += panels * 2 * LANES) {
        __m512bh weight[CM_EXPAND_PANELS];
#pragma GCC unroll 4
        for (int p = 0; p < panels; p++) {
            weight[p] = (__m512bh)_mm512_load_si512(b + p * 2 * LANES);
            _mm_prefetch(b + p * 2 * LANES + AHEAD, _MM_HINT_T0);
        }
#pragma GCC unroll 3
        for (int part = 0; part < parts; part++)
#pragma GCC unroll 6
            for (int m = 0; m < rows; m++) {
                int both;
                memcpy(&both, v + part * part_stride + m * v_stride + 2 * pair, sizeof both);
                __m512bh input = (__m512bh)_mm512_set1_epi32(both);
#pragma GCC unroll 4
                for (int p = 0; p < panels; p++)
                    sum[m][p] = _mm512_dpbf16_ps(sum[m][p], input, weight[p]);
            }
    }
#pragma GCC unroll 6
    for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
        for (int p = 0; p < panels; p++)
            _mm512_storeu_ps(out + m * out_stride + p * LANES, sum[m][p]);
}

INLINE void expand_rows(const int rows, const int parts, const uint16_t *v, int64_t v_stride,
                        int64_t part_stride, const uint16_t *b, int64_t panels, int64_t pairs, float *out,
                        int64_t out_stride)
{
    enum { WIDE = CM_EXPAND_PANELS };
    for (; panels >= WIDE; panels -= WIDE, b += WIDE * pairs * 2 * LANES, out += WIDE * LANES)
        expand_block(rows, WIDE, parts, v, v_stride, part_stride, b, pairs, out, out_stride);
    if (panels == 3)
        expand_block(rows, 3, parts, v, v_stride, part_stride, b, pairs, out, out_stride);
    else if (panels == 2)
        expand_block(rows, 2, parts, v, v_stride, part_stride, b, pairs, out, out_stride);
    else if (panels == 1)
        expand_block(rows, 1, parts, v, v_stride, part_stride, b, pairs, out, out_stride);
}

#define EACH_ROWS(parts)                                                                                     \
    switch (rows) {                                                                                          \
    case 1:                                                                                                  \
        expand_rows(1, parts, v, v_stride, part_stride, b, panels, pairs, out, out_stride);                  \
        break;                                                                                               \
    case 2:                                                                                                  \
        expand_rows(2, parts, v, v_stride, part_stride, b, panels, pairs, out, out_stride);                  \
        break;                                                                                               \
    case 3:                                                                                                  \
        expand_rows(3, parts, v, v_stride, part_stride, b, panels, pairs, out, out_stride);                  \
        break;                                                                                               \
    case 4:                                                                                                  \
        expand_rows(4, parts, v, v_stride, part_stride, b, panels, pairs, out, out_stride);                  \
        break;                                                                                               \
    case 5:                                                                                                  \
        expand_rows(5, parts, v, v_stride, part_stride, b, panels, pairs, out, out_stride);                  \
        break;                                                                                               \
    default:                                                                                                 \
        expand_rows(6, parts, v, v_stride, part_stride, b, panels, pairs, out, out_stride);                  \
    }

void cm_avx512_expand(const uint16_t *v, int64_t rows, int64_t v_stride, int64_t parts, int64_t part_stride,
                      const uint16_t *b, int64_t panels, int64_t pairs, float *out, int64_t out_stride)
{
    if (parts == 1)
        EACH_ROWS(1)
    else
        EACH_ROWS(3)
}

// What 16 elements of a row of y are, and become.
INLINE __m512 load_y(DLDataType dtype, const char *y, int64_t n, __mmask16 lanes)
{
    if (dtype.bits == 32)
        return _mm512_maskz_loadu_ps(lanes, y + 4 * n);
    __m256i bits = _mm256_maskz_loadu_epi16(lanes, y + 2 * n);
    return dtype.code == kDLBfloat ? widen(bits) : _mm512_cvtph_ps(bits);
}

INLINE void store_y(DLDataType dtype, char *y, int64_t n, __mmask16 lanes, __m512 value)
{
    if (dtype.bits == 32)
        _mm512_mask_storeu_ps(y + 4 * n, lanes, value);
    else if (dtype.code == kDLBfloat)
        _mm256_mask_storeu_epi16(y + 2 * n, lanes, (__m256i)_mm512_cvtneps_pbh(value));
    else
        _mm256_mask_storeu_epi16(y + 2 * n, lanes,
                                 _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

void cm_avx512_add_row(DLDataType dtype, char *y, const float *delta, int64_t count, float scaling,
                       bool accumulate)
{
    __m512 factor = _mm512_set1_ps(scaling);
    for (int64_t n = 0; n < count; n += LANES) {
        __mmask16 lanes = lanes_below(n, count);
        __m512 before = accumulate ? load_y(dtype, y, n, lanes) : _mm512_setzero_ps();
        __m512 value = _mm512_fmadd_ps(factor, _mm512_maskz_loadu_ps(lanes, delta + n), before);
        store_y(dtype, y, n, lanes, value);
    }
}

#else

const bool cm_avx512_built = false;

void cm_avx512_dots(const char *const *x, int64_t rows, int64_t K, int64_t step, const uint16_t *a,
                    int64_t rank, float *out, int64_t out_stride)
{
    (void)x, (void)rows, (void)K, (void)step, (void)a, (void)rank, (void)out, (void)out_stride;
}

void cm_avx512_split_sum(const float *sums, int64_t terms, int64_t sum_stride, int64_t rank, int64_t parts,
                         uint16_t *v, int64_t part_stride)
{
    (void)sums, (void)terms, (void)sum_stride, (void)rank, (void)parts, (void)v, (void)part_stride;
}

void cm_avx512_plain_sum(const float *sums, int64_t terms, int64_t sum_stride, int64_t rank, float *out)
{
    (void)sums, (void)terms, (void)sum_stride, (void)rank, (void)out;
}

void cm_avx512_expand(const uint16_t *v, int64_t rows, int64_t v_stride, int64_t parts, int64_t part_stride,
                      const uint16_t *b, int64_t panels, int64_t pairs, float *out, int64_t out_stride)
{
    (void)v, (void)rows, (void)v_stride, (void)parts, (void)part_stride;
    (void)b, (void)panels, (void)pairs, (void)out, (void)out_stride;
}

void cm_avx512_add_row(DLDataType dtype, char *y, const float *delta, int64_t count, float scaling,
                       bool accumulate)
{
    (void)dtype, (void)y, (void)delta, (void)count, (void)scaling, (void)accumulate;
}

#endif
