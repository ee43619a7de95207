// SPDX-License-Identifier: Apache-2.0
// Collectives of a warp: the lanes of a mask meet, each leaves a value, and all read what was left.
#include "optimized/cuda/simt/warp.h"

#include <string.h>

namespace cm_simt
{

static bool is(const char *one, const char *other)
{
    return one == other || !strcmp(one, other);
}

static bool same(const Place &one, const Place &other)
{
    return one.line == other.line && is(one.file, other.file);
}

// A lane may go through one collective while others of its warp wait for it in another. It may not when both
// wait for each other, nor when they stand in the same line of the source with different masks.
static void look_for_clash(const Thread *self, const Warp *warp, unsigned mask, const char *operation,
                           Place place)
{
    unsigned own = 1u << self->lane;
    for (uint32_t left = warp->under_way; left; left &= left - 1) {
        const Meeting &other = warp->meetings[__builtin_ctz(left)];
        bool joins = other.mask == mask && is(other.operation, operation);
        if (joins || !(other.mask & own))
            continue;
        if (other.arrived & mask || (same(place, other.place) && other.mask != mask))
            fail(WRONG_LANE_MASK, place,
                 "lane %d calls %s with mask %08x, but the lanes %08x wait in %s with mask %08x at %s:%d",
                 self->lane, operation, mask, other.arrived, other.operation, other.mask, other.place.file,
                 other.place.line);
    }
}

static Meeting *find_meeting(Warp *warp, unsigned mask, const char *operation)
{
    for (uint32_t left = warp->under_way; left; left &= left - 1) {
        Meeting *meeting = &warp->meetings[__builtin_ctz(left)];
        if (meeting->mask == mask && is(meeting->operation, operation))
            return meeting;
    }
    return &warp->meetings[__builtin_ctz(~warp->under_way)]; // each lane is in one meeting at most
}

void meet(unsigned mask, const char *operation, Place place, const Visitor &visitor,
          void (*finish)(Meeting *meeting))
{
    Block *b = block();
    Thread *self = b->current;
    Warp *warp = &b->warps[(size_t)self->warp];
    unsigned own = 1u << self->lane;
    if (!(mask & own))
        fail(WRONG_LANE_MASK, place, "lane %d calls %s with mask %08x, in which it is not", self->lane,
             operation, mask);
    if (mask & warp->exited)
        fail(EXITED_LANE, place, "%s with mask %08x, of which the lanes %08x have returned", operation, mask,
             mask & warp->exited);
    Meeting *meeting = warp->meetings;
    if (warp->under_way != 1 || meeting->mask != mask || meeting->operation != operation) {
        look_for_clash(self, warp, mask, operation, place);
        meeting = find_meeting(warp, mask, operation);
    }
    uint32_t bit = 1u << (meeting - warp->meetings);
    if (!(warp->under_way & bit)) {
        warp->under_way |= bit;
        meeting->mask = mask;
        meeting->arrived = 0;
        meeting->operation = operation;
        meeting->place = place;
    }
    meeting->lanes[self->lane] = visitor;
    meeting->arrived |= own;
    self->place = self->collective = place;
    self->mask = mask;
    self->operation = operation;
    if (meeting->arrived != mask) {
        wait(IN_COLLECTIVE);
        return;
    }
    warp->under_way &= ~bit;
    finish(meeting);
    for (int n = warp->lanes - 1; n >= 0; n--)
        if (mask >> warp->order[n] & 1 && warp->order[n] != self->lane)
            wake_first(&b->threads[(size_t)(self->warp * WARP + warp->order[n])]);
}

void sync_warp(unsigned mask, Place place)
{
    meet(mask, "__syncwarp", place, {nullptr, 0, 0}, [](Meeting *meeting) {
        Warp *warp = &block()->warps[(size_t)thread()->warp];
        warp->syncs += meeting->mask == ~warp->exited;
    });
}

void lane_exits(Thread *thread)
{
    Block *b = block();
    Warp *warp = &b->warps[(size_t)thread->warp];
    warp->exited |= 1u << thread->lane;
    for (uint32_t left = warp->under_way; left; left &= left - 1) {
        const Meeting &meeting = warp->meetings[__builtin_ctz(left)];
        if (meeting.mask >> thread->lane & 1)
            fail(EXITED_LANE, meeting.place,
                 "lane %d returned while the lanes %08x wait for it in %s with mask %08x", thread->lane,
                 meeting.arrived, meeting.operation, meeting.mask);
    }
}

// The lane from which `lane` reads in a segment of `width` lanes; its own where the segment ends.
static int source_lane(ShuffleKind kind, int lane, int argument, int width)
{
    int base = lane & ~(width - 1), last = base + width - 1;
    switch (kind) {
    case SHUFFLE_FROM:
        return base + (argument & (width - 1));
    case SHUFFLE_XOR:
        return (lane ^ argument) > last ? lane : lane ^ argument;
    case SHUFFLE_DOWN:
        return lane + argument > last ? lane : lane + argument;
    default:
        return lane - argument < base ? lane : lane - argument;
    }
}

uint64_t shuffle(ShuffleKind kind, unsigned mask, uint64_t value, int argument, int width, Place place)
{
    static const char *const names[] = {"__shfl_sync", "__shfl_xor_sync", "__shfl_down_sync",
                                        "__shfl_up_sync"};
    if (width < 1 || width > WARP || width & (width - 1))
        fail(WRONG_LANE_MASK, place, "%s of width %d, which is no power of two up to 32", names[kind], width);
    int from = source_lane(kind, thread()->lane, argument, width);
    if (!(mask >> from & 1))
        fail(UNDEFINED_LANE, place, "lane %d reads from lane %d in %s with mask %08x", thread()->lane, from,
             names[kind], mask);
    uint64_t found = 0;
    meet(mask, names[kind], place, {&found, value, from}, [](Meeting *meeting) {
        for (unsigned left = meeting->mask; left; left &= left - 1) {
            const Visitor &lane = meeting->lanes[__builtin_ctz(left)];
            *static_cast<uint64_t *>(lane.pointer) = meeting->lanes[lane.from].value;
        }
    });
    return found;
}

unsigned ballot(unsigned mask, bool predicate, Place place)
{
    unsigned votes = 0;
    meet(mask, "__ballot_sync", place, {&votes, predicate, 0}, [](Meeting *meeting) {
        unsigned all = 0;
        for (unsigned left = meeting->mask; left; left &= left - 1)
            all |= (unsigned)meeting->lanes[__builtin_ctz(left)].value << __builtin_ctz(left);
        for (unsigned left = meeting->mask; left; left &= left - 1)
            *static_cast<unsigned *>(meeting->lanes[__builtin_ctz(left)].pointer) = all;
    });
    return votes;
}

} // namespace cm_simt
