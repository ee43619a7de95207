// SPDX-License-Identifier: Apache-2.0
// Tensor-core instructions of the emulated device: mma.m16n8k16 and ldmatrix, with the fragments of the PTX
// ISA.
#ifndef CM_SIMT_MATRIX_H
#define CM_SIMT_MATRIX_H

#include "optimized/cuda/simt/block.h"

namespace cm_simt
{

// d[16x8] = a[16x16] b[16x8] + c, fp32 sums of products of 16-bit floats; `widen` converts one of these. The
// sum runs over k in order, in fp32: a real tensor core's order is not documented.
void mma_16x8x16(float d[4], const uint32_t a[4], const uint32_t b[2], const float c[4],
                 float (*widen)(uint16_t), Place place);

// Loads `count` (1, 2, 4) 8x8 matrices of 16-bit elements: lanes 8i..8i+7 give the byte of row 0..7 of matrix
// i in shared memory.
void load_matrices(uint32_t *registers, int count, uint32_t row, bool transposed, Place place);

} // namespace cm_simt

#endif
