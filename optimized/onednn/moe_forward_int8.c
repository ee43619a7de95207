// SPDX-License-Identifier: Apache-2.0
// moe_forward/onednn-int8: what one builds from oneDNN's s8 matmul. Per expert, gather the tokens that chose
// it and quantise their rows; one s32 product for gate and up together and one for down on weights that
// oneDNN laid out; rows and columns get their scales in C. LoRA sees the unquantised rows, in fp32: two small
// products per run of tokens of one adapter, on copies of its matrices. Limits: int8 weights with a scale per
// row, act_quant, silu, no biases; x, adapters and output any float. Error: integer products are exact, all
// else is fp32.
#include "optimized/kernels.h"
#include "optimized/layer.h"
#include "optimized/onednn/product.h"

#define ARGUMENT(name) call->host->argument(call, name)

// Weights of the routed experts or of the shared one: gate over up [2 width, H] and down [H, width] of each
// expert in oneDNN's layouts, and the scales of their rows [experts, 2 width] and [experts, H].
struct ffn {
    int64_t width, experts; // I or D; 0: there is no shared expert
    dnnl_memory_desc_t gate_up_layout, down_layout;
    size_t gate_up_bytes, down_bytes; // of one expert
    char *gate_up, *down;
    float *gate_up_scale, *down_scale;
};

struct layer {
    struct cm_onednn onednn;
    struct ffn routed, shared;
    int64_t H;
};

static bool supports(const cm_call *call, char *reason, size_t size)
{
    const DLTensor *weight = ARGUMENT("w_gate");
    if ((dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core_vnni) != dnnl_cpu_isa_avx512_core_vnni) {
        snprintf(reason, size, "oneDNN has no exact s8 products for this CPU (no AVX-512 VNNI)");
        return false;
    }
    if (weight->dtype.code != kDLInt || weight->dtype.bits != 8) {
        snprintf(reason, size, "only int8 weights are implemented");
        return false;
    }
    if (call->host->dim(call, 'G') != 0) {
        snprintf(reason, size, "only one scale per row is implemented, no groups");
        return false;
    }
    if (call->host->attribute(call, "act_quant") == 0) {
        snprintf(reason, size, "only act_quant=int8_row is implemented");
        return false;
    }
    return cm_supports_layer(call, CM_HAS_INTEGERS | CM_HAS_ACT_QUANT, reason, size);
}

static cm_status check(const cm_call *call)
{
    char reason[128];
    cm_status status = call->host->validate(call);
    if (status == CM_OK && !supports(call, reason, sizeof reason))
        status = call->host->fail(call, CM_UNSUPPORTED, "%s", reason);
    return status;
}

static void close_ffn(struct ffn *ffn)
{
    free(ffn->gate_up);
    free(ffn->down);
    free(ffn->gate_up_scale);
    free(ffn->down_scale);
}

static void release(void *state)
{
    struct layer *layer = state;
    if (!layer)
        return;
    close_ffn(&layer->routed);
    close_ffn(&layer->shared);
    cm_onednn_close(&layer->onednn);
    free(layer);
}

// Rows of a weight behind each other, and their scales.
static void gather(const DLTensor *tensor, const DLTensor *scales, int64_t expert, int64_t rows,
                   int64_t columns, int8_t *to, float *to_scale)
{
    for (int64_t row = 0; row < rows; row++) {
        memcpy(to + row * columns, cm_row_at(tensor, 0, expert, row), (size_t)columns);
        to_scale[row] = cm_load_float(scales, cm_row_at(scales, 0, expert, row), 0);
    }
}

static void *new_memory(size_t bytes)
{
    return aligned_alloc(64, (bytes + 64) / 64 * 64);
}

static cm_status pack_ffn(const cm_call *call, struct layer *layer, struct ffn *ffn,
                          const DLTensor *const weights[3], const DLTensor *const scales[3])
{
    int64_t H = layer->H, width = ffn->width;
    size_t experts = (size_t)ffn->experts;
    struct cm_onednn_shape to_gate_up = {.n = 2 * width, .k = H, .out = dnnl_s32, .in = dnnl_s8};
    struct cm_onednn_shape to_down = {.n = H, .k = width, .out = dnnl_s32, .in = dnnl_s8};
    dnnl_status_t status = cm_onednn_layout(&layer->onednn, to_gate_up, &ffn->gate_up_layout);
    if (status == dnnl_success)
        status = cm_onednn_layout(&layer->onednn, to_down, &ffn->down_layout);
    if (status != dnnl_success)
        return cm_onednn_fail(call, status, "a product of s8");
    ffn->gate_up_bytes = (dnnl_memory_desc_get_size(&ffn->gate_up_layout) + 63) / 64 * 64;
    ffn->down_bytes = (dnnl_memory_desc_get_size(&ffn->down_layout) + 63) / 64 * 64;
    ffn->gate_up = new_memory(experts * ffn->gate_up_bytes);
    ffn->down = new_memory(experts * ffn->down_bytes);
    ffn->gate_up_scale = new_memory(experts * (size_t)(2 * width) * sizeof(float));
    ffn->down_scale = new_memory(experts * (size_t)H * sizeof(float));
    int8_t *plain = call->host->scratch(call, (size_t)(2 * width * H), 64);
    if (!ffn->gate_up || !ffn->down || !ffn->gate_up_scale || !ffn->down_scale || !plain)
        return call->host->fail(call, CM_NO_MEMORY, "no memory for the packed weights");
    for (int64_t e = 0; e < ffn->experts && status == dnnl_success; e++) {
        float *scale = ffn->gate_up_scale + e * 2 * width;
        gather(weights[0], scales[0], e, width, H, plain, scale);
        gather(weights[1], scales[1], e, width, H, plain + width * H, scale + width);
        status = cm_onednn_pack(&layer->onednn, plain, 2 * width, H, &ffn->gate_up_layout,
                                ffn->gate_up + (size_t)e * ffn->gate_up_bytes);
        gather(weights[2], scales[2], e, H, width, plain, ffn->down_scale + e * H);
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
    const DLTensor *routed[] = {ARGUMENT("w_gate"), ARGUMENT("w_up"), ARGUMENT("w_down")};
    const DLTensor *routed_scales[] = {ARGUMENT("w_gate_scale"), ARGUMENT("w_up_scale"),
                                       ARGUMENT("w_down_scale")};
    const DLTensor *shared[] = {ARGUMENT("shared_gate"), ARGUMENT("shared_up"), ARGUMENT("shared_down")};
    const DLTensor *shared_scales[] = {ARGUMENT("shared_gate_scale"), ARGUMENT("shared_up_scale"),
                                       ARGUMENT("shared_down_scale")};
    layer->onednn.threads = call->threads;
    layer->H = call->host->dim(call, 'H');
    layer->routed.width = call->host->dim(call, 'I');
    layer->routed.experts = call->host->dim(call, 'E');
    layer->shared.width = shared[0] ? call->host->dim(call, 'D') : 0;
    layer->shared.experts = layer->shared.width > 0;
    status = pack_ffn(call, layer, &layer->routed, routed, routed_scales);
    if (status == CM_OK && layer->shared.width > 0)
        status = pack_ffn(call, layer, &layer->shared, shared, shared_scales);
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
    int8_t *codes;                      // [., H or width]
    int32_t *sums;                      // [., 2 width or H]
    float *scale;                       // [.]
    float *x, *gate_up, *h, *v, *delta; // [., H], [., 2 width], [., width], [., rank], [., H or width]
    float *matrix, *down, *y;           // A or B of one adapter, [slots, H], [H]
};

static bool work_open(const cm_call *call, const struct layer *layer, struct work *work)
{
    if (!cm_slots_open(call, &work->slots))
        return false;
    int64_t I = layer->routed.width, D = layer->shared.width, H = layer->H, rows = work->slots.largest;
    int64_t width = I > D ? I : D, longest = H > width ? H : width, r = call->host->dim(call, 'r');
    int64_t sums = 2 * width > H ? 2 * width : H;
#define TAKE(place, count)                                                                                   \
    (work->place = call->host->scratch(call, (size_t)(count) * sizeof *work->place, 64)) != NULL
    return TAKE(codes, rows * longest) && TAKE(sums, rows * sums) && TAKE(scale, rows) && TAKE(x, rows * H) &&
           TAKE(gate_up, rows * 2 * width) && TAKE(h, rows * width) && TAKE(v, rows * r) &&
           TAKE(delta, rows * longest) && TAKE(matrix, r * longest) && TAKE(down, work->slots.count * H) &&
           TAKE(y, H);
#undef TAKE
}

// `rows` rows of an adapter's matrix as fp32, one after the other.
static void gather_matrix(const DLTensor *tensor, int64_t adapter, int64_t second, int64_t rows,
                          int64_t columns, float *to)
{
    for (int64_t row = 0; row < rows; row++) {
        const char *from = cm_row_at(tensor, adapter, second, row);
        for (int64_t n = 0; n < columns; n++)
            to[row * columns + n] = cm_load_float(tensor, from, n);
    }
}

// out[n, :] += s B (A in[n, :]) for the slots begin..end of one expert, `out_stride` apart.
static dnnl_status_t add_lora(const cm_call *call, struct layer *layer, struct work *work, const char *name,
                              int64_t begin, int64_t end, const float *in, int64_t n_in, float *out,
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
        struct cm_onednn_shape to_v = {rows, r, n_in, n_in, dnnl_f32, dnnl_f32};
        struct cm_onednn_shape to_delta = {rows, n_out, r, r, dnnl_f32, dnnl_f32};
        gather_matrix(a, adapter, second, r, n_in, work->matrix);
        status = cm_onednn_multiply(&layer->onednn, to_v, in + (first - begin) * n_in, work->matrix, NULL,
                                    work->v);
        gather_matrix(b, adapter, second, n_out, r, work->matrix);
        if (status == dnnl_success)
            status = cm_onednn_multiply(&layer->onednn, to_delta, work->v, work->matrix, NULL, work->delta);
        for (int64_t row = 0; row < rows && status == dnnl_success; row++)
            for (int64_t o = 0; o < n_out; o++)
                out[(first - begin + row) * out_stride + o] += s * work->delta[row * n_out + o];
    }
    return status;
}

// out[rows, n_out] = in[rows, n_in] W^T with quantised rows; w and its scales are one expert's.
static dnnl_status_t multiply(struct layer *layer, struct work *work, int64_t rows, const float *in,
                              int64_t n_in, const char *w, const dnnl_memory_desc_t *layout,
                              const float *w_scale, float *out, int64_t n_out)
{
    struct cm_onednn_shape shape = {rows, n_out, n_in, 0, dnnl_s32, dnnl_s8};
    for (int64_t row = 0; row < rows; row++)
        work->scale[row] = cm_quantise_row(in + row * n_in, n_in, work->codes + row * n_in);
    dnnl_status_t status = cm_onednn_multiply(&layer->onednn, shape, work->codes, w, layout, work->sums);
    for (int64_t row = 0; row < rows && status == dnnl_success; row++)
        for (int64_t o = 0; o < n_out; o++)
            out[row * n_out + o] = (float)work->sums[row * n_out + o] * (work->scale[row] * w_scale[o]);
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
    for (int64_t row = 0; row < rows; row++) {
        const char *x = cm_row_at(hidden, 0, 0, work->slots.slots[begin + row].token);
        for (int64_t i = 0; i < H; i++)
            work->x[row * H + i] = cm_load_float(hidden, x, i);
    }
    dnnl_status_t status = multiply(layer, work, rows, work->x, H, ffn->gate_up + index * ffn->gate_up_bytes,
                                    &ffn->gate_up_layout, ffn->gate_up_scale + index * (size_t)(2 * width),
                                    work->gate_up, 2 * width);
    if (status == dnnl_success)
        status = add_lora(call, layer, work, "gate", begin, end, work->x, H, work->gate_up, width, 2 * width);
    if (status == dnnl_success)
        status = add_lora(call, layer, work, "up", begin, end, work->x, H, work->gate_up + width, width,
                          2 * width);
    if (status != dnnl_success)
        return status;
    bool round_h = call->host->attribute(call, "act_quant_source") != 0;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < width; i++) {
            float g = work->gate_up[row * 2 * width + i], u = work->gate_up[row * 2 * width + width + i];
            float h = g / (1 + expf(-g)) * u;
            work->h[row * width + i] = round_h ? cm_round_float(hidden, h) : h;
        }
    status = multiply(layer, work, rows, work->h, width, ffn->down + index * ffn->down_bytes,
                      &ffn->down_layout, ffn->down_scale + index * (size_t)H, work->down + begin * H, H);
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

const cm_kernel cm_moe_forward_onednn_int8 = {
    .size = sizeof(cm_kernel),
    .name = "moe_forward/onednn-int8",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .supports = supports,
    .prepare = prepare,
    .run = run,
    .release = release,
};
