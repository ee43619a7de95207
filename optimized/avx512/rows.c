// SPDX-License-Identifier: Apache-2.0
// What the avx512 kernel of moe_forward does with rows: rounding, silu, codes, sums.
#include "optimized/avx512/multiply.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512VNNI__)

#include "optimized/avx512/exponential.h"

#include <string.h>

enum { LANES = CM_LANES };

#define INLINE  static inline __attribute__((always_inline))
#define TO_EVEN (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)

// Lanes of the 16 elements from n on that lie below count.
INLINE __mmask16 lanes_below(int64_t n, int64_t count)
{
    int64_t left = count - n;
    return (__mmask16)(left >= LANES ? 0xffff : left > 0 ? (1u << left) - 1 : 0);
}

// VCVTNEPS2BF16: nearest even, denormals become zero, NaN stays NaN.
INLINE void store_bf16(uint16_t *to, __mmask16 lanes, __m512 value)
{
    _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_maskz_cvtneps_pbh(lanes, value));
}

INLINE __m512 from_bf16(__m256i half)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

void cm_avx512_round_row(const float *from, int64_t count, int64_t padded, uint16_t *to)
{
    int64_t n = 0;
    for (; n < count; n += LANES)
        store_bf16(to + n, lanes_below(n, count), _mm512_loadu_ps(from + n));
    for (; n < padded; n += LANES)
        _mm256_storeu_si256((__m256i *)(to + n), _mm256_setzero_si256());
}

void cm_avx512_activate(const struct cm_activation *activation)
{
    int64_t n = 0, count = activation->count;
    for (; n < count; n += LANES) {
        __mmask16 lanes = lanes_below(n, count);
        __m512 gate = _mm512_load_ps(activation->gate + n), up = _mm512_load_ps(activation->up + n);
        if (activation->gate_bias)
            gate = _mm512_add_ps(gate, _mm512_loadu_ps(activation->gate_bias + n));
        if (activation->up_bias)
            up = _mm512_add_ps(up, _mm512_loadu_ps(activation->up_bias + n));
        __m512 h = _mm512_mul_ps(cm_avx512_silu(gate), up);
        if (activation->round)
            h = from_bf16((__m256i)_mm512_cvtneps_pbh(h));
        if (activation->h)
            store_bf16(activation->h + n, lanes, h);
        if (activation->exact)
            _mm512_storeu_ps(activation->exact + n, _mm512_maskz_mov_ps(lanes, h));
    }
    for (; n < activation->padded; n += LANES) {
        if (activation->h)
            _mm256_storeu_si256((__m256i *)(activation->h + n), _mm256_setzero_si256());
        if (activation->exact)
            _mm512_storeu_ps(activation->exact + n, _mm512_setzero_ps());
    }
}

INLINE __m512 load(const struct cm_quantisation *quantisation, int64_t n)
{
    __mmask16 lanes = lanes_below(n, quantisation->count);
    if (quantisation->from)
        return _mm512_maskz_loadu_ps(lanes, quantisation->from + n);
    return from_bf16(_mm256_maskz_loadu_epi16(lanes, quantisation->from_bf16 + n));
}

// -offset times the sum of each group's codes; groups are multiples of 16 elements, zeros lie behind the row.
static void add_up(const struct cm_quantisation *quantisation)
{
    const __m128i ones = _mm_set1_epi8(1);
    for (int64_t begin = 0, g = 0; begin < quantisation->count; begin += quantisation->group, g++) {
        int64_t end = begin + quantisation->group;
        end = end < quantisation->count ? end : quantisation->count;
        __m128i sum = _mm_setzero_si128();
        for (int64_t n = begin; n < end; n += 16)
            sum = _mm_dpbusd_epi32(sum, ones, _mm_loadu_si128((const __m128i *)(quantisation->codes + n)));
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
        quantisation->totals[g] =
            (int32_t)(0u - (uint32_t)quantisation->offset * (uint32_t)_mm_cvtsi128_si32(sum));
    }
}

void cm_avx512_quantise(const struct cm_quantisation *quantisation)
{
    int64_t count = quantisation->count, n = 0;
    __m512 amax = _mm512_setzero_ps(), finite = _mm512_setzero_ps();
    for (n = 0; n < count; n += LANES) {
        __m512 x = load(quantisation, n);
        amax = _mm512_max_ps(amax, _mm512_abs_ps(x));
        finite = _mm512_fmadd_ps(x, _mm512_setzero_ps(), finite); // NaN from then on
    }
    float scale = _mm512_reduce_max_ps(amax) / 127, broken = _mm512_reduce_add_ps(finite);
    for (n = 0; n < count; n += LANES) {
        __m512 u = _mm512_div_ps(load(quantisation, n), _mm512_set1_ps(scale)); // NaN in a row of zeros
        u = _mm512_roundscale_ps(u, TO_EVEN);
        __mmask16 fits = _mm512_cmp_ps_mask(_mm512_abs_ps(u), _mm512_set1_ps(127), _CMP_LE_OQ);
        u = _mm512_maskz_mov_ps(fits & lanes_below(n, count), u);
        if (quantisation->codes)
            _mm_storeu_si128((__m128i *)(quantisation->codes + n),
                             _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(u)));
        else
            store_bf16(quantisation->as_bf16 + n, 0xffff, u);
    }
    for (; n < quantisation->padded; n += LANES)
        if (quantisation->codes)
            _mm_storeu_si128((__m128i *)(quantisation->codes + n), _mm_setzero_si128());
        else
            _mm256_storeu_si256((__m256i *)(quantisation->as_bf16 + n), _mm256_setzero_si256());
    if (quantisation->totals)
        add_up(quantisation);
    scale += broken;
    memcpy(quantisation->scale, &scale, sizeof scale);
}

void cm_avx512_combine(const struct cm_combination *combination)
{
    for (int64_t n = 0; n < combination->columns; n += LANES) {
        __mmask16 lanes = lanes_below(n, combination->columns);
        __m512 y = _mm512_setzero_ps();
        for (int64_t j = 0; j < combination->count; j++)
            y = _mm512_fmadd_ps(_mm512_set1_ps(combination->weights[j]),
                                _mm512_loadu_ps(combination->rows[j] + n), y);
        if (combination->bits == 32)
            _mm512_mask_storeu_ps((float *)combination->y + n, lanes, y);
        else {
            uint16_t *to = (uint16_t *)combination->y + n;
            __m256i half = combination->bf16 ? (__m256i)_mm512_cvtneps_pbh(y) : _mm512_cvtps_ph(y, TO_EVEN);
            _mm256_mask_storeu_epi16(to, lanes, half);
        }
    }
}

#else

void cm_avx512_round_row(const float *from, int64_t count, int64_t padded, uint16_t *to)
{
    (void)from, (void)count, (void)padded, (void)to;
}
void cm_avx512_activate(const struct cm_activation *activation)
{
    (void)activation;
}
void cm_avx512_quantise(const struct cm_quantisation *quantisation)
{
    (void)quantisation;
}
void cm_avx512_combine(const struct cm_combination *combination)
{
    (void)combination;
}

#endif
