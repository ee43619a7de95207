// SPDX-License-Identifier: Apache-2.0
// libcheckmoe-amx.so: LD_PRELOAD it, and a program that wants AMX finds it. Reads from the environment
//   CHECKMOE_AMX_METHOD=trap   leaves code as it is, but for CPUID and XGETBV; patches else
//   CHECKMOE_AMX_VERBOSE=1     says on stderr at the end what was done
// Before the program and its libraries start (-z initfirst), the traps are set and their CPUID rewritten.
// Objects loaded later by dlopen ask the processor itself. Permission is asked for through libc's syscall(),
// which stands here, too; sigaction and signal keep SIGILL and SIGTRAP here, and masks never block them.
//
// On a processor with tiles it does nothing.
#include "optimized/amx/emulator/amx.h"
#include "optimized/amx/emulator/execute.h"
#include "optimized/amx/emulator/rewrite.h"
#include "optimized/amx/emulator/system.h"
#include "optimized/amx/emulator/trap.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#define EXPORT     __attribute__((visibility("default")))
#define TILE_STATE (3ul << 17)
enum { GET_SUPPORTED = 0x1021, GET_PERMITTED = 0x1022, REQUEST = 0x1023, XTILEDATA = 18 };

extern const bool cm_amx_preloaded;
EXPORT const bool cm_amx_preloaded = true; // CM_AMX_PRELOADED
static bool active, verbose;
static int (*real_sigaction)(int, const struct sigaction *, struct sigaction *);
static int (*real_sigprocmask)(int, const sigset_t *, sigset_t *);
static int (*real_pthread_sigmask)(int, const sigset_t *, sigset_t *);

long cm_amx_arch_prctl(int code, unsigned long argument);
long cm_amx_system_error(long result);

// syscall() as libc has it, but for three codes of arch_prctl.
__asm__(".text\n"
        ".globl syscall\n"
        ".type syscall, @function\n"
        "syscall:\n"
        "  cmpq $158, %rdi\n"
        "  jne 1f\n"
        "  leaq -0x1021(%rsi), %rax\n"
        "  cmpq $2, %rax\n"
        "  ja 1f\n"
        "  movq %rsi, %rdi\n"
        "  movq %rdx, %rsi\n"
        "  jmp cm_amx_arch_prctl\n"
        "1:\n"
        "  movq %rdi, %rax\n"
        "  movq %rsi, %rdi\n"
        "  movq %rdx, %rsi\n"
        "  movq %rcx, %rdx\n"
        "  movq %r8, %r10\n"
        "  movq %r9, %r8\n"
        "  movq 8(%rsp), %r9\n"
        "  syscall\n"
        "  cmpq $-4095, %rax\n"
        "  jae 2f\n"
        "  ret\n"
        "2:\n"
        "  movq %rax, %rdi\n"
        "  jmp cm_amx_system_error\n"
        ".size syscall, .-syscall\n");

long cm_amx_system_error(long result)
{
    errno = (int)-result;
    return -1;
}

long cm_amx_arch_prctl(int code, unsigned long argument)
{
    if (active && code == REQUEST && (argument == XTILEDATA || argument == XTILEDATA - 1)) {
        cm_amx_permitted = cm_amx_permitted || argument == XTILEDATA;
        return 0;
    }
    long result = cm_amx_system(SYS_arch_prctl, code, (long)argument, 0, 0, 0, 0);
    if (result < 0 && !(active && code != REQUEST && result == -EINVAL)) // a kernel before 5.16
        return cm_amx_system_error(result);
    uint64_t *mask = (uint64_t *)argument; // NOLINT(performance-no-int-to-ptr)
    if (active && code == GET_SUPPORTED)
        *mask |= TILE_STATE;
    if (active && code == GET_PERMITTED)
        *mask |= cm_amx_permitted ? TILE_STATE : TILE_STATE & ~(1ul << XTILEDATA);
    return 0;
}

EXPORT int sigaction(int number, const struct sigaction *restrict action, struct sigaction *restrict old)
{
    struct sigaction *kept = active ? cm_amx_trap_previous(number) : NULL;
    if (!kept)
        return real_sigaction(number, action, old);
    struct sigaction before = *kept;
    if (action)
        *kept = *action;
    if (old)
        *old = before;
    return 0;
}

EXPORT void (*signal(int number, void (*handler)(int)))(int)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART}, old;
    sigemptyset(&action.sa_mask);
    sigaddset(&action.sa_mask, number);
    return sigaction(number, &action, &old) ? SIG_ERR : old.sa_handler;
}

// A thread that blocks SIGILL would die at its first tile instruction.
static const sigset_t *unblock(int how, const sigset_t *set, sigset_t *changed)
{
    if (!active || !set || how == SIG_UNBLOCK)
        return set;
    *changed = *set;
    sigdelset(changed, SIGILL);
    sigdelset(changed, SIGTRAP);
    return changed;
}

EXPORT int sigprocmask(int how, const sigset_t *restrict set, sigset_t *restrict old)
{
    sigset_t changed;
    return real_sigprocmask(how, unblock(how, set, &changed), old);
}

EXPORT int pthread_sigmask(int how, const sigset_t *restrict set, sigset_t *restrict old)
{
    sigset_t changed;
    return real_pthread_sigmask(how, unblock(how, set, &changed), old);
}

// libc's environment is not ready when this library starts.
static const char *find_variable(char **environment, const char *name)
{
    size_t length = strlen(name);
    for (; *environment; environment++)
        if (!strncmp(*environment, name, length) && (*environment)[length] == '=')
            return *environment + length + 1;
    return "";
}

static void *find_next(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found)
        __builtin_trap();
    return found;
}

static void say(const char *text)
{
    cm_amx_system(SYS_write, 2, (long)text, (long)strlen(text), 0, 0, 0);
}

__attribute__((constructor)) static void start(int count, char **words, char **environment)
{
    char reason[120] = "", line[200];
    (void)count;
    (void)words;
    *(void **)&real_sigaction = find_next("sigaction");
    *(void **)&real_sigprocmask = find_next("sigprocmask");
    *(void **)&real_pthread_sigmask = find_next("pthread_sigmask");
    cm_amx_sigaction = real_sigaction;
    verbose = strcmp(find_variable(environment, "CHECKMOE_AMX_VERBOSE"), "1") == 0;
    bool trap = strcmp(find_variable(environment, "CHECKMOE_AMX_METHOD"), "trap") == 0;
    if (cm_amx_emulate_enable(trap ? CM_AMX_TRAP : CM_AMX_PATCH, reason, sizeof reason) == CM_OK) {
        active = true;
        cm_amx_answer_query = cm_amx_answer;
        int rewritten = cm_amx_rewrite_queries();
        snprintf(line, sizeof line, "checkmoe-amx: emulates tiles by %s; %d CPUID and XGETBV rewritten\n",
                 cm_amx_patching ? "patches" : "traps", rewritten);
    } else {
        snprintf(line, sizeof line, "checkmoe-amx: does nothing: %s\n", reason);
    }
    if (verbose)
        say(line);
}

__attribute__((destructor)) static void finish(void)
{
    struct cm_amx_counts counts;
    char line[200];
    if (!active || !verbose)
        return;
    cm_amx_count(&counts);
    snprintf(line, sizeof line,
             "checkmoe-amx: %llu tile instructions, %llu traps, %llu sites patched, %llu CPUID and XGETBV "
             "answered\n",
             (unsigned long long)counts.instructions, (unsigned long long)counts.traps,
             (unsigned long long)counts.sites, (unsigned long long)counts.queries);
    say(line);
}
