// SPDX-License-Identifier: Apache-2.0
// The emulated device: its memory is the harness's, fenced outside launches.
#include "optimized/cuda/arrays.h"
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
    .capture = cm_simt::capture,
    .conclude = cm_simt::conclude,
    .replay = cm_simt::replay,
    .forget = cm_simt::forget,
};
