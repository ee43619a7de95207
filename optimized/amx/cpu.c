// SPDX-License-Identifier: Apache-2.0
// Whether the amx kernels can run here: built with the instructions, rows by AVX512-BF16, and tiles of the
// processor or of the emulator.
#include "optimized/amx/blocks.h"
#include "optimized/amx/emulator/amx.h"
#include "optimized/amx/multiply.h"
#include "optimized/amx/products.h"
#include "optimized/avx512/multiply.h"

#include <pthread.h>
#include <stdio.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

bool cm_amx_emulated(void)
{
    return CM_AMX_CALLS || cm_amx_available() != CM_AMX_NATIVE;
}

bool cm_amx_ready(char *reason, size_t size)
{
    if (!CM_AMX_BUILT) {
        snprintf(reason, size, "built without AMX");
        return false;
    }
    if (!cm_avx512_available(reason, size))
        return false;
    if (cm_amx_available() == CM_AMX_NATIVE)
        return cm_amx_request_permission(reason, size) == CM_OK;
    // Each time: whoever took SIGILL since then loses it to the emulator, which asks him about what is no
    // tile instruction.
    pthread_mutex_lock(&lock);
    bool ready = cm_amx_emulate_enable(CM_AMX_PATCH, reason, size) == CM_OK &&
                 cm_amx_request_permission(reason, size) == CM_OK;
    pthread_mutex_unlock(&lock);
    if (ready)
        cm_amx_reset();
    return ready;
}

bool cm_amx_moe_available(char *reason, size_t size)
{
    if (!cm_avx512_moe_available(reason, size) || !cm_amx_ready(reason, size))
        return false;
    if (!cm_amx_moe_built)
        snprintf(reason, size, "built without AMX and AVX512-VNNI");
    return cm_amx_moe_built;
}

const cm_path cm_amx_paths[] = {
    [CM_AMX_STREAM] = {"stream", "few rows of an expert: its weights are read once, by vectors"},
    [CM_AMX_TILES] = {"tiles", "weights are multiplied by tiles of rows"},
    [CM_AMX_BLOCKS] = {"blocks", "an expert has more rows than a product takes"},
    {0},
};

const cm_switch_point cm_amx_switch_points[] = {
    {"rows", CM_AMX_FEWEST_ROWS, "from vectors to tiles"},
    {"rows", CM_TILE_ROWS + 1, "from one tile of rows to two"},
    {"rows", 2 * CM_TILE_ROWS + 1, "from one block of tiles to two"},
    {"rows", CM_ROW_BLOCK + 1, "from one product to several"},
    {0},
};
