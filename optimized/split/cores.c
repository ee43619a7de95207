// SPDX-License-Identifier: Apache-2.0
#include "optimized/split/cores.h"

#include <sched.h>
#include <stdio.h>

enum { MOST_CPUS = CPU_SETSIZE };

// -1: can't be read.
static int read_number(const char *folder, int cpu, const char *name)
{
    char path[512];
    int number = -1;
    snprintf(path, sizeof path, "%s/cpu%d/topology/%s", folder, cpu, name);
    FILE *file = fopen(path, "r");
    if (!file)
        return -1;
    if (fscanf(file, "%d", &number) != 1)
        number = -1;
    fclose(file);
    return number;
}

int cm_physical_cores_of(const char *folder, const int *cpus, int count)
{
    int packages[MOST_CPUS], cores[MOST_CPUS], found = 0;
    for (int n = 0; n < count && found < MOST_CPUS; n++) {
        int package = read_number(folder, cpus[n], "physical_package_id");
        int core = read_number(folder, cpus[n], "core_id"), seen = 0;
        for (int other = 0; other < found && core >= 0; other++)
            seen += packages[other] == package && cores[other] == core;
        if (seen)
            continue;
        packages[found] = package;
        cores[found++] = core;
    }
    return found > 0 ? found : 1;
}

int cm_physical_cores(void)
{
    cpu_set_t set;
    int cpus[MOST_CPUS], count = 0;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    for (int cpu = 0; cpu < MOST_CPUS; cpu++)
        if (CPU_ISSET(cpu, &set))
            cpus[count++] = cpu;
    return cm_physical_cores_of("/sys/devices/system/cpu", cpus, count);
}
