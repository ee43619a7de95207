// SPDX-License-Identifier: Apache-2.0
#include "harness/arena.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096 };

static _Thread_local cm_arena *active; // the first of a list

// The first active arena of each thread that has one: a kernel's own threads have none, and ask all.
enum { THREADS = 16 };
static _Atomic(cm_arena *) shown[THREADS];
static _Thread_local int shown_at = -1; // this thread's place, -1: none

static void show(void)
{
    for (int n = 0; active && shown_at < 0 && n < THREADS; n++) {
        cm_arena *none = NULL;
        if (atomic_compare_exchange_strong(&shown[n], &none, active))
            shown_at = n;
    }
    if (shown_at >= 0)
        atomic_store(&shown[shown_at], active);
    if (!active)
        shown_at = -1;
}

static bool (*owns_elsewhere)(const void *address);

enum { POOL = 256 };
static _Thread_local struct {
    char *mapping;
    size_t mapped;
} pool[POOL]; // of this thread; every page is inaccessible
static _Thread_local int pooled;

// A mapping with guard pages around `pages` bytes that can be written.
static char *map_fenced(size_t pages, bool recycle)
{
    size_t mapped = pages + 2 * PAGE;
    char *mapping = NULL;
    for (int n = 0; recycle && n < pooled && !mapping; n++)
        if (pool[n].mapped == mapped) {
            mapping = pool[n].mapping;
            pool[n] = pool[--pooled];
        }
    if (!mapping)
        mapping = mmap(NULL, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED)
        return NULL;
    if (mprotect(mapping + PAGE, pages, PROT_READ | PROT_WRITE)) {
        munmap(mapping, mapped);
        return NULL;
    }
    return mapping;
}

static void unmap_fenced(char *mapping, size_t mapped, bool recycle)
{
    if (recycle && pooled < POOL && mprotect(mapping, mapped, PROT_NONE) == 0) {
        pool[pooled].mapping = mapping;
        pool[pooled++].mapped = mapped;
    } else {
        munmap(mapping, mapped);
    }
}

void *cm_arena_take(cm_arena *arena, const char *name, size_t size, size_t alignment, cm_place place,
                    bool input)
{
    if (arena->count == CM_ARENA_BLOCKS || size > (size_t)1 << 46)
        return NULL;
    size_t pages = (size + PAGE - 1) / PAGE * PAGE;
    pages = pages ? pages : PAGE; // an empty block still has an address, at its guard
    char *mapping = map_fenced(pages, arena->recycle);
    if (!mapping)
        return NULL;
    size_t before = place == CM_PLACE_END ? (pages - size) / alignment * alignment : 0;
    cm_block *block = &arena->blocks[arena->count++];
    *block = (cm_block){.name = name,
                        .mapping = mapping,
                        .data = mapping + PAGE + before,
                        .mapped = pages + 2 * PAGE,
                        .size = size,
                        .input = input};
    memset(mapping + PAGE, CM_CANARY, before);
    memset(block->data + size, CM_CANARY, pages - before - size);
    return block->data;
}

void *cm_arena_map(cm_arena *arena, const char *name, size_t size, int file, bool input)
{
    size_t mapped = size + 2 * PAGE;
    if (arena->count == CM_ARENA_BLOCKS || size % PAGE)
        return NULL;
    char *mapping = mmap(NULL, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED)
        return NULL;
    char *data =
        mmap(mapping + PAGE, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, file, 0);
    if (data == MAP_FAILED) {
        munmap(mapping, mapped);
        return NULL;
    }
    arena->blocks[arena->count++] = (cm_block){.name = name,
                                               .mapping = mapping,
                                               .data = data,
                                               .mapped = mapped,
                                               .size = size,
                                               .input = input,
                                               .file = true};
    return data;
}

void cm_arena_drop(cm_arena *arena, int first)
{
    while (arena->count > first) {
        cm_block *block = &arena->blocks[--arena->count];
        unmap_fenced(block->mapping, block->mapped, arena->recycle && !block->file);
    }
}

void cm_arena_protect(cm_arena *arena, bool read_only)
{
    arena->read_only = read_only;
    for (int n = 0; n < arena->count; n++) {
        const cm_block *block = &arena->blocks[n];
        if (block->input && !block->fenced)
            mprotect(block->mapping + PAGE, block->mapped - 2 * PAGE,
                     read_only ? PROT_READ : PROT_READ | PROT_WRITE);
    }
}

void cm_arena_fence(cm_arena *arena, const void *data)
{
    for (int n = 0; n < arena->count; n++) {
        cm_block *block = &arena->blocks[n];
        if (block->data != data)
            continue;
        block->fenced = true;
        mprotect(block->mapping, block->mapped, PROT_NONE);
    }
}

void cm_arena_unfence(cm_arena *arena, const void *data)
{
    for (int n = 0; n < arena->count; n++) {
        cm_block *block = &arena->blocks[n];
        if (block->data != data || !block->fenced)
            continue;
        block->fenced = false;
        mprotect(block->mapping + PAGE, block->mapped - 2 * PAGE, PROT_READ | PROT_WRITE);
    }
}

void cm_arena_launch(bool begins)
{
    for (cm_arena *arena = active; arena; arena = arena->next) {
        arena->launched = begins;
        for (int n = 0; n < arena->count; n++) {
            const cm_block *block = &arena->blocks[n];
            int open = block->input && arena->read_only ? PROT_READ : PROT_READ | PROT_WRITE;
            mprotect(block->mapping + PAGE, block->mapped - 2 * PAGE,
                     block->fenced == begins ? open : PROT_NONE);
        }
    }
}

size_t cm_arena_pages(const cm_block *block, char **pages)
{
    *pages = block->mapping + PAGE;
    return block->mapped - 2 * PAGE;
}

const cm_block *cm_arena_broken(const cm_arena *arena, int64_t *distance)
{
    for (int n = 0; n < arena->count; n++) {
        const cm_block *block = &arena->blocks[n];
        const char *end = block->mapping + block->mapped - PAGE;
        if (block->fenced)
            continue;
        for (const char *c = block->data - 1; c >= block->mapping + PAGE; c--)
            if ((unsigned char)*c != CM_CANARY) {
                *distance = c - block->data;
                return block;
            }
        for (const char *c = block->data + block->size; c < end; c++)
            if ((unsigned char)*c != CM_CANARY) {
                *distance = c - block->data;
                return block;
            }
    }
    return NULL;
}

void cm_arena_forget(void)
{
    while (pooled > 0) {
        pooled--;
        munmap(pool[pooled].mapping, pool[pooled].mapped);
    }
}

void cm_arena_activate(cm_arena *arena)
{
    cm_arena *first = active;
    while (!arena && active)
        cm_arena_deactivate(active);
    if (!arena || arena == first)
        return;
    cm_arena_deactivate(arena);
    arena->next = active;
    active = arena;
    show();
}

void cm_arena_deactivate(const cm_arena *arena)
{
    cm_arena **link = &active;
    while (*link && *link != arena)
        link = &(*link)->next;
    if (*link) {
        cm_arena *found = *link;
        *link = found->next;
        found->next = NULL;
        show();
    }
}

// snprintf is not async-signal-safe: these two are all the formatting that a handler needs.
static char *put_text(char *at, const char *end, const char *text)
{
    while (*text && at < end)
        *at++ = *text++;
    *at = 0;
    return at;
}

static char *put_number(char *at, const char *end, uint64_t number)
{
    char digits[24];
    int count = 0;
    do
        digits[count++] = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    while (count > 0 && at < end)
        *at++ = digits[--count];
    *at = 0;
    return at;
}

// "[3,1]": the element of `tensor` at this byte offset.
static char *put_index(char *at, const char *end, const DLTensor *tensor, int64_t offset)
{
    int64_t rest = offset * 8 / tensor->dtype.bits;
    for (int d = 0; d < tensor->ndim; d++) {
        int64_t stride = tensor->strides[d];
        at = put_text(at, end, d ? "," : "[");
        at = put_number(at, end, stride > 0 ? (uint64_t)(rest / stride) : 0);
        rest = stride > 0 ? rest % stride : rest;
    }
    return put_text(at, end, "]");
}

// What an access to this block was.
static cm_touch explain(const cm_arena *arena, const cm_block *block, const char *place, bool write, char *at,
                        const char *end)
{
    if (block->fenced != arena->launched) {
        at = put_text(at, end, block->fenced ? "host " : "device ");
        at = put_text(at, end, write ? "write to" : "read of");
        at = put_text(at, end, block->fenced ? " device pointer `" : " host pointer `");
        at = put_text(at, end, block->name);
        at = put_text(at, end, "`");
        if (block->tensor && place >= block->data && place < block->data + block->size)
            put_index(at, end, block->tensor, place - block->data);
        return CM_TOUCH_DEVICE;
    }
    if (place >= block->mapping + PAGE && place < block->mapping + block->mapped - PAGE) {
        at = put_text(at, end, "write to input `");
        at = put_text(at, end, block->name);
        at = put_text(at, end, "`");
        if (block->tensor && place >= block->data && place < block->data + block->size)
            at = put_index(at, end, block->tensor, place - block->data);
        put_text(at, end, " (read-only)");
        return CM_TOUCH_INPUT_WRITE;
    }
    bool past = place >= block->data + block->size;
    at = put_text(at, end, write ? "write " : "read ");
    at = put_number(at, end, (uint64_t)(past ? place - (block->data + block->size) : block->data - place));
    at = put_text(at, end, past ? " bytes past the end of `" : " bytes before the start of `");
    at = put_text(at, end, block->name);
    put_text(at, end, "`");
    return CM_TOUCH_GUARD;
}

// The host's access to the copy on a real device, `offset` bytes from the block's data.
static cm_touch explain_remote(const cm_block *block, int64_t offset, bool write, char *at, const char *end)
{
    at = put_text(at, end, write ? "host write to" : "host read of");
    at = put_text(at, end, " device pointer `");
    at = put_text(at, end, block->name);
    at = put_text(at, end, "`");
    if (block->tensor && offset >= 0 && offset < (int64_t)block->size)
        put_index(at, end, block->tensor, offset);
    return CM_TOUCH_DEVICE;
}

void cm_arena_elsewhere(bool (*owns)(const void *address))
{
    owns_elsewhere = owns;
}

static bool is_remote(const cm_block *block, const char *place)
{
    return block->remote && place >= block->remote &&
           place - block->remote < (int64_t)block->mapped - 2 * PAGE;
}

// Which block of these arenas has the place; NULL: none.
static const cm_block *find_block(const cm_arena *first, const char *place, const cm_arena **arena)
{
    for (*arena = first; *arena; *arena = (*arena)->next)
        for (int n = 0; n < (*arena)->count; n++) {
            const cm_block *block = &(*arena)->blocks[n];
            if (is_remote(block, place) ||
                (place >= block->mapping && place < block->mapping + block->mapped))
                return block;
        }
    return NULL;
}

cm_touch cm_arena_explain(const void *address, bool write, char *text, size_t size, const cm_block **found)
{
    const char *place = address;
    char *at = text;
    const char *end = text + size - 1;
    const cm_arena *arena;
    const cm_block *block = find_block(active, place, &arena);
    for (int n = 0; !block && n < THREADS; n++)
        block = find_block(atomic_load(&shown[n]), place, &arena);
    *found = block;
    if (block && is_remote(block, place))
        return explain_remote(block, place - block->remote - (block->data - block->mapping - PAGE), write,
                              text, end);
    if (block)
        return explain(arena, block, place, write, text, end);
    if (owns_elsewhere && owns_elsewhere(address)) {
        bool launched = active && active->launched;
        at = put_text(at, end, launched ? "device " : "host ");
        at = put_text(at, end, write ? "write " : "read ");
        put_text(at, end,
                 launched ? "past the end of device memory that the kernel allocated"
                 : write  ? "to device memory that the kernel allocated"
                          : "of device memory that the kernel allocated");
        return launched ? CM_TOUCH_GUARD : CM_TOUCH_DEVICE;
    }
    at = put_text(at, end, write ? "write to" : "read from");
    at = put_text(at, end, " an address that belongs to no argument");
    if ((uintptr_t)address < PAGE)
        put_text(at, end, " (null pointer)");
    return CM_TOUCH_UNKNOWN;
}
