// SPDX-License-Identifier: Apache-2.0
// What the oracle's ops share.
#ifndef CM_UNIT_ORACLE_PARTS_H
#define CM_UNIT_ORACLE_PARTS_H

#include "suites/unit/oracle.h"

int64_t cm_oracle_dim(const cm_pristine *pristine, char letter);
// The part of a tensor behind its `leads` leading indices, as contiguous doubles; one or two dimensions are
// left. Free with free().
double *cm_oracle_load(const DLTensor *tensor, int leads, const int64_t *lead);
// out[m,n] += alpha x[m,k] w^T, w is [n,k]. Row strides follow their arrays.
void cm_oracle_multiply_add(int64_t m, int64_t n, int64_t k, double alpha, const double *x, int64_t x_stride,
                            const double *w, int64_t w_stride, double *out, int64_t out_stride);

// A token in one slot of an expert (-1: the shared one).
struct cm_oracle_slot {
    int64_t expert, adapter, token;
    double weight;
};

// For qsort: by expert, adapter, token.
int cm_oracle_slot_order(const void *left, const void *right);

void cm_oracle_quantize(const cm_pristine *pristine, double *const outputs[]);
void cm_oracle_dequantize(const cm_pristine *pristine, double *const outputs[]);
void cm_oracle_moe_forward(const cm_pristine *pristine, double *const outputs[]);

#endif
