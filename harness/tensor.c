// SPDX-License-Identifier: Apache-2.0
#include "harness/tensor.h"

#include <stdio.h>
#include <string.h>

void cm_tensor_init(cm_tensor *tensor, cm_dtype dtype, int ndim, const int64_t *shape, void *data)
{
    *tensor = (cm_tensor){.dtype = dtype};
    int64_t stride = 1;
    for (int d = ndim - 1; d >= 0; d--) {
        tensor->shape[d] = shape[d];
        tensor->strides[d] = stride;
        stride *= shape[d];
    }
    tensor->dl = (DLTensor){.data = data,
                            .device = {kDLCPU, 0},
                            .ndim = ndim,
                            .dtype = cm_dtype_to_dl(dtype),
                            .shape = tensor->shape,
                            .strides = tensor->strides};
}

int64_t cm_tensor_count(const DLTensor *tensor)
{
    int64_t count = 1;
    for (int d = 0; d < tensor->ndim; d++)
        count *= tensor->shape[d];
    return count;
}

size_t cm_tensor_extent(const DLTensor *tensor)
{
    int64_t last = 0;
    for (int d = 0; d < tensor->ndim; d++) {
        if (tensor->shape[d] == 0)
            return 0;
        last += (tensor->shape[d] - 1) * tensor->strides[d];
    }
    return (size_t)((last + 1) * tensor->dtype.bits + 7) / 8;
}

bool cm_tensor_overlap(const DLTensor *a, const DLTensor *b)
{
    uintptr_t a_begin = (uintptr_t)a->data + a->byte_offset, b_begin = (uintptr_t)b->data + b->byte_offset;
    size_t a_size = cm_tensor_extent(a), b_size = cm_tensor_extent(b);
    return a_size > 0 && b_size > 0 && a_begin < b_begin + b_size && b_begin < a_begin + a_size;
}

int64_t cm_tensor_offset(const DLTensor *tensor, int64_t flat)
{
    int64_t offset = 0;
    for (int d = tensor->ndim - 1; d >= 0; d--) {
        offset += flat % tensor->shape[d] * tensor->strides[d];
        flat /= tensor->shape[d];
    }
    return offset;
}

void cm_tensor_unravel(const DLTensor *tensor, int64_t flat, int64_t index[CM_MAX_RANK])
{
    for (int d = tensor->ndim - 1; d >= 0; d--) {
        index[d] = flat % tensor->shape[d];
        flat /= tensor->shape[d];
    }
}

static cm_dtype dtype_of(const DLTensor *tensor)
{
    cm_dtype dtype = CM_F32;
    cm_dtype_from_dl(tensor->dtype, &dtype);
    return dtype;
}

static char *base(const DLTensor *tensor)
{
    return (char *)tensor->data + tensor->byte_offset;
}

double cm_tensor_get(const DLTensor *tensor, int64_t flat)
{
    return cm_load(base(tensor), dtype_of(tensor), cm_tensor_offset(tensor, flat));
}

void cm_tensor_set(const DLTensor *tensor, int64_t flat, double value)
{
    cm_store(base(tensor), dtype_of(tensor), cm_tensor_offset(tensor, flat), value);
}

static bool is_compact(const DLTensor *tensor)
{
    int64_t stride = 1;
    for (int d = tensor->ndim - 1; d >= 0; d--) {
        if (tensor->strides[d] != stride && tensor->shape[d] != 1)
            return false;
        stride *= tensor->shape[d];
    }
    return true;
}

// Rows of the last dimension are contiguous in every tensor that the harness lays out.
static int64_t row_length(const DLTensor *tensor)
{
    return tensor->ndim ? tensor->shape[tensor->ndim - 1] : 1;
}

void cm_tensor_copy(const DLTensor *to, const DLTensor *from)
{
    int64_t count = cm_tensor_count(from), row = row_length(from);
    if (count == 0)
        return;
    if (is_compact(to) && is_compact(from)) {
        memcpy(base(to), base(from), cm_tensor_extent(from));
        return;
    }
    size_t bytes = (size_t)(row * from->dtype.bits + 7) / 8;
    for (int64_t flat = 0; flat < count; flat += row)
        memcpy(base(to) + cm_tensor_offset(to, flat) * to->dtype.bits / 8,
               base(from) + cm_tensor_offset(from, flat) * from->dtype.bits / 8, bytes);
}

// Bits of an element's byte that are its own; 0: whole bytes.
static unsigned own_bits(const DLTensor *tensor, int64_t offset)
{
    return tensor->dtype.bits < 8 ? 15u << offset % 2 * 4 : 0;
}

void cm_tensor_poison(const DLTensor *tensor, unsigned char byte)
{
    for (int64_t flat = 0; flat < cm_tensor_count(tensor); flat++) {
        int64_t offset = cm_tensor_offset(tensor, flat);
        unsigned char *place = (unsigned char *)base(tensor) + offset * tensor->dtype.bits / 8;
        unsigned own = own_bits(tensor, offset);
        if (own)
            *place = (unsigned char)((*place & ~own) | (byte & own));
        else
            memset(place, byte, tensor->dtype.bits / 8u);
    }
}

bool cm_tensor_is_poison(const DLTensor *tensor, int64_t flat, unsigned char byte)
{
    int64_t offset = cm_tensor_offset(tensor, flat);
    const unsigned char *place = (unsigned char *)base(tensor) + offset * tensor->dtype.bits / 8;
    unsigned own = own_bits(tensor, offset);
    bool is = !own || (*place & own) == (byte & own);
    for (int n = 0; n < tensor->dtype.bits / 8; n++)
        is = is && place[n] == byte;
    return is;
}

bool cm_tensor_equal(const DLTensor *a, const DLTensor *b, int64_t *flat)
{
    int64_t count = cm_tensor_count(a), row = row_length(a);
    size_t size = a->dtype.bits / 8u;
    for (int64_t start = 0; start < count; start += row) {
        const char *left = base(a) + cm_tensor_offset(a, start) * a->dtype.bits / 8;
        const char *right = base(b) + cm_tensor_offset(b, start) * b->dtype.bits / 8;
        size_t whole = (size_t)(row * a->dtype.bits) / 8;
        bool odd = row * a->dtype.bits % 8 != 0; // one element in the low half of a byte is left
        if (!memcmp(left, right, whole) && !(odd && (left[whole] ^ right[whole]) & 15))
            continue;
        int64_t column = 0;
        while (size && column < row - 1 &&
               !memcmp(left + size * (size_t)column, right + size * (size_t)column, size))
            column++;
        *flat = start + column;
        return false;
    }
    return true;
}

void cm_tensor_place(const char *name, const DLTensor *tensor, int64_t flat, char *text, size_t size)
{
    int64_t index[CM_MAX_RANK];
    int at = snprintf(text, size, "`%s`[", name);
    cm_tensor_unravel(tensor, flat, index);
    for (int d = 0; d < tensor->ndim && (size_t)at < size; d++)
        at += snprintf(text + at, size - (size_t)at, "%s%lld", d ? "," : "", (long long)index[d]);
    if ((size_t)at < size)
        snprintf(text + at, size - (size_t)at, "]");
}
