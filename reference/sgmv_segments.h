// SPDX-License-Identifier: Apache-2.0
// The plan that sgmv, sgmv_shrink and sgmv_expand read: tokens sorted by adapter, in segments of one adapter
// each.
#ifndef CM_REFERENCE_SGMV_SEGMENTS_H
#define CM_REFERENCE_SGMV_SEGMENTS_H

#include "reference/values.h"

#define SGMV_FLOATS (CM_DTYPE_BIT(CM_F32) | CM_DTYPE_BIT(CM_F16) | CM_DTYPE_BIT(CM_BF16))
#define SGMV_I32    CM_DTYPE_BIT(CM_I32)

// The three arguments of a plan, for an op's table; they are inputs of all three.
#define SGMV_PLAN_INPUTS                                                                                     \
    {.name = "permutation",                                                                                  \
     .role = CM_INPUT,                                                                                       \
     .dtypes = SGMV_I32,                                                                                     \
     .shape = "T",                                                                                           \
     .index_into = 'T',                                                                                      \
     .fill = {.kind = "plan_permutation"},                                                                   \
     .meaning = "tokens in the order of their segments"},                                                    \
        {.name = "segment_offset",                                                                           \
         .role = CM_INPUT,                                                                                   \
         .dtypes = SGMV_I32,                                                                                 \
         .shape = "L+2",                                                                                     \
         .offset_into = 'T',                                                                                 \
         .fill = {.kind = "plan_offset"},                                                                    \
         .meaning = "segment p is permutation[offset[p] .. offset[p+1])"},                                   \
        {.name = "segment_adapter",                                                                          \
         .role = CM_INPUT,                                                                                   \
         .dtypes = SGMV_I32,                                                                                 \
         .shape = "L+1",                                                                                     \
         .index_into = 'L',                                                                                  \
         .index_min = -1,                                                                                    \
         .fill = {.kind = "plan_adapter"},                                                                   \
         .meaning = "adapter of each segment; -1: none"},                                                    \
    {                                                                                                        \
        .name = "lora_rank", .role = CM_ADAPTER, .dtypes = SGMV_I32, .shape = "L", .is_rank = true,          \
        .fill = {.kind = "rank"}, .meaning = "rank of each adapter, 0..r"                                    \
    }

struct sgmv_plan {
    int64_t segments, T, L;
    const DLTensor *permutation, *offset, *adapter, *rank;
};

void sgmv_open(const cm_call *call, struct sgmv_plan *plan);

// One token of the plan: which, and whose.
struct sgmv_token {
    int64_t token, adapter, rank; // adapter -1 and rank 0: none
};
// Calls `visit` for each token; stops at the first status that is not CM_OK.
cm_status sgmv_each(const struct sgmv_plan *plan,
                    cm_status (*visit)(const struct sgmv_token *token, void *self), void *self);

// used[a] = a segment of adapter a is not empty.
void sgmv_used(const struct sgmv_plan *plan, bool *used);

#endif
