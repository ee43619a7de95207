// SPDX-License-Identifier: Apache-2.0
// Views on DLPack tensors. A cm_tensor holds its own shape and strides and never owns data.
#ifndef CM_TENSOR_H
#define CM_TENSOR_H

#include "harness/dtype.h"

typedef struct cm_tensor {
    DLTensor dl; // shape and strides point into this struct: do not copy it by value
    int64_t shape[CM_MAX_RANK];
    int64_t strides[CM_MAX_RANK]; // in elements
    cm_dtype dtype;
} cm_tensor;

// Makes a compact row-major host view; data may be NULL.
void cm_tensor_init(cm_tensor *tensor, cm_dtype dtype, int ndim, const int64_t *shape, void *data);

int64_t cm_tensor_count(const DLTensor *tensor);
// Bytes from the first element to one past the last, strides included; 0 for an empty tensor.
size_t cm_tensor_extent(const DLTensor *tensor);
// Whether the bytes from first to last element of both have one in common; empty tensors have none. Says
// nothing about tensors of different devices.
bool cm_tensor_overlap(const DLTensor *a, const DLTensor *b);
// Element offset of the flat (row-major, logical) index.
int64_t cm_tensor_offset(const DLTensor *tensor, int64_t flat);
// Flat index -> one index per dimension.
void cm_tensor_unravel(const DLTensor *tensor, int64_t flat, int64_t index[CM_MAX_RANK]);

// Writes `name`[i,j,...] of the flat index; cut off where there is no room.
void cm_tensor_place(const char *name, const DLTensor *tensor, int64_t flat, char *text, size_t size);

double cm_tensor_get(const DLTensor *tensor, int64_t flat);
void cm_tensor_set(const DLTensor *tensor, int64_t flat, double value);
// Copies element by element, bits unchanged; both have the same dtype and shape, strides may differ.
void cm_tensor_copy(const DLTensor *to, const DLTensor *from);
// Sets every element to the bits of `byte`, repeated, and leaves gaps; an element of 4 bits takes the half
// that it stands in. And whether an element holds them.
void cm_tensor_poison(const DLTensor *tensor, unsigned char byte);
bool cm_tensor_is_poison(const DLTensor *tensor, int64_t flat, unsigned char byte);
// True when both hold the same bits; otherwise *flat is the first difference. The half of a byte that an odd
// row of 4-bit elements leaves over is not compared.
bool cm_tensor_equal(const DLTensor *a, const DLTensor *b, int64_t *flat);

#endif
