// SPDX-License-Identifier: Apache-2.0
// quantize: rows to symmetric integer codes with one scale per row and group of G elements.
//   scale = fp32(amax / top), top = 127 for i8 and 7 for i4;  code = rint(x / scale), within -top..top
// Both round to nearest, ties to even. Where the scale is 0 (a group of zeros, or below half of the smallest
// fp32 denormal) the codes are 0. A NaN or an infinity makes the scale of its group one; its codes are free.
// The scale is a single division and has no freedom. The quotient u may be formed with three fp32 roundings
// (a product with 1/scale, or with top/amax), so a code whose u is within 3/2^24 |u| of a tie may be the
// integer on its other side; with a scale that is a power of two no rounding errs and the tie goes to even.
#include "reference/values.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FLOATS (CM_DTYPE_BIT(CM_F32) | CM_DTYPE_BIT(CM_F16) | CM_DTYPE_BIT(CM_BF16))
#define CODES  (CM_DTYPE_BIT(CM_I8) | CM_DTYPE_BIT(CM_I4))

// Of a code that may move by one step: the bound of an integer is 6 sigma + 1/2, which is 3/2 here.
static const double ONE_STEP_SIGMA = 1.0 / 6;

enum { X, OUT, SCALE };

static const cm_argument arguments[] = {
    [X] = {.name = "x",
           .role = CM_INPUT,
           .dtypes = FLOATS,
           .dtype_variable = 'x',
           .shape = "T K",
           .fill = {.kind = "rows"},
           .meaning = "rows are tokens, or outputs of a weight"},
    [OUT] = {.name = "codes",
             .role = CM_OUTPUT,
             .dtypes = CODES,
             .dtype_variable = 'q',
             .shape = "T K",
             .compare = CM_COMPARE_BOUNDED,
             .meaning = "rint(x / scale); what an odd row of i4 leaves of its last byte is free"},
    [SCALE] = {.name = "scale",
               .role = CM_OUTPUT,
               .dtypes = CM_DTYPE_BIT(CM_F32),
               .shape = "T K/G",
               .compare = CM_COMPARE_EXACT,
               .meaning = "amax / 127 or amax / 7 of each row and group of G"},
    {0},
};

static const cm_attribute attributes[] = {{0}};
static const cm_rounding roundings[] = {
    {"scale", 0, true, "the largest magnitude of a group over 127 or 7, once"},
    {"quotient", 0, true, "x / scale, by a division or as a product with an inverse"},
    {"codes", 'q', true, "the quotient, once, to nearest even"},
    {0},
};
static const cm_term terms[] = {{0}};
static const cm_symmetry symmetries[] = {
    {.name = "rows permuted", .kind = CM_SYMMETRY_PERMUTE, .letter = 'T'},
    {.name = "columns permuted", .kind = CM_SYMMETRY_PERMUTE, .letter = 'K'},
    {.name = "rows split", .kind = CM_SYMMETRY_SPLIT, .letter = 'T'},
    {.name = "x scaled", .kind = CM_SYMMETRY_SCALE, .arguments = "x"},
    {0},
};

static int top_of(const cm_call *call)
{
    return (1 << (call->arguments[OUT]->dtype.bits - 1)) - 1;
}

static int64_t group_size(const cm_call *call)
{
    int64_t K = cm_dim(call, 'K'), G = cm_dim(call, 'G');
    return G && G < K ? G : K;
}

static double largest(const double *x, int64_t count)
{
    double amax = 0;
    for (int64_t i = 0; i < count && !isnan(amax); i++)
        amax = fabs(x[i]) <= amax ? amax : fabs(x[i]);
    return amax;
}

// A power of two whose inverse is a normal fp32 number, too: no quotient is rounded.
static bool is_exact_scale(double scale)
{
    int exponent;
    return frexp(scale, &exponent) == 0.5 && exponent > -126 && exponent <= 127;
}

// u = x / scale, in double: fp32 numbers whose quotient is no tie differ from one by more than it is rounded.
static void set_code(cm_want *want, int64_t n, double u, double scale, int top)
{
    double code = nearbyint(u), distance = fabs(fabs(u - code) - 0.5);
    bool moves = !is_exact_scale(scale) && distance <= 3 * CM_FP32_UNIT * fabs(u) && fabs(u) < top;
    cm_error_size error = {0};
    if (!isfinite(scale))
        code = NAN;
    if (moves)
        error = (cm_error_size){.variance = ONE_STEP_SIGMA * ONE_STEP_SIGMA, .worst = 1};
    code = code > top ? top : code < -top ? -top : code; // a denormal scale is far from amax / top
    cm_want_set(want, n, code, fabs(code), error);
}

static cm_status reference(const cm_call *call, uint64_t omit, cm_accuracy accuracy, cm_want *want)
{
    (void)omit;
    (void)accuracy; // there is no rounding point inside
    int64_t T = cm_dim(call, 'T'), K = cm_dim(call, 'K'), size = group_size(call), groups = 0;
    int top = top_of(call);
    double *x = malloc((size_t)K * sizeof *x);
    if (!x)
        return CM_NO_MEMORY;
    for (int64_t t = 0; t < T; t++) {
        cm_row(call->arguments[X], &t, x);
        for (int64_t begin = 0; begin < K; begin += size) {
            int64_t count = K - begin < size ? K - begin : size;
            // amax has 24 bits at most: rounding the quotient to double first changes nothing
            double scale = (double)(float)(largest(x + begin, count) / top);
            cm_want_set(&want[SCALE], groups++, scale, scale, (cm_error_size){0});
            for (int64_t i = begin; i < begin + count; i++)
                set_code(&want[OUT], t * K + i, scale > 0 ? x[i] / scale : 0, scale, top);
        }
    }
    free(x);
    return CM_OK;
}

static cm_status exact(const cm_call *call)
{
    int64_t T = cm_dim(call, 'T'), K = cm_dim(call, 'K'), size = group_size(call);
    cm_status status = CM_OK;
    double *x = malloc((size_t)K * sizeof *x);
    if (!x)
        return CM_NO_MEMORY;
    for (int64_t t = 0; t < T && status == CM_OK; t++) {
        cm_row(call->arguments[X], &t, x);
        for (int64_t begin = 0; begin < K && status == CM_OK; begin += size) {
            double amax = largest(x + begin, K - begin < size ? K - begin : size);
            if (amax != 0 && !is_exact_scale(amax / top_of(call)))
                status = call->host->fail(call, CM_BAD_VALUE,
                                          "not exact: row %lld from element %lld on has the largest value %a",
                                          (long long)t, (long long)begin, amax);
        }
    }
    free(x);
    return status;
}

static cm_status addressed(const cm_call *call, int argument, uint8_t *mask)
{
    int64_t T = cm_dim(call, 'T'), K = cm_dim(call, 'K'), size = group_size(call);
    int64_t row = argument == SCALE ? (K + size - 1) / size : K;
    memset(mask, argument == X ? CM_READS : CM_WRITES, (size_t)(T * row));
    return CM_OK;
}

static void counts(const cm_call *call, cm_counts *counts)
{
    int64_t T = cm_dim(call, 'T'), K = cm_dim(call, 'K'), size = group_size(call);
    *counts = (cm_counts){.operations = (double)(T * (K + (K + size - 1) / size))}; // one a code and a scale
    cm_count_bytes(call, counts);
}

const cm_op cm_quantize = {
    .name = "quantize",
    .formula = "scale = amax / 127 (i8) or 7 (i4) of each row and group, codes = rint(x / scale)",
    .arguments = arguments,
    .attributes = attributes,
    .roundings = roundings,
    .terms = terms,
    .symmetries = symmetries,
    .reference = reference,
    .exact = exact,
    .addressed = addressed,
    .counts = counts,
};
