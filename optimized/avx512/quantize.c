// SPDX-License-Identifier: Apache-2.0
// quantize/avx512: 16 elements at a time. Rounding modes are part of the instructions: those of MXCSR don't
// matter, but denormals must not be flushed. A normal scale is inverted once per group, a denormal one
// divides. One thread; AVX-512F is all it needs. i4 codes of a row are made as bytes first, then packed in
// pairs.
#include "optimized/kernels.h"
#include "optimized/view.h"

#include <float.h>
#include <stdio.h>

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX512F  __attribute__((target("avx512f")))
#define TO_EVEN  (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define LANES    16
#define SIGN_OFF 0x7fffffff

static AVX512F __mmask16 lanes_of(int64_t count)
{
    return count >= LANES ? (__mmask16)0xffff : (__mmask16)((1u << count) - 1);
}

// Elements n..n+count-1 of a row, zeros behind them; count is 1..16.
static AVX512F __m512 load(const DLTensor *x, const char *row, int64_t n, int64_t count)
{
    if (x->dtype.bits == 32)
        return _mm512_maskz_loadu_ps(lanes_of(count), row + 4 * n);
    uint16_t halves[LANES] = {0};
    memcpy(halves, row + 2 * n, 2 * (size_t)(count < LANES ? count : LANES));
    __m256i half = _mm256_loadu_si256((const __m256i *)halves);
    if (x->dtype.code == kDLBfloat)
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
    return _mm512_cvtph_ps(half);
}

static AVX512F float largest(const DLTensor *x, const char *row, int64_t begin, int64_t end)
{
    __m512i amax = _mm512_setzero_si512(); // as integers, magnitudes are in order and NaN is above infinity
    const __m512i magnitude = _mm512_set1_epi32(SIGN_OFF);
    for (int64_t n = begin; n < end; n += LANES) {
        __m512i bits = _mm512_castps_si512(load(x, row, n, end - n));
        amax = _mm512_max_epu32(_mm512_and_epi32(bits, magnitude), amax);
    }
    uint32_t top = _mm512_reduce_max_epu32(amax);
    float value;
    memcpy(&value, &top, 4);
    return value;
}

static AVX512F float divide(float a, float b)
{
    return _mm512_cvtss_f32(_mm512_div_round_ps(_mm512_set1_ps(a), _mm512_set1_ps(b), TO_EVEN));
}

// Codes begin..end-1 of a row, a byte each.
static AVX512F void make_codes(const DLTensor *x, const char *row, int64_t begin, int64_t end, float scale,
                               float top, int8_t *codes)
{
    bool inverts = scale >= FLT_MIN;
    const __m512 divisor = _mm512_set1_ps(scale);
    const __m512 inverse = _mm512_set1_ps(inverts ? divide(1, scale) : 0);
    const __m512 most = _mm512_set1_ps(top), least = _mm512_set1_ps(-top);
    for (int64_t n = begin; n < end; n += LANES) {
        __m512 u = load(x, row, n, end - n);
        if (inverts)
            u = _mm512_mul_round_ps(u, inverse, TO_EVEN);
        else
            u = scale > 0 ? _mm512_div_round_ps(u, divisor, TO_EVEN) : _mm512_setzero_ps();
        u = _mm512_min_ps(_mm512_max_ps(u, least), most);
        _mm512_mask_cvtepi32_storeu_epi8(codes + n, lanes_of(end - n), _mm512_cvt_roundps_epi32(u, TO_EVEN));
    }
}

// Bytes to nibbles, the even element in the low one.
static AVX512F void pack(const int8_t *codes, int64_t count, uint8_t *out)
{
    int64_t n = 0;
    for (; n + LANES <= count; n += LANES) {
        __m128i pairs = _mm_loadu_si128((const __m128i *)(codes + n));
        __m128i low = _mm_and_si128(pairs, _mm_set1_epi16(0x000f));
        __m128i high = _mm_and_si128(_mm_srli_epi16(pairs, 4), _mm_set1_epi16(0x00f0));
        __m128i bytes = _mm_or_si128(low, high);
        _mm_storel_epi64((__m128i *)(out + n / 2), _mm_packus_epi16(bytes, bytes));
    }
    for (; n < count; n += 2)
        out[n / 2] = (uint8_t)((codes[n] & 15) | (n + 1 < count ? (codes[n + 1] & 15) << 4 : 0));
}

static bool cpu_has_instructions(void)
{
    return __builtin_cpu_supports("avx512f");
}

#else
static float largest(const DLTensor *x, const char *row, int64_t begin, int64_t end)
{
    return (void)x, (void)row, (void)begin, (void)end, 0;
}
static float divide(float a, float b)
{
    return a / b;
}
static void make_codes(const DLTensor *x, const char *row, int64_t begin, int64_t end, float scale, float top,
                       int8_t *codes)
{
    (void)x, (void)row, (void)begin, (void)end, (void)scale, (void)top, (void)codes;
}
static void pack(const int8_t *codes, int64_t count, uint8_t *out)
{
    (void)codes, (void)count, (void)out;
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
    const DLTensor *x = call->host->argument(call, "x"), *codes = call->host->argument(call, "codes");
    const DLTensor *scales = call->host->argument(call, "scale");
    bool pairs = codes->dtype.bits == 4;
    int64_t size = G > 0 && G < K ? G : K;
    float top = pairs ? 7 : 127;
    int8_t *bytes = pairs ? call->host->scratch(call, (size_t)K, 64) : NULL;
    if (pairs && !bytes)
        return call->host->fail(call, CM_NO_MEMORY, "no scratch memory");
    for (int64_t t = 0; t < T; t++) {
        const char *row = cm_row_at(x, 0, 0, t);
        char *code_row = (char *)cm_row_at(codes, 0, 0, t), *scale_row = (char *)cm_row_at(scales, 0, 0, t);
        for (int64_t begin = 0; begin < K; begin += size) {
            int64_t end = begin + size < K ? begin + size : K;
            float scale = divide(largest(x, row, begin, end), top);
            cm_store_float(scales, scale_row, begin / size, scale);
            make_codes(x, row, begin, end, scale, top, pairs ? bytes : (int8_t *)code_row);
        }
        if (pairs)
            pack(bytes, K, (uint8_t *)code_row);
    }
    return CM_OK;
}

const cm_kernel cm_quantize_avx512 = {
    .size = sizeof(cm_kernel),
    .name = "quantize/avx512",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .row_invariant = true,
    .supports = supports,
    .run = run,
};
