// SPDX-License-Identifier: Apache-2.0
#include "optimized/amx/emulator/amx.h"

#include "optimized/amx/emulator/execute.h"
#include "optimized/amx/emulator/patch.h"
#include "optimized/amx/emulator/tiles.h"
#include "optimized/amx/emulator/trap.h"

#include <cpuid.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TILE_STATE (3u << 17) // XTILECFG and XTILEDATA in XCR0
enum { REQUEST = 0x1023, XTILEDATA = 18 };

static bool enabled;
static uint64_t fork_mask;

static uint64_t enabled_state(void)
{
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low | (uint64_t)high << 32;
}

static bool has_tiles(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && d >> 24 & 1 &&
           (enabled_state() & TILE_STATE) == TILE_STATE;
}

static bool has_vectors(void)
{
    unsigned a, b, c, d;
    const unsigned wanted = bit_FMA | bit_AVX | bit_F16C;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & wanted) == wanted && (enabled_state() & 6) == 6 &&
           __get_cpuid_count(7, 0, &a, &b, &c, &d) && b & bit_AVX2;
}

// The processor that CPUID then describes is libcheckmoe-amx.so.
static bool is_preloaded(void)
{
    return dlsym(RTLD_DEFAULT, CM_AMX_PRELOADED) != NULL;
}

cm_amx_mode cm_amx_available(void)
{
    return enabled || (is_preloaded() && has_tiles()) ? CM_AMX_EMULATED
           : has_tiles()                              ? CM_AMX_NATIVE
                                                      : CM_AMX_NONE;
}

static void before_fork(void)
{
    cm_amx_patch_lock(&fork_mask);
}

static void after_fork(void)
{
    cm_amx_patch_unlock(&fork_mask);
}

cm_status cm_amx_emulate_enable(cm_amx_method method, char *reason, size_t size)
{
    if (!enabled && has_tiles()) {
        snprintf(reason, size,
                 is_preloaded() ? "libcheckmoe-amx.so is preloaded and emulates already: leave it out"
                                : "this CPU has tile instructions: nothing traps");
        return CM_UNSUPPORTED;
    }
    if (!has_vectors()) {
        snprintf(reason, size, "this CPU has no AVX2, FMA and F16C, which the emulator computes with");
        return CM_UNSUPPORTED;
    }
    cm_amx_fast_segments = getauxval(AT_HWCAP2) & 2;
    cm_amx_thunk_open();
    if (!cm_amx_trap_open()) {
        snprintf(reason, size, "SIGILL can't be taken: %s", strerror(errno));
        return CM_UNSUPPORTED;
    }
    if (!enabled && pthread_atfork(before_fork, after_fork, after_fork)) {
        snprintf(reason, size, "no memory");
        return CM_NO_MEMORY;
    }
    cm_amx_patching = method == CM_AMX_PATCH && cm_amx_patch_open();
    enabled = true;
    return CM_OK;
}

cm_status cm_amx_request_permission(char *reason, size_t size)
{
    if (cm_amx_available() == CM_AMX_NONE) {
        snprintf(reason, size, "no tile instructions: neither this CPU nor the emulator has them");
        return CM_UNSUPPORTED;
    }
    if (!enabled &&
        syscall(SYS_arch_prctl, REQUEST, XTILEDATA)) { // libc's, which may be the preloaded library's
        snprintf(reason, size, "the kernel refuses tile data: %s", strerror(errno));
        return CM_UNSUPPORTED;
    }
    cm_amx_permitted = true;
    return CM_OK;
}

void cm_amx_revoke_permission(void)
{
    cm_amx_permitted = false;
}

void cm_amx_count(struct cm_amx_counts *counts)
{
    *counts = (struct cm_amx_counts){
        .instructions = __atomic_load_n(&cm_amx_executed, __ATOMIC_RELAXED),
        .traps = __atomic_load_n(&cm_amx_traps, __ATOMIC_RELAXED),
        .sites = cm_amx_patched_sites(),
        .queries = __atomic_load_n(&cm_amx_queries, __ATOMIC_RELAXED),
    };
}

int cm_amx_palette(void)
{
    return cm_amx_tiles.palette;
}

void cm_amx_reset(void)
{
    cm_amx_tiles_init(&cm_amx_tiles);
    cm_amx_tiles.instruction = NULL;
    cm_amx_tiles.fault[0] = 0;
}

const void *cm_amx_instruction_address(void)
{
    return cm_amx_tiles.instruction;
}

const char *cm_amx_fault_text(void)
{
    return cm_amx_tiles.fault;
}
