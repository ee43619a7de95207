// SPDX-License-Identifier: Apache-2.0
// What the amx kernels share: whether tiles can run here (cpu.c). The products are in blocks.h. A panel of 16
// columns, as it is packed for avx512, is a column of tiles.
#ifndef CM_AMX_PRODUCTS_H
#define CM_AMX_PRODUCTS_H

#include "optimized/avx512/lanes.h"

// gcc's names; clang 14 has its own, clang 15 both
#if (defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AMX_INT8__)) ||                             \
    (defined(__AMXTILE__) && defined(__AMXBF16__) && defined(__AMXINT8__))
#define CM_AMX_BUILT 1
#else
#define CM_AMX_BUILT 0 // the file that asks is not compiled for AMX
#endif

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define CM_AMX_CALLS 1
#endif
#endif
#if !defined(CM_AMX_CALLS)
#if defined(__SANITIZE_ADDRESS__)
#define CM_AMX_CALLS 1
#else
#define CM_AMX_CALLS 0
#endif
#endif

// Whether tiles can be used from now on; if not, says why. Starts the emulator in this process where the
// processor has none, and gives the thread's tiles their initial state there: what one call configured can't
// serve the next. Threads may call it at the same time.
bool cm_amx_ready(char *reason, size_t size);
bool cm_amx_emulated(void); // whether they are emulated here; starts nothing

#endif
