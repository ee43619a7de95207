// SPDX-License-Identifier: Apache-2.0
// The adapters of a moe_forward call, packed: A and B of each projection of the routed experts and of the
// shared one, each adapter at its own rank.
#ifndef CM_AVX512_LORA_H
#define CM_AVX512_LORA_H

#include "optimized/avx512/products.h"

enum { CM_GATE, CM_UP, CM_DOWN, CM_PROJECTIONS, CM_EXPERT_KINDS = 2 }; // kinds: routed, shared

// Argument names, [shared][projection]; the scales of a weight end in "_scale".
extern const char *const cm_weight_names[CM_EXPERT_KINDS][CM_PROJECTIONS];
extern const char *const cm_scale_names[CM_EXPERT_KINDS][CM_PROJECTIONS];
extern const char *const cm_lora_a_names[CM_EXPERT_KINDS][CM_PROJECTIONS];

// A [L] of [experts, rank, k] and B [L] of [experts, n, rank] of one projection; NULL where it has none.
struct cm_avx512_pair {
    struct cm_avx512_pack *a, *b;
};

struct cm_avx512_lora {
    struct cm_avx512_pair pairs[CM_EXPERT_KINDS][CM_PROJECTIONS];
    int64_t L;    // of the last update
    bool updated; // holds what the last update saw
    bool present; // there are adapters
};

// Packs what the call has; what lies beyond an adapter's
// rank is not read. Drops what was there before. False: no memory, and nothing is held.
bool cm_avx512_lora_update(struct cm_avx512_lora *lora, const cm_call *call);
void cm_avx512_lora_close(struct cm_avx512_lora *lora); // accepts zero
// Whether the call has the adapters, by number and presence, that the last update saw.
bool cm_avx512_lora_fits(const struct cm_avx512_lora *lora, const cm_call *call);

#endif
