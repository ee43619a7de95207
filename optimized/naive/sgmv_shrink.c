// SPDX-License-Identifier: Apache-2.0
// sgmv_shrink/naive: segment by segment, token by token, one dot product per rank row. fp32 sums, one
// rounding.
#include "optimized/kernels.h"
#include "optimized/view.h"

static cm_status run(const cm_call *call, void *state)
{
    (void)state;
    cm_status status = call->host->validate(call);
    if (status != CM_OK)
        return status;
    int64_t T = call->host->dim(call, 'T'), L = call->host->dim(call, 'L'), K = call->host->dim(call, 'K');
    int64_t S = call->host->dim(call, 'S'), r = call->host->dim(call, 'r');
    const DLTensor *x = call->host->argument(call, "x"), *a = call->host->argument(call, "lora_a");
    const DLTensor *permutation = call->host->argument(call, "permutation");
    const DLTensor *offset = call->host->argument(call, "segment_offset");
    const DLTensor *segment_adapter = call->host->argument(call, "segment_adapter");
    const DLTensor *ranks = call->host->argument(call, "lora_rank"), *v = call->host->argument(call, "v");
    for (int64_t t = 0; t < T; t++)
        for (int64_t s = 0; s < S; s++)
            for (int64_t j = 0; j < r; j++)
                cm_store_float(v, (char *)cm_row_at(v, 0, t, s), j, 0);
    for (int64_t segment = 0; segment < L + 1; segment++) {
        int64_t adapter = cm_load_int(segment_adapter, 0, segment);
        int64_t rank = adapter < 0 ? 0 : cm_load_int(ranks, 0, adapter);
        for (int64_t n = cm_load_int(offset, 0, segment); n < cm_load_int(offset, 0, segment + 1); n++) {
            int64_t t = cm_load_int(permutation, 0, n);
            const char *input = cm_row_at(x, 0, 0, t);
            for (int64_t s = 0; s < S; s++)
                for (int64_t j = 0; j < rank; j++) {
                    const char *row = cm_row_at(a, adapter, s, j);
                    float sum = 0;
                    for (int64_t i = 0; i < K; i++)
                        sum += cm_load_float(a, row, i) * cm_load_float(x, input, i);
                    cm_store_float(v, (char *)cm_row_at(v, 0, t, s), j, sum);
                }
        }
    }
    return CM_OK;
}

const cm_kernel cm_sgmv_shrink_naive = {
    .size = sizeof(cm_kernel),
    .name = "sgmv_shrink/naive",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .row_invariant = true,
    .run = run,
};
