// SPDX-License-Identifier: Apache-2.0
// dequantize/avx512: 16 codes at a time, one product in fp32, one rounding to y. Rounding modes are part of
// the instructions; denormals must not be flushed. One thread; AVX-512F is all it needs. i4 codes of a row
// are spread to bytes first, as groups may begin inside a byte.
#include "optimized/kernels.h"
#include "optimized/view.h"

#include <stdio.h>

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX512F __attribute__((target("avx512f")))
#define TO_EVEN (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define LANES   16

static AVX512F __mmask16 lanes_of(int64_t count)
{
    return count >= LANES ? (__mmask16)0xffff : (__mmask16)((1u << count) - 1);
}

static AVX512F __m512 load(const int8_t *codes, int64_t count)
{
    int8_t bytes[LANES] = {0};
    memcpy(bytes, codes, (size_t)(count < LANES ? count : LANES));
    return _mm512_cvt_roundepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)bytes)), TO_EVEN);
}

// fp32 to bf16, ties to even, in the low halves of 16 words. NaN stay NaN.
static AVX512F __m512i to_bf16(__m512 value)
{
    __m512i bits = _mm512_castps_si512(value);
    __m512i odd = _mm512_and_epi32(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i up = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, up), 16);
    return _mm512_mask_or_epi32(rounded, _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q),
                                _mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40));
}

static AVX512F void store(const DLTensor *y, char *row, int64_t n, int64_t count, __m512 value)
{
    __mmask16 lanes = lanes_of(count);
    if (y->dtype.bits == 32)
        _mm512_mask_storeu_ps(row + 4 * n, lanes, value);
    else if (y->dtype.code == kDLBfloat)
        _mm512_mask_cvtepi32_storeu_epi16(row + 2 * n, lanes, to_bf16(value));
    else
        _mm512_mask_cvtepi32_storeu_epi16(row + 2 * n, lanes,
                                          _mm512_cvtepu16_epi32(_mm512_cvtps_ph(value, TO_EVEN)));
}

// Codes begin..end-1 of a row.
static AVX512F void multiply(const int8_t *codes, float scale, int64_t begin, int64_t end, const DLTensor *y,
                             char *row)
{
    const __m512 factor = _mm512_set1_ps(scale);
    for (int64_t n = begin; n < end; n += LANES)
        store(y, row, n, end - n, _mm512_mul_round_ps(load(codes + n, end - n), factor, TO_EVEN));
}

// Nibbles to bytes: n ^ 8 - 8 extends the sign.
static AVX512F void spread(const uint8_t *pairs, int64_t count, int8_t *codes)
{
    int64_t n = 0;
    const __m128i eight = _mm_set1_epi8(8);
    for (; n + LANES <= count; n += LANES) {
        __m128i words = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)(pairs + n / 2)));
        __m128i low = _mm_and_si128(words, _mm_set1_epi16(0x000f));
        __m128i high = _mm_and_si128(_mm_slli_epi16(words, 4), _mm_set1_epi16(0x0f00));
        __m128i nibbles = _mm_xor_si128(_mm_or_si128(low, high), eight);
        _mm_storeu_si128((__m128i *)(codes + n), _mm_sub_epi8(nibbles, eight));
    }
    for (; n < count; n++)
        codes[n] = (int8_t)(((pairs[n / 2] >> (n % 2 * 4) & 15) ^ 8) - 8);
}

static bool cpu_has_instructions(void)
{
    return __builtin_cpu_supports("avx512f");
}

#else
static void multiply(const int8_t *codes, float scale, int64_t begin, int64_t end, const DLTensor *y,
                     char *row)
{
    (void)codes, (void)scale, (void)begin, (void)end, (void)y, (void)row;
}
static void spread(const uint8_t *pairs, int64_t count, int8_t *codes)
{
    (void)pairs, (void)count, (void)codes;
}
static bool cpu_has_instructions(void)
{
    return false;
}
#endif

static bool supports(const cm_call *call, char *reason, size_t size)
{
    (void)call; // every dtype and group
    if (!cpu_has_instructions())
        snprintf(reason, size, "this CPU has no AVX-512F");
    return cpu_has_instructions();
}

static cm_status run(const cm_call *call, void *state)
{
    (void)state;
    char reason[64];
    cm_status status = call->host->validate(call);
    if (status != CM_OK)
        return status;
    if (!supports(call, reason, sizeof reason))
        return call->host->fail(call, CM_UNSUPPORTED, "%s", reason);
    int64_t T = call->host->dim(call, 'T'), K = call->host->dim(call, 'K'), G = call->host->dim(call, 'G');
    const DLTensor *codes = call->host->argument(call, "codes"), *y = call->host->argument(call, "y");
    const DLTensor *scales = call->host->argument(call, "scale");
    bool pairs = codes->dtype.bits == 4;
    int64_t size = G > 0 && G < K ? G : K;
    int8_t *bytes = pairs ? call->host->scratch(call, (size_t)K, 64) : NULL;
    if (pairs && !bytes)
        return call->host->fail(call, CM_NO_MEMORY, "no scratch memory");
    for (int64_t t = 0; t < T; t++) {
        const char *code_row = cm_row_at(codes, 0, 0, t), *scale_row = cm_row_at(scales, 0, 0, t);
        if (pairs)
            spread((const uint8_t *)code_row, K, bytes);
        for (int64_t begin = 0; begin < K; begin += size)
            multiply(pairs ? bytes : (const int8_t *)code_row, cm_load_float(scales, scale_row, begin / size),
                     begin, begin + size < K ? begin + size : K, y, (char *)cm_row_at(y, 0, 0, t));
    }
    return CM_OK;
}

const cm_kernel cm_dequantize_avx512 = {
    .size = sizeof(cm_kernel),
    .name = "dequantize/avx512",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .row_invariant = true,
    .supports = supports,
    .run = run,
};
