// SPDX-License-Identifier: Apache-2.0
// sgmv_plan: token_adapter -> tokens grouped by adapter. Segments stand in ascending order of their adapter,
// tokens without adapter (-1) first; empty segments are not listed; the tail has adapter -1 and length 0.
#include "reference/sgmv_segments.h"

#include <string.h>

static const cm_argument arguments[] = {
    {.name = "token_adapter",
     .role = CM_INPUT,
     .dtypes = SGMV_I32,
     .shape = "T",
     .index_into = 'L',
     .index_min = -1,
     .fill = {.kind = "assign"},
     .meaning = "adapter of a token; -1: none"},
    {.name = "permutation",
     .role = CM_OUTPUT,
     .dtypes = SGMV_I32,
     .shape = "T",
     .compare = CM_COMPARE_PERMUTATION,
     .compare_key = "token_adapter",
     .meaning = "tokens in the order of their segments; free within a segment"},
    {.name = "segment_offset",
     .role = CM_OUTPUT,
     .dtypes = SGMV_I32,
     .shape = "L+2",
     .compare = CM_COMPARE_EXACT,
     .meaning = "segment p is permutation[offset[p] .. offset[p+1])"},
    {.name = "segment_adapter",
     .role = CM_OUTPUT,
     .dtypes = SGMV_I32,
     .shape = "L+1",
     .compare = CM_COMPARE_EXACT,
     .meaning = "adapter of each segment; -1: none"},
    {0},
};

static const cm_attribute attributes[] = {{0}};
static const cm_rounding roundings[] = {{0}};
static const cm_term terms[] = {{0}};
static const cm_symmetry symmetries[] = {{0}}; // a permutation of tokens or adapters changes the plan itself

static cm_status reference(const cm_call *call, uint64_t omit, cm_accuracy accuracy, cm_want *want)
{
    (void)omit;
    (void)accuracy;
    int64_t T = cm_dim(call, 'T'), L = cm_dim(call, 'L'), n = 0, segment = 0;
    const DLTensor *token_adapter = cm_arg(call, "token_adapter");
    double *permutation = want[1].value, *offset = want[2].value, *adapter = want[3].value;
    for (int64_t a = -1; a < L; a++) {
        int64_t begin = n;
        for (int64_t t = 0; t < T; t++)
            if (cm_index1(token_adapter, t) == a)
                permutation[n++] = (double)t;
        if (n > begin) {
            offset[segment] = (double)begin;
            adapter[segment++] = (double)a;
        }
    }
    for (; segment < L + 1; segment++) {
        offset[segment] = (double)T;
        adapter[segment] = -1;
    }
    offset[L + 1] = (double)T;
    return CM_OK;
}

static cm_status exact(const cm_call *call)
{
    (void)call; // integers
    return CM_OK;
}

static cm_status addressed(const cm_call *call, int argument, uint8_t *mask)
{
    int64_t T = cm_dim(call, 'T'), L = cm_dim(call, 'L');
    memset(mask, argument == 0 ? CM_READS : CM_WRITES,
           (size_t)(argument < 2    ? T
                    : argument == 2 ? L + 2
                                    : L + 1));
    return CM_OK;
}

static void counts(const cm_call *call, cm_counts *counts)
{
    double T = (double)cm_dim(call, 'T'), L = (double)cm_dim(call, 'L');
    *counts = (cm_counts){.operations = T, .bytes_read = 4 * T, .bytes_written = 4 * (T + L + 2 + L + 1)};
}

const cm_op cm_sgmv_plan = {
    .name = "sgmv_plan",
    .formula = "tokens grouped by adapter: permutation, segment offsets, segment adapters",
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
