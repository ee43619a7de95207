// SPDX-License-Identifier: Apache-2.0
// Tile instructions trap as undefined. The handler runs the one at RIP, and those that follow directly, as
// tile instructions change no register that an address needs; or it patches them and lets them run again. It
// runs on the stack of the code that trapped, so that a fault in a memory operand finds the same stacks as on
// hardware.
//
// Faults are delivered at the instruction: #UD to whom SIGILL belonged before; #GP by the kernel, as a
// SIGSEGV that waits until this handler has returned. What a thunk refuses traps in the thunk and is moved
// back to its site.
#include "optimized/amx/emulator/trap.h"

#include "optimized/amx/emulator/execute.h"
#include "optimized/amx/emulator/patch.h"
#include "optimized/amx/emulator/system.h"
#include "optimized/amx/emulator/tiles.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAGE = 4096, SINGLE_STEP = 0x100 }; // the trap flag of EFLAGS

typedef enum answer {
    DONE,
    FOREIGN, // no tile instruction
    REFUSED,
    PROTECTED,
} answer;

bool cm_amx_patching;
uint64_t cm_amx_traps, cm_amx_queries;
bool (*cm_amx_answer_query)(ucontext_t *user);
int (*cm_amx_sigaction)(int number, const struct sigaction *action, struct sigaction *old) = sigaction;

static struct sigaction previous_illegal, previous_breakpoint;
static bool opened;

struct sigaction *cm_amx_trap_previous(int number)
{
    if (!opened)
        return NULL;
    return number == SIGILL ? &previous_illegal : number == SIGTRAP ? &previous_breakpoint : NULL;
}

static uint64_t instruction_pointer(const ucontext_t *user)
{
    return (uint64_t)user->uc_mcontext.gregs[REG_RIP];
}

static void set_instruction_pointer(ucontext_t *user, uint64_t to)
{
    user->uc_mcontext.gregs[REG_RIP] = (greg_t)to;
}

static void read_registers(const ucontext_t *user, uint64_t *registers)
{
    static const uint8_t order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                      REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    for (int n = 0; n < 16; n++)
        registers[n] = (uint64_t)user->uc_mcontext.gregs[order[n]];
}

// Bytes beyond the page are read only when the instruction goes on there.
static bool fetch(uint64_t address, struct cm_amx_instruction *instruction)
{
    size_t available = PAGE - address % PAGE;
    cm_amx_decoded decoded;
    if (available > CM_AMX_LONGEST)
        available = CM_AMX_LONGEST;
    do
        decoded = cm_amx_decode((const uint8_t *)(uintptr_t)address, available++, instruction);
    while (decoded == CM_AMX_CUT_SHORT);
    instruction->address = address;
    return decoded == CM_AMX_IS_TILE;
}

// The one that follows, if it lies in the same page: the next may be no code, or not there.
static bool fetch_next(struct cm_amx_instruction *instruction)
{
    uint64_t address = instruction->address + instruction->length;
    size_t available = PAGE - address % PAGE;
    if (address / PAGE != instruction->address / PAGE)
        return false;
    if (available > CM_AMX_LONGEST)
        available = CM_AMX_LONGEST;
    bool found = cm_amx_decode((const uint8_t *)(uintptr_t)address, available, instruction) == CM_AMX_IS_TILE;
    instruction->address = address;
    return found;
}

static answer run_one(ucontext_t *user, const struct cm_amx_instruction *instruction)
{
    uint64_t registers[16];
    read_registers(user, registers);
    set_instruction_pointer(user, instruction->address);
    cm_amx_fault fault = cm_amx_execute(instruction, registers);
    if (fault)
        return fault == CM_AMX_UNDEFINED ? REFUSED : PROTECTED;
    set_instruction_pointer(user, instruction->address + instruction->length);
    return DONE;
}

static bool is_single_step(const ucontext_t *user)
{
    return user->uc_mcontext.gregs[REG_EFL] & SINGLE_STEP;
}

// A later instruction that is refused traps again by itself.
static answer run_ahead(ucontext_t *user)
{
    struct cm_amx_instruction instruction;
    if (!fetch(instruction_pointer(user), &instruction))
        return FOREIGN;
    answer first = run_one(user, &instruction);
    if (first != DONE || is_single_step(user))
        return first;
    while (fetch_next(&instruction) && run_one(user, &instruction) == DONE)
        continue;
    return DONE;
}

// Other threads may be changing code: it is read with the lock held.
static answer patch_ahead(ucontext_t *user)
{
    struct cm_amx_instruction instruction;
    uint64_t mask, address = instruction_pointer(user);
    cm_amx_patch_lock(&mask);
    if (cm_amx_is_patched(address)) { // by another thread, after this one trapped
        cm_amx_patch_unlock(&mask);
        return DONE;
    }
    bool found = fetch(address, &instruction);
    bool patched = found && !is_single_step(user) && cm_amx_patch(&instruction);
    for (struct cm_amx_instruction next = instruction; patched && fetch_next(&next);)
        if (!cm_amx_patch(&next))
            break;
    cm_amx_patch_unlock(&mask);
    if (!found)
        return FOREIGN;
    return patched ? DONE : run_one(user, &instruction);
}

static answer answer_illegal(ucontext_t *user)
{
    const struct cm_amx_site *site = cm_amx_refused_site(instruction_pointer(user));
    if (site)
        return run_one(user, &site->instruction);
    return cm_amx_patching ? patch_ahead(user) : run_ahead(user);
}

static void print_fault(void)
{
    cm_amx_say(" (tile instruction at 0x");
    cm_amx_say_number((uint64_t)(uintptr_t)cm_amx_tiles.instruction, 16);
    cm_amx_say(")\n");
    cm_amx_system(SYS_write, STDERR_FILENO, (long)cm_amx_tiles.fault, (long)strlen(cm_amx_tiles.fault), 0, 0,
                  0);
}

static void set_default(int number)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    cm_amx_sigaction(number, &action, NULL);
}

static void send_to_self(int number, siginfo_t *info)
{
    long process = cm_amx_system(SYS_getpid, 0, 0, 0, 0, 0, 0),
         thread = cm_amx_system(SYS_gettid, 0, 0, 0, 0, 0, 0);
    cm_amx_system(SYS_rt_tgsigqueueinfo, process, thread, number, (long)info, 0, 0);
}

// What the kernel would have done had this handler not been there.
static void hand_on(int number, siginfo_t *info, ucontext_t *user, bool fault)
{
    struct sigaction *action = cm_amx_trap_previous(number), previous = *action;
    bool sent = info->si_code <= 0; // by kill and the like, not by an instruction
    if (previous.sa_handler == SIG_IGN && sent)
        return;
    if (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN) {
        if (fault)
            print_fault();
        set_default(number);
        if (sent || number == SIGTRAP) // an illegal instruction traps again
            send_to_self(number, info);
        return;
    }
    if (!(previous.sa_flags & SA_NODEFER))
        sigaddset(&previous.sa_mask, number);
    cm_amx_system(SYS_rt_sigprocmask, SIG_BLOCK, (long)&previous.sa_mask, 0, 8, 0, 0);
    if (previous.sa_flags & SA_RESETHAND)
        action->sa_handler = SIG_DFL;
    if (previous.sa_flags & SA_SIGINFO)
        previous.sa_sigaction(number, info, user);
    else
        previous.sa_handler(number);
}

// Pending while this handler runs, so that the kernel delivers it at the tile instruction. A blocked or
// ignored SIGSEGV ends the process, as it would if the processor had raised it.
static void raise_protection(ucontext_t *user)
{
    struct sigaction action;
    siginfo_t info = {.si_signo = SIGSEGV, .si_code = SI_KERNEL};
    sigset_t segv;
    sigemptyset(&segv);
    sigaddset(&segv, SIGSEGV);
    cm_amx_sigaction(SIGSEGV, NULL, &action);
    bool deadly = sigismember(&user->uc_sigmask, SIGSEGV) || action.sa_handler == SIG_IGN;
    if (deadly || action.sa_handler == SIG_DFL)
        print_fault();
    if (deadly)
        set_default(SIGSEGV);
    sigdelset(&user->uc_sigmask, SIGSEGV);
    cm_amx_system(SYS_rt_sigprocmask, SIG_BLOCK, (long)&segv, 0, 8, 0, 0);
    send_to_self(SIGSEGV, &info);
}

static void on_illegal(int number, siginfo_t *info, void *context)
{
    ucontext_t *user = context;
    siginfo_t illegal = {.si_signo = SIGILL, .si_code = ILL_ILLOPN};
    answer result = info->si_code <= 0 ? FOREIGN : answer_illegal(user);
    if (result == FOREIGN && info->si_code > 0 && cm_amx_answer_query && cm_amx_answer_query(user)) {
        __atomic_fetch_add(&cm_amx_queries, 1, __ATOMIC_RELAXED);
        result = DONE;
    }
    if (result != FOREIGN)
        __atomic_fetch_add(&cm_amx_traps, 1, __ATOMIC_RELAXED);
    switch (result) {
    case DONE:
        break;
    case FOREIGN:
        hand_on(number, info, user, false);
        break;
    case REFUSED:
        illegal.si_addr = (void *)(uintptr_t)instruction_pointer(user);
        hand_on(number, &illegal, user, true);
        break;
    case PROTECTED:
        raise_protection(user);
    }
}

// The breakpoint that a patch puts in first; whoever holds the lock is about to finish it.
static void on_breakpoint(int number, siginfo_t *info, void *context)
{
    ucontext_t *user = context;
    uint64_t mask, address = instruction_pointer(user) - 1;
    cm_amx_patch_lock(&mask);
    bool ours = info->si_code > 0 && cm_amx_is_site(address);
    cm_amx_patch_unlock(&mask);
    if (ours) {
        __atomic_fetch_add(&cm_amx_traps, 1, __ATOMIC_RELAXED);
        set_instruction_pointer(user, address);
        return;
    }
    hand_on(number, info, user, false);
}

static bool take(int number, void (*handler)(int, siginfo_t *, void *), struct sigaction *previous)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_NODEFER}, old;
    sigemptyset(&action.sa_mask);
    if (cm_amx_sigaction(number, NULL, &old))
        return false;
    if (old.sa_sigaction == handler)
        return true;
    *previous = old;
    opened = true;
    return cm_amx_sigaction(number, &action, NULL) == 0;
}

bool cm_amx_trap_open(void)
{
    return take(SIGILL, on_illegal, &previous_illegal) && take(SIGTRAP, on_breakpoint, &previous_breakpoint);
}
