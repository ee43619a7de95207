// SPDX-License-Identifier: Apache-2.0
// sgmv_expand/amx: B packed in the order of tiles at each adapter's own rank; per segment and slice one
// product over the panels that the slice touches, then y with one rounding. An fp32 or f16 v is the sum of
// three bf16 parts, 8 bits each: three products in place of a rounding that the op does not allow. Limits: B
// bf16; v and y any float; one thread. Error: sums in fp32, one rounding to y; denormals of bf16 and sums
// below 2^-126 count as zero.
#include "optimized/amx/blocks.h"
#include "optimized/kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { PARTS = 3 };

struct adapters {
    struct cm_avx512_pack *b; // [L] of [N, rank]; NULL before update
    int64_t L, N;
};

static bool supports(const cm_call *call, char *reason, size_t size)
{
    if (!cm_amx_ready(reason, size))
        return false;
    if (cm_is_bf16(call->host->argument(call, "lora_b")))
        return true;
    snprintf(reason, size, "only bf16 B is implemented");
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
    for (int64_t adapter = 0; adapters->b && adapter < adapters->L; adapter++)
        cm_avx512_pack_close(&adapters->b[adapter]);
    free(adapters->b);
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
    adapters->N = call->host->dim(call, 'N');
    adapters->b = calloc((size_t)adapters->L + 1, sizeof *adapters->b); // not NULL for L = 0
    const DLTensor *b = call->host->argument(call, "lora_b"), *rank = call->host->argument(call, "lora_rank");
    bool packed = adapters->b != NULL;
    for (int64_t adapter = 0; packed && adapter < adapters->L; adapter++)
        packed = cm_avx512_pack_open(&adapters->b[adapter], b, adapter, adapters->N,
                                     cm_load_int(rank, 0, adapter));
    if (packed)
        return CM_OK;
    drop(adapters);
    return call->host->fail(call, CM_NO_MEMORY, "no memory for the packed adapters");
}

struct work {
    int64_t *tokens;         // [count] of the segment
    uint16_t *v;             // [PARTS, T, v_stride]
    float *products;         // [T, y_stride]: B v
    int64_t T, count, parts; // parts: of v, 1 if it is bf16
    int64_t v_stride, y_stride;
};

// v of the segment's tokens: each part is what the parts before it left over, rounded to bf16.
static void split_rows(const DLTensor *v, int64_t slice, int64_t rank, const struct work *work)
{
    for (int64_t n = 0; n < work->count; n++) {
        const char *row = cm_row_at(v, 0, work->tokens[n], slice);
        for (int64_t j = 0; j < work->v_stride; j++) {
            float rest = j < rank ? cm_load_float(v, row, j) : 0;
            for (int64_t part = 0; part < work->parts; part++) {
                uint16_t bits = cm_bf16_from_float(rest);
                work->v[(part * work->T + n) * work->v_stride + j] = bits;
                float left = rest - cm_bf16_to_float(bits);
                rest = isfinite(rest) ? left : 0; // infinity and NaN are in the first part
            }
        }
    }
}

static void multiply_slice(const struct work *work, const struct cm_avx512_pack *b, int64_t first_panel,
                           int64_t last_panel)
{
    for (int64_t part = 0; part < work->parts; part++)
        cm_tiles_multiply(CM_TILES_BF16, work->v + part * work->T * work->v_stride, 2 * work->v_stride,
                          work->count, cm_avx512_pack_at(b, 0, first_panel), last_panel - first_panel,
                          cm_avx512_pairs(b->k), part > 0, work->products + first_panel * CM_AVX512_LANES,
                          4 * work->y_stride);
}

static void run_segment(const cm_call *call, const struct work *work, const struct cm_avx512_pack *b,
                        float scaling)
{
    const DLTensor *v = call->host->argument(call, "v"), *y = call->host->argument(call, "y");
    const DLTensor *slices = call->host->argument(call, "slice_offset");
    bool accumulate = call->host->attribute(call, "accumulate") != 0;
    for (int64_t slice = 0; slice < call->host->dim(call, 'S'); slice++) {
        int64_t first = cm_load_int(slices, 0, slice), last = cm_load_int(slices, 0, slice + 1);
        if (first == last)
            continue;
        if (b) {
            split_rows(v, slice, b->k, work);
            multiply_slice(work, b, first / CM_AVX512_LANES, cm_avx512_stride(last) / CM_AVX512_LANES);
        }
        for (int64_t n = 0; n < work->count; n++) {
            char *row = (char *)cm_row_at(y, 0, 0, work->tokens[n]);
            const float *delta = work->products + n * work->y_stride;
            for (int64_t column = first; column < last; column++) {
                float before = accumulate ? cm_load_float(y, row, column) : 0;
                cm_store_float(y, row, column, b ? before + scaling * delta[column] : 0);
            }
        }
    }
}

static cm_status run(const cm_call *call, void *state)
{
    const struct adapters *adapters = state;
    cm_status status = check(call);
    if (status != CM_OK)
        return status;
    int64_t L = call->host->dim(call, 'L'), N = call->host->dim(call, 'N');
    if (!adapters || !adapters->b || adapters->L != L || adapters->N != N)
        return call->host->fail(call, CM_BAD_STATE, "update was not called for these shapes");
    struct work work = {
        .T = call->host->dim(call, 'T'),
        .parts = cm_is_bf16(call->host->argument(call, "v")) ? 1 : PARTS,
        .v_stride = cm_avx512_stride(call->host->dim(call, 'r')),
        .y_stride = cm_avx512_stride(N),
    };
    work.tokens = call->host->scratch(call, (size_t)work.T * sizeof *work.tokens, sizeof *work.tokens);
    work.v = call->host->scratch(call, (size_t)(PARTS * work.T * work.v_stride) * sizeof *work.v, 64);
    work.products = call->host->scratch(call, (size_t)(work.T * work.y_stride) * sizeof(float), 64);
    if (!work.tokens || !work.v || !work.products)
        return call->host->fail(call, CM_NO_MEMORY, "no scratch memory");
    const DLTensor *permutation = call->host->argument(call, "permutation");
    const DLTensor *offset = call->host->argument(call, "segment_offset");
    const DLTensor *segment_adapter = call->host->argument(call, "segment_adapter");
    const DLTensor *scaling = call->host->argument(call, "lora_scaling");
    bool accumulate = call->host->attribute(call, "accumulate") != 0;
    for (int64_t p = 0; p <= L; p++) {
        int64_t begin = cm_load_int(offset, 0, p), adapter = cm_load_int(segment_adapter, 0, p);
        const struct cm_avx512_pack *b = adapter < 0 ? NULL : &adapters->b[adapter];
        b = b && b->k > 0 ? b : NULL; // rank 0 is no adapter
        work.count = cm_load_int(offset, 0, p + 1) - begin;
        for (int64_t n = 0; n < work.count; n++)
            work.tokens[n] = cm_load_int(permutation, 0, begin + n);
        if (work.count > 0 && (b || !accumulate))
            run_segment(call, &work, b, b ? cm_load_float(scaling, cm_row_at(scaling, 0, 0, 0), adapter) : 0);
    }
    return CM_OK;
}

const cm_kernel cm_sgmv_expand_amx = {
    .size = sizeof(cm_kernel),
    .name = "sgmv_expand/amx",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .supports = supports,
    .prepare = prepare,
    .update = update,
    .run = run,
    .release = release,
    .emulated = cm_amx_emulated,
    .row_invariant = true,
};
