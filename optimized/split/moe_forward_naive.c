// SPDX-License-Identifier: Apache-2.0
// moe_forward/split-naive: the split layer with naive kernels on both sides, the device's one in fenced
// memory: every dtype, at little cost. It is the wrapper that is tested here.
#include "optimized/kernels.h"
#include "optimized/split/cut.h"
#include "optimized/split/half.h"
#include "optimized/split/plan.h"
#include "optimized/split/wrapper.h"

extern const cm_side cm_cuda_emulated;

static const cm_kernel *const hosts[] = {&cm_moe_forward_naive, NULL};
static const struct cm_split_pair pair = {&cm_cuda_emulated, &cm_moe_forward_naive, hosts};

static bool supports(const cm_call *call, char *reason, size_t size)
{
    return cm_split_supports(&pair, call, reason, size);
}

static cm_status prepare(const cm_call *call, void **state)
{
    return cm_split_prepare(&pair, call, state);
}

static bool is_emulated(void)
{
    return true;
}

const cm_kernel cm_moe_forward_split_naive = {
    .size = sizeof(cm_kernel),
    .name = "moe_forward/split-naive",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .row_invariant = true,
    .supports = supports,
    .prepare = prepare,
    .update = cm_split_update,
    .run = cm_split_run,
    .release = cm_split_release,
    .side = &cm_cuda_emulated,
    .emulated = is_emulated,
    .paths = cm_split_paths,
};
