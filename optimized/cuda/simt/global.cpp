// SPDX-License-Identifier: Apache-2.0
#include "optimized/cuda/simt/global.h"

#include <memory>
#include <string.h>
#include <unordered_map>

namespace cm_simt
{

constexpr uintptr_t PAGE = 1024; // bytes
constexpr size_t MOST_PAGES = 8192;
constexpr uint64_t ATOMIC_BIT = 1ull << 63;

// Who wrote each granule of some bytes of device memory.
struct Page {
    uint64_t launch;                 // in which; of an earlier one: nobody wrote anything
    uint64_t writer[PAGE / GRANULE]; // number of the block plus 1, and ATOMIC_BIT; 0: nobody
};

struct Pages {
    std::unordered_map<uintptr_t, std::unique_ptr<Page>> all;
    struct {
        uintptr_t number;
        Page *page;
    } recent[64]; // by the number's last bits
    uint64_t launch;
    uintptr_t lowest, highest; // of what was written: most reads are outside
};
static thread_local Pages pages;

void global_begin(void)
{
    if (pages.all.size() > MOST_PAGES) {
        pages.all.clear();
        memset(pages.recent, 0, sizeof pages.recent);
    }
    pages.launch++;
    pages.lowest = UINTPTR_MAX;
    pages.highest = 0;
}

static uint64_t *writer_at(uintptr_t granule)
{
    uintptr_t number = granule / (PAGE / GRANULE);
    auto &recent = pages.recent[number % 64];
    if (recent.number != number || !recent.page) {
        std::unique_ptr<Page> &page = pages.all[number];
        if (!page)
            page = std::make_unique<Page>();
        recent.number = number;
        recent.page = page.get();
    }
    if (recent.page->launch != pages.launch)
        *recent.page = Page{pages.launch, {}};
    return &recent.page->writer[granule % (PAGE / GRANULE)];
}

[[noreturn]] static void conflict(const char *now, uint64_t writer, Place place)
{
    const Index3 &grid = block()->grid;
    uint64_t number = (writer & ~ATOMIC_BIT) - 1, row = number / grid.x;
    fail(WRITE_CONFLICT, place, "%s an element of device memory that block (%u,%u,%u) wrote in this launch",
         now, (unsigned)(number % grid.x), (unsigned)(row % grid.y), (unsigned)(row / grid.y));
}

static void read_slowly(const void *address, size_t bytes, Place place)
{
    uintptr_t first = (uintptr_t)address, end = first + bytes;
    uint64_t own = block()->number + 1;
    for (uintptr_t at = first / GRANULE; at < (end + GRANULE - 1) / GRANULE; at++) {
        uint64_t writer = *writer_at(at);
        if (writer && writer != own)
            conflict("reads", writer, place);
    }
}

void global_read(const void *address, size_t bytes, Place place)
{
    uintptr_t first = (uintptr_t)address;
    if (first + bytes > pages.lowest && first <= pages.highest)
        read_slowly(address, bytes, place);
}

static void write(const void *address, size_t bytes, bool atomic, Place place)
{
    uintptr_t first = (uintptr_t)address, end = first + bytes;
    uint64_t own = block()->number + 1;
    pages.lowest = first < pages.lowest ? first : pages.lowest;
    pages.highest = end > pages.highest ? end : pages.highest;
    for (uintptr_t at = first / GRANULE; at < (end + GRANULE - 1) / GRANULE; at++) {
        uint64_t *writer = writer_at(at);
        if (*writer && (*writer & ~ATOMIC_BIT) != own && !(atomic && *writer & ATOMIC_BIT))
            conflict("writes", *writer, place);
        *writer = own | (atomic ? ATOMIC_BIT : 0);
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
