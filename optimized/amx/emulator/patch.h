// SPDX-License-Identifier: Apache-2.0
// Sites: tile instructions whose first five bytes have become a jump to a thunk, which does their work.
#ifndef CM_AMX_PATCH_H
#define CM_AMX_PATCH_H

#include "optimized/amx/emulator/decode.h"

#include <stdbool.h>

// What a thunk has to know; thunk.c has its code, which reads the first two members.
struct cm_amx_site {
    uint64_t resume; // address behind the instruction
    void (*enter)(void);
    struct cm_amx_instruction instruction;
};

// Registers this process with the kernel for the barriers that code of other threads needs. False: they don't
// exist here, and code stays as it is.
bool cm_amx_patch_open(void);

// No thread changes code between the two, and no signal is taken. For signal handlers, too.
void cm_amx_patch_lock(uint64_t *mask);
void cm_amx_patch_unlock(const uint64_t *mask);

// All with the lock held.
bool cm_amx_patch(const struct cm_amx_instruction *instruction); // false: left as it was
bool cm_amx_is_patched(uint64_t address); // it is a site, and its jump stands there now
bool cm_amx_is_site(uint64_t address);
uint64_t cm_amx_patched_sites(void);

// Of the site whose thunk refused at `address`; NULL if no thunk is there. Without the lock.
const struct cm_amx_site *cm_amx_refused_site(uint64_t address);

// In thunk.c: bytes of a thunk, writes one at `code` for the site, and where in it a refusal traps.
enum { CM_AMX_THUNK_BYTES = 64, CM_AMX_THUNK_REFUSAL = 43 };
void cm_amx_thunk_write(uint8_t code[CM_AMX_THUNK_BYTES], const struct cm_amx_site *site);
void cm_amx_thunk_enter(void);
void cm_amx_thunk_open(void);

#endif
