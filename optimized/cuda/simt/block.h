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

// What the lanes of a mask leave for each other; taken until all of them have read it.
struct Slots {
    unsigned readers; // lanes that still have to leave
    const void *pointer[WARP];
    uint64_t value[WARP];
};

// A rendezvous of the lanes of a mask.
struct Meeting {
    unsigned mask, arrived;
    const char *operation;
    Place place;
    Slots *slots;
};

struct Warp {
    unsigned exited; // lanes
    uint32_t syncs;  // __syncwarp of all its living lanes so far: orders memory within the warp
    Meeting meetings[WARP];
    uint32_t under_way;    // meetings with arrived lanes, by bit
    Slots slots[2 * WARP]; // a lane is in one meeting and reads from one at most
};

// What the kernel did to each granule of shared memory since the block began.
struct Shadow {
    uint32_t write_barrier, write_sync, read_barrier, read_sync;
    int16_t writer, reader; // thread numbers; NOBODY; MANY_LANES + warp; MANY_WARPS
    uint8_t state;          // of enum ShadowState
};
enum ShadowState : uint8_t { UNWRITTEN, WRITTEN, PENDING, ATOMIC };
constexpr int16_t NOBODY = -1, MANY_WARPS = -2, MANY_LANES = 2048;
constexpr uint32_t GRANULE = 2; // bytes: narrower elements are loaded and stored in groups

struct Block {
    Index3 index, grid, size; // of the block, of the grid in blocks, of the block in threads
    int thread_count, warp_count, alive, waiting;
    Thread *current;
    Fiber scheduler;
    std::vector<Thread> threads; // their stacks are kept from block to block
    std::vector<Warp> warps;
    std::vector<int> order; // of the threads in this block's schedule
    std::vector<int> ready; // a ring of thread numbers
    size_t ready_first, ready_count;
    uint32_t barriers; // __syncthreads passed so far
    // A read of bytes that nobody has written yet: uninitialised, unless a write follows before the next
    // barrier; then it was a race. line 0: there was none.
    Place early;
    uint32_t early_byte;
    int early_reader;
    std::vector<unsigned char> shared;
    std::vector<Shadow> shadow;
    size_t shared_bytes;
    void (*entry)(void *);
    void *closure;
    Fault fault;
    char message[400];
};

// The block that this OS thread runs; NULL outside a launch.
Block *block(void);
Thread *thread(void); // the running CUDA thread

// Ends the launch with this fault; does not return.
[[noreturn]] void fail(Fault fault, Place place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// Puts the running thread to sleep in `state`, and goes on with another one.
void wait(State state);
void wake(Thread *thread);

void barrier(Place place);
void settle_early_read(void); // at a barrier and at the end of the block
void lane_exits(Thread *thread);

// All lanes of `mask` meet; returns what they left, by lane. To be left by leave() when it was read.
Slots *meet(unsigned mask, const char *operation, Place place, const void *pointer, uint64_t value);
void leave(Slots *slots);
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
