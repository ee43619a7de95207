// SPDX-License-Identifier: Apache-2.0
#include "optimized/cuda/simt/beside.h"

#include <mutex>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, BLOCKS = 1024 };

static struct Block {
    char *mapping, *data; // the mapping is NULL where there is no block
    size_t mapped;
} blocks[BLOCKS];
static std::mutex lock;
static int launches; // that are under way

static void protect(const Block &block)
{
    mprotect(block.mapping + PAGE, block.mapped - 2 * PAGE, launches ? PROT_READ | PROT_WRITE : PROT_NONE);
}

cm_status cm_simt_allocate(size_t bytes, void **memory, char *reason, size_t reason_size)
{
    std::lock_guard<std::mutex> guard(lock);
    Block *block = blocks;
    while (block < blocks + BLOCKS && block->mapping)
        block++;
    *memory = nullptr;
    if (block == blocks + BLOCKS || bytes > (size_t)1 << 46) {
        snprintf(reason, reason_size, "the emulated device has no block for %zu bytes", bytes);
        return CM_NO_MEMORY;
    }
    size_t used = (bytes + CM_SIMT_ALIGNMENT - 1) / CM_SIMT_ALIGNMENT * CM_SIMT_ALIGNMENT;
    size_t pages = used ? (used + PAGE - 1) / PAGE * PAGE : (size_t)PAGE, mapped = pages + 2 * PAGE;
    void *mapping = mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED || mprotect((char *)mapping + PAGE, pages, PROT_READ | PROT_WRITE)) {
        if (mapping != MAP_FAILED)
            munmap(mapping, mapped);
        snprintf(reason, reason_size, "the emulated device has no memory for %zu bytes", bytes);
        return CM_NO_MEMORY;
    }
    memset((char *)mapping + PAGE, 0xff, pages);
    *block = Block{(char *)mapping, (char *)mapping + PAGE + pages - used, mapped};
    protect(*block);
    *memory = block->data;
    return CM_OK;
}

void cm_simt_release(void *memory)
{
    std::lock_guard<std::mutex> guard(lock);
    for (Block &block : blocks)
        if (memory && block.mapping && block.data == memory) {
            munmap(block.mapping, block.mapped);
            block = Block{nullptr, nullptr, 0};
        }
}

cm_status cm_simt_copy(void *to, const void *from, size_t bytes, char *, size_t)
{
    cm_simt_open();
    if (bytes)
        memcpy(to, from, bytes);
    cm_simt_close();
    return CM_OK;
}

bool cm_simt_owns(const void *address)
{
    for (const Block &block : blocks)
        if (block.mapping && (const char *)address >= block.mapping &&
            (const char *)address < block.mapping + block.mapped)
            return true;
    return false;
}

void cm_simt_open(void)
{
    std::lock_guard<std::mutex> guard(lock);
    if (launches++ == 0)
        for (const Block &block : blocks)
            if (block.mapping)
                protect(block);
}

void cm_simt_close(void)
{
    std::lock_guard<std::mutex> guard(lock);
    if (--launches == 0)
        for (const Block &block : blocks)
            if (block.mapping)
                protect(block);
}
