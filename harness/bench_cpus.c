// SPDX-License-Identifier: Apache-2.0
#include "harness/bench_cpus.h"

#include <hwloc.h>
#include <stdbool.h>
#include <stdio.h>

static void get_allowed(cpu_set_t *allowed)
{
    CPU_ZERO(allowed);
    if (sched_getaffinity(0, sizeof *allowed, allowed) || CPU_COUNT(allowed) == 0)
        CPU_SET(0, allowed); // more CPUs than a cpu_set_t has
}

int cm_cpus_allowed(void)
{
    cpu_set_t allowed;
    get_allowed(&allowed);
    return CPU_COUNT(&allowed);
}

// Whether an allowed CPU with a lower number shares this one's core.
static bool is_second_of_core(int cpu, const cpu_set_t *allowed)
{
    char path[96];
    int first, last;
    bool second = false;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    while (!second && fscanf(file, "%d", &first) == 1) { // "0,64" or "0-1"
        last = first;
        if (fscanf(file, "-%d", &last) != 1)
            last = first;
        for (int n = first; n <= last && n < cpu; n++)
            second = second || CPU_ISSET(n, allowed);
        if (fgetc(file) != ',')
            break;
    }
    fclose(file);
    return second;
}

void cm_cpus_choose(int count, cpu_set_t *chosen)
{
    cpu_set_t allowed;
    get_allowed(&allowed);
    CPU_ZERO(chosen);
    for (int round = 0; round < 2; round++)
        for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(chosen) < count; cpu++)
            if (CPU_ISSET(cpu, &allowed) && !CPU_ISSET(cpu, chosen) &&
                (round == 1 || !is_second_of_core(cpu, &allowed)))
                CPU_SET(cpu, chosen);
}

size_t cm_memory_available(void)
{
    char line[128];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/meminfo", "r");
    while (file && kib == 0 && fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %llu kB", &kib) != 1)
            kib = 0;
    if (file)
        fclose(file);
    return (size_t)kib * 1024;
}

size_t cm_cache_size(void)
{
    static const hwloc_obj_type_t levels[] = {HWLOC_OBJ_L4CACHE, HWLOC_OBJ_L3CACHE, HWLOC_OBJ_L2CACHE};
    hwloc_topology_t topology;
    size_t bytes = 0;
    if (hwloc_topology_init(&topology))
        return 0;
    hwloc_topology_set_cache_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_ALL);
    if (hwloc_topology_load(topology) == 0)
        for (size_t level = 0; level < sizeof levels / sizeof *levels && bytes == 0; level++)
            for (int n = 0; n < hwloc_get_nbobjs_by_type(topology, levels[level]); n++)
                bytes += hwloc_get_obj_by_type(topology, levels[level], (unsigned)n)->attr->cache.size;
    hwloc_topology_destroy(topology);
    return bytes;
}
