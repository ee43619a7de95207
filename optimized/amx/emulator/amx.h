// SPDX-License-Identifier: Apache-2.0
// Tile instructions (AMX) on processors that have none: the unmodified machine code runs, its
// illegal-instruction traps are answered from within the process. For harness and kernels; the emulator's
// parts have headers of their own.
//
//   decode.c   bytes -> instruction              trap.c     SIGILL and SIGTRAP, run-ahead, delivery of faults
//   tiles.c    configuration, loads, stores      patch.c    a trapped site becomes a jump to a thunk
//   dot.c      tile products                     thunk.c    from that jump to execute.c and back
//   execute.c  faults, addresses, effects        enable.c   what this file declares
//   replace.h  the intrinsics as function calls, for sanitizer builds
//   preload.c  libcheckmoe-amx.so for programs that know nothing of this (with cpuid.c, rewrite.c, length.c)
//
// Not emulated: tiles in signal frames (a signal handler that uses tiles changes those of the code that it
// interrupts), faults of transactional memory, EVEX encodings.
#ifndef CM_AMX_AMX_H
#define CM_AMX_AMX_H

#include "harness/checkmoe.h"

// How tile instructions run in this process.
typedef enum cm_amx_mode {
    CM_AMX_NONE,     // they end it with SIGILL
    CM_AMX_NATIVE,   // the processor has them
    CM_AMX_EMULATED, // cm_amx_emulate_enable said CM_OK
} cm_amx_mode;

cm_amx_mode cm_amx_available(void);

typedef enum cm_amx_method {
    CM_AMX_TRAP,  // each run of adjacent tile instructions traps; code stays as it is
    CM_AMX_PATCH, // the first trap of an instruction replaces it by a jump; later ones don't trap
} cm_amx_method;

// Takes SIGILL (and SIGTRAP to patch) for this process and those it forks; what is no tile instruction goes
// to the handlers that were there before, so install others first. Threads may run and start. CM_UNSUPPORTED
// with a sentence in `reason` where the processor has tiles or lacks AVX2 and FMA. May be called again to
// change the method; where code can't be patched, CM_AMX_PATCH traps. Refuses under the preloaded
// libcheckmoe-amx.so, which emulates already, but keeps counts, palette and fault text to itself.
cm_status cm_amx_emulate_enable(cm_amx_method method, char *reason, size_t size);

// What arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA) does on hardware, once per process and before the first
// tile instruction, which is a SIGILL otherwise. CM_UNSUPPORTED with a sentence where it is refused.
cm_status cm_amx_request_permission(char *reason, size_t size);
void cm_amx_revoke_permission(void); // emulation only, for tests

struct cm_amx_counts {
    uint64_t instructions; // tile instructions emulated to their end, by any method
    uint64_t traps;        // signals answered
    uint64_t sites;        // instructions replaced by jumps
    uint64_t queries;      // CPUID and XGETBV answered (preloaded library)
};

// Of this process so far; 0 in NATIVE mode. Zero instructions in a case means that it never reached the
// tiles.
void cm_amx_count(struct cm_amx_counts *counts);

// The rest concerns the calling thread.

// Palette of the emulated configuration; 0 after TILERELEASE. Kernels have to release what they configure.
int cm_amx_palette(void);
// The initial state, so that one case's configuration can't hide that the next lacks its own.
void cm_amx_reset(void);
// The tile instruction being emulated or emulated last; NULL before the first. A SIGSEGV within its memory
// operand has the operand's address in si_addr and, as it happens, the emulator's own in RIP.
const void *cm_amx_instruction_address(void);
// Why the last tile instruction was refused ("tdpbf16ps: C has 16 rows, A 8"); "" if none was. Lives on.
const char *cm_amx_fault_text(void);

#endif
