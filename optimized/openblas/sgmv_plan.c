// SPDX-License-Identifier: Apache-2.0
// sgmv_plan/openblas: the plan that the openblas products walk. No BLAS in it: a counting sort over adapters,
// O(T + L).
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
    int32_t *next = call->host->scratch(call, (size_t)(L + 2) * sizeof *next, sizeof *next);
    if (!next)
        return call->host->fail(call, CM_NO_MEMORY, "no scratch memory");
    for (int64_t a = 0; a < L + 2; a++)
        next[a] = 0;
    for (int64_t t = 0; t < T; t++)
        next[cm_load_int(token_adapter, 0, t) + 2]++; // counts, shifted by one place
    int64_t segment = 0;
    for (int64_t a = 0; a < L + 1; a++) {
        int32_t count = next[a + 1];
        next[a + 1] += next[a];
        if (count > 0) {
            offset[segment] = next[a];
            adapter[segment++] = (int32_t)a - 1;
        }
    }
    for (int64_t t = 0; t < T; t++)
        permutation[next[cm_load_int(token_adapter, 0, t) + 1]++] = (int32_t)t;
    for (; segment < L + 2; segment++) {
        offset[segment] = (int32_t)T;
        if (segment < L + 1)
            adapter[segment] = -1;
    }
    return CM_OK;
}

const cm_kernel cm_sgmv_plan_openblas = {
    .size = sizeof(cm_kernel),
    .name = "sgmv_plan/openblas",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .run = run,
};
