// SPDX-License-Identifier: Apache-2.0
// moe_forward/split: experts below num_gpu_experts by moe_forward/cuda, the others by the first kernel of the
// host that takes the call: tiles if the processor has them, AVX512-BF16, or plain C. Compiled once more for
// GPUs (CM_SPLIT_NATIVE). Limits are those of its halves; with no expert on the device, of the host's.
#include "optimized/kernels.h"
#include "optimized/split/wrapper.h"

#ifdef CM_SPLIT_NATIVE
#define GPU  cm_moe_forward_cuda_native
#define SIDE cm_cuda_native
#else
#define GPU  cm_moe_forward_cuda
#define SIDE cm_cuda_emulated
#endif

extern const cm_side SIDE;

static const cm_kernel *const hosts[] = {&cm_moe_forward_amx, &cm_moe_forward_avx512, &cm_moe_forward_naive,
                                         NULL};
static const struct cm_split_pair pair = {&SIDE, &GPU, hosts};

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
    return SIDE.emulated;
}

const cm_kernel cm_moe_forward_split = {
    .size = sizeof(cm_kernel),
    .name = "moe_forward/split",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_MODEL,
    .supports = supports,
    .prepare = prepare,
    .update = cm_split_update,
    .run = cm_split_run,
    .release = cm_split_release,
    .side = &SIDE,
    .emulated = is_emulated,
    .paths = cm_split_paths,
};
