// SPDX-License-Identifier: Apache-2.0
#include "optimized/cpu/team.h"

#include "optimized/cpu/state.h"

#ifdef _OPENMP
#include <omp.h>
#endif

int cm_team_limit(const cm_call *call)
{
    int most = 1; // a compiler whose OpenMP is not the one that is linked
#ifdef _OPENMP
    most = omp_get_max_threads();
#endif
    return call->threads > 0 && call->threads < most ? call->threads : most;
}

void cm_shares_open(struct cm_share *shares, int threads, int64_t items)
{
    for (int n = 0; n < threads; n++) {
        uint64_t begin = (uint64_t)(items * n / threads), end = (uint64_t)(items * (n + 1) / threads);
        atomic_init(&shares[n].range, begin << 32 | end);
    }
}

static int64_t take_one(struct cm_share *share, bool front)
{
    uint64_t range = atomic_load_explicit(&share->range, memory_order_relaxed);
    for (;;) {
        uint64_t begin = range >> 32, end = range & 0xffffffff;
        if (begin >= end)
            return -1;
        uint64_t rest = front ? (begin + 1) << 32 | end : begin << 32 | (end - 1);
        if (atomic_compare_exchange_weak_explicit(&share->range, &range, rest, memory_order_relaxed,
                                                  memory_order_relaxed))
            return (int64_t)(front ? begin : end - 1);
    }
}

int64_t cm_shares_take(struct cm_share *shares, int threads, int thread)
{
    int64_t item = take_one(&shares[thread], true);
    for (int n = 1; item < 0 && n < threads; n++)
        item = take_one(&shares[(thread + n) % threads], false);
    return item;
}

void cm_team_run(int threads, void (*work)(void *context, int thread, int threads), void *context)
{
#ifdef _OPENMP
    if (threads > 1) {
#pragma omp parallel num_threads(threads)
        work(context, omp_get_thread_num(), omp_get_num_threads());
        return;
    }
#endif
    (void)threads;
    work(context, 0, 1);
}

void cm_team_meet(void)
{
#ifdef _OPENMP
#pragma omp barrier
#endif
}
