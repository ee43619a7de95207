// SPDX-License-Identifier: Apache-2.0
// e^x and silu of 16 floats, for files that are compiled for AVX-512.
#ifndef CM_AVX512_EXPONENTIAL_H
#define CM_AVX512_EXPONENTIAL_H

#include <immintrin.h>

// e^x = 2^n e^r, n = rint(x / ln 2), |r| <= ln 2 / 2, n ln 2 subtracted in two parts, the first of 15 bits.
// e^r = 1 + r + r^2 q(r), q of degree 4 with the least relative error in e^r: 3.7e-9 after its coefficients
// are rounded to fp32, 0.06 half ulps (least squares on Chebyshev nodes, reweighted until the peaks are
// level). Worst error over all 2.24e9 floats in [-103.98, 88.73]: 1.01 ulp (x = -0x1.b610fp+4); 0.75 units of
// 2^-149 where the result is denormal. Beyond: 0 and infinity, also of -infinity and infinity. NaN stays NaN:
// VMAXPS and VMINPS then give their second operand.
static inline __m512 cm_avx512_exponential(__m512 x)
{
    x = _mm512_min_ps(_mm512_set1_ps(89), _mm512_max_ps(_mm512_set1_ps(-104.5f), x));
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(0x1.715476p+0f)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e4p-1f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.7f7d1cp-20f), r);
    __m512 q = _mm512_set1_ps(0x1.6a23dp-10f);
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.123a2p-7f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.5558f2p-5f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.555492p-3f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.fffffcp-2f));
    __m512 tail = _mm512_fmadd_ps(q, _mm512_mul_ps(r, r), r);
    return _mm512_scalef_ps(_mm512_add_ps(_mm512_set1_ps(1), tail), n);
}

// g / (1 + e^-g): -0 below -88.8, where e^-g is infinite; NaN of -infinity, as the formula has it.
static inline __m512 cm_avx512_silu(__m512 g)
{
    __m512 minus = _mm512_sub_ps(_mm512_setzero_ps(), g);
    return _mm512_div_ps(g, _mm512_add_ps(_mm512_set1_ps(1), cm_avx512_exponential(minus)));
}

#endif
