// SPDX-License-Identifier: Apache-2.0
// sgmv_shrink/avx512: A packed for VDPBF16PS at each adapter's own rank; per segment, gather the rows of x
// and form one product per slice. Limits: x and A bf16, v any float; one thread.
// Error: sums in fp32, one rounding to v; bf16 denormals count as zero.
#include "optimized/avx512/products.h"
#include "optimized/kernels.h"

#include <stdio.h>
#include <stdlib.h>

enum { FEW, BLOCKS };
static const cm_path paths[] = {{"few", "segments of fewer rows than a block of products"},
                                {"blocks", "segments of at least one whole block of 6 rows"},
                                {0}};
static const cm_switch_point points[] = {{"rows", CM_AVX512_ROWS, "from few to blocks"}, {0}};

struct adapters {
    struct cm_avx512_pack *a; // [L] of [S, rank, K]; NULL before update
    int64_t L, S, K;
};

static bool supports(const cm_call *call, char *reason, size_t size)
{
    if (!cm_avx512_available(reason, size))
        return false;
    if (cm_is_bf16(call->host->argument(call, "x")) && cm_is_bf16(call->host->argument(call, "lora_a")))
        return true;
    snprintf(reason, size, "only bf16 x and A are implemented");
    return false;
}

static cm_status check(const cm_call *call)
{
    char reason[128];
    cm_status status = call->host->validate(call);
    if (status == CM_OK && !supports(call, reason, sizeof reason))
        status = call->host->fail(call, CM_UNSUPPORTED, "%s", reason);
    return status;
}

static void drop(struct adapters *adapters)
{
    for (int64_t adapter = 0; adapters->a && adapter < adapters->L; adapter++)
        cm_avx512_pack_close(&adapters->a[adapter]);
    free(adapters->a);
    *adapters = (struct adapters){0};
}

static void release(void *state)
{
    if (state)
        drop(state);
    free(state);
}

static cm_status prepare(const cm_call *call, void **state)
{
    *state = calloc(1, sizeof(struct adapters));
    return *state ? CM_OK : call->host->fail(call, CM_NO_MEMORY, "no memory for the state");
}

static cm_status update(const cm_call *call, void *state)
{
    struct adapters *adapters = state;
    cm_status status = check(call);
    if (status != CM_OK)
        return status;
    if (!adapters)
        return call->host->fail(call, CM_BAD_STATE, "prepare was not called");
    drop(adapters);
    adapters->L = call->host->dim(call, 'L');
    adapters->S = call->host->dim(call, 'S');
    adapters->K = call->host->dim(call, 'K');
    adapters->a = calloc((size_t)adapters->L + 1, sizeof *adapters->a); // not NULL for L = 0
    const DLTensor *a = call->host->argument(call, "lora_a"), *rank = call->host->argument(call, "lora_rank");
    bool packed = adapters->a != NULL;
    for (int64_t adapter = 0; packed && adapter < adapters->L; adapter++)
        packed = cm_avx512_pack_open(&adapters->a[adapter], a, adapter, cm_load_int(rank, 0, adapter),
                                     adapters->K);
    if (packed)
        return CM_OK;
    drop(adapters);
    return call->host->fail(call, CM_NO_MEMORY, "no memory for the packed adapters");
}

// Rows of one segment: products[m, :] = A[slice] x[m, :], then v, with zeros from the rank on.
struct segment {
    const int64_t *tokens;
    int64_t count, rank;
    const uint16_t *x;
    float *products;
    int64_t x_stride, v_stride; // elements
};

static void run_slice(const cm_call *call, const struct segment *segment, const struct cm_avx512_pack *a,
                      int64_t slice)
{
    const DLTensor *v = call->host->argument(call, "v");
    int64_t r = call->host->dim(call, 'r');
    if (segment->rank > 0) {
        call->host->path(call, segment->count < CM_AVX512_ROWS ? FEW : BLOCKS);
        cm_avx512_multiply(segment->x, segment->x_stride, segment->count, cm_avx512_pack_at(a, slice, 0),
                           cm_avx512_stride(segment->rank) / CM_AVX512_LANES, cm_avx512_pairs(a->k), 1, false,
                           segment->products, segment->v_stride);
    }
    for (int64_t n = 0; n < segment->count; n++) {
        char *row = (char *)cm_row_at(v, 0, segment->tokens[n], slice);
        for (int64_t j = 0; j < r; j++)
            cm_store_float(v, row, j, j < segment->rank ? segment->products[n * segment->v_stride + j] : 0);
    }
}

static cm_status run(const cm_call *call, void *state)
{
    const struct adapters *adapters = state;
    cm_status status = check(call);
    if (status != CM_OK)
        return status;
    int64_t T = call->host->dim(call, 'T'), L = call->host->dim(call, 'L'), K = call->host->dim(call, 'K');
    int64_t S = call->host->dim(call, 'S'), r = call->host->dim(call, 'r');
    if (!adapters || !adapters->a || adapters->L != L || adapters->S != S || adapters->K != K)
        return call->host->fail(call, CM_BAD_STATE, "update was not called for these shapes");
    struct segment segment = {.x_stride = cm_avx512_stride(K), .v_stride = cm_avx512_stride(r)};
    int64_t *tokens = call->host->scratch(call, (size_t)T * sizeof *tokens, sizeof *tokens);
    uint16_t *x = call->host->scratch(call, (size_t)(T * segment.x_stride) * sizeof *x, 64);
    segment.products = call->host->scratch(call, (size_t)(T * segment.v_stride) * sizeof(float), 64);
    if (!tokens || !x || !segment.products)
        return call->host->fail(call, CM_NO_MEMORY, "no scratch memory");
    segment.tokens = tokens;
    segment.x = x;
    const DLTensor *hidden = call->host->argument(call, "x");
    const DLTensor *permutation = call->host->argument(call, "permutation");
    const DLTensor *offset = call->host->argument(call, "segment_offset");
    const DLTensor *segment_adapter = call->host->argument(call, "segment_adapter");
    for (int64_t p = 0; p <= L; p++) {
        int64_t begin = cm_load_int(offset, 0, p), adapter = cm_load_int(segment_adapter, 0, p);
        segment.count = cm_load_int(offset, 0, p + 1) - begin;
        segment.rank = adapter < 0 ? 0 : adapters->a[adapter].n;
        for (int64_t n = 0; n < segment.count; n++) {
            tokens[n] = cm_load_int(permutation, 0, begin + n);
            if (segment.rank > 0)
                cm_avx512_copy_row(cm_row_at(hidden, 0, 0, tokens[n]), K, x + n * segment.x_stride);
        }
        for (int64_t slice = 0; slice < S && segment.count > 0; slice++)
            run_slice(call, &segment, adapter < 0 ? NULL : &adapters->a[adapter], slice);
    }
    return CM_OK;
}

const cm_kernel cm_sgmv_shrink_avx512 = {
    .size = sizeof(cm_kernel),
    .name = "sgmv_shrink/avx512",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .supports = supports,
    .prepare = prepare,
    .update = update,
    .run = run,
    .release = release,
    .paths = paths,
    .switch_points = points,
};
