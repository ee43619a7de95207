// SPDX-License-Identifier: Apache-2.0
// sgmv_expand/naive: segment by segment, token by token, one dot product over the rank per column. fp32 sums,
// one rounding after y is added.
#include "optimized/kernels.h"
#include "optimized/view.h"

struct expand {
    const DLTensor *v, *b, *slices, *y;
    int64_t S, N;
    bool accumulate;
};

static void run_token(const struct expand *expand, int64_t t, int64_t adapter, int64_t rank, float scaling)
{
    char *y = (char *)cm_row_at(expand->y, 0, 0, t);
    for (int64_t s = 0; s < expand->S; s++) {
        const char *v = cm_row_at(expand->v, 0, t, s);
        for (int64_t n = cm_load_int(expand->slices, 0, s); n < cm_load_int(expand->slices, 0, s + 1); n++) {
            const char *row = cm_row_at(expand->b, 0, adapter, n);
            float sum = 0;
            for (int64_t j = 0; j < rank; j++)
                sum += cm_load_float(expand->b, row, j) * cm_load_float(expand->v, v, j);
            float base = expand->accumulate ? cm_load_float(expand->y, y, n) : 0;
            cm_store_float(expand->y, y, n, base + scaling * sum);
        }
    }
}

static cm_status run(const cm_call *call, void *state)
{
    (void)state;
    cm_status status = call->host->validate(call);
    if (status != CM_OK)
        return status;
    struct expand expand = {
        .v = call->host->argument(call, "v"),
        .b = call->host->argument(call, "lora_b"),
        .slices = call->host->argument(call, "slice_offset"),
        .y = call->host->argument(call, "y"),
        .S = call->host->dim(call, 'S'),
        .N = call->host->dim(call, 'N'),
        .accumulate = call->host->attribute(call, "accumulate") != 0,
    };
    const DLTensor *permutation = call->host->argument(call, "permutation");
    const DLTensor *offset = call->host->argument(call, "segment_offset");
    const DLTensor *segment_adapter = call->host->argument(call, "segment_adapter");
    const DLTensor *ranks = call->host->argument(call, "lora_rank");
    const DLTensor *scaling = call->host->argument(call, "lora_scaling");
    for (int64_t segment = 0; segment <= call->host->dim(call, 'L'); segment++) {
        int64_t adapter = cm_load_int(segment_adapter, 0, segment);
        int64_t rank = adapter < 0 ? 0 : cm_load_int(ranks, 0, adapter);
        for (int64_t n = cm_load_int(offset, 0, segment); n < cm_load_int(offset, 0, segment + 1); n++) {
            int64_t t = cm_load_int(permutation, 0, n);
            if (rank > 0)
                run_token(&expand, t, adapter, rank, cm_load_float(scaling, scaling->data, adapter));
            else if (!expand.accumulate)
                for (int64_t column = 0; column < expand.N; column++)
                    cm_store_float(expand.y, (char *)cm_row_at(expand.y, 0, 0, t), column, 0);
        }
    }
    return CM_OK;
}

const cm_kernel cm_sgmv_expand_naive = {
    .size = sizeof(cm_kernel),
    .name = "sgmv_expand/naive",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .row_invariant = true,
    .run = run,
};
