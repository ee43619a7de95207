// SPDX-License-Identifier: Apache-2.0
// Which CPUs a timed process may use, and how much memory and cache there is.
#ifndef CM_BENCH_CPUS_H
#define CM_BENCH_CPUS_H

#include <sched.h>
#include <stddef.h>

int cm_cpus_allowed(void); // CPUs that this process may run on, at least 1

// Chooses `count` of the allowed CPUs (1 <= count <= cm_cpus_allowed()), one of each core before the second
// of any: a limit on threads that no kernel can overlook.
void cm_cpus_choose(int count, cpu_set_t *chosen);

size_t cm_memory_available(void); // bytes that can be taken without swapping; 0: unknown
size_t cm_cache_size(void);       // bytes of all last-level caches together; 0: unknown

#endif
