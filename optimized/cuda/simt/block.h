// SPDX-License-Identifier: Apache-2.0
// The emulated multiprocessor: runs the blocks of a grid one after the other, one fiber for each thread.
#ifndef CM_SIMT_BLOCK_H
#define CM_SIMT_BLOCK_H

#include "optimized/cuda/simt/fiber.h"
#include "optimized/cuda/simt/report.h"

#include <stdint.h>
#include <vector>

namespace cm_simt
{

struct Index3 {
    unsigned x, y, z;
};

constexpr int WARP = 32;
constexpr int MOST_THREADS = 1024;
constexpr size_t MOST_SHARED = 227 * 1024; // bytes, sm_90 opted in

enum State { READY, AT_BARRIER, IN_COLLECTIVE, EXITED };

// One cp.async: 16 bytes or fewer on their way to shared memory.
struct Copy {
    uint32_t to; // byte of shared memory
    const void *from;
    uint32_t bytes, zeros; // zeros: filled in behind them
    int group;             // -1: not committed yet
    Place place;
};

struct Thread {
    Fiber fiber;
    Index3 index;
    int number, lane, warp; // number: x fastest, then y, then z
    State state;
    Place place;           // of what it waits for
    unsigned mask;         // of its collective, this or the last one; 0: none yet
    const char *operation; // that collective's name
    Place collective;      // and where it stands
    std::vector<Copy> copies;
    int groups; // cp.async groups committed so far
};

// What a lane brings to a collective, and where it wants the result.
struct Visitor {
    void *pointer;
    uint64_t value;
    int from; // lane that it reads from
};

// A rendezvous of the lanes of a mask.
struct Meeting {
    unsigned mask, arrived;
    const char *operation;
    Place place; // of the first lane
    Visitor lanes[WARP];
};

struct Warp {
    unsigned exited;    // lanes
    uint32_t syncs;     // __syncwarp of all its living lanes so far: orders memory within the warp
    uint32_t under_way; // meetings with arrived lanes, by bit; the others' contents mean nothing
    Meeting meetings[WARP];
    uint8_t order[WARP]; // of its lanes in this block's schedule
    int lanes;           // in `order`
};

// What the kernel did to some bytes of shared memory. Epochs count barriers and never return, so that nothing
// is cleared between blocks.
struct Shadow {
    uint32_t write_epoch, write_sync, read_epoch, read_sync;
    int16_t writer, reader; // thread numbers; MANY_LANES + warp; MANY_WARPS
    uint8_t state;          // of enum ShadowState, if it was written in this block
};
enum ShadowState : uint8_t { WRITTEN, PENDING, ATOMIC };
constexpr int16_t MANY_WARPS = -2, MANY_LANES = 2048;
constexpr uint32_t GRANULE = 2; // bytes: narrower elements are loaded and stored in groups

// Shared memory is kept account of in units: one shadow for all of a unit, or one for each granule from the
// epoch on in which a part of it was touched alone.
struct Unit {
    Shadow whole;
    uint32_t split_epoch; // before this block: it is whole
};
constexpr uint32_t UNIT = 16; // bytes

struct Block {
    Index3 index, grid, size; // of the block, of the grid in blocks, of the block in threads
    int thread_count, warp_count, alive, waiting;
    Thread *current;
    Fiber scheduler;
    std::vector<Thread> threads; // their stacks are kept from block to block
    std::vector<Warp> warps;
    std::vector<int> order;      // of the threads in this block's schedule
    Thread *ready[MOST_THREADS]; // a ring
    unsigned ready_first, ready_count;
    uint32_t epoch, first_epoch; // grows with each barrier and each block; that of this block's beginning
    uint64_t number;             // of the block, x fastest
    // A read of bytes that nobody has written yet: uninitialised, unless a write follows before the next
    // barrier; then it was a race. line 0: there was none.
    Place early;
    uint32_t early_byte;
    int early_reader;
    std::vector<unsigned char> shared;
    std::vector<Unit> units;
    std::vector<Shadow> granules;
    size_t shared_bytes;
    void (*entry)(void *);
    void *closure;
    Fault fault;
    char message[400];
};

// The block that this OS thread runs; NULL outside a launch.
extern __thread Block *running;

inline Block *block(void)
{
    return running;
}

// The running CUDA thread.
inline Thread *thread(void)
{
    return running->current;
}

// Ends the launch with this fault; does not return.
[[noreturn]] void fail(Fault fault, Place place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// Puts the running thread to sleep in `state`, and goes on with another one.
void wait(State state);
void wake(Thread *thread);
// Before those that are ready already: a warp goes on as long as it can, while its stacks are in the cache.
void wake_first(Thread *thread);

void barrier(Place place);
void settle_early_read(void); // at a barrier and at the end of the block
void lane_exits(Thread *thread);

// All lanes of `mask` meet. The last one calls `finish` on behalf of all of them, before any goes on.
void meet(unsigned mask, const char *operation, Place place, const Visitor &visitor,
          void (*finish)(Meeting *meeting));
void sync_warp(unsigned mask, Place place);

struct Launch {
    Index3 grid, block;
    size_t shared_bytes;
    void (*entry)(void *); // runs the kernel for the current thread
    void *closure;
    uint64_t schedule; // 0: threads in order; else the seed of another order
};
// Runs all blocks. NO_FAULT or what went wrong, with the sentence in message.
Fault run_grid(const Launch &launch, char *message, size_t message_size);

} // namespace cm_simt

#endif
