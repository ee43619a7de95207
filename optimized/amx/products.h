// SPDX-License-Identifier: Apache-2.0
// What the amx kernels share: whether tiles can run here (cpu.c), and int8 matrices in the order of tiles
// (pack.c). The products are in blocks.h. bf16 matrices are packed as for avx512: a panel of it is a column
// of tiles. Rows are rounded and activated by avx512/products.c.
#ifndef CM_AMX_PRODUCTS_H
#define CM_AMX_PRODUCTS_H

#include "optimized/avx512/products.h"

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

// Matrices [n, k] of int8, each [n/16][k/4][16][4], what lies beyond n and k being zero, with a scale per
// row. Owns both; 64-byte aligned. NULL where n or k is 0.
struct cm_amx_pack {
    int8_t *data;
    float *scale; // [count, n]
    int64_t count, n, k;
};

static inline int64_t cm_amx_quads(int64_t k)
{
    return (k + 3) / 4;
}

// Packs the first n rows and k columns of an int8 tensor [count, n, k] or [n, k] with scales [count, n, 1] or
// [n, 1]. False: no memory.
bool cm_amx_pack_open(struct cm_amx_pack *pack, const DLTensor *tensor, const DLTensor *scale, int64_t n,
                      int64_t k);
void cm_amx_pack_close(struct cm_amx_pack *pack); // accepts zero
const int8_t *cm_amx_pack_at(const struct cm_amx_pack *pack, int64_t m);
const float *cm_amx_pack_scale(const struct cm_amx_pack *pack, int64_t m); // of the rows of matrix m

#endif
