// SPDX-License-Identifier: Apache-2.0
#include "optimized/cuda/simt/global.h"

#include <unordered_map>

namespace cm_simt
{

struct Writer {
    uint64_t block;
    bool atomic;
};

// Granules of 2 bytes by address, and the range in which they lie: most reads are outside.
static thread_local std::unordered_map<uintptr_t, Writer> writers;
static thread_local uintptr_t lowest, highest;

void global_begin(void)
{
    writers.clear();
    lowest = UINTPTR_MAX;
    highest = 0;
}

static uint64_t number(const Index3 &index)
{
    return (uint64_t)index.z << 48 | (uint64_t)index.y << 32 | index.x;
}

[[noreturn]] static void conflict(const char *now, const Writer &other, Place place)
{
    fail(WRITE_CONFLICT, place, "%s an element of device memory that block (%u,%u,%u) wrote in this launch",
         now, (unsigned)other.block, (unsigned)(other.block >> 32) & 0xffff, (unsigned)(other.block >> 48));
}

void global_read(const void *address, size_t bytes, Place place)
{
    uintptr_t first = (uintptr_t)address, end = first + bytes;
    if (end <= lowest || first > highest)
        return;
    uint64_t own = number(block()->index);
    for (uintptr_t at = first / GRANULE; at < (end + GRANULE - 1) / GRANULE; at++) {
        auto found = writers.find(at);
        if (found != writers.end() && (found->second.block != own || found->second.atomic))
            conflict("reads", found->second, place);
    }
}

static void write(const void *address, size_t bytes, bool atomic, Place place)
{
    uintptr_t first = (uintptr_t)address, end = first + bytes;
    uint64_t own = number(block()->index);
    lowest = first < lowest ? first : lowest;
    highest = end > highest ? end : highest;
    for (uintptr_t at = first / GRANULE; at < (end + GRANULE - 1) / GRANULE; at++) {
        auto made = writers.emplace(at, Writer{own, atomic});
        Writer &before = made.first->second;
        if (!made.second && before.block != own && !(atomic && before.atomic))
            conflict("writes", before, place);
        before = Writer{own, atomic};
    }
}

void global_write(const void *address, size_t bytes, Place place)
{
    write(address, bytes, false, place);
}

void global_atomic(const void *address, size_t bytes, Place place)
{
    write(address, bytes, true, place);
}

} // namespace cm_simt
