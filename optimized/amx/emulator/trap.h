// SPDX-License-Identifier: Apache-2.0
// The handlers of SIGILL and SIGTRAP, and whom they hand on to.
#ifndef CM_AMX_TRAP_H
#define CM_AMX_TRAP_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <ucontext.h>

// Takes the signals; a second call keeps those who were there before the first. False: errno says why not.
bool cm_amx_trap_open(void);

// The action that SIGILL or SIGTRAP had, or that somebody wanted to give it since; NULL for other signals,
// and before cm_amx_trap_open.
struct sigaction *cm_amx_trap_previous(int number);

// Symbol by which the preloaded library is known.
#define CM_AMX_PRELOADED "cm_amx_preloaded"

extern bool cm_amx_patching;
extern uint64_t cm_amx_traps, cm_amx_queries;
// Answers other instructions that trap; NULL: none. True if it did, and has moved RIP on.
extern bool (*cm_amx_answer_query)(ucontext_t *user);
// libc's sigaction, which the preloaded library stands before.
extern int (*cm_amx_sigaction)(int number, const struct sigaction *action, struct sigaction *old);

#endif
