// SPDX-License-Identifier: Apache-2.0
// Tensor-core instructions of the emulated device: mma.m16n8k16 and ldmatrix, with the fragments of the PTX
// ISA. The last lane to arrive computes for the whole warp.
#ifndef CM_SIMT_MATRIX_H
#define CM_SIMT_MATRIX_H

#include "optimized/cuda/simt/block.h"

namespace cm_simt
{

enum MatrixType { MATRIX_BF16, MATRIX_F16 };

// `count` products that share a: d[n] = a b[n] + c[n], [16x8] = [16x16] [16x8], fp32 sums of products of
// 16-bit floats. Register i of d[n] is d[4 n + i], of b[n] b[2 n + i]. A sum runs over k in order, in fp32: a
// real tensor core's order is not documented.
void mma_16x8x16(MatrixType type, int count, float *d, const uint32_t a[4], const uint32_t *b, const float *c,
                 Place place);

// Loads `count` (1, 2, 4) 8x8 matrices of 16-bit elements: lanes 8i..8i+7 give the byte of row 0..7 of matrix
// i in shared memory.
void load_matrices(uint32_t *registers, int count, uint32_t row, bool transposed, Place place);

} // namespace cm_simt

#endif
