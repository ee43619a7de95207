// SPDX-License-Identifier: Apache-2.0
// Products of the amx kernels of moe_forward (optimized/cpu/products.h): by tiles from some number of rows
// on, as avx512's below it.
#ifndef CM_AMX_MULTIPLY_H
#define CM_AMX_MULTIPLY_H

#include "harness/checkmoe.h"
#include "optimized/cpu/products.h"

// The switch point: fewer rows of an expert stream its weights once through vectors, which is all that memory
// allows; a tile instruction takes its 16 rows' time for any number of them.
enum { CM_AMX_FEWEST_ROWS = 7 };

enum { CM_AMX_STREAM, CM_AMX_TILES, CM_AMX_BLOCKS };
extern const cm_path cm_amx_paths[];
extern const cm_switch_point cm_amx_switch_points[];

extern const struct cm_products cm_amx_products;

// The file with the products is empty without the instructions, and nothing of it may be called.
extern const bool cm_amx_moe_built;

// Tiles, and the vectors around them; see cm_amx_ready.
bool cm_amx_moe_available(char *reason, size_t size);

#endif
