// SPDX-License-Identifier: Apache-2.0
// moe_forward/avx512: weights packed once for VDPBF16PS, tokens grouped by expert and, inside, by adapter;
// each group runs gate, up, silu, down with its LoRA products added in fp32, then slots are summed per token.
// Limits: activations, weights and adapters bf16, silu, no biases; the output any float; one thread.
// Error: v = A x and h are rounded to bf16, all else is fp32; bf16 denormals count as zero. A token's result
// does not depend on the other tokens of the batch.
#include "optimized/avx512/products.h"
#include "optimized/kernels.h"
#include "optimized/layer.h"

enum { GATE, UP, DOWN, PROJECTIONS };

// W [experts, n_out, n_in], A [L] of [experts, rank, n_in], B [L] of [experts, n_out, rank].
struct projection {
    struct cm_avx512_pack weight, *a, *b;
};

struct ffn {
    struct projection projections[PROJECTIONS];
    int64_t width; // I or D; 0: there is no shared expert
};

struct layer {
    struct ffn routed, shared;
    int64_t E, H, L; // L: of the last update
    bool updated;    // the adapters are packed
    bool adapters;   // there are any
};

static const char *const weight_names[2][PROJECTIONS] = {{"w_gate", "w_up", "w_down"},
                                                         {"shared_gate", "shared_up", "shared_down"}};
static const char *const a_names[2][PROJECTIONS] = {
    {"lora_a_gate", "lora_a_up", "lora_a_down"},
    {"shared_lora_a_gate", "shared_lora_a_up", "shared_lora_a_down"}};
static const char *const b_names[2][PROJECTIONS] = {
    {"lora_b_gate", "lora_b_up", "lora_b_down"},
    {"shared_lora_b_gate", "shared_lora_b_up", "shared_lora_b_down"}};

static bool supports(const cm_call *call, char *reason, size_t size)
{
    return cm_avx512_available(reason, size) && cm_supports_bf16_layer(call, reason, size);
}

static cm_status check(const cm_call *call)
{
    char reason[128];
    cm_status status = call->host->validate(call);
    if (status == CM_OK && !supports(call, reason, sizeof reason))
        status = call->host->fail(call, CM_UNSUPPORTED, "%s", reason);
    return status;
}

static void drop_adapters(struct layer *layer)
{
    for (int n = 0; n < 2 * PROJECTIONS; n++) {
        struct ffn *ffn = n < PROJECTIONS ? &layer->routed : &layer->shared;
        struct projection *p = &ffn->projections[n % PROJECTIONS];
        for (int64_t adapter = 0; adapter < layer->L; adapter++) {
            if (p->a)
                cm_avx512_pack_close(&p->a[adapter]);
            if (p->b)
                cm_avx512_pack_close(&p->b[adapter]);
        }
        free(p->a);
        free(p->b);
        p->a = p->b = NULL;
    }
    layer->updated = false;
}

static void release(void *state)
{
    struct layer *layer = state;
    if (!layer)
        return;
    drop_adapters(layer);
    for (int p = 0; p < PROJECTIONS; p++) {
        cm_avx512_pack_close(&layer->routed.projections[p].weight);
        cm_avx512_pack_close(&layer->shared.projections[p].weight);
    }
    free(layer);
}

static bool pack_weights(const cm_call *call, struct ffn *ffn, bool shared, int64_t H)
{
    for (int p = 0; ffn->width > 0 && p < PROJECTIONS; p++) {
        int64_t n_out = p == DOWN ? H : ffn->width, n_in = p == DOWN ? ffn->width : H;
        if (!cm_avx512_pack_open(&ffn->projections[p].weight,
                                 call->host->argument(call, weight_names[shared][p]), -1, n_out, n_in))
            return false;
    }
    return true;
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
    layer->routed.width = call->host->dim(call, 'I');
    layer->shared.width = call->host->argument(call, "shared_gate") ? call->host->dim(call, 'D') : 0;
    if (!pack_weights(call, &layer->routed, false, layer->H) ||
        !pack_weights(call, &layer->shared, true, layer->H)) {
        release(layer);
        return call->host->fail(call, CM_NO_MEMORY, "no memory for the packed weights");
    }
    *state = layer;
    return CM_OK;
}

// The adapters of one projection, each at its own rank: what lies beyond it is not read.
static bool pack_adapters(const cm_call *call, struct projection *p, const DLTensor *a, const DLTensor *b,
                          int64_t L)
{
    const DLTensor *rank = call->host->argument(call, "lora_rank");
    p->a = calloc((size_t)L, sizeof *p->a);
    p->b = calloc((size_t)L, sizeof *p->b);
    if (!p->a || !p->b)
        return false;
    for (int64_t adapter = 0; adapter < L; adapter++) {
        int64_t r = cm_load_int(rank, 0, adapter);
        if (!cm_avx512_pack_open(&p->a[adapter], a, adapter, r, p->weight.k) ||
            !cm_avx512_pack_open(&p->b[adapter], b, adapter, p->weight.n, r))
            return false;
    }
    return true;
}

// A call of the shapes for which prepare made the state.
static cm_status check_state(const cm_call *call, const struct layer *layer)
{
    cm_status status = check(call);
    if (status != CM_OK)
        return status;
    if (!layer)
        return call->host->fail(call, CM_BAD_STATE, "prepare was not called");
    bool shared = call->host->argument(call, "shared_gate") != NULL;
    if (layer->E != call->host->dim(call, 'E') || layer->H != call->host->dim(call, 'H') ||
        layer->routed.width != call->host->dim(call, 'I') ||
        layer->shared.width != (shared ? call->host->dim(call, 'D') : 0))
        return call->host->fail(call, CM_BAD_STATE, "prepare was called for other shapes");
    return CM_OK;
}

static cm_status update(const cm_call *call, void *state)
{
    struct layer *layer = state;
    cm_status status = check_state(call, layer);
    if (status != CM_OK)
        return status;
    drop_adapters(layer);
    layer->L = call->host->dim(call, 'L');
    layer->adapters = call->host->argument(call, "lora_rank") != NULL;
    for (int n = 0; n < 2 * PROJECTIONS; n++) {
        struct ffn *ffn = n < PROJECTIONS ? &layer->routed : &layer->shared;
        int p = n % PROJECTIONS, shared = n / PROJECTIONS;
        const DLTensor *a = call->host->argument(call, a_names[shared][p]);
        const DLTensor *b = call->host->argument(call, b_names[shared][p]);
        if (!a || ffn->width == 0 || layer->L == 0)
            continue;
        if (!pack_adapters(call, &ffn->projections[p], a, b, layer->L)) {
            drop_adapters(layer);
            return call->host->fail(call, CM_NO_MEMORY, "no memory for the packed adapters");
        }
    }
    layer->updated = true;
    return CM_OK;
}

// Scratch memory of one run. Rows are those of the busiest expert, but `down` has one for each slot.
struct work {
    struct cm_slots slots;
    uint16_t *x, *h, *v_rounded;
    float *gate, *up, *v, *down, *y;
    int64_t x_stride, h_stride, v_stride; // elements
};

static bool work_open(const cm_call *call, const struct layer *layer, struct work *work)
{
    if (!cm_slots_open(call, &work->slots))
        return false;
    int64_t I = layer->routed.width, D = layer->shared.width, rows = work->slots.largest;
    work->x_stride = cm_avx512_stride(layer->H);
    work->h_stride = cm_avx512_stride(I > D ? I : D);
    work->v_stride = cm_avx512_stride(call->host->dim(call, 'r'));
#define TAKE(place, count)                                                                                   \
    (work->place = call->host->scratch(call, (size_t)(count) * sizeof *work->place, 64)) != NULL
    return TAKE(x, rows * work->x_stride) && TAKE(h, rows * work->h_stride) &&
           TAKE(v_rounded, rows * work->v_stride) && TAKE(gate, rows * work->h_stride) &&
           TAKE(up, rows * work->h_stride) && TAKE(v, rows * work->v_stride) &&
           TAKE(down, work->slots.count * work->x_stride) && TAKE(y, layer->H);
#undef TAKE
}

// out = in W^T, then out += s (in A^T) B^T for each run of slots of one adapter.
static void project(const cm_call *call, const struct projection *p, int64_t expert, int64_t begin,
                    int64_t end, struct work *work, const uint16_t *in, int64_t in_stride, float *out,
                    int64_t out_stride)
{
    const DLTensor *scaling = call->host->argument(call, "lora_scaling");
    int64_t panels = cm_avx512_stride(p->weight.n) / CM_AVX512_LANES, pairs = cm_avx512_pairs(p->weight.k);
    cm_avx512_multiply(in, in_stride, end - begin, cm_avx512_pack_at(&p->weight, expert, 0), panels, pairs, 1,
                       false, out, out_stride);
    for (int64_t first = begin, last; p->a && first < end; first = last) {
        last = cm_slots_adapter_end(&work->slots, first, end);
        int64_t adapter = work->slots.slots[first].adapter, rows = last - first;
        int64_t rank = adapter < 0 ? 0 : p->a[adapter].n;
        if (rank == 0)
            continue;
        float s = cm_load_float(scaling, cm_row_at(scaling, 0, 0, 0), adapter);
        cm_avx512_multiply(
            in + (first - begin) * in_stride, in_stride, rows, cm_avx512_pack_at(&p->a[adapter], expert, 0),
            cm_avx512_stride(rank) / CM_AVX512_LANES, pairs, 1, false, work->v, work->v_stride);
        for (int64_t row = 0; row < rows; row++)
            cm_avx512_round(work->v + row * work->v_stride, rank, work->v_rounded + row * work->v_stride);
        cm_avx512_multiply(work->v_rounded, work->v_stride, rows,
                           cm_avx512_pack_at(&p->b[adapter], expert, 0), panels, cm_avx512_pairs(rank), s,
                           true, out + (first - begin) * out_stride, out_stride);
    }
}

// The slots begin..end, all of one expert: their rows of work->down.
static void run_expert(const cm_call *call, const struct layer *layer, int64_t begin, int64_t end,
                       struct work *work)
{
    const DLTensor *hidden = call->host->argument(call, "hidden");
    int64_t expert = work->slots.slots[begin].expert;
    const struct ffn *ffn = expert < layer->E ? &layer->routed : &layer->shared;
    for (int64_t n = begin; n < end; n++)
        cm_avx512_copy_row(cm_row_at(hidden, 0, 0, work->slots.slots[n].token), layer->H,
                           work->x + (n - begin) * work->x_stride);
    project(call, &ffn->projections[GATE], expert, begin, end, work, work->x, work->x_stride, work->gate,
            work->h_stride);
    project(call, &ffn->projections[UP], expert, begin, end, work, work->x, work->x_stride, work->up,
            work->h_stride);
    for (int64_t row = 0; row < end - begin; row++)
        cm_avx512_swiglu(work->gate + row * work->h_stride, work->up + row * work->h_stride, ffn->width,
                         work->h + row * work->h_stride);
    project(call, &ffn->projections[DOWN], expert, begin, end, work, work->h, work->h_stride,
            work->down + begin * work->x_stride, work->x_stride);
}

static cm_status run(const cm_call *call, void *state)
{
    const struct layer *layer = state;
    struct work work;
    cm_status status = check_state(call, layer);
    if (status != CM_OK)
        return status;
    bool adapters = call->host->argument(call, "lora_rank") != NULL;
    if (layer->L != call->host->dim(call, 'L') || layer->adapters != adapters ||
        (adapters && !layer->updated))
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

const cm_kernel cm_moe_forward_avx512 = {
    .size = sizeof(cm_kernel),
    .name = "moe_forward/avx512",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_MODEL,
    .supports = supports,
    .prepare = prepare,
    .update = update,
    .run = run,
    .release = release,
};
