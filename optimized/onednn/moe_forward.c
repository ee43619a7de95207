// SPDX-License-Identifier: Apache-2.0
// moe_forward/onednn: what one builds from oneDNN's matmul. Per expert, gather the tokens that chose it; one
// product for gate and up together and one for down on weights that oneDNN laid out; per run of tokens of one
// adapter two small products for each projection, on the adapters as they lie; silu and sums in C.
// Limits: activations, weights and adapters bf16, silu, no biases; the output any float. A primitive is kept
// for each number of tokens that an expert or adapter has had; threads are OpenMP's.
// Error: v = A x and h are rounded to bf16, all else is fp32; bf16 denormals may count as zero.
#include "optimized/kernels.h"
#include "optimized/layer.h"
#include "optimized/onednn/product.h"

#define ARGUMENT(name) call->host->argument(call, name)

// Weights of the routed experts or of the shared one, in oneDNN's layouts: gate over up [2 width, H] and down
// [H, width] of each expert.
struct ffn {
    int64_t width, experts; // I or D; 0: there is no shared expert
    dnnl_memory_desc_t gate_up_layout, down_layout;
    size_t gate_up_bytes, down_bytes; // of one expert
    char *gate_up, *down;
};

struct layer {
    struct cm_onednn onednn;
    struct ffn routed, shared;
    int64_t H;
};

static bool supports(const cm_call *call, char *reason, size_t size)
{
    if ((dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core) != dnnl_cpu_isa_avx512_core) {
        snprintf(reason, size, "oneDNN has no bf16 products for this CPU (no AVX-512)");
        return false;
    }
    return cm_supports_bf16_layer(call, reason, size);
}

static cm_status check(const cm_call *call)
{
    char reason[128];
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
    free(layer->routed.gate_up);
    free(layer->routed.down);
    free(layer->shared.gate_up);
    free(layer->shared.down);
    cm_onednn_close(&layer->onednn);
    free(layer);
}

// Rows of a weight as they lie, behind each other.
static void gather(const DLTensor *tensor, int64_t expert, int64_t rows, int64_t columns, uint16_t *to)
{
    for (int64_t row = 0; row < rows; row++)
        memcpy(to + row * columns, cm_row_at(tensor, 0, expert, row), (size_t)columns * sizeof *to);
}

static char *new_memory(size_t bytes)
{
    return aligned_alloc(64, (bytes + 64) / 64 * 64);
}

static cm_status pack_ffn(const cm_call *call, struct layer *layer, struct ffn *ffn, const DLTensor *gate,
                          const DLTensor *up, const DLTensor *down)
{
    int64_t H = layer->H, width = ffn->width;
    struct cm_onednn_shape to_gate_up = {.n = 2 * width, .k = H, .out = dnnl_f32, .in = dnnl_bf16};
    struct cm_onednn_shape to_down = {.n = H, .k = width, .out = dnnl_f32, .in = dnnl_bf16};
    dnnl_status_t status = cm_onednn_layout(&layer->onednn, to_gate_up, &ffn->gate_up_layout);
    if (status == dnnl_success)
        status = cm_onednn_layout(&layer->onednn, to_down, &ffn->down_layout);
    if (status != dnnl_success)
        return cm_onednn_fail(call, status, "a product of bf16");
    ffn->gate_up_bytes = (dnnl_memory_desc_get_size(&ffn->gate_up_layout) + 63) / 64 * 64;
    ffn->down_bytes = (dnnl_memory_desc_get_size(&ffn->down_layout) + 63) / 64 * 64;
    ffn->gate_up = new_memory((size_t)ffn->experts * ffn->gate_up_bytes);
    ffn->down = new_memory((size_t)ffn->experts * ffn->down_bytes);
    uint16_t *plain = call->host->scratch(call, (size_t)(2 * width * H) * sizeof *plain, 64);
    if (!ffn->gate_up || !ffn->down || !plain)
        return call->host->fail(call, CM_NO_MEMORY, "no memory for the packed weights");
    for (int64_t e = 0; e < ffn->experts && status == dnnl_success; e++) {
        gather(gate, e, width, H, plain);
        gather(up, e, width, H, plain + width * H);
        status = cm_onednn_pack(&layer->onednn, plain, 2 * width, H, &ffn->gate_up_layout,
                                ffn->gate_up + (size_t)e * ffn->gate_up_bytes);
        gather(down, e, H, width, plain);
        if (status == dnnl_success)
            status = cm_onednn_pack(&layer->onednn, plain, H, width, &ffn->down_layout,
                                    ffn->down + (size_t)e * ffn->down_bytes);
    }
    return status == dnnl_success ? CM_OK : cm_onednn_fail(call, status, "to pack weights");
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
    dnnl_status_t opened = cm_onednn_open(&layer->onednn);
    if (opened != dnnl_success) {
        status = cm_onednn_fail(call, opened, "an engine for this CPU");
        goto done;
    }
    layer->onednn.threads = call->threads;
    layer->H = call->host->dim(call, 'H');
    layer->routed.width = call->host->dim(call, 'I');
    layer->routed.experts = call->host->dim(call, 'E');
    layer->shared.width = ARGUMENT("shared_gate") ? call->host->dim(call, 'D') : 0;
    layer->shared.experts = layer->shared.width > 0;
    status = pack_ffn(call, layer, &layer->routed, ARGUMENT("w_gate"), ARGUMENT("w_up"), ARGUMENT("w_down"));
    if (status == CM_OK && layer->shared.width > 0)
        status = pack_ffn(call, layer, &layer->shared, ARGUMENT("shared_gate"), ARGUMENT("shared_up"),
                          ARGUMENT("shared_down"));
done:
    if (status != CM_OK)
        release(layer);
    else
        *state = layer;
    return status;
}

// Scratch memory of one run. Rows are those of the busiest expert, but `down` has one for each slot.
struct work {
    struct cm_slots slots;
    uint16_t *x, *h, *v;               // [., H], [., width], [., rank]
    float *gate_up, *delta, *down, *y; // [., 2 width], [., H or width], [slots, H], [H]
};

static bool work_open(const cm_call *call, const struct layer *layer, struct work *work)
{
    if (!cm_slots_open(call, &work->slots))
        return false;
    int64_t I = layer->routed.width, D = layer->shared.width, H = layer->H, rows = work->slots.largest;
    int64_t width = I > D ? I : D, longest = H > width ? H : width;
#define TAKE(place, count)                                                                                   \
    (work->place = call->host->scratch(call, (size_t)(count) * sizeof *work->place, 64)) != NULL
    return TAKE(x, rows * H) && TAKE(h, rows * width) && TAKE(v, rows * call->host->dim(call, 'r')) &&
           TAKE(gate_up, rows * 2 * width) && TAKE(delta, rows * longest) &&
           TAKE(down, work->slots.count * H) && TAKE(y, H);
#undef TAKE
}

// out[n, :] += s B (A in[n, :]) for the slots begin..end of one expert, `out_stride` apart.
static dnnl_status_t add_lora(const cm_call *call, struct layer *layer, struct work *work, const char *name,
                              int64_t begin, int64_t end, const uint16_t *in, int64_t n_in, float *out,
                              int64_t n_out, int64_t out_stride)
{
    const DLTensor *rank = ARGUMENT("lora_rank"), *scaling = ARGUMENT("lora_scaling");
    int64_t expert = work->slots.slots[begin].expert;
    bool shared = expert >= layer->routed.experts;
    char a_name[32], b_name[32];
    snprintf(a_name, sizeof a_name, "%slora_a_%s", shared ? "shared_" : "", name);
    snprintf(b_name, sizeof b_name, "%slora_b_%s", shared ? "shared_" : "", name);
    const DLTensor *a = ARGUMENT(a_name), *b = ARGUMENT(b_name);
    dnnl_status_t status = dnnl_success;
    for (int64_t first = begin, last; a && first < end && status == dnnl_success; first = last) {
        last = cm_slots_adapter_end(&work->slots, first, end);
        int64_t adapter = work->slots.slots[first].adapter, rows = last - first;
        int64_t r = adapter < 0 ? 0 : cm_load_int(rank, 0, adapter);
        if (r == 0)
            continue;
        float s = cm_load_float(scaling, cm_row_at(scaling, 0, 0, 0), adapter);
        int64_t second = shared ? adapter : expert; // a shared tensor has no expert dimension
        struct cm_onednn_shape to_v = {rows, r, n_in, a->strides[a->ndim - 2], dnnl_bf16, dnnl_bf16};
        struct cm_onednn_shape to_delta = {rows, n_out, r, b->strides[b->ndim - 2], dnnl_f32, dnnl_bf16};
        status = cm_onednn_multiply(&layer->onednn, to_v, in + (first - begin) * n_in,
                                    cm_row_at(a, adapter, second, 0), NULL, work->v);
        if (status == dnnl_success)
            status = cm_onednn_multiply(&layer->onednn, to_delta, work->v, cm_row_at(b, adapter, second, 0),
                                        NULL, work->delta);
        for (int64_t row = 0; row < rows && status == dnnl_success; row++)
            for (int64_t o = 0; o < n_out; o++)
                out[(first - begin + row) * out_stride + o] += s * work->delta[row * n_out + o];
    }
    return status;
}

// The slots begin..end, all of one expert: their rows of work->down.
static dnnl_status_t run_expert(const cm_call *call, struct layer *layer, int64_t begin, int64_t end,
                                struct work *work)
{
    const DLTensor *hidden = ARGUMENT("hidden");
    int64_t H = layer->H, rows = end - begin, expert = work->slots.slots[begin].expert;
    bool shared = expert >= layer->routed.experts;
    const struct ffn *ffn = shared ? &layer->shared : &layer->routed;
    int64_t width = ffn->width;
    size_t index = shared ? 0 : (size_t)expert;
    for (int64_t row = 0; row < rows; row++)
        memcpy(work->x + row * H, cm_row_at(hidden, 0, 0, work->slots.slots[begin + row].token),
               (size_t)H * sizeof *work->x);
    dnnl_status_t status = cm_onednn_multiply(
        &layer->onednn, (struct cm_onednn_shape){rows, 2 * width, H, 0, dnnl_f32, dnnl_bf16}, work->x,
        ffn->gate_up + index * ffn->gate_up_bytes, &ffn->gate_up_layout, work->gate_up);
    if (status == dnnl_success)
        status = add_lora(call, layer, work, "gate", begin, end, work->x, H, work->gate_up, width, 2 * width);
    if (status == dnnl_success)
        status = add_lora(call, layer, work, "up", begin, end, work->x, H, work->gate_up + width, width,
                          2 * width);
    if (status != dnnl_success)
        return status;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < width; i++) {
            float g = work->gate_up[row * 2 * width + i], u = work->gate_up[row * 2 * width + width + i];
            work->h[row * width + i] = cm_bf16_from_float(g / (1 + expf(-g)) * u);
        }
    status = cm_onednn_multiply(
        &layer->onednn, (struct cm_onednn_shape){rows, H, width, 0, dnnl_f32, dnnl_bf16}, work->h,
        ffn->down + index * ffn->down_bytes, &ffn->down_layout, work->down + begin * H);
    if (status == dnnl_success)
        status =
            add_lora(call, layer, work, "down", begin, end, work->h, width, work->down + begin * H, H, H);
    return status;
}

static cm_status run(const cm_call *call, void *state)
{
    struct layer *layer = state;
    struct work work;
    cm_status status = check(call);
    if (status != CM_OK)
        return status;
    if (!layer)
        return call->host->fail(call, CM_BAD_STATE, "prepare was not called");
    if (layer->H != call->host->dim(call, 'H') || layer->routed.experts != call->host->dim(call, 'E') ||
        layer->routed.width != call->host->dim(call, 'I') ||
        layer->shared.width != (ARGUMENT("shared_gate") ? call->host->dim(call, 'D') : 0))
        return call->host->fail(call, CM_BAD_STATE, "prepare was called for other shapes");
    layer->onednn.threads = call->threads;
    if (!work_open(call, layer, &work))
        return call->host->fail(call, CM_NO_MEMORY, "no scratch memory");
    for (int64_t begin = 0, end; begin < work.slots.count; begin = end) {
        end = cm_slots_expert_end(&work.slots, begin);
        dnnl_status_t product = run_expert(call, layer, begin, end, &work);
        if (product != dnnl_success)
            return cm_onednn_fail(call, product, "a product of this shape");
    }
    cm_slots_combine(call, &work.slots, work.down, layer->H, work.y);
    return CM_OK;
}

const cm_kernel cm_moe_forward_onednn = {
    .size = sizeof(cm_kernel),
    .name = "moe_forward/onednn",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_MODEL,
    .supports = supports,
    .prepare = prepare,
    .run = run,
    .release = release,
};
