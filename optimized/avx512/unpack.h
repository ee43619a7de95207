// SPDX-License-Identifier: Apache-2.0
// Lines of packed integers (optimized/cpu/products.h) as lines of bf16, which holds them exactly. For files
// that are compiled for AVX-512. `to` has the order of a group: line by line, `panels` beside each other.
#ifndef CM_AVX512_UNPACK_H
#define CM_AVX512_UNPACK_H

#include "optimized/cpu/products.h"

#include <immintrin.h>

#define CM_UNPACK static inline __attribute__((always_inline))

// Two lines for each.
CM_UNPACK void cm_unpack_i8(const char *from, int64_t lines, int panels, char *to)
{
    for (int64_t line = 0; line < lines; line++)
        for (int p = 0; p < panels; p++, from += CM_LINE)
            for (int half = 0; half < 2; half++) {
                const __m128i *bytes = (const __m128i *)(const void *)(from + 32 * half);
                __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_load_si128(bytes)));
                __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_load_si128(bytes + 1)));
                _mm512_store_si512(to + ((2 * line + half) * panels + p) * CM_LINE,
                                   (__m512i)_mm512_cvtne2ps_pbh(high, low));
            }
}

// bf16 of n - 8; VPERMW looks at 5 bits, so that the lowest of the next nibble need not be cleared.
CM_UNPACK __m512i cm_nibble_table(void)
{
    return _mm512_set_epi16(0x40e0, 0x40c0, 0x40a0, 0x4080, 0x4040, 0x4000, 0x3f80, 0, (short)0xbf80,
                            (short)0xc000, (short)0xc040, (short)0xc080, (short)0xc0a0, (short)0xc0c0,
                            (short)0xc0e0, (short)0xc100, 0x40e0, 0x40c0, 0x40a0, 0x4080, 0x4040, 0x4000,
                            0x3f80, 0, (short)0xbf80, (short)0xc000, (short)0xc040, (short)0xc080,
                            (short)0xc0a0, (short)0xc0c0, (short)0xc0e0, (short)0xc100);
}

// Four lines for each.
CM_UNPACK void cm_unpack_i4(const char *from, int64_t lines, int panels, char *to)
{
    const __m512i table = cm_nibble_table();
    for (int64_t line = 0; line < lines; line++)
        for (int p = 0; p < panels; p++, from += CM_LINE) {
            __m512i nibbles = _mm512_load_si512(from);
#pragma GCC unroll 4
            for (int q = 0; q < 4; q++)
                _mm512_store_si512(to + ((4 * line + q) * panels + p) * CM_LINE,
                                   _mm512_permutexvar_epi16(_mm512_srli_epi16(nibbles, 4 * q), table));
        }
}

#endif
