// SPDX-License-Identifier: Apache-2.0
// int8 matrices in the order of tiles. Plain C: packing is not timed.
#include "optimized/amx/products.h"

#include <stdlib.h>

enum { LANES = CM_AVX512_LANES };

static int64_t panel_bytes(int64_t k)
{
    return cm_amx_quads(k) * 4 * LANES;
}

static int64_t matrix_bytes(const struct cm_amx_pack *pack)
{
    return cm_avx512_stride(pack->n) / LANES * panel_bytes(pack->k);
}

// Row `row` goes to its lane of its panel.
static void pack_row(const char *from, int64_t row, int64_t k, int8_t *matrix)
{
    int8_t *lane = matrix + row / LANES * panel_bytes(k) + row % LANES * 4;
    for (int64_t i = 0; i < k; i++)
        lane[i / 4 * 4 * LANES + i % 4] = (int8_t)from[i];
}

bool cm_amx_pack_open(struct cm_amx_pack *pack, const DLTensor *tensor, const DLTensor *scale, int64_t n,
                      int64_t k)
{
    int64_t count = tensor->ndim == 3 ? tensor->shape[0] : 1;
    *pack = (struct cm_amx_pack){.count = count, .n = n, .k = k};
    size_t bytes = (size_t)(count * matrix_bytes(pack));
    if (bytes == 0)
        return true;
    pack->data = aligned_alloc(64, bytes); // whole registers: a multiple of 64
    pack->scale = malloc((size_t)(count * n) * sizeof *pack->scale);
    if (!pack->data || !pack->scale) {
        cm_amx_pack_close(pack);
        return false;
    }
    memset(pack->data, 0, bytes);
    for (int64_t m = 0; m < count; m++)
        for (int64_t row = 0; row < n; row++) {
            pack_row(cm_row_at(tensor, 0, m, row), row, k, pack->data + m * matrix_bytes(pack));
            pack->scale[m * n + row] = cm_load_float(scale, cm_row_at(scale, 0, m, row), 0);
        }
    return true;
}

void cm_amx_pack_close(struct cm_amx_pack *pack)
{
    free(pack->data);
    free(pack->scale);
    *pack = (struct cm_amx_pack){0};
}

const int8_t *cm_amx_pack_at(const struct cm_amx_pack *pack, int64_t m)
{
    return pack->data + (pack->count > 1 ? m : 0) * matrix_bytes(pack);
}

const float *cm_amx_pack_scale(const struct cm_amx_pack *pack, int64_t m)
{
    return pack->scale + (pack->count > 1 ? m : 0) * pack->n;
}
