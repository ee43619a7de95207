// SPDX-License-Identifier: Apache-2.0
// Threads of one call, and how they divide what there is to do.
#ifndef CM_CPU_TEAM_H
#define CM_CPU_TEAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

// The items begin..end - 1 that a thread has left of a phase. It takes them from the front, so that it reads
// memory in one direction; who has none left takes them from the end.
struct cm_share {
    _Alignas(64) _Atomic uint64_t range; // begin << 32 | end
};

// Items 0..items - 1, evenly: shares [threads].
void cm_shares_open(struct cm_share *shares, int threads, int64_t items);
// The next item of a thread; -1: none are left.
int64_t cm_shares_take(struct cm_share *shares, int threads, int thread);

// Calls work(context, thread, threads) on `threads` threads, or fewer if there are no more.
void cm_team_run(int threads, void (*work)(void *context, int thread, int threads), void *context);
// All threads of the team that runs have come this far.
void cm_team_meet(void);

#endif
