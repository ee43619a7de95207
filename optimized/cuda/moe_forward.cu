// SPDX-License-Identifier: Apache-2.0
// moe_forward/cuda: slots sorted by expert and adapter, then grouped products on tensor cores for tiles of 16
// slots of an expert (64 where experts have 32 or more on average) and 64 columns. v = A x is a product of
// its own; B v is added to the base's fp32 sums, adapter by adapter, before the activation (gate, up) and
// before the combine (down): no delta travels through device memory. The shared expert is one expert more.
// The combine adds a token's slots in their order. Nothing is atomic; launch shapes depend on sizes alone,
// and nothing is read back: a launch can be captured with one batch and replayed with others. Ids, adapters
// and ranks are held against their ranges by the sorts; if one is outside, there are no tiles, and nothing is
// written.
//   launch       grid                         moves (elements of x's dtype unless said)
//   sort_tokens  L + 1; only with adapters    token_adapter and ranks 2 (L + 1) times (int32), T once
//   sort_slots   experts                      topk_ids 2 experts times (int32), slots and tiles once
//   shrink_in    tiles, r/64; with adapters   x once, A of gate and up once per tile and adapter in it, 2 v
//   gate_up      tiles, I/64                  x, 2 v once per 64 columns; gate, up, their B once per tile; h
//   shrink_down  tiles, r/64; with adapters   h once, A of down once per tile and adapter in it, v
//   down         tiles, H/64                  h, v once per 64 columns; down, its B once per tile; y of slots
//   combine      T                            y of slots once, output once
// Seven launches with adapters, four without. The roundings are those of the op: v, h and a slot's y to the
// dtype of x. Limits: bf16 or f16, shared by x, weights, biases and adapters; the output has the same or
// fp32; silu, weights on the output, no integers.
#include "optimized/cuda/moe_sort.h"
#include "optimized/cuda/product.h"

#include "optimized/cuda/moe_layer.h"
#include "optimized/kernels.h"

namespace
{

enum { COMBINE = 128 }; // most threads

enum { FEW, MANY, MANY_ROWS = 32 }; // paths, and the slots of an expert from which it is MANY, on average
const cm_path paths[] = {{"tiles_16", "tiles of 16 slots: weights are read once per tile"},
                         {"tiles_64", "tiles of 64 slots: a warp has 32 rows and 32 columns"},
                         {}};
const cm_switch_point points[] = {{"rows", MANY_ROWS, "from tiles of 16 slots to tiles of 64"}, {}};

// sums += s B v; `which` is v's place of two.
template <typename T, int ROWS>
CM_DEVICE void add_lora(const cm_moe_layer<T> &layer, const cm_moe_tile &tile,
                        const cm_moe_projection<T> &projection, int which, int64_t first, int64_t end,
                        cm_fragments<ROWS> *sums)
{
    typedef cm_fragments<ROWS> Part;
    cm_moe_run run = {0, 0, 0, 0};
    if (!projection.b.is_there())
        return;
    while (cm_moe_next_run(layer, tile, &run)) {
        cm_fragments<ROWS> delta = {};
        cm_gather<T> v = {cm_reading(layer.v),
                          tile.slots,
                          which * layer.v_pitch,
                          2 * layer.v_pitch,
                          run.begin,
                          run.end,
                          true};
        cm_factor<T> b = projection.b.factor(run.adapter, tile.expert, first, end);
        float scaling = layer.scaling.get(run.adapter);
        cm_product<T, ROWS, 1>(v, &b, run.rank, &delta);
        CM_UNROLL
        for (int n = 0; n < Part::TILES * Part::PAIRS * 8; n++) {
            int i = n / (Part::PAIRS * 8), eight = n / 4 % (Part::PAIRS * 2), row = Part::row(i, n / 2 % 2);
            if (row >= run.begin && row < run.end) // of others a product with 0, which may be NaN
                sums->sum[i][eight][n % 4] += scaling * delta.sum[i][eight][n % 4];
        }
    }
}

// Calls store(row, column, tile, eight, half) for each pair of sums in the tile's rows and below column
// `end`.
template <int ROWS, typename Store> CM_DEVICE void each_pair(int begin, int end, int columns, Store store)
{
    typedef cm_fragments<ROWS> Part;
    CM_UNROLL
    for (int n = 0; n < Part::TILES * Part::PAIRS * 4; n++) {
        int i = n / (Part::PAIRS * 4), eight = n / 2 % (Part::PAIRS * 2), half = n % 2;
        int row = Part::row(i, half), column = Part::column(eight);
        if (row >= begin && row < end && column < columns)
            store((uint32_t)row, column, i, eight, 2 * half);
    }
}

// v of gate and up, or of down: ranks 64 blockIdx.y and following.
template <typename T, int ROWS, bool OF_DOWN>
__global__ void CM_THREADS(CM_PRODUCT_THREADS) shrink(CM_PARAMETER(cm_moe_layer<T>) layer)
{
    const int factors = OF_DOWN ? 1 : 2;
    cm_moe_tile tile = cm_moe_open_tile<T, ROWS>(layer);
    const cm_moe_experts<T> &experts = layer.experts(tile.expert);
    int first = (int)blockIdx.y * CM_PRODUCT_COLUMNS;
    cm_moe_run run = {0, 0, 0, 0};
    while (cm_moe_next_run(layer, tile, &run)) {
        cm_fragments<ROWS> sums[factors] = {};
        cm_gather<T> x = {layer.hidden.memory, tile.tokens, 0, layer.hidden.stride[2], run.begin, run.end,
                          layer.vectors};
        cm_factor<T> a[2] = {experts.gate.a.factor(run.adapter, tile.expert, first, run.rank),
                             experts.up.a.factor(run.adapter, tile.expert, first, run.rank)};
        if (OF_DOWN) {
            x = {cm_reading(layer.h), tile.slots, 0, layer.h_pitch, run.begin, run.end, true};
            a[0] = experts.down.a.factor(run.adapter, tile.expert, first, run.rank);
        }
        if (run.rank <= first || (a[0].count == 0 && (OF_DOWN || a[1].count == 0)))
            continue;
        cm_product<T, ROWS, factors>(x, a, OF_DOWN ? experts.width : layer.H, sums);
        CM_UNROLL
        for (int f = 0; f < factors; f++)
            each_pair<ROWS>(
                run.begin, run.end, a[f].count, [&](uint32_t row, int column, int i, int eight, int n) {
                    cm_moe_store(layer.v, (tile.slots.get(row) * 2ll + f) * layer.v_pitch + first + column,
                                 sums[f].sum[i][eight][n], sums[f].sum[i][eight][n + 1]);
                });
    }
}

CM_DEVICE float silu(float x)
{
    return x / (1 + expf(-x));
}

template <typename T>
CM_DEVICE float bias_of(const cm_rows<const T> &bias, int expert, int64_t column, int64_t end)
{
    return bias.memory.count == 0 || column >= end
               ? 0
               : cm_widen(bias.memory.get(bias.at(0, 0, expert) + column));
}

// h = silu(gate) up: columns 64 blockIdx.y and following.
template <typename T, int ROWS>
__global__ void CM_THREADS(CM_PRODUCT_THREADS) gate_up(CM_PARAMETER(cm_moe_layer<T>) layer)
{
    cm_moe_tile tile = cm_moe_open_tile<T, ROWS>(layer);
    const cm_moe_experts<T> &experts = layer.experts(tile.expert);
    int64_t first = (int64_t)blockIdx.y * CM_PRODUCT_COLUMNS;
    if (tile.count == 0 || first >= experts.width)
        return;
    cm_fragments<ROWS> sums[2] = {};
    cm_gather<T> x = {layer.hidden.memory, tile.tokens,  0, layer.hidden.stride[2], 0,
                      tile.count,          layer.vectors};
    cm_factor<T> w[2] = {experts.gate.w.factor(0, tile.expert, first, experts.width),
                         experts.up.w.factor(0, tile.expert, first, experts.width)};
    cm_product<T, ROWS, 2>(x, w, layer.H, sums);
    add_lora(layer, tile, experts.gate, 0, first, experts.width, &sums[0]);
    add_lora(layer, tile, experts.up, 1, first, experts.width, &sums[1]);
    each_pair<ROWS>(0, tile.count, w[0].count, [&](uint32_t row, int column, int i, int eight, int n) {
        float h[2];
        CM_UNROLL
        for (int p = 0; p < 2; p++) {
            int64_t at = first + column + p;
            float gate =
                sums[0].sum[i][eight][n + p] + bias_of(experts.gate.bias, tile.expert, at, experts.width);
            float up =
                sums[1].sum[i][eight][n + p] + bias_of(experts.up.bias, tile.expert, at, experts.width);
            h[p] = silu(gate) * up;
        }
        cm_moe_store(layer.h, tile.slots.get(row) * layer.h_pitch + first + column, h[0], h[1]);
    });
}

// y of each slot: columns 64 blockIdx.y and following.
template <typename T, int ROWS>
__global__ void CM_THREADS(CM_PRODUCT_THREADS) down(CM_PARAMETER(cm_moe_layer<T>) layer)
{
    cm_moe_tile tile = cm_moe_open_tile<T, ROWS>(layer);
    const cm_moe_experts<T> &experts = layer.experts(tile.expert);
    int64_t first = (int64_t)blockIdx.y * CM_PRODUCT_COLUMNS;
    if (tile.count == 0)
        return;
    cm_fragments<ROWS> sums = {};
    cm_gather<T> h = {cm_reading(layer.h), tile.slots, 0, layer.h_pitch, 0, tile.count, true};
    cm_factor<T> w = experts.down.w.factor(0, tile.expert, first, layer.H);
    cm_product<T, ROWS, 1>(h, &w, experts.width, &sums);
    add_lora(layer, tile, experts.down, 0, first, layer.H, &sums);
    each_pair<ROWS>(0, tile.count, w.count, [&](uint32_t row, int column, int i, int eight, int n) {
        int64_t at = first + column;
        cm_moe_store(layer.y, tile.slots.get(row) * layer.y_pitch + at,
                     sums.sum[i][eight][n] + bias_of(experts.down.bias, tile.expert, at, layer.H),
                     sums.sum[i][eight][n + 1] + bias_of(experts.down.bias, tile.expert, at + 1, layer.H));
    });
}

// sigmoid(router x); each warp forms it for itself.
template <typename T> CM_DEVICE float shared_weight(const cm_moe_layer<T> &layer, int64_t token)
{
    float sum = 0;
    if (layer.router.memory.count == 0)
        return 1;
    for (int64_t n = threadIdx.x % 32; n < layer.H; n += 32)
        sum += cm_widen(layer.router.memory.get(n)) *
               cm_widen(layer.hidden.memory.get(layer.hidden.at(0, 0, token) + n));
    for (int distance = 16; distance > 0; distance /= 2)
        sum += cm_shuffle_xor(sum, distance);
    return 1 / (1 + expf(-sum));
}

// Block: a token. A thread has 8 neighbours at a time.
template <typename T, typename Y>
__global__ void CM_THREADS(COMBINE) combine(CM_PARAMETER(cm_moe_layer<T>) layer, cm_rows<Y> output)
{
    const cm_moe_slots &slots = layer.slots;
    int64_t token = blockIdx.x;
    if (slots.bad.get(1))
        return;
    float of_shared = slots.per_token > slots.k ? shared_weight(layer, token) : 0;
    for (int64_t first = (int64_t)threadIdx.x * 8; first < layer.H; first += (int64_t)blockDim.x * 8) {
        float sum[8] = {};
        for (int j = 0; j < slots.per_token; j++) {
            struct alignas(16) {
                T elements[8];
            } some;
            if (j < slots.k && slots.ids.memory.get(slots.ids.at(0, 0, token) + j) < 0)
                continue;
            float weight =
                j < slots.k ? layer.weights.memory.get(layer.weights.at(0, 0, token) + j) : of_shared;
            some = cm_bits<decltype(some)>(
                layer.y.template get_vector<uint4>((token * slots.per_token + j) * layer.y_pitch + first));
            CM_UNROLL
            for (int n = 0; n < 8; n++)
                sum[n] += weight * cm_widen(some.elements[n]);
        }
        CM_UNROLL
        for (int n = 0; n < 8; n++) {
            Y value;
            cm_narrow(sum[n], &value);
            if (first + n < layer.H)
                output.memory.set(output.at(0, 0, token) + first + n, value);
        }
    }
}

// `has_expert`: the tensor has a dimension E.
template <typename T> cm_moe_matrix<T> open_matrix(const cm_call *call, const char *name, bool has_expert)
{
    const DLTensor *tensor = call->host->argument(call, name);
    cm_moe_matrix<T> matrix = {cm_rows_of<const T>(tensor), cm_has_vectors(tensor)};
    if (!has_expert) {
        matrix.rows.stride[0] = matrix.rows.stride[1];
        matrix.rows.stride[1] = 0;
    }
    return matrix;
}

template <typename T> cm_moe_experts<T> open_experts(const cm_call *call, bool routed)
{
    static const char *const names[2][3][4] = {
        {{"shared_gate", "shared_lora_a_gate", "shared_lora_b_gate", ""},
         {"shared_up", "shared_lora_a_up", "shared_lora_b_up", ""},
         {"shared_down", "shared_lora_a_down", "shared_lora_b_down", ""}},
        {{"w_gate", "lora_a_gate", "lora_b_gate", "bias_gate"},
         {"w_up", "lora_a_up", "lora_b_up", "bias_up"},
         {"w_down", "lora_a_down", "lora_b_down", "bias_down"}}};
    cm_moe_projection<T> projections[3];
    for (int n = 0; n < 3; n++)
        projections[n] = {open_matrix<T>(call, names[routed][n][0], routed),
                          open_matrix<T>(call, names[routed][n][1], routed),
                          open_matrix<T>(call, names[routed][n][2], routed),
                          cm_rows_of<const T>(call, names[routed][n][3])};
    return {projections[0], projections[1], projections[2], call->host->dim(call, routed ? 'I' : 'D')};
}

// An array in scratch memory; empty when there is no memory.
template <typename T> cm_global<T> take(const cm_call *call, int64_t count, bool *there)
{
    void *memory = call->host->scratch(call, (size_t)count * sizeof(T), 16);
    *there = *there && memory;
    return {static_cast<T *>(memory), memory ? count : 0};
}

int64_t padded(int64_t count)
{
    return cm_ceiling(count, 8) * 8;
}

bool any_adapter(const cm_call *call)
{
    static const char *const names[] = {"lora_a_gate",        "lora_a_up",        "lora_a_down",
                                        "shared_lora_a_gate", "shared_lora_a_up", "shared_lora_a_down"};
    bool any = false;
    for (const char *name : names)
        any = any || call->host->argument(call, name);
    return any;
}

template <typename T> bool open_layer(const cm_call *call, cm_moe_layer<T> *layer)
{
    const cm_host *host = call->host;
    bool shared = host->argument(call, "shared_gate") != NULL, there = true;
    int64_t T_ = host->dim(call, 'T'), k = host->dim(call, 'k'), E = host->dim(call, 'E');
    int64_t slots = T_ * (k + shared), experts = E + shared, rows = slots >= MANY_ROWS * experts ? 64 : 16;
    int64_t tiles = slots / rows + experts,
            L = host->argument(call, "token_adapter") ? host->dim(call, 'L') : 0;
    layer->routed = open_experts<T>(call, true);
    layer->shared = open_experts<T>(call, false);
    layer->hidden = cm_rows_of<const T>(call, "hidden");
    layer->router = cm_rows_of<const T>(call, "shared_router");
    layer->weights = cm_rows_of<const float>(call, "topk_weights");
    layer->scaling = cm_array_of<const float>(call, "lora_scaling");
    layer->vectors = cm_has_vectors(host->argument(call, "hidden"));
    layer->H = host->dim(call, 'H');
    layer->v_pitch = padded(host->dim(call, 'r'));
    layer->h_pitch = padded(!shared || layer->routed.width > layer->shared.width ? layer->routed.width
                                                                                 : layer->shared.width);
    layer->y_pitch = padded(layer->H);
    layer->v = take<T>(call, slots * 2 * layer->v_pitch, &there);
    layer->h = take<T>(call, slots * layer->h_pitch, &there);
    layer->y = take<T>(call, slots * layer->y_pitch, &there);
    tiles = tiles < slots ? tiles : slots;
    layer->slots = {cm_rows_of<const int32_t>(call, "topk_ids"),
                    cm_array_of<const int32_t>(call, "token_adapter"),
                    cm_array_of<const int32_t>(call, "lora_rank"),
                    take<int32_t>(call, T_, &there),
                    take<int32_t>(call, slots, &there),
                    take<int32_t>(call, tiles * 4, &there),
                    take<int32_t>(call, 2, &there),
                    cm_refusal_of(call),
                    T_,
                    (int)k,
                    (int)k + shared,
                    (int)E,
                    (int)experts,
                    (int)L,
                    any_adapter(call) ? (int)host->dim(call, 'r') : 0,
                    (int)rows,
                    (int)tiles};
    return there;
}

// Threads of a block that looks at so many items: a warp at least.
unsigned threads_for(int64_t items, unsigned most)
{
    return items > most ? most : (unsigned)cm_ceiling(items, 32) * 32;
}

template <typename T, typename Y, int ROWS>
cm_status launch(const cm_call *call, const cm_moe_layer<T> &layer)
{
    const cm_moe_slots &slots = layer.slots;
    const dim3 block = {CM_PRODUCT_THREADS, 1, 1};
    const size_t one = cm_product_bytes<ROWS, 1>, two = cm_product_bytes<ROWS, 2>, sort = CM_SORT_THREADS / 2;
    unsigned tiles = (unsigned)slots.tile_count;
    unsigned ranks = slots.L > 0 ? (unsigned)cm_ceiling(slots.r, CM_PRODUCT_COLUMNS) : 0;
    unsigned columns_h = (unsigned)cm_ceiling(layer.H, CM_PRODUCT_COLUMNS);
    unsigned columns_i = (unsigned)cm_ceiling(layer.h_pitch, CM_PRODUCT_COLUMNS);
    cm_status status = CM_OK;
    if (slots.L > 0)
        status = CM_LAUNCH(call, cm_moe_sort_tokens, (dim3{(unsigned)slots.L + 1, 1, 1}),
                           (dim3{threads_for(slots.T, CM_SORT_THREADS), 1, 1}), sort, slots);
    if (status == CM_OK)
        status =
            CM_LAUNCH(call, cm_moe_sort_slots, (dim3{(unsigned)slots.experts, 1, 1}),
                      (dim3{threads_for(slots.T * slots.per_token, CM_SORT_THREADS), 1, 1}), sort, slots);
    if (status == CM_OK && ranks > 0)
        status = CM_LAUNCH(call, (shrink<T, ROWS, false>), (dim3{tiles, ranks, 1}), block, two, layer);
    if (status == CM_OK)
        status = CM_LAUNCH(call, (gate_up<T, ROWS>), (dim3{tiles, columns_i, 1}), block, two, layer);
    if (status == CM_OK && ranks > 0)
        status = CM_LAUNCH(call, (shrink<T, ROWS, true>), (dim3{tiles, ranks, 1}), block, one, layer);
    if (status == CM_OK)
        status = CM_LAUNCH(call, (down<T, ROWS>), (dim3{tiles, columns_h, 1}), block, one, layer);
    if (status == CM_OK)
        status = CM_LAUNCH(call, (combine<T, Y>), (dim3{(unsigned)slots.T, 1, 1}),
                           (dim3{threads_for(cm_ceiling(layer.H, 8), COMBINE), 1, 1}), 0, layer,
                           cm_rows_of<Y>(call, "output"));
    return status;
}

template <typename T, typename Y> cm_status run_as(const cm_call *call)
{
    cm_moe_layer<T> layer = {};
    if (call->host->dim(call, 'T') == 0)
        return CM_OK;
    if (!open_layer(call, &layer))
        return call->host->fail(call, CM_NO_MEMORY, "no scratch memory on the device");
    call->host->path(call, layer.slots.tile_rows == 64 ? MANY : FEW);
    return layer.slots.tile_rows == 64 ? launch<T, Y, 64>(call, layer) : launch<T, Y, 16>(call, layer);
}

bool supports(const cm_call *call, char *reason, size_t size)
{
    static const char *const alike[] = {"w_gate",           "lora_a_gate",       "lora_a_up",
                                        "lora_a_down",      "bias_gate",         "bias_up",
                                        "bias_down",        "shared_router",     "shared_lora_a_gate",
                                        "shared_lora_a_up", "shared_lora_a_down"};
    const DLTensor *hidden = call->host->argument(call, "hidden");
    cm_kind x = cm_kind_of(call, "hidden"), y = cm_kind_of(call, "output");
    const char *why = x == CM_KIND_F32 ? "only bf16 and f16 are implemented" : NULL;
    for (size_t n = 0; n < sizeof alike / sizeof *alike && !why; n++) {
        const DLTensor *tensor = call->host->argument(call, alike[n]);
        if (tensor && (tensor->dtype.code != hidden->dtype.code || tensor->dtype.bits != hidden->dtype.bits))
            why = "x, weights, biases and adapters must share a dtype";
    }
    if (!why && (call->host->attribute(call, "activation") != 0 ||
                 call->host->attribute(call, "weight_on_input") != 0 ||
                 call->host->attribute(call, "act_quant") != 0))
        why = "only silu, weights on the output and unquantised activations are implemented";
    if (!why && call->host->argument(call, "expert_map"))
        why = "a map of experts is not implemented";
    if (!why && y != x && y != CM_KIND_F32)
        why = "the output must have the dtype of x or f32";
    if (!why && call->host->dim(call, 'T') * (call->host->dim(call, 'k') + 1) > INT32_MAX)
        why = "slots are numbered in 31 bits";
    if (why)
        snprintf(reason, size, "%s", why);
    return !why;
}

cm_status run(const cm_call *call, void *)
{
    char reason[128];
    cm_status status = call->host->validate(call);
    if (status == CM_OK && !supports(call, reason, sizeof reason))
        status = call->host->fail(call, CM_UNSUPPORTED, "%s", reason);
    if (status != CM_OK)
        return status;
    bool wide = cm_kind_of(call, "output") == CM_KIND_F32;
    if (cm_kind_of(call, "hidden") == CM_KIND_BF16)
        return wide ? run_as<cm_bf16, float>(call) : run_as<cm_bf16, cm_bf16>(call);
    return wide ? run_as<cm_f16, float>(call) : run_as<cm_f16, cm_f16>(call);
}

} // namespace

const cm_kernel cm_moe_forward_cuda = {
    .size = sizeof(cm_kernel),
    .name = "moe_forward/cuda",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_MODEL,
    .row_invariant = true,
    .device = kDLCUDA,
    .supports = supports,
    .run = run,
    .side = &CM_CUDA_SIDE,
    .capturable = true,
    .paths = paths,
    .switch_points = points,
    .checks_values = true,
};
