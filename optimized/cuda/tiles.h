// SPDX-License-Identifier: Apache-2.0
// The segments of a plan cut into tiles of a few tokens, one for each block. The grid depends on sizes alone:
// a launch can be captured with one batch and replayed with another; blocks without a tile return.
#ifndef CM_CUDA_TILES_H
#define CM_CUDA_TILES_H

#include "optimized/cuda/arrays.h"

enum { CM_TILE_ROWS = 16, CM_TILE_SHARED = 128 }; // tokens; bytes of shared memory from its start

struct cm_plan {
    cm_global<const int32_t> permutation, offset, adapter;
    int segments; // listed ones, empty ones among them
};

struct cm_tile {
    int segment, first,
        count;  // tokens permutation[first] .. permutation[first + count - 1]; 0: there is none
    bool dense; // its segment has CM_TILE_ROWS tokens or more
};

static inline cm_plan cm_plan_of(const cm_call *call)
{
    return cm_plan{cm_array_of<const int32_t>(call, "permutation"),
                   cm_array_of<const int32_t>(call, "segment_offset"),
                   cm_array_of<const int32_t>(call, "segment_adapter"), (int)call->host->dim(call, 'L') + 1};
}

// Most tiles that T tokens can have: each segment but the empty ones adds one that is not full.
static inline int64_t cm_tiles_of(const cm_call *call)
{
    int64_t T = call->host->dim(call, 'T'), segments = call->host->dim(call, 'L') + 1;
    return T / CM_TILE_ROWS + (segments < T ? segments : T);
}

// Tile `number`, found by the first warp: 32 segments at a time. All threads of the block call it.
CM_DEVICE cm_tile cm_find_tile(const cm_plan &plan, int number)
{
    cm_shared<int32_t> found = cm_shared_array<int32_t>(0, 4);
    int lane = (int)threadIdx.x;
    if (lane < 32) {
        int before = 0;
        unsigned votes = 0;
        for (int base = 0; base < plan.segments && !votes; base += 32) {
            int segment = base + lane, begin = 0, end = 0;
            if (segment < plan.segments) {
                begin = plan.offset.get(segment);
                end = plan.offset.get(segment + 1);
            }
            int tiles = (end - begin + CM_TILE_ROWS - 1) / CM_TILE_ROWS, upto = tiles;
            for (int distance = 1; distance < 32; distance *= 2) {
                int other = cm_shuffle_up(upto, distance);
                upto += lane >= distance ? other : 0;
            }
            int skipped = number - (before + upto - tiles);
            bool mine = skipped >= 0 && skipped < tiles;
            if (mine) {
                int first = begin + skipped * CM_TILE_ROWS;
                found.set(0, segment);
                found.set(1, first);
                found.set(2, end - first < CM_TILE_ROWS ? end - first : CM_TILE_ROWS);
                found.set(3, end - begin >= CM_TILE_ROWS);
            }
            votes = cm_ballot(mine);
            before += cm_shuffle(upto, 31);
        }
        if (!votes && lane < 4)
            found.set((uint32_t)lane, 0);
    }
    cm_barrier();
    return cm_tile{found.get(0), found.get(1), found.get(2), found.get(3) != 0};
}

#endif
