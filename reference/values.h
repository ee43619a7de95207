// SPDX-License-Identifier: Apache-2.0
// What every reference needs: rows of tensors as doubles, and sums that keep account of their own error.
// Shares nothing with harness or kernels but the contract.
#ifndef CM_REFERENCE_VALUES_H
#define CM_REFERENCE_VALUES_H

#include "harness/checkmoe.h"

// Mean of (rounding error / value)^2 of one fp32 rounding: the error is uniform in half an ulp, the
// significand m log-uniform in [1, 2): 2^-46 / 12 * E[1/m^2], E[1/m^2] = 3 / (8 ln 2).
#define CM_FP32_VARIANCE (0x1p-46 / 12 * 0.5410106403333613)
#define CM_FP32_UNIT     0x1p-24 // largest relative error of one fp32 rounding

// The range of fp32. A result below CM_FP32_LEAST may become 0, for SIMD kernels flush, and then is read as
// 0; so each such rounding point may be wrong by CM_FP32_LEAST. Sums of terms below CM_FP32_SMALL may cancel
// to there: the last bit of a product of two fp32 numbers is 2^-48 of it.
#define CM_FP32_LEAST 0x1p-126
#define CM_FP32_SMALL 0x1p-78
static inline bool cm_is_small(double value)
{
    return value != 0 && value < CM_FP32_SMALL && value > -CM_FP32_SMALL;
}

const DLTensor *cm_arg(const cm_call *call, const char *name); // NULL: absent
int64_t cm_dim(const cm_call *call, char letter);

// Row of the last dimension at the leading indices `index` (one per leading dimension), as doubles.
void cm_row(const DLTensor *tensor, const int64_t *index, double *row);
double cm_element_at(const DLTensor *tensor, const int64_t *index); // one index per dimension
double cm_element(const DLTensor *tensor, int64_t i);               // of a vector
double cm_element2(const DLTensor *tensor, int64_t i, int64_t j);   // of a matrix
int64_t cm_index2(const DLTensor *tensor, int64_t i, int64_t j);    // the same, as an integer
int64_t cm_index1(const DLTensor *tensor, int64_t i);

int cm_significand_bits(DLDataType dtype); // with the hidden bit: 24 f32, 11 f16, 8 bf16, 53 f64; 0 otherwise
double cm_ulp(DLDataType dtype, double value);
double cm_rounding_variance(DLDataType dtype, double value); // ulp^2 / 12

// Bytes of the elements that the call reads and writes, from the op's addressed().
void cm_count_bytes(const cm_call *call, cm_counts *counts);

// An error: its variance, the part of that which depends on the order of sums, and its worst case.
typedef struct cm_error_size {
    double variance, order, worst;
} cm_error_size;

// A sum formed in fp32 in an order that nobody knows.
typedef struct cm_sum {
    double value;
    double magnitude; // sum of |term|
    double squares;   // sum of term^2
    int64_t terms;
    bool small;              // a term may leave fp32's range
    double flushed;          // sum of the |terms| that are lost where subnormal numbers are 0
    cm_error_size inherited; // from the terms
} cm_sum;

static inline void cm_sum_add(cm_sum *sum, double term)
{
    sum->value += term;
    sum->magnitude += term < 0 ? -term : term;
    sum->squares += term * term;
    sum->terms++;
}

void cm_sum_flush(cm_sum *sum, double a, double b); // for cm_sum_product

static inline void cm_sum_product(cm_sum *sum, double a, double b)
{
    double term = a * b;
    cm_sum_add(sum, term);
    if (cm_is_small(term))
        cm_sum_flush(sum, a, b);
}

// Adds an absolute error, of unknown sign, that other points of the sum may have alike.
static inline void cm_error_add(cm_error_size *error, double size)
{
    error->variance += size * size;
    error->worst += size;
}

// Error of the whole sum. Each addition rounds the partial sum s_i; over all orders of n terms the mean of
// sum s_i^2 is (n+1)/6 Q + (n+1)/3 S^2 - Q/n with Q the sum of squares and S the sum (the first partial sum
// is a term and is not rounded). `product_rounds`: a product of two factors does not fit fp32. Where terms
// are small, each partial sum may also be flushed, all with one sign: n CM_FP32_LEAST, and the terms that are
// lost.
cm_error_size cm_sum_error(const cm_sum *sum, bool product_rounds);

// Stores element n of an output.
void cm_want_set(cm_want *want, int64_t n, double value, double magnitude, cm_error_size error);

// Exactness of a sum: every partial sum in any order is a multiple of `unit` and at most `total`.
typedef struct cm_exact {
    double unit, total;
} cm_exact;

void cm_exact_add(cm_exact *sum, double term);
// True if every partial sum, in any order, has at most `bits` significand bits.
bool cm_exact_fits(const cm_exact *sum, int bits);

#endif
