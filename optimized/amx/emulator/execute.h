// SPDX-License-Identifier: Apache-2.0
// One tile instruction: what it demands and what it does. Async-signal-safe.
#ifndef CM_AMX_EXECUTE_H
#define CM_AMX_EXECUTE_H

#include "optimized/amx/emulator/decode.h"

#include <stdbool.h>

typedef enum cm_amx_fault {
    CM_AMX_NO_FAULT,
    CM_AMX_UNDEFINED,  // #UD, or #NM without permission: SIGILL
    CM_AMX_PROTECTION, // #GP: SIGSEGV without an address
} cm_amx_fault;

// Runs it on the calling thread's tiles; `registers` are 16 in the order of their encoding. After a fault
// nothing has changed but cm_amx_tiles.fault, which says what was wrong. Memory that can't be accessed faults
// here.
cm_amx_fault cm_amx_execute(const struct cm_amx_instruction *instruction, const uint64_t *registers);

extern bool cm_amx_permitted;     // arch_prctl(ARCH_REQ_XCOMP_PERM) was asked for
extern uint64_t cm_amx_executed;  // instructions, of all threads
extern bool cm_amx_fast_segments; // RDFSBASE and RDGSBASE may be used

// A sentence that grows: async-signal-safe, cut off where the text is full.
void cm_amx_say(const char *text);
void cm_amx_say_number(uint64_t number, unsigned base);

#endif
