// SPDX-License-Identifier: Apache-2.0
// Which rows each expert and each adapter has in a call.
#ifndef CM_CPU_PLAN_H
#define CM_CPU_PLAN_H

#include "optimized/cpu/state.h"
#include "optimized/layer.h"

// The slots begin..end - 1 of an expert, or of one adapter of rank above 0 within it.
struct cm_stretch {
    int64_t begin, end;
    int32_t expert, adapter; // the shared expert has the number E; adapter of an expert's stretch: -1
};

struct cm_plan {
    struct cm_slots slots; // `largest` is not set
    struct cm_stretch *experts, *runs;
    int64_t expert_count, run_count, routed_count; // routed experts come first
};

// In scratch memory. False: no memory.
bool cm_plan_open(const cm_call *call, const struct cm_engine *engine, struct cm_plan *plan);

#endif
