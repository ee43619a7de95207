// SPDX-License-Identifier: Apache-2.0
#include "reference/sgmv_segments.h"

#include <string.h>

void sgmv_open(const cm_call *call, struct sgmv_plan *plan)
{
    *plan = (struct sgmv_plan){
        .T = cm_dim(call, 'T'),
        .L = cm_dim(call, 'L'),
        .permutation = cm_arg(call, "permutation"),
        .offset = cm_arg(call, "segment_offset"),
        .adapter = cm_arg(call, "segment_adapter"),
        .rank = cm_arg(call, "lora_rank"),
    };
    plan->segments = plan->L + 1;
}

cm_status sgmv_each(const struct sgmv_plan *plan,
                    cm_status (*visit)(const struct sgmv_token *token, void *self), void *self)
{
    for (int64_t p = 0; p < plan->segments; p++) {
        int64_t adapter = cm_index1(plan->adapter, p);
        int64_t rank = adapter < 0 ? 0 : cm_index1(plan->rank, adapter);
        for (int64_t n = cm_index1(plan->offset, p); n < cm_index1(plan->offset, p + 1); n++) {
            struct sgmv_token token = {cm_index1(plan->permutation, n), adapter, rank};
            cm_status status = visit(&token, self);
            if (status != CM_OK)
                return status;
        }
    }
    return CM_OK;
}

void sgmv_used(const struct sgmv_plan *plan, bool *used)
{
    memset(used, 0, (size_t)plan->L * sizeof *used);
    for (int64_t p = 0; p < plan->segments; p++) {
        int64_t adapter = cm_index1(plan->adapter, p);
        if (adapter >= 0 && cm_index1(plan->offset, p) < cm_index1(plan->offset, p + 1))
            used[adapter] = true;
    }
}
