// SPDX-License-Identifier: Apache-2.0
// sgmv/cuda: y (+)= s B A x for tiles of 16 tokens of a segment and some columns. A block forms v of a slice
// in shared memory and multiplies it with B of its columns at once: neither v nor a delta goes through device
// memory. Dense segments (16 tokens or more) go through tensor cores, with v rounded to the dtype of x; small
// ones and fp32 read rows in vectors, a warp for two ranks, then a thread for each column, with v in fp32.
// Nothing is atomic: each element of y has one writer, each sum one order.
// One launch; moves A of the used adapters once per 16 tokens and block (from the second on out of the
// second-level cache), B once per 16 tokens, x once per block, y once (read and written). Where there are few
// tokens the columns are divided among more blocks, so that all processors of the GPU have one.
// Limits: x, A, B and y share a dtype; in f16, v of dense segments has its range.
#include "optimized/cuda/tiles.h"
#include "optimized/kernels.h"

namespace
{

enum {
    ROWS = CM_TILE_ROWS,
    WARPS = 8,
    THREADS = 32 * WARPS,
    COLUMNS = 16 * WARPS, // of a dense product: a warp has 16
    RANKS = 32,           // of a dense v
    STEP = 16 * WARPS,    // of K, a stage: a warp has 16
    PITCH = STEP + 8,
    STAGES = 3,
    STAGE = (ROWS + RANKS) * PITCH,
    B_STEP = 64, // ranks of B in shared memory
    B_PITCH = B_STEP + 8,
    GROUP = 4,    // tokens whose sums a warp keeps
    BLOCKS = 528, // that are worth having: four for each of 132 processors
};
static_assert(WARPS * ROWS * RANKS * 4 <= STAGES * STAGE * 2, "sums of all warps fit where stages were");
static_assert(COLUMNS * B_PITCH <= STAGES * STAGE, "and so does B");

template <typename T> struct Pair {
    cm_plan plan;
    cm_rows<const T> x, a, b; // [T, K], [L, S, r, K], [L, N, r]
    cm_rows<T> y;             // [T, N]
    cm_global<const int32_t> slices, rank;
    cm_global<const float> scaling;
    int64_t K;
    int S, ranks, each; // ranks: r, in whole RANKS; each: groups of COLUMNS columns of a block
    bool accumulate;
    bool x_vectors, b_vectors; // rows of x and A, of B begin at multiples of 16 bytes
};

// What a block computes: columns begin .. end - 1, all of one slice.
struct Part {
    cm_tile tile;
    int64_t adapter, begin, end;
    int slice, rank;
    float scaling;
};

CM_DEVICE cm_shared<int32_t> tokens_of(void)
{
    return cm_shared_array<int32_t>(16, ROWS);
}

// v: rows of fp32, or of T for tensor cores; `ranks` of them and a gap of 16 bytes.
template <typename V> CM_DEVICE int v_at(int ranks, int row, int rank)
{
    return row * (ranks + (int)(16 / sizeof(V))) + rank;
}

template <typename V> CM_DEVICE cm_shared<V> v_of(int ranks)
{
    return cm_shared_array<V>(CM_TILE_SHARED, (uint32_t)(ROWS * (ranks + 16 / sizeof(V))));
}

// Stages of x and A, then the warps' sums, then B.
template <typename V> CM_DEVICE cm_shared<V> area_of(int ranks, int first, int count)
{
    uint32_t begin = CM_TILE_SHARED + (uint32_t)(ROWS * (ranks + 4)) * 4;
    return cm_shared_array<V>(begin + (uint32_t)first * sizeof(V), (uint32_t)count);
}

// Elements source .. source + valid - 1 and zeros, up to 16 bytes.
template <typename T>
CM_DEVICE void load_chunk(cm_shared<T> to, uint32_t index, cm_global<const T> from, int64_t source, int valid,
                          bool vectors)
{
    if (vectors)
        cm_async_copy(to, index, from, source, valid);
    else
        for (int n = 0; n < (int)(16 / sizeof(T)); n++)
            to.set(index + (uint32_t)n, n < valid ? from.get(source + n) : T{0});
}

CM_DEVICE int held(int64_t left, int most)
{
    return left > most ? most : left > 0 ? (int)left : 0;
}

// Rows 0 .. ROWS-1 of a stage are x, the others A; what a token, a rank or K doesn't have is 0.
template <typename T>
CM_DEVICE void load_step(const Pair<T> &call, const Part &part, int first, cm_shared<T> stage, int64_t k)
{
    for (int chunk = (int)threadIdx.x; chunk < (ROWS + RANKS) * STEP / 8; chunk += THREADS) {
        int row = chunk / (STEP / 8), column = chunk % (STEP / 8) * 8, rank = first + row - ROWS;
        bool exists = row < ROWS ? row < part.tile.count : rank < part.rank;
        int valid = held(exists ? call.K - k - column : 0, 8);
        int64_t source = 0;
        if (valid > 0)
            source = (row < ROWS ? call.x.at(0, 0, tokens_of().get((uint32_t)row))
                                 : call.a.at(part.adapter, part.slice, rank)) +
                     k + column;
        load_chunk(stage, (uint32_t)(row * PITCH + column), row < ROWS ? call.x.memory : call.a.memory,
                   source, valid, call.x_vectors);
    }
}

// Ranks first .. first + RANKS - 1 of v: each warp sums up a part of each step.
template <typename T> CM_DEVICE void shrink_dense(const Pair<T> &call, const Part &part, int first)
{
    float sum[RANKS / 8][4] = {};
    int steps = (int)((call.K + STEP - 1) / STEP), warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    for (int n = 0; n < STAGES - 1; n++) {
        if (n < steps)
            load_step(call, part, first, area_of<T>(call.ranks, n * STAGE, STAGE), (int64_t)n * STEP);
        cm_async_commit();
    }
    for (int step = 0; step < steps; step++) {
        int next = step + STAGES - 1;
        cm_async_wait<STAGES - 2>();
        cm_barrier(); // this stage is there, and the one before it is free
        if (next < steps)
            load_step(call, part, first, area_of<T>(call.ranks, next % STAGES * STAGE, STAGE),
                      (int64_t)next * STEP);
        cm_async_commit();
        cm_shared<T> stage = area_of<T>(call.ranks, step % STAGES * STAGE, STAGE);
        uint32_t x[4];
        cm_load_matrices<4>(x, stage, (uint32_t)(lane % 16 * PITCH + 16 * warp + lane / 16 * 8));
        CM_UNROLL
        for (int pair = 0; pair < RANKS / 16; pair++) {
            uint32_t a[4];
            int row = ROWS + 16 * pair + lane / 16 * 8 + lane % 8;
            cm_load_matrices<4>(a, stage, (uint32_t)(row * PITCH + 16 * warp + lane / 8 % 2 * 8));
            cm_mma<T>(sum[2 * pair], x, a, sum[2 * pair]);
            cm_mma<T>(sum[2 * pair + 1], x, a + 2, sum[2 * pair + 1]);
        }
    }
    cm_barrier();
    cm_shared<float> sums = area_of<float>(call.ranks, 0, WARPS * ROWS * RANKS);
    CM_UNROLL
    for (int n = 0; n < RANKS / 2; n++) {
        int row = lane / 4 + 8 * (n >> 1 & 1), column = 8 * (n >> 2) + 2 * (lane % 4) + (n & 1);
        sums.set((uint32_t)((warp * ROWS + row) * RANKS + column), sum[n >> 2][n & 3]);
    }
    cm_barrier();
    for (int n = (int)threadIdx.x; n < ROWS * RANKS; n += THREADS) {
        float whole = 0;
        for (int w = 0; w < WARPS; w++)
            whole += sums.get((uint32_t)(w * ROWS * RANKS + n));
        T narrow;
        cm_narrow(whole, &narrow);
        v_of<T>(call.ranks).set((uint32_t)v_at<T>(call.ranks, n / RANKS, first + n % RANKS), narrow);
    }
    cm_barrier();
}

template <typename T> struct alignas(16) Vector {
    T elements[16 / sizeof(T)];
};

// Up to 16 bytes from element n of a row on; the rest is 0.
template <typename T>
CM_DEVICE Vector<T> read_vector(cm_global<const T> memory, int64_t row, int64_t n, int64_t count,
                                bool vectors)
{
    const int most = 16 / sizeof(T);
    if (vectors && n + most <= count)
        return cm_bits<Vector<T>>(memory.template get_vector<uint4>(row + n));
    Vector<T> vector;
    CM_UNROLL
    for (int i = 0; i < most; i++)
        vector.elements[i] = n + i < count ? memory.get(row + n + i) : T{0};
    return vector;
}

// Two ranks of v, for up to GROUP tokens from `first` on.
template <typename T> CM_DEVICE void shrink_few(const Pair<T> &call, const Part &part, int rank, int first)
{
    const int most = 16 / sizeof(T);
    int lane = (int)threadIdx.x % 32;
    bool both = rank + WARPS < part.rank;
    float sum[2][GROUP] = {};
    int64_t x[GROUP], a = call.a.at(part.adapter, part.slice, rank),
                      a2 = both ? call.a.at(part.adapter, part.slice, rank + WARPS) : a;
    CM_UNROLL
    for (int n = 0; n < GROUP; n++)
        x[n] = first + n < part.tile.count ? call.x.at(0, 0, tokens_of().get((uint32_t)(first + n))) : -1;
    for (int64_t k = (int64_t)lane * most; k < call.K; k += 32 * most) {
        Vector<T> of_a = read_vector(call.a.memory, a, k, call.K, call.x_vectors);
        Vector<T> of_a2 = read_vector(call.a.memory, a2, k, call.K, call.x_vectors);
        CM_UNROLL
        for (int n = 0; n < GROUP; n++) {
            if (x[n] < 0)
                continue;
            Vector<T> of_x = read_vector(call.x.memory, x[n], k, call.K, call.x_vectors);
            CM_UNROLL
            for (int i = 0; i < most; i++) {
                sum[0][n] += cm_widen(of_a.elements[i]) * cm_widen(of_x.elements[i]);
                sum[1][n] += cm_widen(of_a2.elements[i]) * cm_widen(of_x.elements[i]);
            }
        }
    }
    CM_UNROLL
    for (int n = 0; n < 2 * GROUP; n++) {
        float whole = sum[n / GROUP][n % GROUP];
        for (int distance = 16; distance > 0; distance /= 2)
            whole += cm_shuffle_xor(whole, distance);
        if (lane == n && first + n % GROUP < part.tile.count && (n < GROUP || both))
            v_of<float>(call.ranks)
                .set((uint32_t)v_at<float>(call.ranks, first + n % GROUP, rank + n / GROUP * WARPS), whole);
    }
}

template <typename T>
CM_DEVICE void store(const Pair<T> &call, const Part &part, int row, int64_t column, float sum)
{
    if (row >= part.tile.count || column >= part.end)
        return;
    int64_t at = call.y.at(0, 0, tokens_of().get((uint32_t)row)) + column;
    float before = call.accumulate ? cm_widen(call.y.memory.get(at)) : 0;
    T value;
    cm_narrow(before + part.scaling * sum, &value);
    call.y.memory.set(at, value);
}

// Columns begin .. begin + COLUMNS - 1: a warp has 16, in fragments of 8.
template <typename T> CM_DEVICE void expand_dense(const Pair<T> &call, const Part &part, int64_t begin)
{
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    cm_shared<T> b = area_of<T>(call.ranks, 0, COLUMNS * B_PITCH);
    float sum[2][4] = {};
    for (int first = 0; first < part.rank; first += B_STEP) {
        for (int chunk = (int)threadIdx.x; chunk < COLUMNS * B_STEP / 8; chunk += THREADS) {
            int column = chunk / (B_STEP / 8), rank = chunk % (B_STEP / 8) * 8;
            int valid = held(begin + column < part.end ? part.rank - first - rank : 0, 8);
            int64_t source = valid > 0 ? call.b.at(0, part.adapter, begin + column) + first + rank : 0;
            load_chunk(b, (uint32_t)(column * B_PITCH + rank), call.b.memory, source, valid, call.b_vectors);
        }
        cm_async_commit();
        cm_async_wait<0>();
        cm_barrier();
        for (int k = 0; k < B_STEP && first + k < part.rank; k += 16) {
            uint32_t v[4], columns[4];
            cm_load_matrices<4>(
                columns, b,
                (uint32_t)((16 * warp + lane / 16 * 8 + lane % 8) * B_PITCH + k + lane / 8 % 2 * 8));
            cm_load_matrices<4>(v, v_of<T>(call.ranks),
                                (uint32_t)v_at<T>(call.ranks, lane % 16, first + k + lane / 16 * 8));
            cm_mma<T>(sum[0], v, columns, sum[0]);
            cm_mma<T>(sum[1], v, columns + 2, sum[1]);
        }
        cm_barrier();
    }
    CM_UNROLL
    for (int n = 0; n < 8; n++)
        store(call, part, lane / 4 + 8 * (n >> 1 & 1),
              begin + 16 * warp + 8 * (n >> 2) + 2 * (lane % 4) + (n & 1), sum[n >> 2][n & 3]);
}

// One column for up to GROUP tokens from `first` on.
template <typename T>
CM_DEVICE void expand_few(const Pair<T> &call, const Part &part, int64_t column, int first)
{
    const int most = 16 / sizeof(T);
    int64_t row = call.b.at(0, part.adapter, column);
    float sum[GROUP] = {};
    for (int j = 0; j < part.rank; j += most) {
        Vector<T> of_b = read_vector(call.b.memory, row, j, part.rank, call.b_vectors);
        CM_UNROLL
        for (int n = 0; n < GROUP; n++) {
            if (first + n >= part.tile.count)
                continue;
            CM_UNROLL
            for (int i = 0; i < most; i++)
                if (j + i < part.rank)
                    sum[n] +=
                        cm_widen(of_b.elements[i]) *
                        v_of<float>(call.ranks).get((uint32_t)v_at<float>(call.ranks, first + n, j + i));
        }
    }
    CM_UNROLL
    for (int n = 0; n < GROUP; n++)
        store(call, part, first + n, column, sum[n]);
}

// v of the part's slice, then its columns.
template <typename T> CM_DEVICE void run_part(const Pair<T> &call, const Part &part)
{
    if constexpr (sizeof(T) == 2)
        if (part.tile.dense && part.rank > 0) {
            for (int first = 0; first < part.rank; first += RANKS)
                shrink_dense(call, part, first);
            for (int64_t begin = part.begin; begin < part.end; begin += COLUMNS)
                expand_dense(call, part, begin);
            return;
        }
    for (int rank = (int)threadIdx.x / 32; rank < part.rank; rank += 2 * WARPS)
        for (int first = 0; first < part.tile.count; first += GROUP)
            shrink_few(call, part, rank, first);
    cm_barrier();
    for (int64_t column = part.begin + (int)threadIdx.x; column < part.end; column += THREADS)
        for (int first = 0; first < part.tile.count; first += GROUP)
            expand_few(call, part, column, first);
    cm_barrier(); // v is free
}

// A block has `each` groups of columns, counted over all slices.
template <typename T> __global__ void CM_THREADS(THREADS) pair(Pair<T> call)
{
    Part part;
    part.tile = cm_find_tile(call.plan, (int)blockIdx.x);
    if (part.tile.count == 0)
        return;
    part.adapter = call.plan.adapter.get(part.tile.segment);
    part.rank = part.adapter < 0 ? 0 : call.rank.get(part.adapter);
    part.scaling = part.rank > 0 ? call.scaling.get(part.adapter) : 0;
    if (part.rank == 0 && call.accumulate)
        return;
    if ((int)threadIdx.x < part.tile.count)
        tokens_of().set(threadIdx.x, call.plan.permutation.get(part.tile.first + (int)threadIdx.x));
    cm_barrier();
    int first = (int)blockIdx.y * call.each, last = first + call.each, before = 0;
    for (part.slice = 0; part.slice < call.S && before < last; part.slice++) {
        int begin = call.slices.get(part.slice), end = call.slices.get(part.slice + 1);
        int groups = (end - begin + COLUMNS - 1) / COLUMNS;
        int from = first > before ? first - before : 0, to = last - before < groups ? last - before : groups;
        before += groups;
        if (from >= to)
            continue;
        part.begin = begin + (int64_t)from * COLUMNS;
        part.end = begin + (int64_t)to * COLUMNS < end ? begin + (int64_t)to * COLUMNS : end;
        run_part(call, part);
    }
}

template <typename T> cm_status launch(const cm_call *call)
{
    int64_t S = call->host->dim(call, 'S'), N = call->host->dim(call, 'N'), r = call->host->dim(call, 'r');
    // A slice adds a group that is not full, unless it is empty. Sizes alone decide: see tiles.h.
    int64_t tiles = cm_tiles_of(call), groups = N / COLUMNS + (S < N ? S : N);
    int64_t parts = tiles > 0 ? cm_ceiling(BLOCKS, tiles) : 1, each = cm_ceiling(groups, parts);
    Pair<T> parameters = {cm_plan_of(call),
                          cm_rows_of<const T>(call, "x"),
                          cm_rows_of<const T>(call, "lora_a"),
                          cm_rows_of<const T>(call, "lora_b"),
                          cm_rows_of<T>(call, "y"),
                          cm_array_of<const int32_t>(call, "slice_offset"),
                          cm_array_of<const int32_t>(call, "lora_rank"),
                          cm_array_of<const float>(call, "lora_scaling"),
                          call->host->dim(call, 'K'),
                          (int)S,
                          (int)(cm_ceiling(r, RANKS) * RANKS),
                          (int)each,
                          call->host->attribute(call, "accumulate") != 0,
                          cm_has_vectors(call->host->argument(call, "x")) &&
                              cm_has_vectors(call->host->argument(call, "lora_a")),
                          cm_has_vectors(call->host->argument(call, "lora_b"))};
    dim3 grid = {(unsigned)tiles, (unsigned)(each > 0 ? cm_ceiling(groups, each) : 0), 1};
    if (grid.x == 0 || grid.y == 0)
        return CM_OK;
    size_t shared = CM_TILE_SHARED + (size_t)(ROWS * (parameters.ranks + 4)) * 4 +
                    (sizeof(T) == 2 ? STAGES * STAGE * sizeof(T) : 0);
    return CM_LAUNCH(call, pair<T>, grid, (dim3{THREADS, 1, 1}), shared, parameters);
}

bool supports(const cm_call *call, char *reason, size_t size)
{
    cm_kind x = cm_kind_of(call, "x");
    if (cm_kind_of(call, "lora_a") == x && cm_kind_of(call, "y") == x && call->host->dim(call, 'r') <= 512)
        return true;
    snprintf(reason, size, "x, A, B and y must share a dtype, and ranks be at most 512");
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
    switch (cm_kind_of(call, "x")) {
    case CM_KIND_BF16:
        return launch<cm_bf16>(call);
    case CM_KIND_F16:
        return launch<cm_f16>(call);
    default:
        return launch<float>(call);
    }
}

// Which of both a segment takes, only the device knows.
const cm_switch_point points[] = {{"rows", CM_TILE_ROWS, "from vectors to tensor cores"}, {}};

} // namespace

const cm_kernel cm_sgmv_cuda = {
    .size = sizeof(cm_kernel),
    .name = "sgmv/cuda",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_MODEL,
    .device = kDLCUDA,
    .supports = supports,
    .run = run,
    .side = &CM_CUDA_SIDE,
    .capturable = true,
    .switch_points = points,
};
