// SPDX-License-Identifier: Apache-2.0
// Sizes that VDPBF16PS gives to rows and panels, and whether this machine has it (cpu.c). Files compiled for
// AVX-512 are entered only after cm_avx512_available has said yes.
#ifndef CM_AVX512_LANES_H
#define CM_AVX512_LANES_H

#include "optimized/view.h"

enum { CM_AVX512_LANES = 16 }; // fp32 in a register: columns of a panel

// Elements of a row of scratch memory: whole registers, so that stores need no mask.
static inline int64_t cm_avx512_stride(int64_t columns)
{
    return (columns + CM_AVX512_LANES - 1) / CM_AVX512_LANES * CM_AVX512_LANES;
}

static inline int64_t cm_avx512_pairs(int64_t k)
{
    return (k + 1) / 2;
}

extern const bool cm_avx512_built; // the compiler made the instructions

// Whether VDPBF16PS can run here; if not, says why.
bool cm_avx512_available(char *reason, size_t size);

#endif
