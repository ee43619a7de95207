// SPDX-License-Identifier: Apache-2.0
// CPUID and XGETBV in the code of loaded libraries, made into traps: their answers say that there are tiles.
#ifndef CM_AMX_REWRITE_H
#define CM_AMX_REWRITE_H

#include <stdbool.h>
#include <stdint.h>
#include <ucontext.h>

typedef enum cm_amx_query {
    CM_AMX_NO_QUERY,
    CM_AMX_CPUID,  // 0f a2 has become 0f 0b
    CM_AMX_XGETBV, // 0f 01 d0 has become 0f 0b 90
} cm_amx_query;

// Rewrites those in all objects loaded so far but this one, libc and the loader; returns how many. Objects
// need the table of their functions that C compilers write (.eh_frame_hdr); before threads start.
int cm_amx_rewrite_queries(void);
cm_amx_query cm_amx_find_query(uint64_t address);

// In cpuid.c: answers at RIP, if a rewritten instruction is there.
bool cm_amx_answer(ucontext_t *user);

#endif
