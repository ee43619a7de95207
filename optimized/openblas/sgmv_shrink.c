// SPDX-License-Identifier: Apache-2.0
// sgmv_shrink/openblas: per segment, gather the tokens' rows, one sgemm per slice, scatter. fp32 inside.
#include "optimized/kernels.h"
#include "optimized/openblas/products.h"

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
    float *rows = call->host->scratch(call, (size_t)(T * K) * sizeof *rows, 64);
    float *weights = call->host->scratch(call, (size_t)(r * K) * sizeof *weights, 64);
    float *products = call->host->scratch(call, (size_t)(T * r) * sizeof *products, 64);
    if (!rows || !weights || !products)
        return call->host->fail(call, CM_NO_MEMORY, "no scratch memory");
    int threads = cm_limit_threads(call);
    for (int64_t segment = 0; segment < L + 1; segment++) {
        int64_t begin = cm_load_int(offset, 0, segment), count = cm_load_int(offset, 0, segment + 1) - begin;
        int64_t adapter = cm_load_int(segment_adapter, 0, segment);
        int64_t rank = adapter < 0 ? 0 : cm_load_int(ranks, 0, adapter);
        for (int64_t n = 0; n < count && rank > 0; n++) {
            const char *row = cm_row_at(x, 0, 0, cm_load_int(permutation, 0, begin + n));
            for (int64_t i = 0; i < K; i++)
                rows[n * K + i] = cm_load_float(x, row, i);
        }
        for (int64_t s = 0; s < S && count > 0; s++) {
            if (rank > 0) {
                cm_gather_matrix(a, adapter, s, rank, K, weights);
                cm_multiply(count, rank, K, 1, rows, K, weights, K, 0, products, r);
            }
            for (int64_t n = 0; n < count; n++) {
                char *out = (char *)cm_row_at(v, 0, cm_load_int(permutation, 0, begin + n), s);
                for (int64_t j = 0; j < r; j++)
                    cm_store_float(v, out, j, j < rank ? products[n * r + j] : 0);
            }
        }
    }
    cm_unlimit_threads(threads);
    return CM_OK;
}

const cm_kernel cm_sgmv_shrink_openblas = {
    .size = sizeof(cm_kernel),
    .name = "sgmv_shrink/openblas",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .threads_change_bits = true, // sgemm cuts its tiles by the number of threads
    .run = run,
};
