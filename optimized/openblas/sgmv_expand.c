// SPDX-License-Identifier: Apache-2.0
// sgmv_expand/openblas: per segment and slice, gather v, one sgemm, add into y with one rounding.
#include "optimized/kernels.h"
#include "optimized/openblas/products.h"

struct expand {
    const DLTensor *v, *b, *slices, *permutation, *y;
    int64_t S, N, r;
    bool accumulate;
    float *rows, *weights, *products; // [T,r], [N,r], [T,N]
};

static void run_segment(const struct expand *expand, int64_t begin, int64_t count, int64_t adapter,
                        int64_t rank, float scaling)
{
    int64_t N = expand->N, r = expand->r;
    for (int64_t s = 0; s < expand->S && rank > 0; s++) {
        int64_t first = cm_load_int(expand->slices, 0, s),
                width = cm_load_int(expand->slices, 0, s + 1) - first;
        for (int64_t n = 0; n < count; n++) {
            const char *row = cm_row_at(expand->v, 0, cm_load_int(expand->permutation, 0, begin + n), s);
            for (int64_t j = 0; j < rank; j++)
                expand->rows[n * r + j] = cm_load_float(expand->v, row, j);
        }
        for (int64_t n = 0; n < width; n++) {
            const char *row = cm_row_at(expand->b, 0, adapter, first + n);
            for (int64_t j = 0; j < rank; j++)
                expand->weights[n * r + j] = cm_load_float(expand->b, row, j);
        }
        cm_multiply(count, width, rank, scaling, expand->rows, r, expand->weights, r, 0,
                    expand->products + first, N);
    }
    for (int64_t n = 0; n < count; n++) {
        char *y = (char *)cm_row_at(expand->y, 0, 0, cm_load_int(expand->permutation, 0, begin + n));
        for (int64_t column = 0; column < N; column++) {
            float delta = rank > 0 ? expand->products[n * N + column] : 0;
            if (!expand->accumulate)
                cm_store_float(expand->y, y, column, delta);
            else if (rank > 0)
                cm_store_float(expand->y, y, column, cm_load_float(expand->y, y, column) + delta);
        }
    }
}

static cm_status run(const cm_call *call, void *state)
{
    (void)state;
    cm_status status = call->host->validate(call);
    if (status != CM_OK)
        return status;
    int64_t T = call->host->dim(call, 'T');
    struct expand expand = {
        .v = call->host->argument(call, "v"),
        .b = call->host->argument(call, "lora_b"),
        .slices = call->host->argument(call, "slice_offset"),
        .permutation = call->host->argument(call, "permutation"),
        .y = call->host->argument(call, "y"),
        .S = call->host->dim(call, 'S'),
        .N = call->host->dim(call, 'N'),
        .r = call->host->dim(call, 'r'),
        .accumulate = call->host->attribute(call, "accumulate") != 0,
    };
    expand.rows = call->host->scratch(call, (size_t)(T * expand.r) * sizeof(float), 64);
    expand.weights = call->host->scratch(call, (size_t)(expand.N * expand.r) * sizeof(float), 64);
    expand.products = call->host->scratch(call, (size_t)(T * expand.N) * sizeof(float), 64);
    if (!expand.rows || !expand.weights || !expand.products)
        return call->host->fail(call, CM_NO_MEMORY, "no scratch memory");
    const DLTensor *offset = call->host->argument(call, "segment_offset");
    const DLTensor *segment_adapter = call->host->argument(call, "segment_adapter");
    const DLTensor *ranks = call->host->argument(call, "lora_rank");
    const DLTensor *scaling = call->host->argument(call, "lora_scaling");
    int threads = cm_limit_threads(call);
    for (int64_t segment = 0; segment <= call->host->dim(call, 'L'); segment++) {
        int64_t begin = cm_load_int(offset, 0, segment), count = cm_load_int(offset, 0, segment + 1) - begin;
        int64_t adapter = cm_load_int(segment_adapter, 0, segment);
        int64_t rank = adapter < 0 ? 0 : cm_load_int(ranks, 0, adapter);
        float s = rank > 0 ? cm_load_float(scaling, scaling->data, adapter) : 0;
        if (count > 0)
            run_segment(&expand, begin, count, adapter, rank, s);
    }
    cm_unlimit_threads(threads);
    return CM_OK;
}

const cm_kernel cm_sgmv_expand_openblas = {
    .size = sizeof(cm_kernel),
    .name = "sgmv_expand/openblas",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .threads_change_bits = true, // sgemm cuts its tiles by the number of threads
    .run = run,
};
