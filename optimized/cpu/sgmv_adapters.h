// SPDX-License-Identifier: Apache-2.0
// The adapters of a kernel of sgmv, sgmv_shrink or sgmv_expand as it keeps them between calls: matrices of
// bf16 in the order in which a call reads them, all A behind each other and all B, each at its adapter's own
// rank. Packing is not timed.
#ifndef CM_CPU_SGMV_ADAPTERS_H
#define CM_CPU_SGMV_ADAPTERS_H

#include "optimized/avx512/lanes.h"

#include <stdlib.h>
#include <sys/mman.h>

// Rows n of a matrix [n, k] as lanes of panels: groups of `group` panels, [panels/group][k/2][group][16][2],
// the last group being as wide as what is left. What lies beyond n and k is zero.
static inline int64_t cm_sgmv_panel_elements(int64_t n, int64_t k)
{
    return cm_avx512_stride(n) * 2 * cm_avx512_pairs(k);
}

// `to` is zeroed. Row n of the matrix is tensor[i0, i1, n].
static inline void cm_sgmv_pack_panels(const DLTensor *tensor, int64_t i0, int64_t i1, int64_t n, int64_t k,
                                       int64_t group, uint16_t *to)
{
    int64_t panels = cm_avx512_stride(n) / CM_AVX512_LANES, pairs = cm_avx512_pairs(k);
    for (int64_t row = 0; row < n; row++) {
        const char *from = cm_row_at(tensor, i0, i1, row);
        int64_t panel = row / CM_AVX512_LANES, first = panel / group * group;
        int64_t width = panels - first < group ? panels - first : group;
        uint16_t *lane =
            to +
            (first * pairs * CM_AVX512_LANES + (panel - first) * CM_AVX512_LANES + row % CM_AVX512_LANES) * 2;
        for (int64_t i = 0; i < k; i++)
            memcpy(lane + i / 2 * width * 2 * CM_AVX512_LANES + i % 2, from + 2 * i, 2);
    }
}

struct cm_sgmv_adapters {
    uint16_t *a, *b;       // 64-byte aligned; NULL: there is no element
    int64_t *a_at, *b_at;  // [L]: first element of each adapter's; its slices follow each other in A
    int64_t *rank;         // [L]
    int64_t L, S, K, N, r; // of the last update
    bool updated;
};

static inline void cm_sgmv_drop(struct cm_sgmv_adapters *adapters)
{
    free(adapters->a);
    free(adapters->b);
    free(adapters->rank);
    *adapters = (struct cm_sgmv_adapters){0};
}

// Zeroed; in whole huge pages where it is large: few faults, and few misses in the TLB.
static inline bool cm_sgmv_allocate(int64_t elements, uint16_t **memory)
{
    size_t bytes = (size_t)elements * sizeof **memory, huge = 2 << 20, unit = bytes >= huge ? huge : 64;
    *memory = NULL;
    if (bytes == 0)
        return true;
    bytes = (bytes + unit - 1) / unit * unit;
    *memory = aligned_alloc(unit, bytes);
    if (!*memory)
        return false;
    if (unit == huge)
        madvise(*memory, bytes, MADV_HUGEPAGE); // advice: nothing depends on it
    memset(*memory, 0, bytes);
    return true;
}

// How a target wants A: elements of one slice of an adapter, and the packing into zeros. B comes in panels.
struct cm_sgmv_order {
    int64_t (*a_elements)(int64_t rank, int64_t K);
    void (*pack_a)(const DLTensor *a, int64_t adapter, int64_t slice, int64_t rank, int64_t K, uint16_t *to);
    int64_t b_group; // panels
};

// Packs what the call has: A, B or both. The call was validated. False: no memory, and nothing is held.
static inline bool cm_sgmv_pack(const cm_call *call, const struct cm_sgmv_order *order,
                                struct cm_sgmv_adapters *adapters)
{
    const DLTensor *a = call->host->argument(call, "lora_a"), *b = call->host->argument(call, "lora_b");
    const DLTensor *rank = call->host->argument(call, "lora_rank");
    int64_t L = call->host->dim(call, 'L'), S = call->host->dim(call, 'S'), K = call->host->dim(call, 'K');
    int64_t N = call->host->dim(call, 'N'), a_count = 0, b_count = 0;
    cm_sgmv_drop(adapters);
    adapters->rank = calloc((size_t)(3 * L + 1), sizeof *adapters->rank);
    if (!adapters->rank)
        return false;
    adapters->a_at = adapters->rank + L;
    adapters->b_at = adapters->a_at + L;
    for (int64_t adapter = 0; adapter < L; adapter++) {
        int64_t r = cm_load_int(rank, 0, adapter);
        adapters->rank[adapter] = r;
        adapters->a_at[adapter] = a_count;
        adapters->b_at[adapter] = b_count;
        a_count += a ? S * order->a_elements(r, K) : 0;
        b_count += b ? cm_sgmv_panel_elements(N, r) : 0;
    }
    if (!cm_sgmv_allocate(a_count, &adapters->a) || !cm_sgmv_allocate(b_count, &adapters->b)) {
        cm_sgmv_drop(adapters);
        return false;
    }
    for (int64_t adapter = 0; adapter < L; adapter++) {
        int64_t r = adapters->rank[adapter];
        for (int64_t slice = 0; a && slice < S && r > 0; slice++)
            order->pack_a(a, adapter, slice, r, K,
                          adapters->a + adapters->a_at[adapter] + slice * order->a_elements(r, K));
        if (b && r > 0)
            cm_sgmv_pack_panels(b, 0, adapter, N, r, order->b_group, adapters->b + adapters->b_at[adapter]);
    }
    adapters->L = L;
    adapters->S = S;
    adapters->K = K;
    adapters->N = N;
    adapters->r = call->host->dim(call, 'r');
    adapters->updated = true;
    return true;
}

#endif
