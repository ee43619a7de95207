// SPDX-License-Identifier: Apache-2.0
// What kernels get of a call: DLPack tensors as arrays of device memory, and the device itself.
#ifndef CM_CUDA_ARRAYS_H
#define CM_CUDA_ARRAYS_H

#include "optimized/cuda/device.h"

#include <stdio.h>

// Memory and launches of the two targets that a kernel's source is compiled for.
extern const cm_side cm_cuda_emulated, cm_cuda_native;
#ifdef CM_EMULATED
#define CM_CUDA_SIDE cm_cuda_emulated
#else
#define CM_CUDA_SIDE cm_cuda_native
#endif

// A tensor of up to four dimensions whose rows are contiguous. Offsets are in elements and have 64 bits.
template <typename T> struct cm_rows {
    cm_global<T> memory; // from the first element to the last
    int64_t stride[3];   // of all dimensions but the last, right-aligned

    CM_METHOD int64_t at(int64_t i0, int64_t i1, int64_t i2) const
    {
        return i0 * stride[0] + i1 * stride[1] + i2 * stride[2];
    }
};

// Absent: no element.
template <typename T> static cm_rows<T> cm_rows_of(const DLTensor *tensor)
{
    cm_rows<T> rows = {{nullptr, 0}, {0, 0, 0}};
    if (!tensor)
        return rows;
    int64_t count = 1;
    for (int d = 0; d < tensor->ndim; d++)
        count = tensor->shape[d] == 0 ? 0 : count;
    for (int d = 0; d < tensor->ndim && count > 0; d++)
        count += (tensor->shape[d] - 1) * tensor->strides[d];
    for (int d = 0; d + 1 < tensor->ndim; d++)
        rows.stride[3 - tensor->ndim + 1 + d] = tensor->strides[d];
    rows.memory.data = (T *)((char *)tensor->data + tensor->byte_offset);
    rows.memory.count = count;
    return rows;
}

template <typename T> static cm_rows<T> cm_rows_of(const cm_call *call, const char *name)
{
    return cm_rows_of<T>(call->host->argument(call, name));
}

// A vector of integers or scalings: one dimension, contiguous.
template <typename T> static cm_global<T> cm_array_of(const cm_call *call, const char *name)
{
    return cm_rows_of<T>(call, name).memory;
}

// Whether each row begins at a multiple of 16 bytes, so that it can be read in vectors.
static inline bool cm_has_vectors(const DLTensor *tensor)
{
    if (!tensor || ((uintptr_t)tensor->data + tensor->byte_offset) % 16)
        return false;
    for (int d = 0; d + 1 < tensor->ndim; d++)
        if (tensor->shape[d] > 1 && tensor->strides[d] * tensor->dtype.bits / 8 % 16)
            return false;
    return true;
}

enum cm_kind { CM_KIND_F32, CM_KIND_F16, CM_KIND_BF16 };

// Of a float tensor that was validated.
static inline cm_kind cm_kind_of(const cm_call *call, const char *name)
{
    const DLTensor *tensor = call->host->argument(call, name);
    if (tensor->dtype.bits == 32)
        return CM_KIND_F32;
    return tensor->dtype.code == kDLBfloat ? CM_KIND_BF16 : CM_KIND_F16;
}

static inline int64_t cm_ceiling(int64_t count, int64_t divisor)
{
    return (count + divisor - 1) / divisor;
}

#endif
