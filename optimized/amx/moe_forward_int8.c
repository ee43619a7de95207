// SPDX-License-Identifier: Apache-2.0
// moe_forward/amx-int8: int8 weights packed once in the order of tiles, tokens grouped by expert and, inside,
// by adapter; each group quantises its rows, runs gate, up, silu, down with LoRA products of the unquantised
// rows added in fp32, then slots are summed per token. LoRA's fp32 rows, h and v, are the sum of three bf16
// parts, 8 bits each: three products in place of a rounding that would move codes of h.
// Limits: int8 weights with a scale per row, act_quant; bf16 activations and adapters; silu, no biases; the
// output any float; one thread.
// Error: int8 products are exact, all else is fp32; bf16 denormals count as zero. A token's result does not
// depend on the other tokens of the batch.
#include "optimized/amx/blocks.h"
#include "optimized/avx512/lora.h"
#include "optimized/kernels.h"
#include "optimized/layer.h"

enum { PARTS = 3 };

struct layer {
    struct cm_amx_pack weights[CM_EXPERT_KINDS][CM_PROJECTIONS]; // [experts, n, k]
    struct cm_avx512_lora lora;
    int64_t E, H, width[CM_EXPERT_KINDS]; // I and D; 0: there is no shared expert
};

static bool supports(const cm_call *call, char *reason, size_t size)
{
    const DLTensor *weight = call->host->argument(call, "w_gate");
    const char *wrong = NULL;
    if (!cm_amx_ready(reason, size) ||
        !cm_supports_layer(call, CM_HAS_INTEGERS | CM_HAS_ACT_QUANT, reason, size))
        return false;
    if (weight->dtype.code != kDLInt || weight->dtype.bits != 8)
        wrong = "only int8 weights are implemented";
    else if (call->host->dim(call, 'G') != 0)
        wrong = "only one scale per row is implemented, no groups";
    else if (call->host->attribute(call, "act_quant") == 0)
        wrong = "only act_quant=int8_row is implemented";
    else if (!cm_is_bf16(call->host->argument(call, "hidden")))
        wrong = "only bf16 activations are implemented";
    for (int n = 0; n < CM_EXPERT_KINDS * CM_PROJECTIONS && !wrong; n++)
        if (!cm_is_bf16(call->host->argument(call, cm_lora_a_names[n / CM_PROJECTIONS][n % CM_PROJECTIONS])))
            wrong = "only bf16 adapters are implemented";
    if (wrong)
        snprintf(reason, size, "%s", wrong);
    return !wrong;
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
        cm_amx_pack_close(&layer->weights[n / CM_PROJECTIONS][n % CM_PROJECTIONS]);
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
        const DLTensor *scale = call->host->argument(call, cm_scale_names[shared][p]);
        int64_t width = layer->width[shared];
        if (width > 0)
            packed = cm_amx_pack_open(&layer->weights[shared][p], weight, scale,
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
    float *x, *h;                          // what is quantised
    uint16_t *x_parts, *h_parts, *v_parts; // [1, rows, .], [PARTS, rows, .], [PARTS, rows, .]
    int8_t *codes;
    float *scale; // of the codes' rows
    int32_t *sums;
    float *gate, *up, *v, *delta, *down, *y;
    int64_t rows, x_stride, h_stride, v_stride, longest; // elements; of codes, sums and delta: longest
};

static bool work_open(const cm_call *call, const struct layer *layer, struct work *work)
{
    if (!cm_slots_open(call, &work->slots))
        return false;
    int64_t rows = work->slots.largest, I = layer->width[0], D = layer->width[1];
    work->rows = rows;
    work->x_stride = cm_avx512_stride(layer->H);
    work->h_stride = cm_avx512_stride(I > D ? I : D);
    work->v_stride = cm_avx512_stride(call->host->dim(call, 'r'));
    work->longest = work->x_stride > work->h_stride ? work->x_stride : work->h_stride;
#define TAKE(place, count)                                                                                   \
    (work->place = call->host->scratch(call, (size_t)(count) * sizeof *work->place, 64)) != NULL
    return TAKE(x, rows * work->x_stride) && TAKE(h, rows * work->h_stride) &&
           TAKE(x_parts, rows * work->x_stride) && TAKE(h_parts, PARTS * rows * work->h_stride) &&
           TAKE(v_parts, PARTS * rows * work->v_stride) && TAKE(codes, rows * work->longest) &&
           TAKE(scale, rows) && TAKE(sums, rows * work->longest) && TAKE(gate, rows * work->h_stride) &&
           TAKE(up, rows * work->h_stride) && TAKE(v, rows * work->v_stride) &&
           TAKE(delta, rows * work->longest) && TAKE(down, work->slots.count * work->x_stride) &&
           TAKE(y, layer->H);
#undef TAKE
}

// Rows of the slots begin..end that a projection reads and writes, `stride` elements apart. parts: in, for
// LoRA.
struct rows {
    const float *in;
    const uint16_t *parts;
    float *out;
    int64_t count_parts, in_stride, out_stride, begin, end;
};

// Row n of each part: what the parts before it left over, rounded to bf16; zeros up to the stride.
static void split_row(const float *from, int64_t count, int64_t stride, uint16_t *parts, int64_t part_size)
{
    for (int64_t i = 0; i < stride; i++) {
        float rest = i < count ? from[i] : 0;
        for (int part = 0; part < PARTS; part++) {
            uint16_t bits = cm_bf16_from_float(rest);
            parts[part * part_size + i] = bits;
            float left = rest - cm_bf16_to_float(bits);
            rest = isfinite(rest) ? left : 0; // infinity and NaN are in the first part
        }
    }
}

// out = in W^T with quantised rows.
static void multiply_codes(const struct cm_amx_pack *w, int64_t m, const struct rows *rows, struct work *work)
{
    int64_t count = rows->end - rows->begin;
    const float *scale = cm_amx_pack_scale(w, m);
    for (int64_t n = 0; n < count; n++) {
        int8_t *codes = work->codes + n * work->longest;
        work->scale[n] = cm_quantise_row(rows->in + n * rows->in_stride, w->k, codes);
        memset(codes + w->k, 0, (size_t)(work->longest - w->k));
    }
    cm_tiles_multiply(CM_TILES_INT8, work->codes, work->longest, count, cm_amx_pack_at(w, m),
                      cm_avx512_stride(w->n) / CM_AVX512_LANES, cm_amx_quads(w->k), false, work->sums,
                      4 * work->longest);
    for (int64_t n = 0; n < count; n++)
        for (int64_t o = 0; o < w->n; o++)
            rows->out[n * rows->out_stride + o] =
                (float)work->sums[n * work->longest + o] * (work->scale[n] * scale[o]);
}

// out = the sum of the parts of x times W^T of matrix m.
static void multiply_parts(const uint16_t *x, int64_t parts, int64_t part_size, int64_t x_stride,
                           int64_t rows, const struct cm_avx512_pack *w, int64_t m, float *out,
                           int64_t out_stride)
{
    for (int64_t part = 0; part < parts; part++)
        cm_tiles_multiply(CM_TILES_BF16, x + part * part_size, 2 * x_stride, rows, cm_avx512_pack_at(w, m, 0),
                          cm_avx512_stride(w->n) / CM_AVX512_LANES, cm_avx512_pairs(w->k), part > 0, out,
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
        int64_t rank = adapter < 0 ? 0 : pair->a[adapter].n, v_size = work->rows * work->v_stride;
        if (rank == 0)
            continue;
        const struct cm_avx512_pack *a = &pair->a[adapter], *b = &pair->b[adapter];
        float s = cm_load_float(scaling, cm_row_at(scaling, 0, 0, 0), adapter);
        multiply_parts(rows->parts + at * rows->in_stride, rows->count_parts, work->rows * rows->in_stride,
                       rows->in_stride, count, a, expert, work->v, work->v_stride);
        for (int64_t n = 0; n < count; n++)
            split_row(work->v + n * work->v_stride, rank, work->v_stride, work->v_parts + n * work->v_stride,
                      v_size);
        multiply_parts(work->v_parts, PARTS, v_size, work->v_stride, count, b, expert, work->delta,
                       work->longest);
        for (int64_t n = 0; n < count; n++)
            for (int64_t o = 0; o < b->n; o++)
                rows->out[(at + n) * rows->out_stride + o] += s * work->delta[n * work->longest + o];
    }
}

// h = silu(gate) up and its parts.
static void activate(const cm_call *call, int64_t rows, int64_t width, struct work *work)
{
    bool round_h = call->host->attribute(call, "act_quant_source") != 0;
    for (int64_t n = 0; n < rows; n++) {
        const float *gate = work->gate + n * work->h_stride, *up = work->up + n * work->h_stride;
        float *h = work->h + n * work->h_stride;
        for (int64_t i = 0; i < width; i++) {
            h[i] = gate[i] / (1 + expf(-gate[i])) * up[i];
            h[i] = round_h ? cm_bf16_to_float(cm_bf16_from_float(h[i])) : h[i];
        }
        split_row(h, width, work->h_stride, work->h_parts + n * work->h_stride, work->rows * work->h_stride);
    }
}

// The slots begin..end, all of one expert: their rows of work->down.
static void run_expert(const cm_call *call, const struct layer *layer, int64_t begin, int64_t end,
                       struct work *work)
{
    const DLTensor *hidden = call->host->argument(call, "hidden");
    int64_t expert = work->slots.slots[begin].expert, x_stride = work->x_stride, h_stride = work->h_stride;
    int shared = expert >= layer->E;
    const struct rows all[CM_PROJECTIONS] = {
        {work->x, work->x_parts, work->gate, 1, x_stride, h_stride, begin, end},
        {work->x, work->x_parts, work->up, 1, x_stride, h_stride, begin, end},
        {work->h, work->h_parts, work->down + begin * x_stride, PARTS, h_stride, x_stride, begin, end},
    };
    for (int64_t n = 0; n < end - begin; n++) {
        const char *from = cm_row_at(hidden, 0, 0, work->slots.slots[begin + n].token);
        cm_avx512_copy_row(from, layer->H, work->x_parts + n * x_stride);
        for (int64_t i = 0; i < layer->H; i++)
            work->x[n * x_stride + i] = cm_load_float(hidden, from, i);
    }
    for (int p = 0; p < CM_PROJECTIONS; p++) {
        if (p == CM_DOWN)
            activate(call, end - begin, layer->width[shared], work);
        multiply_codes(&layer->weights[shared][p], expert, &all[p], work);
        add_lora(call, &layer->lora.pairs[shared][p], expert, &all[p], work);
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

const cm_kernel cm_moe_forward_amx_int8 = {
    .size = sizeof(cm_kernel),
    .name = "moe_forward/amx-int8",
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
