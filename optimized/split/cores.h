// SPDX-License-Identifier: Apache-2.0
// How many cores there are for a caller who says nothing.
#ifndef CM_SPLIT_CORES_H
#define CM_SPLIT_CORES_H

// Physical cores on which this process may run, each counted once however many threads it has; at least 1.
int cm_physical_cores(void);

// The same of `cpus` numbers, from `folder`/cpuN/topology; where a file is missing a number counts as a core.
int cm_physical_cores_of(const char *folder, const int *cpus, int count);

#endif
