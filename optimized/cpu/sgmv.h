// SPDX-License-Identifier: Apache-2.0
// sgmv, sgmv_shrink and sgmv_expand on a processor: included by each kernel, whose target forms the products.
// Two phases, with a meeting of all threads between them. The first forms the sums of v, step by step of K;
// the second adds the steps in order, and is v, or the product of B and v for some columns and y with one
// rounding. A call reads A and B once from their first element to their last, unless a segment has more than
// `block` tokens. Which sums are formed, and in which order, depends on no number of threads.
#ifndef CM_CPU_SGMV_H
#define CM_CPU_SGMV_H

#include "optimized/avx512/sgmv_products.h"
#include "optimized/cpu/sgmv_adapters.h"
#include "optimized/cpu/state.h"
#include "optimized/cpu/team.h"

#include <stdio.h>

struct cm_sgmv_target {
    bool (*ready)(char *reason, size_t size); // in each thread before its first product
    struct cm_sgmv_order order;
    int64_t step;              // elements of K that a sum of the first phase has; 0: all
    int64_t block, rows;       // tokens of an item; of a product of the second phase
    int64_t parts;             // of a v that comes as fp32 or f16, in bf16
    size_t (*room)(int64_t K); // bytes for the first phase's product, for each thread
    // out[m, j] for `rows` rows of x: sums over a step. a: packed A of one slice.
    void (*shrink)(const char *const *x, int64_t rows, int64_t K, int64_t step, const uint16_t *a,
                   int64_t rank, float *out, int64_t out_stride, char *room);
    // out[m, n] = sum over parts and j of b[n, j] v[part, m, j], see cm_avx512_expand.
    void (*expand)(const uint16_t *v, int64_t rows, int64_t v_stride, int64_t parts, int64_t part_stride,
                   const uint16_t *b, int64_t panels, int64_t pairs, float *out, int64_t out_stride);
};

enum { CM_SGMV_FEW, CM_SGMV_BLOCKS }; // paths of all targets

enum {
    CM_SGMV_RANKS = 256,             // at most
    CM_SGMV_BLOCK_BYTES = 32 << 10,  // of B, an item of the second phase
    CM_SGMV_THREAD_COST = 384 << 10, // bytes, or 8 operations each, that are worth a thread
};

// Tokens of one adapter; those without stand in one with rank 0. Items are counted over all segments.
struct cm_sgmv_segment {
    int64_t first, count, adapter, rank; // places first .. first + count - 1 of the permutation
    float scaling;
    int64_t blocks, columns; // of tokens; columns of an item of the second phase
    int64_t shrink, expand;  // number of its first item in each phase
};

struct cm_sgmv_work {
    const struct cm_sgmv_target *target;
    const struct cm_sgmv_adapters *adapters;
    const DLTensor *x, *v, *slices, *permutation, *y; // NULL: the op does not have it
    int64_t T, S, K, N, r;
    bool accumulate;
    int64_t steps, stride;            // of K; floats of a slice's v
    float *sums;                      // [steps, T, S, stride], by place in the permutation
    struct cm_sgmv_segment *segments; // [count + 1]; the last has the numbers of items
    int64_t count, longest;           // longest: columns of any item
    char *room;                       // [threads, room_bytes]
    size_t room_bytes;
    struct cm_share *shares; // [2, threads]
    int threads;             // that shares are for
    int failed;              // a thread could not begin
};

static inline int64_t cm_sgmv_smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

// Segment of an item of a phase; `from` is that of an earlier one, or 0.
static inline int64_t cm_sgmv_find(const struct cm_sgmv_work *run, bool shrink, int64_t item, int64_t from)
{
    const struct cm_sgmv_segment *segments = run->segments;
    int64_t p = (shrink ? segments[from].shrink : segments[from].expand) <= item ? from : 0;
    while ((shrink ? segments[p + 1].shrink : segments[p + 1].expand) <= item)
        p++;
    return p;
}

// The tokens of block `block` of a segment: places *first .. *first + returned - 1.
static inline int64_t cm_sgmv_block(const struct cm_sgmv_work *run, const struct cm_sgmv_segment *segment,
                                    int64_t block, int64_t *first)
{
    *first = segment->first + block * run->target->block;
    return cm_sgmv_smaller(run->target->block, segment->first + segment->count - *first);
}

// First phase. Items of a segment: slices, in them steps, in them blocks.
static inline void cm_sgmv_shrink_item(const struct cm_sgmv_work *run, const struct cm_sgmv_segment *segment,
                                       int64_t item, char *room)
{
    const char *rows[64]; // a block at most
    int64_t first, count = cm_sgmv_block(run, segment, item % segment->blocks, &first);
    int64_t step = item / segment->blocks % run->steps, slice = item / segment->blocks / run->steps;
    for (int64_t n = 0; n < count; n++)
        rows[n] = cm_row_at(run->x, 0, 0, cm_load_int(run->permutation, 0, first + n));
    const uint16_t *a = run->adapters->a + run->adapters->a_at[segment->adapter] +
                        slice * run->target->order.a_elements(segment->rank, run->K);
    run->target->shrink(rows, count, run->K, step, a, segment->rank,
                        run->sums + ((step * run->T + first) * run->S + slice) * run->stride,
                        run->S * run->stride, room);
}

// v [parts, rows, stride] of a slice, from place `first` on, as parts in bf16; returns the number of parts.
static inline int64_t cm_sgmv_load_v(const struct cm_sgmv_work *run, const struct cm_sgmv_segment *segment,
                                     int64_t first, int64_t count, int64_t slice, uint16_t *v,
                                     int64_t part_stride)
{
    float row[CM_SGMV_RANKS + CM_AVX512_LANES];
    int64_t parts = run->v && !cm_is_bf16(run->v) ? run->target->parts : 1;
    for (int64_t n = 0; n < count; n++) {
        const float *sums = row;
        int64_t terms = 1;
        if (run->v) {
            const char *from = cm_row_at(run->v, 0, cm_load_int(run->permutation, 0, first + n), slice);
            for (int64_t j = 0; j < segment->rank; j++)
                row[j] = cm_load_float(run->v, from, j);
        } else {
            sums = run->sums + ((first + n) * run->S + slice) * run->stride;
            terms = run->steps;
        }
        cm_avx512_split_sum(sums, terms, run->T * run->S * run->stride, segment->rank, parts,
                            v + n * run->stride, part_stride);
    }
    return parts;
}

// Some tokens by the columns begin .. end - 1 of y.
static inline void cm_sgmv_expand_rows(const struct cm_sgmv_work *run, const struct cm_sgmv_segment *segment,
                                       int64_t first, int64_t count, int64_t begin, int64_t end, char *room)
{
    int64_t part_stride = run->target->rows * run->stride, group = run->target->order.b_group;
    int64_t panels = cm_avx512_stride(run->N) / CM_AVX512_LANES, pairs = cm_avx512_pairs(segment->rank);
    uint16_t *v = (uint16_t *)room;
    float *products = (float *)(room + run->target->parts * part_stride * (int64_t)sizeof *v);
    for (int64_t slice = 0; slice < run->S; slice++) {
        int64_t from = cm_load_int(run->slices, 0, slice), to = cm_load_int(run->slices, 0, slice + 1);
        from = from < begin ? begin : from;
        to = cm_sgmv_smaller(to, end);
        if (from >= to)
            continue;
        int64_t parts = cm_sgmv_load_v(run, segment, first, count, slice, v, part_stride);
        int64_t panel =
            from / CM_AVX512_LANES / group * group; // a whole group, of which the slice has a part
        int64_t behind = (cm_avx512_stride(to) / CM_AVX512_LANES + group - 1) / group * group;
        behind = cm_sgmv_smaller(behind, panels);
        const uint16_t *b =
            run->adapters->b + run->adapters->b_at[segment->adapter] + panel * pairs * 2 * CM_AVX512_LANES;
        int64_t stride = (behind - panel) * CM_AVX512_LANES;
        run->target->expand(v, count, run->stride, parts, part_stride, b, behind - panel, pairs, products,
                            stride);
        for (int64_t n = 0; n < count; n++) {
            char *y = (char *)cm_row_at(run->y, 0, 0, cm_load_int(run->permutation, 0, first + n));
            cm_avx512_add_row(run->y->dtype, y + from * run->y->dtype.bits / 8,
                              products + n * stride + from - panel * CM_AVX512_LANES, to - from,
                              segment->scaling, run->accumulate);
        }
    }
}

// Rows of tokens without adapter, overwriting: 0 is 0 in every float.
static inline void cm_sgmv_clear(const struct cm_sgmv_work *run, const DLTensor *tensor, int64_t first,
                                 int64_t count)
{
    int64_t slices = tensor->ndim == 3 ? tensor->shape[1] : 1, columns = tensor->shape[tensor->ndim - 1];
    for (int64_t n = 0; n < count; n++)
        for (int64_t slice = 0; slice < slices; slice++) {
            int64_t token = cm_load_int(run->permutation, 0, first + n);
            memset((char *)cm_row_at(tensor, 0, token, tensor->ndim == 3 ? slice : token), 0,
                   (size_t)(columns * tensor->dtype.bits / 8));
        }
}

// Second phase of sgmv and sgmv_expand. Items of a segment: columns, in them blocks.
static inline void cm_sgmv_expand_item(const struct cm_sgmv_work *run, const struct cm_sgmv_segment *segment,
                                       int64_t item, char *room)
{
    int64_t first, count = cm_sgmv_block(run, segment, item % segment->blocks, &first);
    int64_t begin = item / segment->blocks * segment->columns;
    int64_t end = cm_sgmv_smaller(run->N, begin + segment->columns);
    if (segment->rank == 0) {
        cm_sgmv_clear(run, run->y, first, count);
        return;
    }
    for (int64_t n = 0; n < count; n += run->target->rows)
        cm_sgmv_expand_rows(run, segment, first + n, cm_sgmv_smaller(run->target->rows, count - n), begin,
                            end, room);
}

// Second phase of sgmv_shrink.
static inline void cm_sgmv_store_item(const struct cm_sgmv_work *run, const struct cm_sgmv_segment *segment,
                                      int64_t item)
{
    float row[CM_SGMV_RANKS + CM_AVX512_LANES];
    int64_t first, count = cm_sgmv_block(run, segment, item, &first);
    for (int64_t n = 0; n < count; n++)
        for (int64_t slice = 0; slice < run->S; slice++) {
            char *v = (char *)cm_row_at(run->v, 0, cm_load_int(run->permutation, 0, first + n), slice);
            if (segment->rank > 0)
                cm_avx512_plain_sum(run->sums + ((first + n) * run->S + slice) * run->stride, run->steps,
                                    run->T * run->S * run->stride, segment->rank, row);
            for (int64_t j = 0; j < run->r; j++)
                cm_store_float(run->v, v, j, j < segment->rank ? row[j] : 0);
        }
}

static inline void cm_sgmv_thread(void *context, int thread, int threads)
{
    struct cm_sgmv_work *run = context; // threads may be fewer than shares: what nobody began is taken over
    char *room = run->room + (size_t)thread * run->room_bytes, reason[128];
    bool ready = thread == 0 || run->target->ready(reason, sizeof reason);
    int64_t item, p = 0;
    if (!ready)
        __atomic_store_n(&run->failed, 1, __ATOMIC_RELAXED);
    while (run->x && ready && (item = cm_shares_take(run->shares, run->threads, thread)) >= 0) {
        p = cm_sgmv_find(run, true, item, p);
        cm_sgmv_shrink_item(run, &run->segments[p], item - run->segments[p].shrink, room);
    }
    if (run->x && threads > 1)
        cm_team_meet();
    p = 0;
    while (ready && (item = cm_shares_take(run->shares + run->threads, run->threads, thread)) >= 0) {
        p = cm_sgmv_find(run, false, item, p);
        const struct cm_sgmv_segment *segment = &run->segments[p];
        if (run->y)
            cm_sgmv_expand_item(run, segment, item - segment->expand, room);
        else
            cm_sgmv_store_item(run, segment, item - segment->expand);
    }
}

// Segments that have something to do, and their items. Returns the cost of all: bytes of the adapters, or 8
// operations each.
static inline double cm_sgmv_plan(const cm_call *call, struct cm_sgmv_work *run)
{
    const DLTensor *offset = call->host->argument(call, "segment_offset");
    const DLTensor *adapter = call->host->argument(call, "segment_adapter");
    const DLTensor *scaling = call->host->argument(call, "lora_scaling");
    int64_t shrink = 0, expand = 0;
    double cost = 0;
    for (int64_t p = 0; p <= run->adapters->L; p++) {
        struct cm_sgmv_segment segment = {.first = cm_load_int(offset, 0, p),
                                          .adapter = cm_load_int(adapter, 0, p),
                                          .shrink = shrink,
                                          .expand = expand};
        segment.count = cm_load_int(offset, 0, p + 1) - segment.first;
        segment.rank = segment.adapter < 0 ? 0 : run->adapters->rank[segment.adapter];
        if (segment.count == 0 || (segment.rank == 0 && run->y && run->accumulate))
            continue;
        segment.blocks = (segment.count + run->target->block - 1) / run->target->block;
        segment.columns = run->N;
        if (segment.rank > 0) {
            int64_t unit = CM_AVX512_LANES * run->target->order.b_group;
            segment.columns = (CM_SGMV_BLOCK_BYTES / 2 / segment.rank + unit - 1) / unit * unit;
            segment.scaling =
                scaling ? cm_load_float(scaling, cm_row_at(scaling, 0, 0, 0), segment.adapter) : 1;
            shrink += run->x ? segment.blocks * run->S * run->steps : 0;
            run->longest = segment.columns > run->longest ? segment.columns : run->longest;
            call->host->path(call, segment.count < run->target->rows ? CM_SGMV_FEW : CM_SGMV_BLOCKS);
            double elements = (double)segment.rank * (double)((run->x ? run->S * run->K : 0) + run->N);
            cost += elements * (2 + (double)segment.count / 4);
        }
        expand += run->y ? (run->N + segment.columns - 1) / segment.columns * segment.blocks : segment.blocks;
        run->segments[run->count++] = segment;
    }
    run->segments[run->count] = (struct cm_sgmv_segment){.shrink = shrink, .expand = expand};
    run->longest = cm_sgmv_smaller(run->longest, cm_avx512_stride(run->N));
    return cost;
}

static inline int cm_sgmv_threads(const cm_call *call, double cost)
{
    int limit = cm_team_limit(call), worth = 1 + (int)(cost / CM_SGMV_THREAD_COST);
    return worth < limit ? worth : limit;
}

// The call is valid, and `adapters` are what the last update saw.
static inline cm_status cm_sgmv_execute(const cm_call *call, const struct cm_sgmv_target *target,
                                        const struct cm_sgmv_adapters *adapters)
{
    struct cm_sgmv_work run = {
        .target = target,
        .adapters = adapters,
        .x = call->host->argument(call, "x"),
        .v = call->host->argument(call, "v"),
        .slices = call->host->argument(call, "slice_offset"),
        .permutation = call->host->argument(call, "permutation"),
        .y = call->host->argument(call, "y"),
        .T = call->host->dim(call, 'T'),
        .S = call->host->dim(call, 'S'),
        .K = call->host->dim(call, 'K'),
        .N = call->host->dim(call, 'N'),
        .r = call->host->dim(call, 'r'),
        .accumulate = call->host->attribute(call, "accumulate") != 0,
    };
    run.stride = cm_avx512_stride(run.r);
    run.steps = target->step > 0 ? (run.K + target->step - 1) / target->step : 1;
    run.segments = call->host->scratch(call, (size_t)(adapters->L + 2) * sizeof *run.segments, 64);
    if (!run.segments)
        return call->host->fail(call, CM_NO_MEMORY, "no scratch memory");
    int threads = cm_sgmv_threads(call, cm_sgmv_plan(call, &run));
    const struct cm_sgmv_segment *last = &run.segments[run.count];
    size_t first_room = run.x ? target->room(run.K) : 0;
    run.room_bytes =
        (size_t)(target->rows * (2 * target->parts * run.stride +
                                 4 * (run.longest + 2 * CM_AVX512_LANES * target->order.b_group)));
    run.room_bytes = ((first_room > run.room_bytes ? first_room : run.room_bytes) + 63) / 64 * 64;
    run.room = call->host->scratch(call, (size_t)threads * run.room_bytes, 64);
    run.sums = call->host->scratch(
        call, run.x ? (size_t)(run.steps * run.T * run.S * run.stride) * sizeof(float) : 4, 64);
    run.shares = call->host->scratch(call, (size_t)(2 * threads) * sizeof *run.shares, 64);
    if (!run.room || !run.sums || !run.shares)
        return call->host->fail(call, CM_NO_MEMORY, "no scratch memory");
    cm_shares_open(run.shares, threads, last->shrink);
    cm_shares_open(run.shares + threads, threads, last->expand);
    run.threads = threads;
    cm_team_run(threads, cm_sgmv_thread, &run);
    if (run.failed)
        return call->host->fail(call, CM_UNSUPPORTED, "a thread could not begin its products");
    return CM_OK;
}

// The functions of a kernel, but for its target --------------------------------------------------------

static inline bool cm_sgmv_supports(const cm_call *call, const struct cm_sgmv_target *target, char *reason,
                                    size_t size)
{
    if (!target->ready(reason, size))
        return false;
    bool x = call->host->argument(call, "x") != NULL, b = call->host->argument(call, "lora_b") != NULL;
    if (call->host->dim(call, 'r') > CM_SGMV_RANKS)
        snprintf(reason, size, "ranks are at most %d", CM_SGMV_RANKS);
    else if (cm_is_bf16(call->host->argument(call, "x")) &&
             cm_is_bf16(call->host->argument(call, "lora_a")) &&
             cm_is_bf16(call->host->argument(call, "lora_b")))
        return true;
    else
        snprintf(reason, size, "only bf16 %s %s implemented",
                 !x  ? "B"
                 : b ? "x, A and B"
                     : "x and A",
                 x ? "are" : "is");
    return false;
}

static inline cm_status cm_sgmv_check(const cm_call *call, const struct cm_sgmv_target *target)
{
    char reason[128];
    cm_status status = call->host->validate(call);
    if (status == CM_OK && !cm_sgmv_supports(call, target, reason, sizeof reason))
        status = call->host->fail(call, CM_UNSUPPORTED, "%s", reason);
    return status;
}

static inline cm_status cm_sgmv_prepare(const cm_call *call, void **state)
{
    *state = calloc(1, sizeof(struct cm_sgmv_adapters));
    return *state ? CM_OK : call->host->fail(call, CM_NO_MEMORY, "no memory for the state");
}

static inline cm_status cm_sgmv_update(const cm_call *call, const struct cm_sgmv_target *target, void *state)
{
    struct cm_sgmv_adapters *adapters = state;
    cm_status status = cm_sgmv_check(call, target);
    if (status != CM_OK)
        return status;
    if (!adapters)
        return call->host->fail(call, CM_BAD_STATE, "prepare was not called");
    if (!cm_sgmv_pack(call, &target->order, adapters))
        return call->host->fail(call, CM_NO_MEMORY, "no memory for the packed adapters");
    return CM_OK;
}

static inline cm_status cm_sgmv_run(const cm_call *call, const struct cm_sgmv_target *target, void *state)
{
    const struct cm_sgmv_adapters *adapters = state;
    cm_status status = cm_sgmv_check(call, target);
    if (status != CM_OK)
        return status;
    if (!adapters || !adapters->updated || adapters->L != call->host->dim(call, 'L') ||
        adapters->S != call->host->dim(call, 'S') || adapters->K != call->host->dim(call, 'K') ||
        adapters->N != call->host->dim(call, 'N') || adapters->r != call->host->dim(call, 'r'))
        return call->host->fail(call, CM_BAD_STATE, "update was not called for these shapes");
    return cm_sgmv_execute(call, target, adapters);
}

static inline void cm_sgmv_release(void *state)
{
    if (state)
        cm_sgmv_drop(state);
    free(state);
}

#endif
