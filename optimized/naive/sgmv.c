// SPDX-License-Identifier: Apache-2.0
// sgmv/naive: token by token, one dot product per rank row, then one over the rank per column. v stays in
// fp32; fp32 sums, one rounding after y is added.
#include "optimized/kernels.h"
#include "optimized/view.h"

struct pair {
    const DLTensor *x, *a, *slices, *b, *y;
    int64_t K, S, N;
    bool accumulate;
    float *v; // [r]
};

static void run_slice(const struct pair *pair, int64_t t, int64_t adapter, int64_t rank, float scaling,
                      int64_t slice)
{
    const char *x = cm_row_at(pair->x, 0, 0, t);
    char *y = (char *)cm_row_at(pair->y, 0, 0, t);
    for (int64_t j = 0; j < rank; j++) {
        const char *row = cm_row_at(pair->a, adapter, slice, j);
        float sum = 0;
        for (int64_t i = 0; i < pair->K; i++)
            sum += cm_load_float(pair->a, row, i) * cm_load_float(pair->x, x, i);
        pair->v[j] = sum;
    }
    for (int64_t n = cm_load_int(pair->slices, 0, slice); n < cm_load_int(pair->slices, 0, slice + 1); n++) {
        const char *row = cm_row_at(pair->b, 0, adapter, n);
        float sum = 0;
        for (int64_t j = 0; j < rank; j++)
            sum += cm_load_float(pair->b, row, j) * pair->v[j];
        float base = pair->accumulate ? cm_load_float(pair->y, y, n) : 0;
        cm_store_float(pair->y, y, n, base + scaling * sum);
    }
}

static cm_status run(const cm_call *call, void *state)
{
    (void)state;
    cm_status status = call->host->validate(call);
    if (status != CM_OK)
        return status;
    struct pair pair = {
        .x = call->host->argument(call, "x"),
        .a = call->host->argument(call, "lora_a"),
        .slices = call->host->argument(call, "slice_offset"),
        .b = call->host->argument(call, "lora_b"),
        .y = call->host->argument(call, "y"),
        .K = call->host->dim(call, 'K'),
        .S = call->host->dim(call, 'S'),
        .N = call->host->dim(call, 'N'),
        .accumulate = call->host->attribute(call, "accumulate") != 0,
        .v = call->host->scratch(call, (size_t)call->host->dim(call, 'r') * sizeof(float), sizeof(float)),
    };
    if (!pair.v)
        return call->host->fail(call, CM_NO_MEMORY, "no scratch memory");
    const DLTensor *permutation = call->host->argument(call, "permutation");
    const DLTensor *offset = call->host->argument(call, "segment_offset");
    const DLTensor *segment_adapter = call->host->argument(call, "segment_adapter");
    const DLTensor *ranks = call->host->argument(call, "lora_rank");
    const DLTensor *scaling = call->host->argument(call, "lora_scaling");
    for (int64_t segment = 0; segment <= call->host->dim(call, 'L'); segment++) {
        int64_t adapter = cm_load_int(segment_adapter, 0, segment);
        int64_t rank = adapter < 0 ? 0 : cm_load_int(ranks, 0, adapter);
        float s = rank > 0 ? cm_load_float(scaling, scaling->data, adapter) : 0;
        if (rank == 0 && pair.accumulate)
            continue; // those rows stay as they are
        for (int64_t n = cm_load_int(offset, 0, segment); n < cm_load_int(offset, 0, segment + 1); n++)
            for (int64_t slice = 0; slice < pair.S; slice++)
                run_slice(&pair, cm_load_int(permutation, 0, n), adapter, rank, s, slice);
    }
    return CM_OK;
}

const cm_kernel cm_sgmv_naive = {
    .size = sizeof(cm_kernel),
    .name = "sgmv/naive",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .row_invariant = true,
    .run = run,
};
