// SPDX-License-Identifier: Apache-2.0
// sgmv/avx512: A and B packed for VDPBF16PS at each adapter's own rank, v rounded to bf16 between them (see
// optimized/cpu/sgmv.h). Threads by OpenMP; bits do not depend on their number. Limits: x, A and B bf16, y
// any float. Error: sums in fp32, one rounding of v, one to y; denormals of bf16 and sums below 2^-126 count
// as zero.
#include "optimized/cpu/sgmv_adapters.h"

#include "optimized/cpu/sgmv.h"

#include "optimized/avx512/sgmv_target.h"
#include "optimized/kernels.h"

static bool supports(const cm_call *call, char *reason, size_t size)
{
    return cm_sgmv_supports(call, &cm_avx512_sgmv, reason, size);
}

static cm_status update(const cm_call *call, void *state)
{
    return cm_sgmv_update(call, &cm_avx512_sgmv, state);
}

static cm_status run(const cm_call *call, void *state)
{
    return cm_sgmv_run(call, &cm_avx512_sgmv, state);
}

const cm_kernel cm_sgmv_avx512 = {
    .size = sizeof(cm_kernel),
    .name = "sgmv/avx512",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_MODEL,
    .row_invariant = true,
    .supports = supports,
    .prepare = cm_sgmv_prepare,
    .update = update,
    .run = run,
    .release = cm_sgmv_release,
    .paths = cm_avx512_sgmv_paths,
    .switch_points = cm_avx512_sgmv_points,
};
