// SPDX-License-Identifier: Apache-2.0
// sgmv_expand/amx: B packed in the order of tiles at each adapter's own rank; the second phase of
// optimized/cpu/sgmv.h. An fp32 or f16 v is the sum of three bf16 parts, 8 bits each: three products in place
// of a rounding that the op does not allow. Threads by OpenMP; bits do not depend on their number. Limits: B
// bf16; v and y any float. Error: sums in fp32, one rounding to y; denormals of bf16 and sums below 2^-126
// count as zero.
#include "optimized/amx/blocks.h"

#include "optimized/cpu/sgmv_adapters.h"

#include "optimized/cpu/sgmv.h"

#include "optimized/amx/sgmv_target.h"
#include "optimized/kernels.h"

static bool supports(const cm_call *call, char *reason, size_t size)
{
    return cm_sgmv_supports(call, &cm_amx_sgmv, reason, size);
}

static cm_status update(const cm_call *call, void *state)
{
    return cm_sgmv_update(call, &cm_amx_sgmv, state);
}

static cm_status run(const cm_call *call, void *state)
{
    return cm_sgmv_run(call, &cm_amx_sgmv, state);
}

const cm_kernel cm_sgmv_expand_amx = {
    .size = sizeof(cm_kernel),
    .name = "sgmv_expand/amx",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .row_invariant = true,
    .supports = supports,
    .prepare = cm_sgmv_prepare,
    .update = update,
    .run = run,
    .release = cm_sgmv_release,
    .emulated = cm_amx_emulated,
    .paths = cm_amx_sgmv_paths,
    .switch_points = cm_amx_sgmv_points,
};
