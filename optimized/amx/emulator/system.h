// SPDX-License-Identifier: Apache-2.0
// System calls for signal handlers: no errno, no cancellation point, and none of libc's functions, which the
// preloaded library takes over. Returns what the kernel returns: -errno for an error.
#ifndef CM_AMX_SYSTEM_H
#define CM_AMX_SYSTEM_H

static inline long cm_amx_system(long number, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

#endif
