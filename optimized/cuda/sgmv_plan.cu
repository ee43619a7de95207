// SPDX-License-Identifier: Apache-2.0
// sgmv_plan/cuda: a counting sort over adapters in one block. A warp takes an adapter at a time and counts
// its tokens by votes; one warp turns the counts into segments; then the votes give each token its place.
// Stable, and nothing is atomic. One launch; reads token_adapter (L+1)/8 times, from the cache. Limits: L + 1
// counts fit into shared memory, 48 KiB of them.
#include "optimized/cuda/arrays.h"
#include "optimized/kernels.h"

namespace
{

enum { THREADS = 256, WARPS = THREADS / 32, MOST_ADAPTERS = 12 * 1024 - 1 };

struct Plan {
    cm_global<const int32_t> token_adapter;
    cm_global<int32_t> permutation, offset, adapter;
    int T, L;
};

// Whether token `t` exists and has this adapter.
CM_DEVICE bool belongs(const Plan &plan, int t, int adapter)
{
    return t < plan.T && plan.token_adapter.get(t) == adapter;
}

// Counts of adapters -1 .. L-1 become the places at which they begin; those above 0 are listed. One warp.
CM_DEVICE void list_segments(const Plan &plan, cm_shared<int32_t> places, int lane)
{
    int begin = 0, segment = 0;
    for (int base = 0; base <= plan.L; base += 32) {
        uint32_t a = (uint32_t)(base + lane);
        int count = base + lane <= plan.L ? places.get(a) : 0, upto = count;
        for (int distance = 1; distance < 32; distance *= 2) {
            int other = cm_shuffle_up(upto, distance);
            upto += lane >= distance ? other : 0;
        }
        unsigned listed = cm_ballot(count > 0);
        if (base + lane <= plan.L)
            places.set(a, begin + upto - count);
        if (count > 0) {
            int at = segment + cm_popcount(listed & ((1u << lane) - 1));
            plan.offset.set(at, begin + upto - count);
            plan.adapter.set(at, base + lane - 1);
        }
        segment += cm_popcount(listed);
        begin += cm_shuffle(upto, 31);
    }
    for (int at = segment + lane; at <= plan.L + 1; at += 32) {
        plan.offset.set(at, plan.T);
        if (at <= plan.L)
            plan.adapter.set(at, -1);
    }
}

__global__ void CM_THREADS(THREADS) make_plan(Plan plan)
{
    cm_shared<int32_t> places = cm_shared_array<int32_t>(0, (uint32_t)plan.L + 1);
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    for (int a = warp; a <= plan.L; a += WARPS) {
        int count = 0;
        for (int t = lane; t - lane < plan.T; t += 32)
            count += cm_popcount(cm_ballot(belongs(plan, t, a - 1)));
        if (lane == 0)
            places.set((uint32_t)a, count);
    }
    cm_barrier();
    if (warp == 0)
        list_segments(plan, places, lane);
    cm_barrier();
    for (int a = warp; a <= plan.L; a += WARPS) {
        int place = places.get((uint32_t)a);
        for (int t = lane; t - lane < plan.T; t += 32) {
            bool mine = belongs(plan, t, a - 1);
            unsigned votes = cm_ballot(mine);
            if (mine)
                plan.permutation.set(place + cm_popcount(votes & ((1u << lane) - 1)), t);
            place += cm_popcount(votes);
        }
    }
}

bool supports(const cm_call *call, char *reason, size_t size)
{
    if (call->host->dim(call, 'L') <= MOST_ADAPTERS && call->host->dim(call, 'T') < INT32_MAX - 64)
        return true;
    snprintf(reason, size, "more than %d adapters, or 2^31 tokens", MOST_ADAPTERS);
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
    Plan plan = {cm_array_of<const int32_t>(call, "token_adapter"),
                 cm_array_of<int32_t>(call, "permutation"),
                 cm_array_of<int32_t>(call, "segment_offset"),
                 cm_array_of<int32_t>(call, "segment_adapter"),
                 (int)call->host->dim(call, 'T'),
                 (int)call->host->dim(call, 'L')};
    return CM_LAUNCH(call, make_plan, (dim3{1, 1, 1}), (dim3{THREADS, 1, 1}),
                     ((size_t)plan.L + 1) * sizeof(int32_t), plan);
}

} // namespace

const cm_kernel cm_sgmv_plan_cuda = {
    .size = sizeof(cm_kernel),
    .name = "sgmv_plan/cuda",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .device = kDLCUDA,
    .supports = supports,
    .run = run,
    .side = &CM_CUDA_SIDE,
    .capturable = true,
};
