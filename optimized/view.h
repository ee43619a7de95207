// SPDX-License-Identifier: Apache-2.0
// Rows of DLPack tensors as fp32, for kernels that compute in single precision. f32, f16 and bf16; rows of
// the last dimension are contiguous, other strides are free.
#ifndef CM_OPTIMIZED_VIEW_H
#define CM_OPTIMIZED_VIEW_H

#include "harness/checkmoe.h"

#include <string.h>

static inline float cm_bf16_to_float(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

static inline uint16_t cm_bf16_from_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (value != value)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16); // to nearest even
}

static inline float cm_f16_to_float(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, rest = bits & 0x7fff;
    uint32_t wide = rest >= 0x7c00 ? 0x7f800000 | rest << 13 : (rest << 13) + (112u << 23);
    float value;
    if (rest < 0x400) { // denormal: 2^-24 times an integer
        value = (float)rest * 0x1p-24f;
        memcpy(&wide, &value, 4);
    }
    wide |= sign;
    memcpy(&value, &wide, 4);
    return value;
}

static inline uint16_t cm_f16_from_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t rest = bits & 0x7fffffff;
    if (rest > 0x7f800000)
        return sign | 0x7e00;
    if (rest >= 0x477ff000) // 65520 and above round to infinity
        return sign | 0x7c00;
    if (rest < 0x38800000) { // below 2^-14: adding 1/2 leaves the denormal's bits, rounded to even
        float magnitude;
        memcpy(&magnitude, &rest, 4);
        magnitude += 0.5f;
        memcpy(&rest, &magnitude, 4);
        return sign | (uint16_t)(rest - 0x3f000000);
    }
    return sign | (uint16_t)((rest - (112u << 23) + 0xfff + (rest >> 13 & 1)) >> 13);
}

static inline bool cm_is_float(const DLTensor *tensor)
{
    if (!tensor)
        return true;
    return tensor->dtype.code == kDLBfloat || (tensor->dtype.code == kDLFloat && tensor->dtype.bits <= 32);
}

// Absent counts as bf16: there is nothing to refuse.
static inline bool cm_is_bf16(const DLTensor *tensor)
{
    return !tensor || (tensor->dtype.code == kDLBfloat && tensor->dtype.bits == 16);
}

// Pointer to the row at three leading indices; those that the tensor doesn't have are ignored from the left:
// a tensor [E, I, H] takes (i1, i2) = (expert, row), a vector of rows [T, H] takes i2.
static inline const char *cm_row_at(const DLTensor *tensor, int64_t i0, int64_t i1, int64_t i2)
{
    int last = tensor->ndim - 1;
    const int64_t *stride = tensor->strides;
    int64_t offset = last >= 1 ? i2 * stride[last - 1] : 0;
    if (last >= 2)
        offset += i1 * stride[last - 2];
    if (last >= 3)
        offset += i0 * stride[last - 3];
    return (const char *)tensor->data + tensor->byte_offset + offset * tensor->dtype.bits / 8;
}

// Element n of a row of i8 or i4; two i4 share a byte, the even one in its low half.
static inline int cm_load_code(const DLTensor *tensor, const char *row, int64_t n)
{
    if (tensor->dtype.bits == 8)
        return (signed char)row[n];
    int nibble = (unsigned char)row[n / 2] >> (n % 2 * 4) & 15;
    return nibble < 8 ? nibble : nibble - 16;
}

static inline float cm_load_float(const DLTensor *tensor, const char *row, int64_t n)
{
    uint16_t half;
    float value;
    if (tensor->dtype.bits == 32) {
        memcpy(&value, row + 4 * n, 4);
        return value;
    }
    memcpy(&half, row + 2 * n, 2);
    return tensor->dtype.code == kDLBfloat ? cm_bf16_to_float(half) : cm_f16_to_float(half);
}

static inline void cm_store_float(const DLTensor *tensor, char *row, int64_t n, float value)
{
    if (tensor->dtype.bits == 32) {
        memcpy(row + 4 * n, &value, 4);
        return;
    }
    uint16_t half = tensor->dtype.code == kDLBfloat ? cm_bf16_from_float(value) : cm_f16_from_float(value);
    memcpy(row + 2 * n, &half, 2);
}

// `value` rounded to the tensor's dtype.
static inline float cm_round_float(const DLTensor *tensor, float value)
{
    if (tensor->dtype.bits == 32)
        return value;
    return tensor->dtype.code == kDLBfloat ? cm_bf16_to_float(cm_bf16_from_float(value))
                                           : cm_f16_to_float(cm_f16_from_float(value));
}

static inline int32_t cm_load_int(const DLTensor *tensor, int64_t i, int64_t j)
{
    int64_t offset =
        tensor->ndim == 1 ? j * tensor->strides[0] : i * tensor->strides[0] + j * tensor->strides[1];
    int32_t value;
    memcpy(&value, (const char *)tensor->data + tensor->byte_offset + 4 * offset, 4);
    return value;
}

#endif
