// SPDX-License-Identifier: Apache-2.0
#include "optimized/cuda/simt/block.h"

#include <algorithm>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

namespace cm_simt
{

__thread Block *running;

const char *fault_name(Fault fault)
{
    static const char *const names[] = {"no fault",
                                        "bad launch",
                                        "missing barrier",
                                        "divergent barrier",
                                        "deadlock",
                                        "wrong lane mask",
                                        "collective with an exited lane",
                                        "shuffle from a lane outside the mask",
                                        "shared memory out of bounds",
                                        "device memory out of bounds",
                                        "read of uninitialised shared memory",
                                        "missing cp.async wait",
                                        "misaligned access",
                                        "write conflict between blocks",
                                        "no memory"};
    return names[fault];
}

static Thread *take_ready(Block *b)
{
    Thread *first = b->ready[b->ready_first];
    b->ready_first = (b->ready_first + 1) % MOST_THREADS;
    b->ready_count--;
    return first;
}

static void next(Thread *from, bool ends)
{
    Block *b = running;
    if (b->fault != NO_FAULT || b->ready_count == 0) {
        fiber_switch(&from->fiber, &b->scheduler, ends);
        return;
    }
    Thread *to = take_ready(b);
    if (to == from)
        return;
    b->current = to;
    fiber_switch(&from->fiber, &to->fiber, ends);
}

void wake(Thread *sleeper)
{
    Block *b = running;
    sleeper->state = READY;
    b->ready[(b->ready_first + b->ready_count++) % MOST_THREADS] = sleeper;
}

void wake_first(Thread *sleeper)
{
    Block *b = running;
    sleeper->state = READY;
    b->ready_first = (b->ready_first - 1) % MOST_THREADS;
    b->ready[b->ready_first] = sleeper;
    b->ready_count++;
}

void wait(State state)
{
    Thread *self = running->current;
    self->state = state;
    next(self, false);
}

void fail(Fault fault, Place place, const char *format, ...)
{
    Block *b = running;
    const Thread *self = b->current;
    va_list list;
    char what[240];
    va_start(list, format);
    vsnprintf(what, sizeof what, format, list);
    va_end(list);
    b->fault = fault;
    snprintf(b->message, sizeof b->message, "%s: %s, at %s:%d, block (%u,%u,%u), thread (%u,%u,%u)",
             fault_name(fault), what, place.file, place.line, b->index.x, b->index.y, b->index.z,
             self->index.x, self->index.y, self->index.z);
    fiber_switch(&b->current->fiber, &b->scheduler, true);
    __builtin_unreachable();
}

static void release_barrier(void)
{
    Block *b = running;
    if (b->waiting == 0 || b->waiting < b->alive)
        return;
    const Thread *first = nullptr;
    for (const Thread &t : b->threads)
        if (t.number < b->thread_count && t.state == AT_BARRIER) {
            if (first &&
                (t.place.line != first->place.line || strcmp(t.place.file, first->place.file) != 0)) {
                int there = 0;
                for (const Thread &other : b->threads)
                    there += other.number < b->thread_count && other.state == AT_BARRIER &&
                             other.place.line == first->place.line;
                fail(DIVERGENT_BARRIER, t.place,
                     "%d threads wait at %s:%d, %d elsewhere, the first of them thread %d", there,
                     first->place.file, first->place.line, b->waiting - there, t.number);
            }
            first = first ? first : &t;
        }
    settle_early_read();
    b->waiting = 0;
    b->epoch++;
    for (int n : b->order)
        if (b->threads[(size_t)n].state == AT_BARRIER)
            wake(&b->threads[(size_t)n]);
}

void settle_early_read(void)
{
    Block *b = running;
    if (b->early.line)
        fail(SHARED_UNINITIALISED, b->early, "byte %u of shared memory, by thread %d", b->early_byte,
             b->early_reader);
}

void barrier(Place place)
{
    Block *b = running;
    Thread *self = b->current;
    self->place = place;
    self->state = AT_BARRIER;
    b->waiting++;
    release_barrier(); // wakes this thread, too, if it is the last
    next(self, false);
}

static void run_thread(void)
{
    fiber_entered();
    Block *b = running;
    b->entry(b->closure);
    Thread *self = b->current;
    self->state = EXITED;
    b->alive--;
    lane_exits(self);
    if (b->alive == 0)
        settle_early_read();
    release_barrier();
    next(self, true);
    __builtin_unreachable();
}

// A lane for which `waiting` waits in vain because it passed the same line with another mask.
static const Thread *went_apart(const Block *b, const Thread *waiting)
{
    for (const Thread &t : b->threads)
        if (t.number < b->thread_count && t.warp == waiting->warp && waiting->mask >> t.lane & 1 &&
            t.state != IN_COLLECTIVE && t.mask && t.mask != waiting->mask &&
            t.collective.line == waiting->place.line && !strcmp(t.collective.file, waiting->place.file))
            return &t;
    return nullptr;
}

// Says who waits for what when nobody can go on.
static void report_deadlock(Block *b)
{
    int barrier = 0, collective = 0;
    const Thread *at_barrier = nullptr, *in_collective = nullptr;
    for (const Thread &t : b->threads) {
        if (t.number >= b->thread_count)
            break;
        if (t.state == AT_BARRIER) {
            at_barrier = at_barrier ? at_barrier : &t;
            barrier++;
        } else if (t.state == IN_COLLECTIVE) {
            in_collective = in_collective ? in_collective : &t;
            collective++;
        }
    }
    const Thread *other = in_collective ? went_apart(b, in_collective) : nullptr;
    if (other) {
        b->fault = WRONG_LANE_MASK;
        snprintf(
            b->message, sizeof b->message,
            "%s: lane %d waits in %s with mask %08x at %s:%d, where lane %d went on with mask %08x, block "
            "(%u,%u,%u)",
            fault_name(WRONG_LANE_MASK), in_collective->lane, in_collective->operation, in_collective->mask,
            in_collective->place.file, in_collective->place.line, other->lane, other->mask, b->index.x,
            b->index.y, b->index.z);
        return;
    }
    b->fault = DEADLOCK;
    int at = snprintf(b->message, sizeof b->message, "%s in block (%u,%u,%u): %d of %d threads have returned",
                      fault_name(DEADLOCK), b->index.x, b->index.y, b->index.z, b->thread_count - b->alive,
                      b->thread_count);
    if (at_barrier)
        at += snprintf(b->message + at, sizeof b->message - (size_t)at,
                       "; %d wait at a barrier, e.g. thread %d at %s:%d", barrier, at_barrier->number,
                       at_barrier->place.file, at_barrier->place.line);
    if (in_collective)
        snprintf(b->message + at, sizeof b->message - (size_t)at,
                 "; %d wait in a collective, e.g. thread %d in %s of mask %08x at %s:%d", collective,
                 in_collective->number, in_collective->operation, in_collective->mask,
                 in_collective->place.file, in_collective->place.line);
}

static uint64_t mix(uint64_t x) // splitmix64
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

// The order in which threads begin and leave a barrier: by number, reversed, warps shuffled, or all shuffled.
static void order_threads(Block *b, uint64_t schedule, uint64_t number)
{
    int unit = schedule % 3 == 2 && b->warp_count > 1 ? WARP : 1;
    std::vector<int> order;
    for (int first = 0; first < b->thread_count; first += unit)
        order.push_back(first);
    uint64_t seed = mix(schedule + number * 0x100000001b3ull);
    for (size_t n = order.size() - 1; n > 0 && schedule && schedule % 3 != 1; n--) {
        seed = mix(seed);
        std::swap(order[n], order[seed % (n + 1)]);
    }
    b->order.clear();
    for (int first : order)
        for (int n = first; n < std::min(first + unit, b->thread_count); n++)
            b->order.push_back(n);
    if (schedule % 3 == 1)
        std::reverse(b->order.begin(), b->order.end());
    b->ready_first = b->ready_count = 0;
    for (int n : b->order) {
        Warp *warp = &b->warps[(size_t)(n / WARP)];
        warp->order[warp->lanes++] = (uint8_t)(n % WARP);
        b->ready[b->ready_count++] = &b->threads[(size_t)n];
    }
}

static bool begin_block(Block *b, const Launch &launch, uint64_t number)
{
    b->index = {(unsigned)(number % launch.grid.x), (unsigned)(number / launch.grid.x % launch.grid.y),
                (unsigned)(number / launch.grid.x / launch.grid.y)};
    b->alive = b->thread_count;
    b->waiting = 0;
    b->number = number;
    b->first_epoch = ++b->epoch;
    b->early.line = 0;
    std::fill(b->shared.begin(), b->shared.end(), (unsigned char)0xff); // NaN as f32, f16 and bf16
    for (int w = 0; w < b->warp_count; w++) {
        Warp *warp = &b->warps[(size_t)w];
        warp->exited = warp->syncs = warp->under_way = 0;
        warp->lanes = 0;
    }
    for (int n = 0; n < b->thread_count; n++) {
        Thread &t = b->threads[(size_t)n];
        t.number = n;
        t.lane = n % WARP;
        t.warp = n / WARP;
        t.index = {(unsigned)n % b->size.x, (unsigned)n / b->size.x % b->size.y,
                   (unsigned)n / b->size.x / b->size.y};
        t.state = READY;
        t.copies.clear();
        t.groups = 0;
        t.mask = 0;
        if (!fiber_prepare(&t.fiber, run_thread, (unsigned)n))
            return false;
    }
    for (int n = b->thread_count; n < b->warp_count * WARP; n++)
        b->warps[(size_t)(n / WARP)].exited |= 1u << n % WARP; // the last warp may be partial
    order_threads(b, launch.schedule, number);
    return true;
}

static Fault check_launch(const Launch &launch, char *message, size_t size)
{
    uint64_t threads = (uint64_t)launch.block.x * launch.block.y * launch.block.z;
    if (threads < 1 || threads > MOST_THREADS || launch.block.z > 64 || !launch.grid.x || !launch.grid.y ||
        !launch.grid.z || launch.grid.x > 0x7fffffffu || launch.grid.y > 65535 || launch.grid.z > 65535 ||
        launch.shared_bytes > MOST_SHARED) {
        snprintf(message, size, "%s: grid (%u,%u,%u), block (%u,%u,%u), %zu bytes of shared memory",
                 fault_name(BAD_LAUNCH), launch.grid.x, launch.grid.y, launch.grid.z, launch.block.x,
                 launch.block.y, launch.block.z, launch.shared_bytes);
        return BAD_LAUNCH;
    }
    return NO_FAULT;
}

// The block of this OS thread: stacks and shared memory are kept for the next launch.
struct Keeper {
    Block block = Block();
    ~Keeper()
    {
        for (Thread &t : block.threads)
            fiber_release(&t.fiber);
    }
};

Fault run_grid(const Launch &launch, char *message, size_t message_size)
{
    static thread_local Keeper keeper;
    Block *b = &keeper.block;
    Fault fault = check_launch(launch, message, message_size);
    if (fault != NO_FAULT)
        return fault;
    b->thread_count = (int)(launch.block.x * launch.block.y * launch.block.z);
    b->warp_count = (b->thread_count + WARP - 1) / WARP;
    if (b->threads.size() < (size_t)b->thread_count)
        b->threads.resize((size_t)b->thread_count);
    for (size_t n = 0; n < b->threads.size(); n++)
        b->threads[n].number = (int)n;
    b->warps.resize((size_t)b->warp_count);
    b->shared.resize(launch.shared_bytes);
    b->units.resize((launch.shared_bytes + UNIT - 1) / UNIT);
    b->granules.resize(b->units.size() * (UNIT / GRANULE));
    if (b->epoch > UINT32_MAX / 2) { // before the count can return
        std::fill(b->units.begin(), b->units.end(), Unit());
        std::fill(b->granules.begin(), b->granules.end(), Shadow());
        b->epoch = 0;
    }
    b->shared_bytes = launch.shared_bytes;
    b->size = launch.block;
    b->grid = launch.grid;
    b->entry = launch.entry;
    b->closure = launch.closure;
    b->fault = NO_FAULT;
    b->message[0] = 0;
    b->scheduler = Fiber();
    running = b;
    uint64_t blocks = (uint64_t)launch.grid.x * launch.grid.y * launch.grid.z;
    for (uint64_t n = 0; n < blocks && b->fault == NO_FAULT; n++) {
        // other schedules begin with the last block
        if (!begin_block(b, launch, launch.schedule % 2 ? blocks - 1 - n : n)) {
            b->fault = NO_MEMORY;
            snprintf(b->message, sizeof b->message, "no memory for %d stacks", b->thread_count);
            break;
        }
        Thread *first = take_ready(b);
        b->current = first;
        fiber_switch(&b->scheduler, &first->fiber, false);
        if (b->fault == NO_FAULT && b->alive > 0)
            report_deadlock(b);
    }
    running = nullptr;
    snprintf(message, message_size, "%s", b->message);
    return b->fault;
}

} // namespace cm_simt
