// SPDX-License-Identifier: Apache-2.0
// The pieces that the avx512 kernels share: packed matrices (pack.c), products and activation with AVX-512
// instructions (products.c), and whether this machine has them (cpu.c). Only products.c is compiled for
// AVX-512; nothing in it may be called before cm_avx512_available has said yes.
#ifndef CM_AVX512_PRODUCTS_H
#define CM_AVX512_PRODUCTS_H

#include "optimized/view.h"

enum {
    CM_AVX512_LANES = 16, // fp32 in a register: columns of a panel
    CM_AVX512_ROWS = 6, // of x in a block of cm_avx512_multiply: from here on, weights are loaded once for 6
};

// Elements of a row of scratch memory: whole registers, so that stores need no mask.
static inline int64_t cm_avx512_stride(int64_t columns)
{
    return (columns + CM_AVX512_LANES - 1) / CM_AVX512_LANES * CM_AVX512_LANES;
}

static inline int64_t cm_avx512_pairs(int64_t k)
{
    return (k + 1) / 2;
}

// Matrices of one shape [n, k], bf16, in the order in which VDPBF16PS takes them: each is
// [n/16][k/2][16][2], what lies beyond n and k is zero. Owns `data`, 64-byte aligned; NULL where n or k is 0.
struct cm_avx512_pack {
    uint16_t *data;
    int64_t count, n, k;
};

// Packs rows of at least k elements of a bf16 tensor: [count, n, k] or [n, k] for adapter -1, else that
// adapter of [L, count, n, k] or [L, n, k]. Matrices that share their memory (stride 0) are packed once.
// Reads the first n rows and k columns only. False: no memory.
bool cm_avx512_pack_open(struct cm_avx512_pack *pack, const DLTensor *tensor, int64_t adapter, int64_t n,
                         int64_t k);
void cm_avx512_pack_close(struct cm_avx512_pack *pack); // accepts zero
// Matrix m from panel `panel` on.
const uint16_t *cm_avx512_pack_at(const struct cm_avx512_pack *pack, int64_t m, int64_t panel);

// Copies a bf16 row of `count` elements and writes zeros behind it, up to its stride.
void cm_avx512_copy_row(const char *from, int64_t count, uint16_t *to);

// All rows below are scratch: fp32 and bf16 rows of cm_avx512_stride(columns) elements, 64-byte aligned.

// out[m, :] = scale * sum_k x[m, k] w[:, k] (+ out[m, :] if `keep`), rounded once after the sum. A row's
// result does not depend on the other rows. x [rows, k] with zeros in the last pair; w: `panels` panels of
// `pairs` pairs; strides in elements.
void cm_avx512_multiply(const uint16_t *x, int64_t x_stride, int64_t rows, const uint16_t *w, int64_t panels,
                        int64_t pairs, float scale, bool keep, float *out, int64_t out_stride);
// to[0..count) = bf16(from), nearest even; zeros up to the stride.
void cm_avx512_round(const float *from, int64_t count, uint16_t *to);
// h[0..count) = bf16(silu(gate) up); zeros up to the stride.
void cm_avx512_swiglu(const float *gate, const float *up, int64_t count, uint16_t *h);

extern const bool cm_avx512_built; // the compiler made the instructions

// Whether products.c can run here; if not, says why.
bool cm_avx512_available(char *reason, size_t size);

#endif
