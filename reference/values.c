// SPDX-License-Identifier: Apache-2.0
#include "reference/values.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const DLTensor *cm_arg(const cm_call *call, const char *name)
{
    return call->host->argument(call, name);
}

int64_t cm_dim(const cm_call *call, char letter)
{
    return call->host->dim(call, letter);
}

static double half_to_double(uint16_t bits)
{
    int exponent = (bits >> 10) & 0x1f;
    double fraction = bits & 0x3ff;
    double magnitude = exponent == 0    ? fraction * 0x1p-24
                       : exponent == 31 ? (fraction != 0 ? (double)NAN : (double)INFINITY)
                                        : ldexp(1024 + fraction, exponent - 25);
    return bits >> 15 ? -magnitude : magnitude;
}

// `data` points to the first of `count` elements that are `stride` elements apart.
static void read_row(const char *data, DLDataType dtype, int64_t count, int64_t stride, double *row)
{
    int key = dtype.code << 8 | dtype.bits;
    for (int64_t n = 0; n < count; n++) {
        const char *element = data + n * stride * dtype.bits / 8;
        uint16_t half;
        uint32_t bits;
        float single;
        int32_t whole;
        switch (key) {
        case kDLBfloat << 8 | 16:
            memcpy(&half, element, 2);
            bits = (uint32_t)half << 16;
            memcpy(&single, &bits, 4);
            row[n] = single;
            break;
        case kDLFloat << 8 | 16:
            memcpy(&half, element, 2);
            row[n] = half_to_double(half);
            break;
        case kDLFloat << 8 | 32:
            memcpy(&single, element, 4);
            row[n] = single;
            break;
        case kDLFloat << 8 | 64:
            memcpy(&row[n], element, 8);
            break;
        case kDLInt << 8 | 32:
            memcpy(&whole, element, 4);
            row[n] = whole;
            break;
        case kDLInt << 8 | 8:
            row[n] = *(const signed char *)element;
            break;
        case kDLInt << 8 | 4: {
            int nibble = *(const unsigned char *)element >> (n * stride % 2 * 4) & 15;
            row[n] = nibble < 8 ? nibble : nibble - 16;
            break;
        }
        default:
            row[n] = NAN;
        }
    }
}

void cm_row(const DLTensor *tensor, const int64_t *index, double *row)
{
    int last = tensor->ndim - 1;
    int64_t offset = 0;
    for (int d = 0; d < last; d++)
        offset += index[d] * tensor->strides[d];
    const char *data = (const char *)tensor->data + tensor->byte_offset;
    read_row(data + offset * tensor->dtype.bits / 8, tensor->dtype, tensor->shape[last],
             tensor->strides[last], row);
}

double cm_element_at(const DLTensor *tensor, const int64_t *index)
{
    double value;
    int64_t offset = 0;
    for (int d = 0; d < tensor->ndim; d++)
        offset += index[d] * tensor->strides[d];
    const char *data = (const char *)tensor->data + tensor->byte_offset;
    read_row(data + offset * tensor->dtype.bits / 8, tensor->dtype, 1, 1, &value);
    return value;
}

double cm_element(const DLTensor *tensor, int64_t i)
{
    double value;
    const char *data = (const char *)tensor->data + tensor->byte_offset;
    read_row(data + i * tensor->strides[0] * (tensor->dtype.bits / 8), tensor->dtype, 1, 1, &value);
    return value;
}

double cm_element2(const DLTensor *tensor, int64_t i, int64_t j)
{
    double value;
    int64_t offset = i * tensor->strides[0] + j * tensor->strides[1];
    const char *data = (const char *)tensor->data + tensor->byte_offset;
    read_row(data + offset * (tensor->dtype.bits / 8), tensor->dtype, 1, 1, &value);
    return value;
}

int64_t cm_index1(const DLTensor *tensor, int64_t i)
{
    return (int64_t)cm_element(tensor, i);
}

int64_t cm_index2(const DLTensor *tensor, int64_t i, int64_t j)
{
    return (int64_t)cm_element2(tensor, i, j);
}

int cm_significand_bits(DLDataType dtype)
{
    if (dtype.code == kDLBfloat)
        return 8;
    if (dtype.code != kDLFloat)
        return 0;
    return dtype.bits == 16 ? 11 : dtype.bits == 32 ? 24 : 53;
}

double cm_ulp(DLDataType dtype, double value)
{
    int bits = cm_significand_bits(dtype);
    int least = dtype.code == kDLBfloat ? -133 : dtype.bits == 16 ? -24 : dtype.bits == 32 ? -149 : -1074;
    int exponent;
    if (value == 0 || !isfinite(value))
        return ldexp(1, least);
    frexp(value, &exponent);
    return ldexp(1, exponent - bits > least ? exponent - bits : least);
}

double cm_rounding_variance(DLDataType dtype, double value)
{
    double ulp = cm_ulp(dtype, value);
    return value == 0 ? 0 : ulp * ulp / 12;
}

void cm_count_bytes(const cm_call *call, cm_counts *counts)
{
    for (int n = 0; call->op->arguments[n].name; n++) {
        const DLTensor *tensor = call->arguments[n];
        if (!tensor)
            continue;
        int64_t count = 1, read = 0, written = 0;
        for (int d = 0; d < tensor->ndim; d++)
            count *= tensor->shape[d];
        uint8_t *mask = malloc((size_t)count + 1);
        if (!mask || call->op->addressed(call, n, mask) != CM_OK)
            count = 0;
        for (int64_t i = 0; i < count; i++) {
            read += (mask[i] & CM_READS) != 0;
            written += (mask[i] & CM_WRITES) != 0;
        }
        free(mask);
        counts->bytes_read += (double)read * tensor->dtype.bits / 8;
        counts->bytes_written += (double)written * tensor->dtype.bits / 8;
    }
}

void cm_sum_flush(cm_sum *sum, double a, double b)
{
    bool lost = fabs(a) < CM_FP32_LEAST || fabs(b) < CM_FP32_LEAST || fabs(a * b) < CM_FP32_LEAST;
    sum->small = true;
    sum->flushed += lost ? fabs(a * b) : 0;
}

cm_error_size cm_sum_error(const cm_sum *sum, bool product_rounds)
{
    double n = (double)sum->terms, additions = 0;
    if (sum->terms > 1)
        additions = (n + 1) / 6 * sum->squares + (n + 1) / 3 * sum->value * sum->value - sum->squares / n;
    double rounded = CM_FP32_VARIANCE * additions,
           products = product_rounds ? CM_FP32_VARIANCE * sum->squares : 0;
    cm_error_size error = {
        .variance = sum->inherited.variance + rounded + products,
        .order = sum->inherited.order + rounded,
        .worst = sum->inherited.worst + n * CM_FP32_UNIT * sum->magnitude, // Higham's gamma_n, first order
    };
    if (sum->small)
        cm_error_add(&error, sum->flushed + n * CM_FP32_LEAST);
    return error;
}

void cm_want_set(cm_want *want, int64_t n, double value, double magnitude, cm_error_size error)
{
    want->value[n] = value;
    want->magnitude[n] = magnitude;
    want->sigma[n] = sqrt(error.variance);
    want->order[n] = sqrt(error.order);
    want->worst[n] = error.worst;
}

void cm_exact_add(cm_exact *sum, double term)
{
    if (term == 0)
        return;
    int exponent;
    double fraction = frexp(fabs(term), &exponent);
    uint64_t whole = (uint64_t)ldexp(fraction, 53);
    double unit = ldexp(1, exponent - 53 + __builtin_ctzll(whole)); // value of the lowest bit that is set
    if (sum->unit == 0 || unit < sum->unit)
        sum->unit = unit;
    sum->total += fabs(term);
}

bool cm_exact_fits(const cm_exact *sum, int bits)
{
    return isfinite(sum->total) && (sum->unit == 0 || sum->total / sum->unit <= ldexp(1, bits));
}
