// SPDX-License-Identifier: Apache-2.0
// Packed matrices: pairs of inputs beside each other, 16 outputs beside each other, so that one register is
// one step of VDPBF16PS for 16 outputs. Plain C: packing is not timed.
#include "optimized/avx512/products.h"

#include <stdlib.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20 }; // bytes

static int64_t panel_elements(int64_t k)
{
    return cm_avx512_pairs(k) * 2 * CM_AVX512_LANES;
}

static int64_t matrix_elements(const struct cm_avx512_pack *pack)
{
    return cm_avx512_stride(pack->n) / CM_AVX512_LANES * panel_elements(pack->k);
}

// Row `row` goes to its lane of its panel.
static void pack_row(const char *from, int64_t row, int64_t k, uint16_t *matrix)
{
    uint16_t *lane = matrix + row / CM_AVX512_LANES * panel_elements(k) + row % CM_AVX512_LANES * 2;
    for (int64_t i = 0; i < k; i++)
        memcpy(lane + i / 2 * 2 * CM_AVX512_LANES + i % 2, from + 2 * i, 2);
}

bool cm_avx512_pack_open(struct cm_avx512_pack *pack, const DLTensor *tensor, int64_t adapter, int64_t n,
                         int64_t k)
{
    bool many = tensor->ndim == (adapter < 0 ? 3 : 4);
    int dimension = adapter < 0 ? 0 : 1;
    int64_t count = many ? tensor->shape[dimension] : 1;
    if (many && tensor->strides[dimension] == 0 && count > 1)
        count = 1;
    *pack = (struct cm_avx512_pack){.count = count, .n = n, .k = k};
    size_t bytes = (size_t)(count * matrix_elements(pack)) * sizeof *pack->data;
    if (bytes == 0)
        return true;
    bool large = bytes >= HUGE_PAGE; // weights of a real layer: few faults and few misses in the TLB
    size_t unit = large ? HUGE_PAGE : 64;
    pack->data = aligned_alloc(unit, (bytes + unit - 1) / unit * unit);
    if (!pack->data)
        return false;
    if (large)
        madvise(pack->data, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE); // advice: nothing depends on it
    memset(pack->data, 0, bytes);
    for (int64_t m = 0; m < count; m++)
        for (int64_t row = 0; row < n; row++) {
            const char *from = adapter < 0 ? cm_row_at(tensor, 0, m, row)
                                           : cm_row_at(tensor, adapter, many ? m : adapter, row);
            pack_row(from, row, k, pack->data + m * matrix_elements(pack));
        }
    return true;
}

void cm_avx512_pack_close(struct cm_avx512_pack *pack)
{
    free(pack->data);
    *pack = (struct cm_avx512_pack){0};
}

const uint16_t *cm_avx512_pack_at(const struct cm_avx512_pack *pack, int64_t m, int64_t panel)
{
    return pack->data + (pack->count > 1 ? m : 0) * matrix_elements(pack) + panel * panel_elements(pack->k);
}

void cm_avx512_copy_row(const char *from, int64_t count, uint16_t *to)
{
    memcpy(to, from, (size_t)count * sizeof *to);
    memset(to + count, 0, (size_t)(cm_avx512_stride(count) - count) * sizeof *to);
}
