// SPDX-License-Identifier: Apache-2.0
// What the phases of one run work on.
#ifndef CM_CPU_WORK_H
#define CM_CPU_WORK_H

#include "optimized/cpu/engine.h"
#include "optimized/cpu/plan.h"
#include "optimized/cpu/state.h"

enum {
    CM_PHASE_ROWS,
    CM_PHASE_SHRINK,
    CM_PHASE_FIRST,
    CM_PHASE_MIDDLE,
    CM_PHASE_SECOND,
    CM_PHASE_LAST,
    CM_PHASES
};

// Rows as products see them: bytes apart, and where scale and totals of codes stand (struct cm_product).
struct cm_rows {
    char *data;
    int64_t stride, scale_at, totals_at;
};

struct cm_work {
    const cm_call *call;
    const struct cm_engine *engine;
    const struct cm_products *products;
    struct cm_plan plan;
    struct cm_rows x, x_codes, h,
        h_codes;             // codes: only of a quantised layer; x by token, or slot if adjacent
    float *exact;            // h in fp32 [slots, exact_stride] of a quantised layer, which has no bf16 h
    char *v;                 // [slots, 2, v_stride bytes]
    float *down;             // [slots, down_stride]
    const float **terms;     // [T, per_token]: rows of down
    float *weights;          // [T, per_token]
    char *local;             // [threads] of struct cm_local
    struct cm_share *shares; // [CM_PHASES, threads]
    int64_t exact_stride, v_stride, down_stride, items[CM_PHASES];
    int threads;
};

// Memory of one thread: sums, what comes out, and lists of rows.
struct cm_local {
    float out[CM_ROW_BLOCK * CM_COLUMNS], sums[CM_ROW_BLOCK * CM_COLUMNS];
    const char *at[CM_ROW_BLOCK];
};

// Takes scratch memory for a run; call, engine, products and plan are set. False: no memory.
bool cm_work_open(const cm_call *call, struct cm_work *work);

#endif
