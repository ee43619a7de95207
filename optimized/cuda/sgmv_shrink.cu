// SPDX-License-Identifier: Apache-2.0
// sgmv_shrink/cuda: v = A x for tiles of 16 tokens of a segment and 32 ranks. Dense segments (16 tokens or
// more) go through tensor cores: three stages of x and A in shared memory by cp.async, four warps that each
// take a quarter of every 64 of K, and a sum of the four in a fixed order. Small segments and fp32 read rows
// in vectors, a warp for each rank: A is read once from memory for up to 15 tokens. Nothing is atomic.
// One launch; moves A of the used adapters once per 16 tokens, x once per 32 ranks, v once.
// Limits: x and A share a dtype; v has the same or fp32.
#include "optimized/cuda/tiles.h"
#include "optimized/kernels.h"

namespace
{

enum {
    ROWS = CM_TILE_ROWS,
    RANKS = 32, // of a block
    STEP = 64,  // of K, a stage
    PITCH = STEP + 8,
    STAGES = 3,
    WARPS = 4,
    THREADS = 32 * WARPS,
    GROUP = 4, // tokens whose sums a warp keeps
    STAGE = (ROWS + RANKS) * PITCH,
};

template <typename T, typename V> struct Shrink {
    cm_plan plan;
    cm_rows<const T> x, a; // [T, K], [L, S, r, K]
    cm_rows<V> v;          // [T, S, r]
    cm_global<const int32_t> rank;
    int64_t K;
    int r, rank_tiles;
    bool vectors; // rows of x and A begin at multiples of 16 bytes
};

// What a block computes: ranks first .. first + RANKS - 1 of a slice; those from `rank` on are 0.
struct Part {
    cm_tile tile;
    int64_t adapter, slice;
    int first, rank;
};

template <typename V> struct Store {
    cm_rows<V> v;
    int r;

    CM_METHOD void put(const Part &part, int64_t token, int column, float sum) const
    {
        V value;
        cm_narrow(part.first + column < part.rank ? sum : 0.0f, &value);
        if (part.first + column < r)
            v.memory.set(v.at(0, token, part.slice) + part.first + column, value);
    }
};

// Rows 0 .. ROWS-1 of a stage are x, the others A; what a token, a rank or K doesn't have is 0.
template <typename T, typename V>
CM_DEVICE void load_step(const Shrink<T, V> &call, const Part &part, cm_shared<int32_t> tokens,
                         cm_shared<T> stage, int64_t k)
{
    for (int chunk = (int)threadIdx.x; chunk < (ROWS + RANKS) * STEP / 8; chunk += THREADS) {
        int row = chunk / (STEP / 8), column = chunk % (STEP / 8) * 8, rank = part.first + row - ROWS;
        bool exists = row < ROWS ? row < part.tile.count : rank < part.rank;
        int64_t left = exists ? call.K - k - column : 0, source = 0;
        int valid = left > 8 ? 8 : left > 0 ? (int)left : 0;
        uint32_t to = (uint32_t)(row * PITCH + column);
        cm_global<const T> memory = row < ROWS ? call.x.memory : call.a.memory;
        if (valid > 0)
            source = (row < ROWS ? call.x.at(0, 0, tokens.get((uint32_t)row))
                                 : call.a.at(part.adapter, part.slice, rank)) +
                     k + column;
        if (call.vectors)
            cm_async_copy(stage, to, memory, source, valid);
        else
            for (int n = 0; n < 8; n++)
                stage.set(to + (uint32_t)n, n < valid ? memory.get(source + n) : T{0});
    }
}

// Adds this warp's quarter of a stage to its sums [ROWS, RANKS], in fragments.
template <typename T> CM_DEVICE void multiply_step(cm_shared<T> stage, float sum[RANKS / 8][4])
{
    int lane = (int)threadIdx.x % 32, k = (int)threadIdx.x / 32 * (STEP / WARPS);
    uint32_t x[4];
    cm_load_matrices<4>(x, stage, (uint32_t)(lane % 16 * PITCH + k + lane / 16 * 8));
    CM_UNROLL
    for (int pair = 0; pair < RANKS / 16; pair++) {
        uint32_t a[4];
        int row = ROWS + 16 * pair + lane / 16 * 8 + lane % 8;
        cm_load_matrices<4>(a, stage, (uint32_t)(row * PITCH + k + lane / 8 % 2 * 8));
        cm_mma<T>(sum[2 * pair], x, a, sum[2 * pair]);
        cm_mma<T>(sum[2 * pair + 1], x, a + 2, sum[2 * pair + 1]);
    }
}

template <typename T> CM_DEVICE cm_shared<T> stage_of(int step)
{
    return cm_shared_array<T>(CM_TILE_SHARED + (uint32_t)(step % STAGES * STAGE) * sizeof(T), STAGE);
}

template <typename T, typename V>
CM_DEVICE void run_dense(const Shrink<T, V> &call, const Part &part, cm_shared<int32_t> tokens)
{
    float sum[RANKS / 8][4] = {};
    int steps = (int)((call.K + STEP - 1) / STEP), warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    for (int n = 0; n < STAGES - 1; n++) {
        if (n < steps)
            load_step(call, part, tokens, stage_of<T>(n), (int64_t)n * STEP);
        cm_async_commit();
    }
    for (int step = 0; step < steps; step++) {
        int next = step + STAGES - 1;
        cm_async_wait<STAGES - 2>();
        cm_barrier(); // this stage is there, and the one before it is free
        if (next < steps)
            load_step(call, part, tokens, stage_of<T>(next), (int64_t)next * STEP);
        cm_async_commit();
        multiply_step<T>(stage_of<T>(step), sum);
    }
    cm_barrier();
    cm_shared<float> parts = cm_shared_array<float>(CM_TILE_SHARED, WARPS * ROWS * RANKS);
    CM_UNROLL
    for (int n = 0; n < RANKS / 2; n++) {
        int row = lane / 4 + 8 * (n >> 1 & 1), column = 8 * (n >> 2) + 2 * (lane % 4) + (n & 1);
        parts.set((uint32_t)((warp * ROWS + row) * RANKS + column), sum[n >> 2][n & 3]);
    }
    cm_barrier();
    for (int n = (int)threadIdx.x; n < part.tile.count * RANKS; n += THREADS) {
        float whole = 0;
        for (int w = 0; w < WARPS; w++)
            whole += parts.get((uint32_t)(w * ROWS * RANKS + n));
        Store<V>{call.v, call.r}.put(part, tokens.get((uint32_t)(n / RANKS)), n % RANKS, whole);
    }
}

// Up to 16 bytes of a row from element k on, as fp32; the rest is 0.
template <typename T>
CM_DEVICE void read_some(cm_global<const T> memory, int64_t row, int64_t k, int64_t K, bool vectors,
                         float values[16 / sizeof(T)])
{
    const int most = 16 / sizeof(T);
    if (vectors && k + most <= K) {
        struct alignas(16) {
            T elements[most];
        } some = cm_bits<decltype(some)>(memory.template get_vector<uint4>(row + k));
        CM_UNROLL
        for (int n = 0; n < most; n++)
            values[n] = cm_widen(some.elements[n]);
    } else {
        CM_UNROLL
        for (int n = 0; n < most; n++)
            values[n] = k + n < K ? cm_widen(memory.get(row + k + n)) : 0;
    }
}

// Sums of one rank for up to GROUP tokens from `first` on, in every lane.
template <typename T, typename V>
CM_DEVICE void sum_rank(const Shrink<T, V> &call, const Part &part, cm_shared<int32_t> tokens, int rank,
                        int first, float sum[GROUP])
{
    const int most = 16 / sizeof(T);
    int64_t x[GROUP], a = call.a.at(part.adapter, part.slice, rank);
    CM_UNROLL
    for (int n = 0; n < GROUP; n++) {
        sum[n] = 0;
        x[n] = first + n < part.tile.count ? call.x.at(0, 0, tokens.get((uint32_t)(first + n))) : -1;
    }
    for (int64_t k = (int64_t)(threadIdx.x % 32) * most; k < call.K; k += 32 * most) {
        float of_a[most], of_x[most];
        read_some<T>(call.a.memory, a, k, call.K, call.vectors, of_a);
        CM_UNROLL
        for (int n = 0; n < GROUP; n++) {
            if (x[n] < 0)
                continue;
            read_some<T>(call.x.memory, x[n], k, call.K, call.vectors, of_x);
            CM_UNROLL
            for (int i = 0; i < most; i++)
                sum[n] += of_a[i] * of_x[i];
        }
    }
    CM_UNROLL
    for (int n = 0; n < GROUP; n++)
        for (int distance = 16; distance > 0 && x[n] >= 0; distance /= 2)
            sum[n] += cm_shuffle_xor(sum[n], distance);
}

template <typename T, typename V>
CM_DEVICE void run_few(const Shrink<T, V> &call, const Part &part, cm_shared<int32_t> tokens)
{
    int lane = (int)threadIdx.x % 32;
    for (int column = (int)threadIdx.x / 32; column < RANKS; column += WARPS)
        for (int first = 0; first < part.tile.count; first += GROUP) {
            float sum[GROUP] = {};
            if (part.first + column < part.rank)
                sum_rank(call, part, tokens, part.first + column, first, sum);
            CM_UNROLL
            for (int n = 0; n < GROUP; n++)
                if (lane == n && first + n < part.tile.count)
                    Store<V>{call.v, call.r}.put(part, tokens.get((uint32_t)(first + n)), column, sum[n]);
        }
}

template <typename T, typename V> __global__ void CM_THREADS(THREADS) shrink(Shrink<T, V> call)
{
    cm_shared<int32_t> tokens = cm_shared_array<int32_t>(16, ROWS);
    Part part;
    part.tile = cm_find_tile(call.plan, (int)blockIdx.x);
    if (part.tile.count == 0)
        return;
    part.slice = (int)blockIdx.y / call.rank_tiles;
    part.first = (int)blockIdx.y % call.rank_tiles * RANKS;
    part.adapter = call.plan.adapter.get(part.tile.segment);
    part.rank = part.adapter < 0 ? 0 : call.rank.get(part.adapter);
    if ((int)threadIdx.x < part.tile.count)
        tokens.set(threadIdx.x, call.plan.permutation.get(part.tile.first + (int)threadIdx.x));
    cm_barrier();
    if constexpr (sizeof(T) == 2)
        if (part.tile.dense && part.first < part.rank) {
            run_dense(call, part, tokens);
            return;
        }
    run_few(call, part, tokens);
}

template <typename T, typename V> cm_status launch(const cm_call *call)
{
    int64_t S = call->host->dim(call, 'S'), r = call->host->dim(call, 'r');
    const size_t shared = CM_TILE_SHARED + (sizeof(T) == 2 ? STAGES * STAGE * sizeof(T) : 0);
    Shrink<T, V> parameters = {cm_plan_of(call),
                               cm_rows_of<const T>(call, "x"),
                               cm_rows_of<const T>(call, "lora_a"),
                               cm_rows_of<V>(call, "v"),
                               cm_array_of<const int32_t>(call, "lora_rank"),
                               call->host->dim(call, 'K'),
                               (int)r,
                               (int)cm_ceiling(r, RANKS),
                               cm_has_vectors(call->host->argument(call, "x")) &&
                                   cm_has_vectors(call->host->argument(call, "lora_a"))};
    dim3 grid = {(unsigned)cm_tiles_of(call), (unsigned)(S * parameters.rank_tiles), 1};
    if (grid.x == 0 || grid.y == 0)
        return CM_OK;
    return CM_LAUNCH(call, (shrink<T, V>), grid, (dim3{THREADS, 1, 1}), shared, parameters);
}

bool supports(const cm_call *call, char *reason, size_t size)
{
    cm_kind x = cm_kind_of(call, "x"), v = cm_kind_of(call, "v");
    if (cm_kind_of(call, "lora_a") == x && (v == x || v == CM_KIND_F32))
        return true;
    snprintf(reason, size, "x and A must share a dtype, and v have the same or f32");
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
    switch (cm_kind_of(call, "x")) {
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

const cm_kernel cm_sgmv_shrink_cuda = {
    .size = sizeof(cm_kernel),
    .name = "sgmv_shrink/cuda",
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
