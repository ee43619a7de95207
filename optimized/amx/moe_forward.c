// SPDX-License-Identifier: Apache-2.0
// moe_forward/amx: weights packed once in the order of tiles, tokens grouped by expert and, inside, by
// adapter; each group runs gate, up, silu, down with its LoRA products added in fp32, then slots are summed
// per token. Limits: activations, weights and adapters bf16, silu, no biases; the output any float; one
// thread.
// Error: v = A x and h are rounded to bf16, all else is fp32; bf16 denormals count as zero. A token's result
// does not depend on the other tokens of the batch.
#include "optimized/amx/blocks.h"
#include "optimized/avx512/lora.h"
#include "optimized/kernels.h"
#include "optimized/layer.h"

struct layer {
    struct cm_avx512_pack weights[CM_EXPERT_KINDS][CM_PROJECTIONS]; // [experts, n, k]
    struct cm_avx512_lora lora;
    int64_t E, H, width[CM_EXPERT_KINDS]; // I and D; 0: there is no shared expert
};

static bool supports(const cm_call *call, char *reason, size_t size)
{
    return cm_amx_ready(reason, size) && cm_supports_bf16_layer(call, reason, size);
}

static cm_status check(const cm_call *call)
{
    char reason[160];
    cm_status status = call->host->validate(call);
    if (status == CM_OK && !supports(call, reason, sizeof reason))
        status = call->host->fail(call, CM_UNSUPPORTED, "%s", reason);
    return status;
}

static void release(void *state)
{
    struct layer *layer = state;
    if (!layer)
        return;
    cm_avx512_lora_close(&layer->lora);
    for (int n = 0; n < CM_EXPERT_KINDS * CM_PROJECTIONS; n++)
        cm_avx512_pack_close(&layer->weights[n / CM_PROJECTIONS][n % CM_PROJECTIONS]);
    free(layer);
}

static int64_t shared_width(const cm_call *call)
{
    return call->host->argument(call, "shared_gate") ? call->host->dim(call, 'D') : 0;
}

static cm_status prepare(const cm_call *call, void **state)
{
    *state = NULL;
    cm_status status = check(call);
    if (status != CM_OK)
        return status;
    struct layer *layer = calloc(1, sizeof *layer);
    if (!layer)
        return call->host->fail(call, CM_NO_MEMORY, "no memory for the state");
    layer->E = call->host->dim(call, 'E');
    layer->H = call->host->dim(call, 'H');
    layer->width[0] = call->host->dim(call, 'I');
    layer->width[1] = shared_width(call);
    bool packed = true;
    for (int n = 0; packed && n < CM_EXPERT_KINDS * CM_PROJECTIONS; n++) {
        int shared = n / CM_PROJECTIONS, p = n % CM_PROJECTIONS;
        const DLTensor *weight = call->host->argument(call, cm_weight_names[shared][p]);
        int64_t width = layer->width[shared];
        if (width > 0)
            packed = cm_avx512_pack_open(&layer->weights[shared][p], weight, -1,
                                         p == CM_DOWN ? layer->H : width, p == CM_DOWN ? width : layer->H);
    }
    if (!packed) {
        release(layer);
        return call->host->fail(call, CM_NO_MEMORY, "no memory for the packed weights");
    }
    *state = layer;
    return CM_OK;
}

// A call of the shapes for which prepare made the state.
static cm_status check_state(const cm_call *call, const struct layer *layer)
{
    cm_status status = check(call);
    if (status != CM_OK)
        return status;
    if (!layer)
        return call->host->fail(call, CM_BAD_STATE, "prepare was not called");
    if (layer->E != call->host->dim(call, 'E') || layer->H != call->host->dim(call, 'H') ||
        layer->width[0] != call->host->dim(call, 'I') || layer->width[1] != shared_width(call))
        return call->host->fail(call, CM_BAD_STATE, "prepare was called for other shapes");
    return CM_OK;
}

static cm_status update(const cm_call *call, void *state)
{
    struct layer *layer = state;
    cm_status status = check_state(call, layer);
    if (status == CM_OK && !cm_avx512_lora_update(&layer->lora, call))
        status = call->host->fail(call, CM_NO_MEMORY, "no memory for the packed adapters");
    return status;
}

// Scratch memory of one run. Rows are those of the busiest expert, but `down` has one for each slot.
struct work {
    struct cm_slots slots;
    uint16_t *x, *h, *v_rounded;
    float *gate, *up, *v, *delta, *down, *y;
    int64_t x_stride, h_stride, v_stride, delta_stride; // elements
};

static bool work_open(const cm_call *call, const struct layer *layer, struct work *work)
{
    if (!cm_slots_open(call, &work->slots))
        return false;
    int64_t rows = work->slots.largest, I = layer->width[0], D = layer->width[1];
    work->x_stride = cm_avx512_stride(layer->H);
    work->h_stride = cm_avx512_stride(I > D ? I : D);
    work->v_stride = cm_avx512_stride(call->host->dim(call, 'r'));
    work->delta_stride = work->x_stride > work->h_stride ? work->x_stride : work->h_stride;
#define TAKE(place, count)                                                                                   \
    (work->place = call->host->scratch(call, (size_t)(count) * sizeof *work->place, 64)) != NULL
    return TAKE(x, rows * work->x_stride) && TAKE(h, rows * work->h_stride) &&
           TAKE(v_rounded, rows * work->v_stride) && TAKE(gate, rows * work->h_stride) &&
           TAKE(up, rows * work->h_stride) && TAKE(v, rows * work->v_stride) &&
           TAKE(delta, rows * work->delta_stride) && TAKE(down, work->slots.count * work->x_stride) &&
           TAKE(y, layer->H);
#undef TAKE
}

// Rows of the slots begin..end that a projection reads and writes, `stride` elements apart.
struct rows {
    const uint16_t *in;
    float *out;
    int64_t in_stride, out_stride, begin, end;
};

// out = x W^T of matrix m: the whole of its columns.
static void multiply(const uint16_t *x, int64_t x_stride, int64_t rows, const struct cm_avx512_pack *w,
                     int64_t m, float *out, int64_t out_stride)
{
    cm_tiles_multiply(CM_TILES_BF16, x, 2 * x_stride, rows, cm_avx512_pack_at(w, m, 0),
                      cm_avx512_stride(w->n) / CM_AVX512_LANES, cm_avx512_pairs(w->k), false, out,
                      4 * out_stride);
}

// out += s (in A^T) B^T for each run of slots of one adapter.
static void add_lora(const cm_call *call, const struct cm_avx512_pair *pair, int64_t expert,
                     const struct rows *rows, struct work *work)
{
    const DLTensor *scaling = call->host->argument(call, "lora_scaling");
    for (int64_t first = rows->begin, last; pair->a && first < rows->end; first = last) {
        last = cm_slots_adapter_end(&work->slots, first, rows->end);
        int64_t adapter = work->slots.slots[first].adapter, count = last - first, at = first - rows->begin;
        int64_t rank = adapter < 0 ? 0 : pair->a[adapter].n;
        if (rank == 0)
            continue;
        const struct cm_avx512_pack *a = &pair->a[adapter], *b = &pair->b[adapter];
        float s = cm_load_float(scaling, cm_row_at(scaling, 0, 0, 0), adapter);
        multiply(rows->in + at * rows->in_stride, rows->in_stride, count, a, expert, work->v, work->v_stride);
        for (int64_t n = 0; n < count; n++)
            cm_avx512_round(work->v + n * work->v_stride, rank, work->v_rounded + n * work->v_stride);
        multiply(work->v_rounded, work->v_stride, count, b, expert, work->delta, work->delta_stride);
        for (int64_t n = 0; n < count; n++)
            for (int64_t o = 0; o < b->n; o++)
                rows->out[(at + n) * rows->out_stride + o] += s * work->delta[n * work->delta_stride + o];
    }
}

// The slots begin..end, all of one expert: their rows of work->down.
static void run_expert(const cm_call *call, const struct layer *layer, int64_t begin, int64_t end,
                       struct work *work)
{
    const DLTensor *hidden = call->host->argument(call, "hidden");
    int64_t expert = work->slots.slots[begin].expert;
    int shared = expert >= layer->E;
    const struct rows all[CM_PROJECTIONS] = {
        {work->x, work->gate, work->x_stride, work->h_stride, begin, end},
        {work->x, work->up, work->x_stride, work->h_stride, begin, end},
        {work->h, work->down + begin * work->x_stride, work->h_stride, work->x_stride, begin, end},
    };
    for (int64_t n = 0; n < end - begin; n++)
        cm_avx512_copy_row(cm_row_at(hidden, 0, 0, work->slots.slots[begin + n].token), layer->H,
                           work->x + n * work->x_stride);
    for (int p = 0; p < CM_PROJECTIONS; p++) {
        const struct rows *rows = &all[p];
        for (int64_t n = 0; p == CM_DOWN && n < end - begin; n++)
            cm_avx512_swiglu(work->gate + n * work->h_stride, work->up + n * work->h_stride,
                             layer->width[shared], work->h + n * work->h_stride);
        multiply(rows->in, rows->in_stride, end - begin, &layer->weights[shared][p], expert, rows->out,
                 rows->out_stride);
        add_lora(call, &layer->lora.pairs[shared][p], expert, rows, work);
    }
}

static cm_status run(const cm_call *call, void *state)
{
    const struct layer *layer = state;
    struct work work;
    cm_status status = check_state(call, layer);
    if (status != CM_OK)
        return status;
    if (!cm_avx512_lora_fits(&layer->lora, call))
        return call->host->fail(call, CM_BAD_STATE, "update was not called for these adapters");
    if (!work_open(call, layer, &work))
        return call->host->fail(call, CM_NO_MEMORY, "no scratch memory");
    for (int64_t begin = 0, end; begin < work.slots.count; begin = end) {
        end = cm_slots_expert_end(&work.slots, begin);
        run_expert(call, layer, begin, end, &work);
    }
    cm_slots_combine(call, &work.slots, work.down, work.x_stride, work.y);
    return CM_OK;
}

const cm_kernel cm_moe_forward_amx = {
    .size = sizeof(cm_kernel),
    .name = "moe_forward/amx",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_MODEL,
    .supports = supports,
    .prepare = prepare,
    .update = update,
    .run = run,
    .release = release,
    .emulated = cm_amx_emulated,
    .row_invariant = true,
};
