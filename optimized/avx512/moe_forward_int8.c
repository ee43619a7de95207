// SPDX-License-Identifier: Apache-2.0
// moe_forward/avx512-int8: the same on rows that are quantised to int8 (act_quant), by VPDPBUSD; weights int8
// or int4, and bf16, for which codes are rows of bf16. Limits and error: engine.h.
#include "optimized/avx512/multiply.h"
#include "optimized/cpu/engine.h"
#include "optimized/kernels.h"

static const cm_switch_point points[] = {
    {"rows", CM_BLOCK_ROWS + 1, "from one pass over the weights to several"},
    {"rows", CM_ROW_BLOCK + 1, "from one product to several"},
    {"H", 4 * CM_PIECE_LINES + 1, "int8: from one piece of weights to several"},
    {"H", 8 * CM_PIECE_LINES + 1, "int4: the same"},
    {0},
};

static bool supports(const cm_call *call, char *reason, size_t size)
{
    return cm_avx512_moe_available(reason, size) && cm_engine_supports(call, true, reason, size);
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
    return cm_engine_run(call, supports, &cm_avx512_products, state);
}

const cm_kernel cm_moe_forward_avx512_int8 = {
    .size = sizeof(cm_kernel),
    .name = "moe_forward/avx512-int8",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .row_invariant = true,
    .supports = supports,
    .prepare = prepare,
    .update = update,
    .run = run,
    .release = cm_engine_release,
    .paths = cm_avx512_paths,
    .switch_points = points,
};
