// SPDX-License-Identifier: Apache-2.0
// The emulated device. Arguments lie in the harness's memory, what kernels keep there in the emulator's; both
// are fenced outside launches.
#include "optimized/cuda/arrays.h"
#include "optimized/cuda/simt/beside.h"
#include "optimized/cuda/simt/graph.h"

static bool available(char *reason, size_t size)
{
    (void)reason;
    (void)size;
    return true;
}

const cm_side cm_cuda_emulated = {
    .size = sizeof(cm_side),
    .emulated = true,
    .available = available,
    .allocate = cm_simt_allocate,
    .release = cm_simt_release,
    .copy_in = cm_simt_copy,
    .copy_out = cm_simt_copy,
    .capture = cm_simt::capture,
    .conclude = cm_simt::conclude,
    .replay = cm_simt::replay,
    .forget = cm_simt::forget,
    .owns = cm_simt_owns,
};
