// SPDX-License-Identifier: Apache-2.0
// moe_forward/amx: the engine for CPUs (optimized/cpu) on rows of bf16, by TDPBF16PS where an expert has
// enough rows and by VDPBF16PS elsewhere; weights bf16, int8 or int4. Limits and error: engine.h, but a
// token's bits depend on how many rows its expert has.
#include "optimized/amx/multiply.h"
#include "optimized/amx/products.h"
#include "optimized/cpu/engine.h"
#include "optimized/kernels.h"

static bool supports(const cm_call *call, char *reason, size_t size)
{
    return cm_amx_moe_available(reason, size) && cm_engine_supports(call, false, reason, size);
}

static cm_status prepare(const cm_call *call, void **state)
{
    return cm_engine_prepare(call, supports, state);
}

static cm_status update(const cm_call *call, void *state)
{
    return cm_engine_update(call, supports, state);
}

static cm_status run(const cm_call *call, void *state)
{
    return cm_engine_run(call, supports, &cm_amx_products, state);
}

const cm_kernel cm_moe_forward_amx = {
    .size = sizeof(cm_kernel),
    .name = "moe_forward/amx",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_MODEL,
    .supports = supports,
    .prepare = prepare,
    .update = update,
    .run = run,
    .release = cm_engine_release,
    .emulated = cm_amx_emulated,
    .paths = cm_amx_paths,
    .switch_points = cm_amx_switch_points,
};
