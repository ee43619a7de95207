// SPDX-License-Identifier: Apache-2.0
// A plan by one thread of the emulated device, as often as there are mistakes.
#include "suites/unit/site.h"

#include "optimized/cuda/device.h"

struct Plan {
    cm_global<int32_t> token_adapter, permutation, offset, adapter, next;
};

__global__ void make_plan(Plan plan, int T, int L, int mistake)
{
    int filled = 0, segment = 0;
    if (mistake == CM_UNIT_WRITES_INPUT || mistake == CM_UNIT_WRITES_AND_BACK) {
        int32_t before = plan.token_adapter.get(T - 1);
        plan.token_adapter.set(T - 1, before == 0 ? -1 : 0);
        if (mistake == CM_UNIT_WRITES_AND_BACK)
            plan.token_adapter.set(T - 1, before);
    }
    if (mistake == CM_UNIT_OVERRUN)
        plan.next.set(0, plan.token_adapter.get(T));
    if (mistake == CM_UNIT_SCRATCH_OVERRUN)
        plan.next.set(1, 0);
    for (int a = -1; a < L; a++) {
        plan.next.set(0, filled);
        for (int t = 0; t < T; t++)
            if (plan.token_adapter.get(t) == a)
                plan.permutation.set(filled++, t);
        if (filled > plan.next.get(0)) {
            plan.offset.set(segment, plan.next.get(0));
            plan.adapter.set(segment++, a);
        }
    }
    for (; segment < L + 2; segment++) {
        if (segment < L + 1 || mistake != CM_UNIT_LEAVES_OUT)
            plan.offset.set(segment, T);
        if (segment < L + 1 || mistake == CM_UNIT_INDEX_OVERRUN)
            plan.adapter.set(segment, -1);
    }
}

static cm_global<int32_t> array_of(const cm_call *call, const char *name, int64_t more)
{
    const DLTensor *tensor = call->host->argument(call, name);
    return cm_global<int32_t>{static_cast<int32_t *>(tensor->data), tensor->shape[0] + more};
}

template <int MISTAKE> static cm_status run(const cm_call *call, void *)
{
    cm_status status = MISTAKE == CM_UNIT_VALIDATES_NOT ? CM_OK : call->host->validate(call);
    if (status != CM_OK)
        return status;
    void *next = call->host->scratch(call, 4, 4);
    int64_t more = MISTAKE == CM_UNIT_OVERRUN;
    Plan plan = {
        array_of(call, "token_adapter", more), array_of(call, "permutation", 0),
        array_of(call, "segment_offset", 0), array_of(call, "segment_adapter", 0),
        cm_global<int32_t>{static_cast<int32_t *>(next), MISTAKE == CM_UNIT_SCRATCH_OVERRUN ? 2 : 1}};
    if (MISTAKE == CM_UNIT_HOST_READS && *const_cast<volatile int32_t *>(plan.token_adapter.data) < -1)
        return CM_BAD_ID;
    if (MISTAKE == CM_UNIT_HOST_SCRATCH && *static_cast<volatile int32_t *>(next) == 7)
        return CM_BAD_ID;
    if (MISTAKE == CM_UNIT_HOST_WRITES)
        *const_cast<volatile int32_t *>(plan.offset.data) = 0;
    return CM_LAUNCH(call, make_plan, (dim3{1, 1, 1}), (dim3{1, 1, 1}), 0, plan,
                     (int)call->host->dim(call, 'T'), (int)call->host->dim(call, 'L'), MISTAKE);
}

static cm_side emulated_side(void)
{
    cm_side side = cm_side();
    side.size = sizeof side;
    side.emulated = true;
    return side;
}
static const cm_side side = emulated_side();

template <int MISTAKE> static cm_kernel kernel_with(void)
{
    cm_kernel kernel = cm_kernel();
    kernel.size = sizeof kernel;
    kernel.name = "sgmv_plan/test";
    kernel.file = __FILE__;
    kernel.device = kDLCUDA;
    kernel.run = run<MISTAKE>;
    kernel.side = &side;
    return kernel;
}

#define PLAN(mistake) kernel_with<mistake>()
const cm_kernel cm_unit_plans[CM_UNIT_MISTAKES] = {
    PLAN(CM_UNIT_CLEAN),           PLAN(CM_UNIT_HOST_READS),    PLAN(CM_UNIT_HOST_WRITES),
    PLAN(CM_UNIT_HOST_SCRATCH),    PLAN(CM_UNIT_VALIDATES_NOT), PLAN(CM_UNIT_WRITES_INPUT),
    PLAN(CM_UNIT_WRITES_AND_BACK), PLAN(CM_UNIT_OVERRUN),       PLAN(CM_UNIT_SCRATCH_OVERRUN),
    PLAN(CM_UNIT_INDEX_OVERRUN),   PLAN(CM_UNIT_LEAVES_OUT)};
