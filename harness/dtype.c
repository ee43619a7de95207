// SPDX-License-Identifier: Apache-2.0
#include "harness/dtype.h"

#include <math.h>
#include <string.h>

// Everything about a format that is a number. `least` is the exponent of the smallest denormal.
static const struct format {
    const char *name;
    DLDataType dl;
    int precision, least, largest; // significand bits, log2 of the smallest and bound of the largest value
} formats[CM_DTYPE_COUNT] = {
    [CM_F64] = {"f64", {kDLFloat, 64, 1}, 53, -1074, 1024},
    [CM_F32] = {"f32", {kDLFloat, 32, 1}, 24, -149, 128},
    [CM_F16] = {"f16", {kDLFloat, 16, 1}, 11, -24, 16},
    [CM_BF16] = {"bf16", {kDLBfloat, 16, 1}, 8, -133, 128},
    [CM_I32] = {"i32", {kDLInt, 32, 1}, 0, 0, 31},
    [CM_I8] = {"i8", {kDLInt, 8, 1}, 0, 0, 7},
    [CM_I4] = {"i4", {kDLInt, 4, 1}, 0, 0, 3},
};

const char *cm_dtype_name(cm_dtype dtype)
{
    return formats[dtype].name;
}

bool cm_dtype_parse(const char *name, cm_dtype *dtype)
{
    for (int d = 0; d < CM_DTYPE_COUNT; d++)
        if (!strcmp(name, formats[d].name)) {
            *dtype = (cm_dtype)d;
            return true;
        }
    return false;
}

DLDataType cm_dtype_to_dl(cm_dtype dtype)
{
    return formats[dtype].dl;
}

bool cm_dtype_from_dl(DLDataType dl, cm_dtype *dtype)
{
    for (int d = 0; d < CM_DTYPE_COUNT; d++)
        if (formats[d].dl.code == dl.code && formats[d].dl.bits == dl.bits && dl.lanes == 1) {
            *dtype = (cm_dtype)d;
            return true;
        }
    return false;
}

int cm_dtype_bits(cm_dtype dtype)
{
    return formats[dtype].dl.bits;
}

bool cm_dtype_is_float(cm_dtype dtype)
{
    return formats[dtype].precision != 0;
}

int cm_dtype_precision(cm_dtype dtype)
{
    return formats[dtype].precision;
}

double cm_dtype_ulp(cm_dtype dtype, double value)
{
    const struct format *format = &formats[dtype];
    if (!format->precision)
        return 1;
    if (value == 0 || !isfinite(value))
        return ldexp(1, format->least);
    int exponent;
    frexp(value, &exponent); // |value| in [2^(exponent-1), 2^exponent)
    int unit = exponent - format->precision;
    return ldexp(1, unit > format->least ? unit : format->least);
}

// `value` rounded to the format, ties to even; the current rounding mode must be the default.
static double round_to(const struct format *format, cm_dtype dtype, double value)
{
    if (!isfinite(value) || value == 0)
        return value;
    double unit = cm_dtype_ulp(dtype, value);
    double rounded = nearbyint(value / unit) * unit;
    if (fabs(rounded) >= ldexp(1, format->largest))
        return copysign(INFINITY, value);
    return rounded;
}

static uint16_t half_bits(double value) // value is representable, infinite or NaN
{
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    if (isnan(value))
        return sign | 0x7e00;
    if (isinf(value))
        return sign | 0x7c00;
    double magnitude = fabs(value);
    if (magnitude < ldexp(1, -14))
        return sign | (uint16_t)ldexp(magnitude, 24);
    int exponent;
    double fraction = frexp(magnitude, &exponent); // in [1/2, 1)
    return sign | (uint16_t)((exponent + 14) << 10) | (uint16_t)(ldexp(fraction, 11) - 1024);
}

static double half_value(uint16_t bits)
{
    double sign = bits & 0x8000 ? -1 : 1;
    int exponent = (bits >> 10) & 31, fraction = bits & 1023;
    if (exponent == 31)
        return fraction ? (double)NAN : sign * (double)INFINITY;
    return sign * (exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24));
}

double cm_load(const void *data, cm_dtype dtype, int64_t index)
{
    switch (dtype) {
    case CM_F64: {
        double value;
        memcpy(&value, (const char *)data + 8 * index, 8);
        return value;
    }
    case CM_F32: {
        float value;
        memcpy(&value, (const char *)data + 4 * index, 4);
        return value;
    }
    case CM_F16: {
        uint16_t bits;
        memcpy(&bits, (const char *)data + 2 * index, 2);
        return half_value(bits);
    }
    case CM_BF16: {
        uint16_t bits;
        memcpy(&bits, (const char *)data + 2 * index, 2);
        uint32_t wide = (uint32_t)bits << 16;
        float value;
        memcpy(&value, &wide, 4);
        return value;
    }
    case CM_I32: {
        int32_t value;
        memcpy(&value, (const char *)data + 4 * index, 4);
        return value;
    }
    case CM_I8:
        return ((const int8_t *)data)[index];
    case CM_I4: {
        int nibble = (((const uint8_t *)data)[index / 2] >> (index % 2 * 4)) & 15;
        return nibble < 8 ? nibble : nibble - 16;
    }
    case CM_DTYPE_COUNT:
        break;
    }
    return NAN;
}

static double saturated(double value, int bits)
{
    double top = ldexp(1, bits) - 1;
    value = nearbyint(value);
    return value > top ? top : value < -top - 1 ? -top - 1 : value;
}

void cm_store(void *data, cm_dtype dtype, int64_t index, double value)
{
    const struct format *format = &formats[dtype];
    switch (dtype) {
    case CM_F64:
        memcpy((char *)data + 8 * index, &value, 8);
        break;
    case CM_F32: {
        float narrow = (float)value;
        memcpy((char *)data + 4 * index, &narrow, 4);
        break;
    }
    case CM_F16: {
        uint16_t bits = half_bits(round_to(format, dtype, value));
        memcpy((char *)data + 2 * index, &bits, 2);
        break;
    }
    case CM_BF16: {
        float narrow = (float)round_to(format, dtype, value);
        uint32_t wide;
        memcpy(&wide, &narrow, 4);
        uint16_t bits = (uint16_t)(wide >> 16);
        memcpy((char *)data + 2 * index, &bits, 2);
        break;
    }
    case CM_I32: {
        int32_t whole = isnan(value) ? 0 : (int32_t)saturated(value, format->largest);
        memcpy((char *)data + 4 * index, &whole, 4);
        break;
    }
    case CM_I8:
        ((int8_t *)data)[index] = isnan(value) ? 0 : (int8_t)saturated(value, format->largest);
        break;
    case CM_I4: {
        uint8_t *byte = (uint8_t *)data + index / 2;
        int whole = isnan(value) ? 0 : (int)saturated(value, format->largest);
        int shift = index % 2 * 4;
        *byte = (uint8_t)((*byte & ~(15 << shift)) | ((whole & 15) << shift));
        break;
    }
    case CM_DTYPE_COUNT:
        break;
    }
}
