// SPDX-License-Identifier: Apache-2.0
// dequantize: codes back to floats, y = code * scale of its row and group of G elements. Codes may be all
// that their dtype has. The product is formed in fp32 and rounded to y; in fp32 that is one rounding.
#include "reference/values.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FLOATS (CM_DTYPE_BIT(CM_F32) | CM_DTYPE_BIT(CM_F16) | CM_DTYPE_BIT(CM_BF16))
#define CODES  (CM_DTYPE_BIT(CM_I8) | CM_DTYPE_BIT(CM_I4))

enum { IN, SCALE, Y };

static const cm_argument arguments[] = {
    [IN] = {.name = "codes",
            .role = CM_INPUT,
            .dtypes = CODES,
            .dtype_variable = 'q',
            .shape = "T K",
            .fill = {.kind = "codes"},
            .meaning = "codes; what an odd row of i4 leaves of its last byte is free"},
    [SCALE] = {.name = "scale",
               .role = CM_INPUT,
               .dtypes = CM_DTYPE_BIT(CM_F32),
               .shape = "T K/G",
               .fill = {.kind = "code_scale"},
               .meaning = "scale of each row and group of G"},
    [Y] = {.name = "y",
           .role = CM_OUTPUT,
           .dtypes = FLOATS,
           .dtype_variable = 'y',
           .shape = "T K",
           .compare = CM_COMPARE_BOUNDED,
           .meaning = "code * scale"},
    {0},
};

static const cm_attribute attributes[] = {{0}};
static const cm_rounding roundings[] = {
    {"product", 0, true, "a code times its scale, in fp32"},
    {"y", 'y', true, "y, once"},
    {0},
};
static const cm_term terms[] = {{0}};
static const cm_symmetry symmetries[] = {
    {.name = "rows permuted", .kind = CM_SYMMETRY_PERMUTE, .letter = 'T'},
    {.name = "columns permuted", .kind = CM_SYMMETRY_PERMUTE, .letter = 'K'},
    {.name = "rows split", .kind = CM_SYMMETRY_SPLIT, .letter = 'T'},
    {.name = "scales doubled", .kind = CM_SYMMETRY_SCALE, .arguments = "scale"},
    {0},
};

static int64_t group_size(const cm_call *call)
{
    int64_t K = cm_dim(call, 'K'), G = cm_dim(call, 'G');
    return G && G < K ? G : K;
}

// The products of row t, exact in double.
static void multiply(const cm_call *call, int64_t t, double *y)
{
    cm_row(call->arguments[IN], &t, y);
    for (int64_t i = 0; i < cm_dim(call, 'K'); i++)
        y[i] *= cm_element2(call->arguments[SCALE], t, i / group_size(call));
}

// A product that fits fp32, and one that is y itself, has no error but y's own rounding.
static cm_error_size error_of(double value, DLDataType y)
{
    double ulp = cm_ulp((DLDataType){kDLFloat, 32, 1}, value);
    if (cm_significand_bits(y) == 24 || (double)(float)value == value)
        return (cm_error_size){0};
    return (cm_error_size){.variance = ulp * ulp / 12, .worst = ulp / 2};
}

static cm_status reference(const cm_call *call, uint64_t omit, cm_accuracy accuracy, cm_want *want)
{
    (void)omit;
    (void)accuracy; // there is no rounding point inside
    int64_t T = cm_dim(call, 'T'), K = cm_dim(call, 'K');
    double *y = malloc((size_t)K * sizeof *y);
    if (!y)
        return CM_NO_MEMORY;
    for (int64_t t = 0; t < T; t++) {
        multiply(call, t, y);
        for (int64_t i = 0; i < K; i++)
            cm_want_set(&want[Y], t * K + i, y[i], fabs(y[i]), error_of(y[i], call->arguments[Y]->dtype));
    }
    free(y);
    return CM_OK;
}

static cm_status exact(const cm_call *call)
{
    DLDataType dtype = call->arguments[Y]->dtype;
    int64_t K = cm_dim(call, 'K');
    cm_status status = CM_OK;
    double *y = malloc((size_t)K * sizeof *y);
    if (!y)
        return CM_NO_MEMORY;
    for (int64_t t = 0; t < cm_dim(call, 'T') && status == CM_OK; t++) {
        multiply(call, t, y);
        for (int64_t i = 0; i < K && status == CM_OK; i++)
            if (y[i] / cm_ulp(dtype, y[i]) != nearbyint(y[i] / cm_ulp(dtype, y[i])))
                status = call->host->fail(call, CM_BAD_VALUE, "not exact: y[%lld,%lld] is %a", (long long)t,
                                          (long long)i, y[i]);
    }
    free(y);
    return status;
}

static cm_status addressed(const cm_call *call, int argument, uint8_t *mask)
{
    int64_t T = cm_dim(call, 'T'), K = cm_dim(call, 'K'), size = group_size(call);
    int64_t row = argument == SCALE ? (K + size - 1) / size : K;
    memset(mask, argument == Y ? CM_WRITES : CM_READS, (size_t)(T * row));
    return CM_OK;
}

static void counts(const cm_call *call, cm_counts *counts)
{
    *counts = (cm_counts){.operations = (double)(cm_dim(call, 'T') * cm_dim(call, 'K'))};
    cm_count_bytes(call, counts);
}

const cm_op cm_dequantize = {
    .name = "dequantize",
    .formula = "y = codes * scale of each row and group",
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
