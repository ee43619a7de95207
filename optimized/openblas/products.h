// SPDX-License-Identifier: Apache-2.0
// Gathered rows and sgemm: the pieces that the openblas kernels share.
#ifndef CM_OPENBLAS_PRODUCTS_H
#define CM_OPENBLAS_PRODUCTS_H

#include "optimized/view.h"

#include <cblas.h>
#undef I // of complex.h: here it is the width of an expert

// Holds OpenBLAS to the call's number of threads; returns what it was, for cm_unlimit_threads. The number is
// one for the whole process.
static inline int cm_limit_threads(const cm_call *call)
{
    int before = openblas_get_num_threads();
    if (call->threads > 0)
        openblas_set_num_threads(call->threads);
    return before;
}

static inline void cm_unlimit_threads(int before)
{
    if (before != openblas_get_num_threads())
        openblas_set_num_threads(before);
}

// Copies `rows` rows of `columns` elements as fp32, one after the other; row n is at (i0, i1, n).
static inline void cm_gather_matrix(const DLTensor *tensor, int64_t i0, int64_t i1, int64_t rows,
                                    int64_t columns, float *out)
{
    for (int64_t row = 0; row < rows; row++) {
        const char *from = cm_row_at(tensor, i0, i1, row);
        for (int64_t n = 0; n < columns; n++)
            out[row * columns + n] = cm_load_float(tensor, from, n);
    }
}

// The same of integer codes, times the scale of their row and group of `group` elements (0: the whole row).
static inline void cm_gather_codes(const DLTensor *codes, const DLTensor *scales, int64_t i1, int64_t rows,
                                   int64_t columns, int64_t group, float *out)
{
    for (int64_t row = 0; row < rows; row++) {
        const char *from = cm_row_at(codes, 0, i1, row), *scale = cm_row_at(scales, 0, i1, row);
        for (int64_t n = 0; n < columns; n++)
            out[row * columns + n] =
                (float)cm_load_code(codes, from, n) * cm_load_float(scales, scale, group ? n / group : 0);
    }
}

// out[m, n] = scale * x[m, k] w[n, k]^T + keep * out. `w_stride` and `out_stride` are row strides in
// elements.
static inline void cm_multiply(int64_t m, int64_t n, int64_t k, float scale, const float *x, int64_t x_stride,
                               const float *w, int64_t w_stride, float keep, float *out, int64_t out_stride)
{
    if (m > 0 && n > 0)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)m, (blasint)n, (blasint)k, scale, x,
                    (blasint)(x_stride > 0 ? x_stride : 1), w, (blasint)(w_stride > 0 ? w_stride : 1), keep,
                    out, (blasint)out_stride);
}

#endif
