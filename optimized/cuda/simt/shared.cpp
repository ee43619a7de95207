// SPDX-License-Identifier: Apache-2.0
#include "optimized/cuda/simt/shared.h"

#include <stdio.h>
#include <string.h>

namespace cm_simt
{

// Whether what thread `who` did at (epoch, sync) is ordered before the running thread's next step.
static bool ordered(const Block *b, int16_t who, uint32_t epoch, uint32_t sync_count)
{
    const Thread *self = b->current;
    if (epoch != b->epoch || who == self->number)
        return true;
    int warp = who >= MANY_LANES ? who - MANY_LANES : who == MANY_WARPS ? -1 : who / WARP;
    return warp == self->warp && sync_count != b->warps[(size_t)warp].syncs;
}

static bool is_written(const Block *b, const Shadow *shadow)
{
    return shadow->write_epoch >= b->first_epoch;
}

static void describe(int16_t who, char text[32])
{
    if (who == MANY_WARPS)
        snprintf(text, 32, "threads of several warps");
    else if (who >= MANY_LANES)
        snprintf(text, 32, "lanes of warp %d", who - MANY_LANES);
    else
        snprintf(text, 32, "thread %d", who);
}

[[noreturn]] static void race(const char *now, uint32_t at, int16_t who, const char *before, Place place)
{
    char other[32];
    describe(who, other);
    fail(MISSING_BARRIER, place, "%s byte %u of shared memory, which %s %s since the last barrier", now, at,
         other, before);
}

static void note_reader(const Block *b, Shadow *shadow)
{
    const Thread *self = b->current;
    int16_t who = (int16_t)self->number;
    if (shadow->read_epoch == b->epoch && shadow->reader != who) {
        int warp = shadow->reader >= MANY_LANES   ? shadow->reader - MANY_LANES
                   : shadow->reader == MANY_WARPS ? -1
                                                  : shadow->reader / WARP;
        who = warp == self->warp ? (int16_t)(MANY_LANES + warp) : MANY_WARPS;
    }
    shadow->reader = who;
    shadow->read_epoch = b->epoch;
    shadow->read_sync = b->warps[(size_t)self->warp].syncs;
}

static void read_one(Block *b, Shadow *shadow, uint32_t at, Place place)
{
    if (!is_written(b, shadow)) {
        if (!b->early.line) {
            b->early = place;
            b->early_byte = at;
            b->early_reader = b->current->number;
        }
    } else {
        if (shadow->state == PENDING)
            fail(ASYNC_NOT_WAITED, place,
                 "reads byte %u of shared memory, which a cp.async of thread %d fills", at, shadow->writer);
        if (!ordered(b, shadow->writer, shadow->write_epoch, shadow->write_sync))
            race("reads", at, shadow->writer, "wrote", place);
    }
    note_reader(b, shadow);
}

static void write_one(const Block *b, Shadow *shadow, uint32_t at, ShadowState state, Place place)
{
    const Thread *self = b->current;
    if (is_written(b, shadow)) {
        if (shadow->state == PENDING && state != PENDING && shadow->writer != self->number)
            fail(ASYNC_NOT_WAITED, place,
                 "writes byte %u of shared memory, which a cp.async of thread %d fills", at, shadow->writer);
        bool both_atomic = state == ATOMIC && shadow->state == ATOMIC;
        if (!both_atomic && !ordered(b, shadow->writer, shadow->write_epoch, shadow->write_sync))
            race("writes", at, shadow->writer, "wrote", place);
    }
    if (!ordered(b, shadow->reader, shadow->read_epoch, shadow->read_sync))
        race("writes", at, shadow->reader, "read", place);
    shadow->writer = (int16_t)self->number;
    shadow->write_epoch = b->epoch;
    shadow->write_sync = b->warps[(size_t)self->warp].syncs;
    shadow->read_epoch = 0;
    shadow->state = state;
}

// Calls `one` for each shadow of the bytes: units that are touched as a whole have one.
template <typename One> static void each_shadow(uint32_t at, uint32_t bytes, bool writes, One one)
{
    Block *b = block();
    const uint32_t parts = UNIT / GRANULE;
    for (uint32_t end = at + bytes, next; at < end; at = next) {
        uint32_t number = at / UNIT, first = at / GRANULE;
        Unit *unit = &b->units[number];
        Shadow *granules = &b->granules[number * parts];
        next = (number + 1) * UNIT < end ? (number + 1) * UNIT : end;
        bool is_split = unit->split_epoch >= b->first_epoch, is_all = next - at == UNIT;
        if (!is_split && is_all) {
            one(&unit->whole, at);
            continue;
        }
        for (uint32_t n = 0; n < parts && !is_split; n++)
            granules[n] = unit->whole;
        unit->split_epoch = b->epoch;
        for (uint32_t n = first; n < (next + GRANULE - 1) / GRANULE; n++)
            one(&granules[n % parts], n * GRANULE);
        if (writes && is_all) { // all granules are alike again
            unit->whole = granules[0];
            unit->split_epoch = 0;
        }
    }
}

void shared_read(uint32_t at, uint32_t bytes, Place place)
{
    each_shadow(at, bytes, false,
                [place](Shadow *shadow, uint32_t byte) { read_one(block(), shadow, byte, place); });
}

static void write(uint32_t at, uint32_t bytes, ShadowState state, Place place)
{
    each_shadow(at, bytes, true, [state, place](Shadow *shadow, uint32_t byte) {
        write_one(block(), shadow, byte, state, place);
    });
}

void shared_write(uint32_t at, uint32_t bytes, Place place)
{
    write(at, bytes, WRITTEN, place);
}

void shared_atomic(uint32_t at, uint32_t bytes, Place place)
{
    each_shadow(at, bytes, false, [place](Shadow *shadow, uint32_t byte) {
        if (!is_written(block(), shadow))
            fail(SHARED_UNINITIALISED, place, "an atomic on byte %u of shared memory", byte);
    });
    write(at, bytes, ATOMIC, place);
}

void async_copy(uint32_t to, const void *from, uint32_t bytes, uint32_t zeros, Place place)
{
    Block *b = block();
    write(to, bytes + zeros, PENDING, place);
    memset(&b->shared[to], 0xff, bytes + zeros);
    b->current->copies.push_back(Copy{to, from, bytes, zeros, -1, place});
}

void async_commit(void)
{
    Thread *self = thread();
    for (Copy &copy : self->copies)
        if (copy.group < 0)
            copy.group = self->groups;
    self->groups++;
}

void async_wait(int youngest)
{
    Block *b = block();
    Thread *self = b->current;
    size_t kept = 0;
    for (size_t n = 0; n < self->copies.size(); n++) {
        const Copy copy = self->copies[n];
        if (copy.group < 0 || copy.group >= self->groups - youngest) {
            self->copies[kept++] = copy;
            continue;
        }
        write(copy.to, copy.bytes + copy.zeros, WRITTEN, copy.place);
        memcpy(&b->shared[copy.to], copy.from, copy.bytes);
        memset(&b->shared[copy.to + copy.bytes], 0, copy.zeros);
    }
    self->copies.resize(kept);
}

} // namespace cm_simt
