// SPDX-License-Identifier: Apache-2.0
// Memory of the emulated device, also for kernels of the host that use it beside their own: each block lies
// flush against a guard page, and no page can be touched but during launches and copies. For C and C++.
#ifndef CM_SIMT_BESIDE_H
#define CM_SIMT_BESIDE_H

#include "harness/checkmoe.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CM_SIMT_ALIGNMENT = 16 }; // bytes

// Poisoned with ff. CM_NO_MEMORY with `reason` set when there is no memory, or no free block.
cm_status cm_simt_allocate(size_t bytes, void **memory, char *reason, size_t reason_size);
void cm_simt_release(void *memory); // accepts NULL
cm_status cm_simt_copy(void *to, const void *from, size_t bytes, char *reason, size_t reason_size);
// Whether the address lies in a block or in its guards. Async-signal-safe.
bool cm_simt_owns(const void *address);
// Around launches, which nest and may come from several threads.
void cm_simt_open(void);
void cm_simt_close(void);

#ifdef __cplusplus
}
#endif
#endif
