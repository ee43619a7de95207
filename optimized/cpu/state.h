// SPDX-License-Identifier: Apache-2.0
// What the engine keeps between calls: packed weights, biases, adapters.
#ifndef CM_CPU_STATE_H
#define CM_CPU_STATE_H

#include "optimized/cpu/engine.h"
#include "optimized/cpu/pack.h"

enum { CM_ROUTED, CM_SHARED, CM_KINDS };
enum { CM_PART_GATE, CM_PART_UP, CM_PART_DOWN, CM_PARTS };

// A [experts, rank, k] and B [experts, n, rank] of one adapter and projection; B of gate and up in groups of
// 2 panels, which stand beside each other in a group of 4.
struct cm_adapter {
    int64_t rank;
    struct cm_pack a[CM_KINDS][CM_PARTS], b[CM_KINDS][CM_PARTS];
};

struct cm_engine {
    struct cm_pack gate_up[CM_KINDS], down[CM_KINDS];
    float *bias[CM_PARTS]; // of the routed experts: [E, bias_stride]; NULL: none
    int64_t bias_stride[CM_PARTS];
    int64_t E, H, group, width[CM_KINDS]; // width: I and D; 0: there is no shared expert
    bool quantised, round_h;              // act_quant, and h rounded before it is quantised
    struct cm_adapter *adapters;          // [L]
    int64_t L, r;                         // of the last update
    unsigned parts;                       // projections that had adapters then: bit kind * CM_PARTS + part
    bool updated, present;                // adapters are packed; there are any
};

// Packs what the call has; what lies beyond an adapter's rank is not read. Drops what was there before.
// False: no memory, and nothing is held.
bool cm_adapters_update(struct cm_engine *engine, const cm_call *call);
void cm_adapters_close(struct cm_engine *engine);
// Whether the call has the adapters, by number, rank and presence, that the last update saw.
bool cm_adapters_fit(const struct cm_engine *engine, const cm_call *call);

// A call of the shapes and attributes for which prepare made the engine; it validates first.
cm_status cm_engine_check_state(const cm_call *call, cm_engine_supported *supports,
                                const struct cm_engine *engine);

// Threads that a call may have; at least 1.
int cm_team_limit(const cm_call *call);

#endif
