// SPDX-License-Identifier: Apache-2.0
// sgmv_expand/cuda: y (+)= s B v for tiles of 16 tokens of a segment and 64 columns of a slice, 64 ranks at a
// time in shared memory. Dense segments (16 tokens or more) go through tensor cores; an fp32 v of bf16
// adapters as the sum of three bf16 parts, 8 bits each, since the op does not allow it to be rounded. Small
// segments, fp32, and an fp32 v of f16 adapters take a thread for each column. One rounding, to y. Nothing is
// atomic: each element of y has one writer.
// One launch; moves B of the used adapters once per 16 tokens, v once per 64 columns, y once (read and
// written).
// Limits: B and y share a dtype; v has the same or fp32.
#include "optimized/cuda/tiles.h"
#include "optimized/kernels.h"

namespace
{

enum {
    ROWS = CM_TILE_ROWS,
    COLUMNS = 64, // of a block
    STEP = 64,    // ranks in shared memory
    WARPS = 4,
    THREADS = 32 * WARPS,
    PARTS = 3,             // of an fp32 v
    HALF_PITCH = STEP + 8, // of rows of 16-bit elements
    FLOAT_PITCH = STEP + 4,
    V_BYTES = PARTS * ROWS * HALF_PITCH * 2, // v as parts, or as fp32
};
static_assert(ROWS * FLOAT_PITCH * 4 <= V_BYTES, "v as fp32 fits, too");

template <typename T> constexpr int pitch_of = sizeof(T) == 2 ? HALF_PITCH : FLOAT_PITCH;

template <typename T, typename V> struct Expand {
    cm_plan plan;
    cm_rows<const V> v; // [T, S, r]
    cm_rows<const T> b; // [L, N, r]
    cm_rows<T> y;       // [T, N]
    cm_global<const int32_t> slices, rank;
    cm_global<const float> scaling;
    int S;
    bool accumulate;
    bool vectors; // rows of B begin at multiples of 16 bytes
};

// What a block computes: columns first .. first + count - 1 of a slice.
struct Part {
    cm_tile tile;
    int64_t adapter, first;
    int slice, count, rank;
    float scaling;
};

// The block's columns: slices are cut into COLUMNS each; count 0: there are none left.
CM_DEVICE void find_columns(cm_global<const int32_t> slices, int S, int number, Part *part)
{
    part->count = 0;
    for (int slice = 0; slice < S; slice++) {
        int begin = slices.get(slice), end = slices.get(slice + 1),
            tiles = (end - begin + COLUMNS - 1) / COLUMNS;
        if (number < tiles) {
            part->slice = slice;
            part->first = begin + (int64_t)number * COLUMNS;
            part->count = end - part->first < COLUMNS ? (int)(end - part->first) : COLUMNS;
            return;
        }
        number -= tiles;
    }
}

CM_DEVICE cm_shared<int32_t> tokens_of(void)
{
    return cm_shared_array<int32_t>(16, ROWS);
}

template <typename T> CM_DEVICE cm_shared<T> b_of(void)
{
    return cm_shared_array<T>(CM_TILE_SHARED + V_BYTES, COLUMNS * pitch_of<T>);
}

template <typename T> CM_DEVICE cm_shared<T> part_of_v(int part)
{
    return cm_shared_array<T>(CM_TILE_SHARED + (uint32_t)(part * ROWS * HALF_PITCH) * sizeof(T),
                              ROWS * HALF_PITCH);
}

CM_DEVICE cm_shared<float> whole_v(void)
{
    return cm_shared_array<float>(CM_TILE_SHARED, ROWS * FLOAT_PITCH);
}

// Ranks first .. first + STEP - 1 of the block's rows of B; what a column or the adapter doesn't have is 0.
template <typename T, typename V> CM_DEVICE void load_b(const Expand<T, V> &call, const Part &part, int first)
{
    const int most = 16 / sizeof(T);
    cm_shared<T> b = b_of<T>();
    for (int chunk = (int)threadIdx.x; chunk < COLUMNS * STEP / most; chunk += THREADS) {
        int column = chunk / (STEP / most), rank = chunk % (STEP / most) * most;
        int left = column < part.count ? part.rank - first - rank : 0;
        int valid = left > most ? most : left > 0 ? left : 0;
        uint32_t to = (uint32_t)(column * pitch_of<T> + rank);
        int64_t source = valid > 0 ? call.b.at(0, part.adapter, part.first + column) + first + rank : 0;
        if (call.vectors)
            cm_async_copy(b, to, call.b.memory, source, valid);
        else
            for (int n = 0; n < most; n++)
                b.set(to + (uint32_t)n, n < valid ? call.b.memory.get(source + n) : T{0});
    }
    cm_async_commit();
}

// The same ranks of the tokens' v: as fp32, or in parts whose sum it is. Each part is what those before it
// left over, rounded; infinity and NaN stay in the first.
template <typename T, typename V>
CM_DEVICE void load_v(const Expand<T, V> &call, const Part &part, int first, bool in_parts)
{
    cm_shared<int32_t> tokens = tokens_of();
    for (int n = (int)threadIdx.x; n < ROWS * STEP; n += THREADS) {
        int row = n / STEP, rank = n % STEP;
        float value = 0;
        if (row < part.tile.count && first + rank < part.rank)
            value = cm_widen(
                call.v.memory.get(call.v.at(0, tokens.get((uint32_t)row), part.slice) + first + rank));
        if (!in_parts) {
            whole_v().set((uint32_t)(row * FLOAT_PITCH + rank), value);
            continue;
        }
        if constexpr (sizeof(T) == 2)
            for (int p = 0; p < (sizeof(V) == 4 ? PARTS : 1); p++) {
                T narrow;
                cm_narrow(value, &narrow);
                part_of_v<T>(p).set((uint32_t)(row * HALF_PITCH + rank), narrow);
                float left = value - cm_widen(narrow);
                value = left - left == 0 ? left : 0;
            }
    }
}

template <typename T, typename V>
CM_DEVICE void store(const Expand<T, V> &call, const Part &part, int row, int column, float sum)
{
    if (row >= part.tile.count || column >= part.count)
        return;
    int64_t at = call.y.at(0, 0, tokens_of().get((uint32_t)row)) + part.first + column;
    float before = call.accumulate ? cm_widen(call.y.memory.get(at)) : 0;
    T value;
    cm_narrow(before + part.scaling * sum, &value);
    call.y.memory.set(at, value);
}

// A warp has 16 columns, in fragments of 8.
template <typename T, typename V> CM_DEVICE void run_dense(const Expand<T, V> &call, const Part &part)
{
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    float sum[2][4] = {};
    for (int first = 0; first < part.rank; first += STEP) {
        load_b(call, part, first);
        load_v(call, part, first, true);
        cm_async_wait<0>();
        cm_barrier();
        for (int k = 0; k < STEP && first + k < part.rank; k += 16) {
            uint32_t v[4], b[4];
            cm_load_matrices<4>(
                b, b_of<T>(),
                (uint32_t)((16 * warp + lane / 16 * 8 + lane % 8) * pitch_of<T> + k + lane / 8 % 2 * 8));
            for (int p = 0; p < (sizeof(V) == 4 ? PARTS : 1); p++) {
                cm_load_matrices<4>(v, part_of_v<T>(p),
                                    (uint32_t)(lane % 16 * HALF_PITCH + k + lane / 16 * 8));
                cm_mma<T>(sum[0], v, b, sum[0]);
                cm_mma<T>(sum[1], v, b + 2, sum[1]);
            }
        }
        cm_barrier();
    }
    CM_UNROLL
    for (int n = 0; n < 8; n++)
        store(call, part, lane / 4 + 8 * (n >> 1 & 1), 16 * warp + 8 * (n >> 2) + 2 * (lane % 4) + (n & 1),
              sum[n >> 2][n & 3]);
}

// A thread has one column of every second token.
template <typename T, typename V> CM_DEVICE void run_few(const Expand<T, V> &call, const Part &part)
{
    const int most = 16 / sizeof(T), each = ROWS * COLUMNS / THREADS;
    int column = (int)threadIdx.x % COLUMNS, row = (int)threadIdx.x / COLUMNS;
    float sum[each] = {};
    for (int first = 0; first < part.rank; first += STEP) {
        load_b(call, part, first);
        load_v(call, part, first, false);
        cm_async_wait<0>();
        cm_barrier();
        for (int k = 0; k < STEP && first + k < part.rank; k += most) {
            struct alignas(16) {
                T elements[most];
            } some = cm_bits<decltype(some)>(
                b_of<T>().template get_vector<uint4>((uint32_t)(column * pitch_of<T> + k)));
            CM_UNROLL
            for (int n = 0; n < each; n++) {
                if (row + 2 * n >= part.tile.count)
                    continue;
                CM_UNROLL
                for (int i = 0; i < most; i++)
                    sum[n] += cm_widen(some.elements[i]) *
                              whole_v().get((uint32_t)((row + 2 * n) * FLOAT_PITCH + k + i));
            }
        }
        cm_barrier();
    }
    CM_UNROLL
    for (int n = 0; n < each; n++)
        store(call, part, row + 2 * n, column, sum[n]);
}

template <typename T, typename V> __global__ void CM_THREADS(THREADS) expand(Expand<T, V> call)
{
    Part part;
    part.tile = cm_find_tile(call.plan, (int)blockIdx.x);
    find_columns(call.slices, call.S, (int)blockIdx.y, &part);
    if (part.tile.count == 0 || part.count == 0)
        return;
    part.adapter = call.plan.adapter.get(part.tile.segment);
    part.rank = part.adapter < 0 ? 0 : call.rank.get(part.adapter);
    part.scaling = part.rank > 0 ? call.scaling.get(part.adapter) : 0;
    if (part.rank == 0 && call.accumulate)
        return;
    if ((int)threadIdx.x < part.tile.count)
        tokens_of().set(threadIdx.x, call.plan.permutation.get(part.tile.first + (int)threadIdx.x));
    cm_barrier();
    // 16-bit parts of an fp32 v need the exponents of fp32.
    if constexpr (sizeof(T) == 2 && (sizeof(V) == 2 || cm_has_wide_exponent<T>))
        if (part.tile.dense) {
            run_dense(call, part);
            return;
        }
    run_few(call, part);
}

template <typename T, typename V> cm_status launch(const cm_call *call)
{
    int64_t S = call->host->dim(call, 'S'), N = call->host->dim(call, 'N');
    Expand<T, V> parameters = {cm_plan_of(call),
                               cm_rows_of<const V>(call, "v"),
                               cm_rows_of<const T>(call, "lora_b"),
                               cm_rows_of<T>(call, "y"),
                               cm_array_of<const int32_t>(call, "slice_offset"),
                               cm_array_of<const int32_t>(call, "lora_rank"),
                               cm_array_of<const float>(call, "lora_scaling"),
                               (int)S,
                               call->host->attribute(call, "accumulate") != 0,
                               cm_has_vectors(call->host->argument(call, "lora_b"))};
    // A slice adds a tile that is not full, unless it is empty.
    dim3 grid = {(unsigned)cm_tiles_of(call), (unsigned)(N / COLUMNS + (S < N ? S : N)), 1};
    if (grid.x == 0 || grid.y == 0)
        return CM_OK;
    return CM_LAUNCH(call, (expand<T, V>), grid, (dim3{THREADS, 1, 1}),
                     CM_TILE_SHARED + V_BYTES + COLUMNS * pitch_of<T> * sizeof(T), parameters);
}

bool supports(const cm_call *call, char *reason, size_t size)
{
    cm_kind b = cm_kind_of(call, "lora_b"), v = cm_kind_of(call, "v");
    if (cm_kind_of(call, "y") == b && (v == b || v == CM_KIND_F32))
        return true;
    snprintf(reason, size, "B and y must share a dtype, and v have the same or f32");
    return false;
}

cm_status run(const cm_call *call, void *)
{
    char reason[128];
    cm_status status = call->host->validate(call);
    if (status == CM_OK && !supports(call, reason, sizeof reason))
        status = call->host->fail(call, CM_UNSUPPORTED, "%s", reason);
    if (status != CM_OK)
        return status;
    bool wide = cm_kind_of(call, "v") == CM_KIND_F32;
    switch (cm_kind_of(call, "lora_b")) {
    case CM_KIND_BF16:
        return wide ? launch<cm_bf16, float>(call) : launch<cm_bf16, cm_bf16>(call);
    case CM_KIND_F16:
        return wide ? launch<cm_f16, float>(call) : launch<cm_f16, cm_f16>(call);
    default:
        return launch<float, float>(call);
    }
}

// Which of both a segment takes, only the device knows.
const cm_switch_point points[] = {{"rows", CM_TILE_ROWS, "from vectors to tensor cores"}, {}};

} // namespace

const cm_kernel cm_sgmv_expand_cuda = {
    .size = sizeof(cm_kernel),
    .name = "sgmv_expand/cuda",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .device = kDLCUDA,
    .supports = supports,
    .run = run,
    .side = &CM_CUDA_SIDE,
    .capturable = true,
    .switch_points = points,
};
