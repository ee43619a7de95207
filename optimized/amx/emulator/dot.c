// SPDX-License-Identifier: Apache-2.0
// Products of tiles after the pseudo-code of Intel SDM volume 2. M = C.rows, N = C.colsb / 4, K = A.colsb
// / 4. A [M, K] and B [K, N] have dwords of 2 bf16 or fp16, or 4 bytes; row k of B belongs to dword k of each
// row of A.
//
// Floating point: per output two chains of fused multiply-adds from 0, over even and odd elements, k rising;
// then their sum; then C plus that. Round to nearest even, denormals are zero going in and coming out, MXCSR
// is neither read nor written, nothing is signalled. Flushing is left to the processor, because computing
// with gradual underflow and flushing afterwards differs: 2^-126 - 2^-150 is tiny before it is rounded, not
// after. fp16 is converted exactly, its denormals are normal in fp32.
//
// Integers: modulo 2^32, no saturation.
//
// Compiled for AVX2, FMA and F16C, which cm_amx_emulate_enable demands.
#include "optimized/amx/emulator/tiles.h"

#include <immintrin.h>
#include <string.h>

enum { LANES = 16, HALF = 8 };
#define MXCSR_EXACT 0x9fc0u // all exceptions masked, nearest even, FTZ, DAZ

struct pairs {
    __m256 even, odd;
};

static struct pairs widen(__m256i dwords, bool half)
{
    if (!half)
        return (struct pairs){_mm256_castsi256_ps(_mm256_slli_epi32(dwords, 16)),
                              _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_set1_epi32(0xffff), dwords))};
    const __m256i pick = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8,
                                          9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    __m256i apart = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(dwords, pick), 0xd8);
    return (struct pairs){_mm256_cvtph_ps(_mm256_castsi256_si128(apart)),
                          _mm256_cvtph_ps(_mm256_extracti128_si256(apart, 1))};
}

// A function of its own, so that no arithmetic moves across the change of MXCSR.
static __attribute__((noinline)) void multiply_floats(struct cm_amx_tiles *tiles, int c, int a, int b,
                                                      bool half)
{
    int rows = tiles->rows[c], depth = tiles->colsb[a] / 4;
    size_t width = tiles->colsb[c];
    for (int m = 0; m < rows; m++) {
        __m256 even[2], odd[2];
        float sum[LANES];
        for (int part = 0; part < 2; part++)
            even[part] = odd[part] = _mm256_setzero_ps();
        for (int k = 0; k < depth; k++) {
            int32_t dword;
            memcpy(&dword, tiles->data[a][m] + 4 * k, 4);
            struct pairs left = widen(_mm256_set1_epi32(dword), half);
            for (int part = 0; part < 2; part++) {
                const uint8_t *row = tiles->data[b][k] + 4 * HALF * part;
                struct pairs right = widen(_mm256_loadu_si256((const __m256i *)(const void *)row), half);
                even[part] = _mm256_fmadd_ps(left.even, right.even, even[part]);
                odd[part] = _mm256_fmadd_ps(left.odd, right.odd, odd[part]);
            }
        }
        for (int part = 0; part < 2; part++) {
            __m256 old;
            memcpy(&old, tiles->data[c][m] + 4 * HALF * part, sizeof old);
            _mm256_storeu_ps(sum + HALF * part, _mm256_add_ps(old, _mm256_add_ps(even[part], odd[part])));
        }
        memcpy(tiles->data[c][m], sum, width); // lanes beyond N are 0 times A: NaN, perhaps
    }
}

static __m256i widen_bytes(const uint8_t *bytes, bool is_signed)
{
    __m128i packed;
    memcpy(&packed, bytes, sizeof packed);
    return is_signed ? _mm256_cvtepi8_epi16(packed) : _mm256_cvtepu8_epi16(packed);
}

// Products of 9-bit numbers: sums of two fit into 32 bits.
static void multiply_bytes(struct cm_amx_tiles *tiles, int c, int a, int b, bool a_signed, bool b_signed)
{
    int rows = tiles->rows[c], depth = tiles->colsb[a] / 4, width = tiles->colsb[c] / 4;
    for (int m = 0; m < rows; m++) {
        __m256i sums[4]; // each 4 outputs of 2 halves
        uint32_t halves[2 * LANES];
        for (int part = 0; part < 4; part++)
            sums[part] = _mm256_setzero_si256();
        for (int k = 0; k < depth; k++) {
            uint8_t four[16] = {0};
            memcpy(four, tiles->data[a][m] + 4 * k, 4);
            __m256i left = _mm256_broadcastq_epi64(_mm256_castsi256_si128(widen_bytes(four, a_signed)));
            for (int part = 0; part < 4; part++) {
                __m256i right = widen_bytes(tiles->data[b][k] + 16 * part, b_signed);
                sums[part] = _mm256_add_epi32(sums[part], _mm256_madd_epi16(left, right));
            }
        }
        memcpy(halves, sums, sizeof halves);
        for (int n = 0; n < width; n++) {
            uint32_t old;
            memcpy(&old, tiles->data[c][m] + 4 * n, 4);
            old += halves[2 * n] + halves[2 * n + 1];
            memcpy(tiles->data[c][m] + 4 * n, &old, 4);
        }
    }
}

void cm_amx_tiles_dot(struct cm_amx_tiles *tiles, cm_amx_operation operation, int c, int a, int b)
{
    unsigned saved = _mm_getcsr();
    switch (operation) {
    case CM_AMX_TDPBF16PS:
    case CM_AMX_TDPFP16PS:
        _mm_setcsr(MXCSR_EXACT);
        multiply_floats(tiles, c, a, b, operation == CM_AMX_TDPFP16PS);
        _mm_setcsr(saved);
        break;
    default:
        multiply_bytes(tiles, c, a, b, operation == CM_AMX_TDPBSSD || operation == CM_AMX_TDPBSUD,
                       operation == CM_AMX_TDPBSSD || operation == CM_AMX_TDPBUSD);
    }
    tiles->start_row = 0;
}
