// SPDX-License-Identifier: Apache-2.0
// sgmv/openblas: per segment, gather the tokens' rows; per slice, one sgemm to v, one from it, and an
// addition into y with one rounding. v stays in fp32.
#include "optimized/kernels.h"
#include "optimized/openblas/products.h"

struct pair {
    const DLTensor *x, *a, *slices, *b, *permutation, *y;
    int64_t K, S, N, r;
    bool accumulate;
    float *rows, *weights, *v, *products; // [T,K], [max(K,N),r], [T,r], [T,N]
};

// Tokens permutation[first] .. permutation[first + count - 1].
struct segment {
    int64_t first, count, adapter, rank;
    float scaling;
};

static void run_segment(const struct pair *pair, const struct segment *segment)
{
    int64_t K = pair->K, N = pair->N, rank = segment->rank, count = segment->count;
    for (int64_t n = 0; n < count; n++) {
        const char *row = cm_row_at(pair->x, 0, 0, cm_load_int(pair->permutation, 0, segment->first + n));
        for (int64_t i = 0; i < K; i++)
            pair->rows[n * K + i] = cm_load_float(pair->x, row, i);
    }
    for (int64_t s = 0; s < pair->S; s++) {
        int64_t begin = cm_load_int(pair->slices, 0, s), width = cm_load_int(pair->slices, 0, s + 1) - begin;
        cm_gather_matrix(pair->a, segment->adapter, s, rank, K, pair->weights);
        cm_multiply(count, rank, K, 1, pair->rows, K, pair->weights, K, 0, pair->v, rank);
        for (int64_t n = 0; n < width; n++) {
            const char *row = cm_row_at(pair->b, 0, segment->adapter, begin + n);
            for (int64_t j = 0; j < rank; j++)
                pair->weights[n * rank + j] = cm_load_float(pair->b, row, j);
        }
        cm_multiply(count, width, rank, segment->scaling, pair->v, rank, pair->weights, rank, 0,
                    pair->products + begin, N);
    }
}

// Adds the products to the segment's rows of y, or writes them; without adapter they are 0.
static void store_segment(const struct pair *pair, const struct segment *segment)
{
    for (int64_t n = 0; n < segment->count; n++) {
        char *y = (char *)cm_row_at(pair->y, 0, 0, cm_load_int(pair->permutation, 0, segment->first + n));
        for (int64_t column = 0; column < pair->N; column++) {
            float base = pair->accumulate ? cm_load_float(pair->y, y, column) : 0;
            float delta = segment->rank > 0 ? pair->products[n * pair->N + column] : 0;
            cm_store_float(pair->y, y, column, base + delta);
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
    struct pair pair = {
        .x = call->host->argument(call, "x"),
        .a = call->host->argument(call, "lora_a"),
        .slices = call->host->argument(call, "slice_offset"),
        .b = call->host->argument(call, "lora_b"),
        .permutation = call->host->argument(call, "permutation"),
        .y = call->host->argument(call, "y"),
        .K = call->host->dim(call, 'K'),
        .S = call->host->dim(call, 'S'),
        .N = call->host->dim(call, 'N'),
        .r = call->host->dim(call, 'r'),
        .accumulate = call->host->attribute(call, "accumulate") != 0,
    };
    int64_t longest = pair.K > pair.N ? pair.K : pair.N;
    pair.rows = call->host->scratch(call, (size_t)(T * pair.K) * sizeof(float), 64);
    pair.weights = call->host->scratch(call, (size_t)(longest * pair.r) * sizeof(float), 64);
    pair.v = call->host->scratch(call, (size_t)(T * pair.r) * sizeof(float), 64);
    pair.products = call->host->scratch(call, (size_t)(T * pair.N) * sizeof(float), 64);
    if (!pair.rows || !pair.weights || !pair.v || !pair.products)
        return call->host->fail(call, CM_NO_MEMORY, "no scratch memory");
    const DLTensor *offset = call->host->argument(call, "segment_offset");
    const DLTensor *segment_adapter = call->host->argument(call, "segment_adapter");
    const DLTensor *ranks = call->host->argument(call, "lora_rank");
    const DLTensor *scaling = call->host->argument(call, "lora_scaling");
    int threads = cm_limit_threads(call);
    for (int64_t p = 0; p <= call->host->dim(call, 'L'); p++) {
        struct segment segment = {.first = cm_load_int(offset, 0, p),
                                  .adapter = cm_load_int(segment_adapter, 0, p)};
        segment.count = cm_load_int(offset, 0, p + 1) - segment.first;
        if (segment.count > 0 && segment.adapter >= 0)
            segment.rank = cm_load_int(ranks, 0, segment.adapter);
        if (segment.rank > 0) {
            segment.scaling = cm_load_float(scaling, scaling->data, segment.adapter);
            run_segment(&pair, &segment);
        }
        if (segment.rank > 0 || !pair.accumulate)
            store_segment(&pair, &segment);
    }
    cm_unlimit_threads(threads);
    return CM_OK;
}

const cm_kernel cm_sgmv_openblas = {
    .size = sizeof(cm_kernel),
    .name = "sgmv/openblas",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .threads_change_bits = true, // sgemm cuts its tiles by the number of threads
    .run = run,
};
