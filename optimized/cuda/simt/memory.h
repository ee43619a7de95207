// SPDX-License-Identifier: Apache-2.0
// Device memory that kernels allocate for themselves, and the fence around all of it: the host can touch none
// outside launches and copies. Any thread may use it.
#ifndef CM_SIMT_MEMORY_H
#define CM_SIMT_MEMORY_H

#include "optimized/cuda/simt/launch.h"

namespace cm_simt
{

// Around what the device does: the memory of all arenas and allocations is within its reach.
void memory_open(const cm_call *call);
void memory_close(const cm_call *call);

} // namespace cm_simt

#endif
