// SPDX-License-Identifier: Apache-2.0
// Declares whatever kernels.inc lists. Listed but not built is a link error.
#ifndef CM_OPTIMIZED_KERNELS_H
#define CM_OPTIMIZED_KERNELS_H

#include "harness/checkmoe.h"

#define CM_KERNEL(symbol) extern const cm_kernel symbol;
#define CM_NATIVE(symbol) extern const cm_kernel symbol##_native;
#define CM_NATIVE_HOST    CM_NATIVE // with a half on the host
#include "optimized/kernels.inc"
#undef CM_KERNEL
#undef CM_NATIVE
#undef CM_NATIVE_HOST

#endif
