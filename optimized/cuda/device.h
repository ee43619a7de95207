// SPDX-License-Identifier: Apache-2.0
// What every kernel source includes: the same text compiles with nvcc for a GPU and with the host's compiler
// for the emulated device (simt/). Memory is reached through arrays that know their size, so that the
// emulator can hold each access against it; on a GPU they are plain pointers. PTX stands only behind these
// wrappers.
#ifndef CM_CUDA_DEVICE_H
#define CM_CUDA_DEVICE_H

#include "harness/checkmoe.h"

// 16-bit floats travel as their bits.
typedef struct cm_bf16 {
    uint16_t bits;
} cm_bf16;
typedef struct cm_f16 {
    uint16_t bits;
} cm_f16;

#include "optimized/cuda/refusal.h"

#ifdef __CUDACC__
#include "optimized/cuda/device_gpu.h"
#else
#include "optimized/cuda/device_emulated.h"
#endif

// Whether T has the range of fp32.
template <typename T> inline constexpr bool cm_has_wide_exponent = true;
template <> inline constexpr bool cm_has_wide_exponent<cm_f16> = false;

CM_DEVICE float cm_bits_float(uint32_t bits)
{
    union {
        uint32_t bits;
        float value;
    } both = {bits};
    return both.value;
}

CM_DEVICE uint32_t cm_float_bits(float value)
{
    union {
        float value;
        uint32_t bits;
    } both = {value};
    return both.bits;
}

CM_DEVICE float cm_widen(cm_bf16 value)
{
    return cm_bits_float((uint32_t)value.bits << 16);
}

// To nearest, ties to even; NaN becomes 7fff as on a GPU.
CM_DEVICE void cm_narrow(float value, cm_bf16 *narrow)
{
    uint32_t bits = cm_float_bits(value);
    narrow->bits = (bits & 0x7fffffff) > 0x7f800000 ? (uint16_t)0x7fff
                                                    : (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

CM_DEVICE float cm_widen(cm_f16 value)
{
    uint32_t sign = (uint32_t)(value.bits & 0x8000) << 16, rest = value.bits & 0x7fff;
    if (rest >= 0x7c00)
        return cm_bits_float(sign | 0x7f800000 | (rest & 0x3ff) << 13);
    // The exponent moves by 112; a product with a power of two does so for denormals, too.
    return cm_bits_float(sign | cm_float_bits(cm_bits_float(rest << 13) * 0x1p112f));
}

// To nearest, ties to even, with denormals and overflow to infinity.
CM_DEVICE void cm_narrow(float value, cm_f16 *narrow)
{
    uint32_t bits = cm_float_bits(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) {
        narrow->bits = 0x7fff;
    } else if (rest >= 0x477ff000) { // 65520: rounds to infinity
        narrow->bits = (uint16_t)(sign | 0x7c00);
    } else if (rest < 0x38800000) { // below 2^-14: the sum with 1/2 rounds at 2^-24
        narrow->bits = (uint16_t)(sign | (cm_float_bits(cm_bits_float(rest) + 0.5f) - 0x3f000000));
    } else {
        rest += 0xfff + (rest >> 13 & 1);
        narrow->bits = (uint16_t)(sign | (rest - 0x38000000) >> 13);
    }
}

CM_DEVICE float cm_widen(float value)
{
    return value;
}

CM_DEVICE void cm_narrow(float value, float *narrow)
{
    *narrow = value;
}

#endif
