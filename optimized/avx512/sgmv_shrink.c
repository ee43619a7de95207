// SPDX-License-Identifier: Apache-2.0
// sgmv_shrink/avx512: A packed for VDPBF16PS at each adapter's own rank; the first phase of
// optimized/cpu/sgmv.h, then its sums as v. Threads by OpenMP; bits do not depend on their number. Limits: x
// and A bf16, v any float. Error: sums in fp32, one rounding to v; bf16 denormals count as zero.
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

const cm_kernel cm_sgmv_shrink_avx512 = {
    .size = sizeof(cm_kernel),
    .name = "sgmv_shrink/avx512",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .row_invariant = true,
    .supports = supports,
    .prepare = cm_sgmv_prepare,
    .update = update,
    .run = run,
    .release = cm_sgmv_release,
    .paths = cm_avx512_sgmv_paths,
    .switch_points = cm_avx512_sgmv_points,
};
