// SPDX-License-Identifier: Apache-2.0
// Sites and the memory of their thunks. The kernel writes into code on our behalf (/proc/self/mem), so no
// page becomes writable and executable. A thread may run the code meanwhile: a breakpoint goes in first and
// the jump's opcode last, and after each of the three writes every core of the process is serialised
// (membarrier). Who meets the breakpoint waits for the lock and runs the site again (trap.c).
#include "optimized/amx/emulator/patch.h"

#include "optimized/amx/emulator/system.h"

#include <fcntl.h>
#include <linux/membarrier.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { JUMP = 5, JUMP_OPCODE = 0xe9, BREAKPOINT = 0xcc };
enum { BLOCK_SITES = 512, BLOCK_HALF = BLOCK_SITES * CM_AMX_THUNK_BYTES, BLOCKS = 1024 };
enum { TABLE = 1 << 17, MOST_SITES = TABLE / 4 * 3 };
#define REACH ((int64_t)0x7ff00000) // of a jump, less the size of a block
#define STEP  ((int64_t)1 << 20)

// 32 KiB of thunks, then 32 KiB of the data of their sites.
static struct block {
    uint8_t *code;
    int used;
} blocks[BLOCKS];
static int block_count; // published last: read without the lock

static struct entry {
    uint64_t address; // 0: free
    struct cm_amx_site *site;
} table[TABLE];
static uint64_t site_count;
static int lock;

static struct entry *find_entry(uint64_t address)
{
    uint64_t at = (address * 0x9e3779b97f4a7c15u) >> 47;
    while (table[at].address && table[at].address != address)
        at = (at + 1) % TABLE;
    return &table[at];
}

void cm_amx_patch_lock(uint64_t *mask)
{
    uint64_t all = ~(uint64_t)0;
    cm_amx_system(SYS_rt_sigprocmask, SIG_BLOCK, (long)&all, (long)mask, sizeof all, 0, 0);
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
        cm_amx_system(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
}

void cm_amx_patch_unlock(const uint64_t *mask)
{
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
    cm_amx_system(SYS_rt_sigprocmask, SIG_SETMASK, (long)mask, 0, sizeof *mask, 0, 0);
}

bool cm_amx_patch_open(void)
{
    return cm_amx_system(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0, 0, 0,
                         0) == 0;
}

static bool serialise(void)
{
    return cm_amx_system(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0, 0, 0, 0) == 0;
}

static bool write_code(int memory, uint64_t address, const uint8_t *bytes, long count)
{
    return cm_amx_system(SYS_pwrite64, memory, (long)bytes, count, (long)address, 0, 0) == count;
}

static bool write_jump(uint64_t address, const uint8_t *thunk)
{
    const uint8_t breakpoint = BREAKPOINT, *code = (const uint8_t *)(uintptr_t)address;
    uint8_t jump[JUMP] = {JUMP_OPCODE}, original[JUMP];
    int32_t distance = (int32_t)((intptr_t)thunk - (intptr_t)(address + JUMP));
    memcpy(jump + 1, &distance, sizeof distance);
    memcpy(original, code, JUMP);
    // a forked child has not registered yet
    if (!serialise() && !(cm_amx_patch_open() && serialise()))
        return false;
    int memory =
        (int)cm_amx_system(SYS_openat, AT_FDCWD, (long)"/proc/self/mem", O_RDWR | O_CLOEXEC, 0, 0, 0);
    if (memory < 0)
        return false;
    bool done = write_code(memory, address, &breakpoint, 1);
    if (done) {
        serialise();
        done = write_code(memory, address + 1, jump + 1, JUMP - 1);
        serialise();
        if (!done) // they may lie in two pages, the second of which can't be written
            write_code(memory, address + 1, original + 1, JUMP - 1);
        if (!write_code(memory, address, done ? jump : original, 1))
            __builtin_trap(); // it could be written a moment ago; else the breakpoint would stay
        serialise();
    }
    cm_amx_system(SYS_close, memory, 0, 0, 0, 0, 0);
    return done;
}

static uint8_t *map_block(uint64_t place)
{
    long result = cm_amx_system(SYS_mmap, (long)place, 2 * BLOCK_HALF, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (result < 0 && result > -4096)
        return NULL;
    if ((uint64_t)result == place)
        return (uint8_t *)result;
    cm_amx_system(SYS_munmap, result, 2 * BLOCK_HALF, 0, 0, 0,
                  0); // a kernel that takes the address as a hint
    return NULL;
}

static bool within_reach(uint64_t address, const struct block *block)
{
    int64_t distance = (int64_t)((uint64_t)(uintptr_t)block->code - address);
    return distance > -REACH && distance < REACH;
}

static struct cm_amx_site *site_of(const struct block *block, int n)
{
    return (struct cm_amx_site *)(void *)(block->code + BLOCK_HALF + n * CM_AMX_THUNK_BYTES);
}

static struct block *add_block(uint64_t address)
{
    uint64_t around = address & ~(uint64_t)(STEP - 1);
    uint8_t *code = NULL;
    if (block_count == BLOCKS)
        return NULL;
    for (int64_t distance = STEP; !code && distance < REACH - STEP; distance += STEP) {
        code = map_block(around + (uint64_t)distance);
        if (!code && around > (uint64_t)distance + STEP)
            code = map_block(around - (uint64_t)distance);
    }
    if (!code)
        return NULL;
    struct block *block = &blocks[block_count];
    *block = (struct block){.code = code};
    for (int n = 0; n < BLOCK_SITES; n++) {
        site_of(block, n)->enter = cm_amx_thunk_enter;
        cm_amx_thunk_write(code + n * CM_AMX_THUNK_BYTES, site_of(block, n));
    }
    if (cm_amx_system(SYS_mprotect, (long)code, BLOCK_HALF, PROT_READ | PROT_EXEC, 0, 0, 0)) {
        cm_amx_system(SYS_munmap, (long)code, 2 * BLOCK_HALF, 0, 0, 0, 0);
        return NULL;
    }
    __atomic_store_n(&block_count, block_count + 1, __ATOMIC_RELEASE);
    return block;
}

static struct cm_amx_site *add_site(uint64_t address)
{
    struct block *block = NULL;
    if (site_count == MOST_SITES)
        return NULL;
    for (int n = block_count - 1; n >= 0 && !block; n--)
        if (blocks[n].used < BLOCK_SITES && within_reach(address, &blocks[n]))
            block = &blocks[n];
    if (!block)
        block = add_block(address);
    return block ? site_of(block, block->used++) : NULL;
}

static const uint8_t *thunk_of(const struct cm_amx_site *site)
{
    return (const uint8_t *)site - BLOCK_HALF;
}

bool cm_amx_patch(const struct cm_amx_instruction *instruction)
{
    struct entry *entry = find_entry(instruction->address);
    if (!entry->address) {
        struct cm_amx_site *site = add_site(instruction->address);
        if (!site)
            return false;
        *entry = (struct entry){instruction->address, site};
        site_count++;
    }
    // Code that was written anew at a site runs none of the old: its thunk may change.
    entry->site->instruction = *instruction;
    entry->site->resume = instruction->address + instruction->length;
    return write_jump(instruction->address, thunk_of(entry->site));
}

bool cm_amx_is_site(uint64_t address)
{
    return find_entry(address)->address == address;
}

bool cm_amx_is_patched(uint64_t address)
{
    const struct entry *entry = find_entry(address);
    const uint8_t *code = (const uint8_t *)(uintptr_t)address;
    int32_t distance;
    if (entry->address != address || *code != JUMP_OPCODE)
        return false;
    memcpy(&distance, code + 1, sizeof distance);
    return code + JUMP + distance == thunk_of(entry->site);
}

uint64_t cm_amx_patched_sites(void)
{
    return __atomic_load_n(&site_count, __ATOMIC_RELAXED);
}

const struct cm_amx_site *cm_amx_refused_site(uint64_t address)
{
    int count = __atomic_load_n(&block_count, __ATOMIC_ACQUIRE);
    for (int n = 0; n < count; n++) {
        uint64_t offset = address - (uint64_t)(uintptr_t)blocks[n].code;
        if (offset < BLOCK_HALF)
            return offset % CM_AMX_THUNK_BYTES == CM_AMX_THUNK_REFUSAL
                       ? site_of(&blocks[n], (int)(offset / CM_AMX_THUNK_BYTES))
                       : NULL;
    }
    return NULL;
}
