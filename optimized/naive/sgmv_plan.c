// SPDX-License-Identifier: Apache-2.0
// sgmv_plan/naive: for each adapter, collect its tokens. O(T L).
#include "optimized/kernels.h"
#include "optimized/view.h"

static cm_status run(const cm_call *call, void *state)
{
    (void)state;
    cm_status status = call->host->validate(call);
    if (status != CM_OK)
        return status;
    int64_t T = call->host->dim(call, 'T'), L = call->host->dim(call, 'L');
    const DLTensor *token_adapter = call->host->argument(call, "token_adapter");
    int32_t *permutation = call->host->argument(call, "permutation")->data;
    int32_t *offset = call->host->argument(call, "segment_offset")->data;
    int32_t *adapter = call->host->argument(call, "segment_adapter")->data;
    int32_t placed = 0;
    int64_t segment = 0;
    for (int32_t a = -1; a < L; a++) {
        int32_t begin = placed;
        for (int32_t t = 0; t < T; t++)
            if (cm_load_int(token_adapter, 0, t) == a)
                permutation[placed++] = t;
        if (placed > begin) {
            offset[segment] = begin;
            adapter[segment++] = a;
        }
    }
    for (; segment <= L; segment++) {
        offset[segment] = placed;
        adapter[segment] = -1;
    }
    offset[L + 1] = placed;
    return CM_OK;
}

const cm_kernel cm_sgmv_plan_naive = {
    .size = sizeof(cm_kernel),
    .name = "sgmv_plan/naive",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .run = run,
};
