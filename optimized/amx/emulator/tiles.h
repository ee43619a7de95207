// SPDX-License-Identifier: Apache-2.0
// The tiles of a thread, their configuration, and products of tiles.
#ifndef CM_AMX_TILES_H
#define CM_AMX_TILES_H

#include "optimized/amx/emulator/decode.h"

#include <stdbool.h>

enum {
    CM_AMX_TILES = 8,
    CM_AMX_ROWS = 16,
    CM_AMX_ROW_BYTES = 64,
    CM_AMX_CONFIG_BYTES = 64,
    CM_AMX_TEXT = 160
};

// Bytes of a row from colsb on, and rows from `rows` on, are zero at all times.
struct cm_amx_tiles {
    _Alignas(64) uint8_t data[CM_AMX_TILES][CM_AMX_ROWS][CM_AMX_ROW_BYTES];
    uint8_t palette, start_row; // start_row: where an interrupted load or store goes on
    uint8_t rows[CM_AMX_TILES];
    uint16_t colsb[CM_AMX_TILES]; // bytes in a row
    const void *instruction;      // being emulated, or the last one
    char fault[CM_AMX_TEXT];
};

// Static thread-local storage: a signal handler must not allocate.
extern _Thread_local struct cm_amx_tiles cm_amx_tiles __attribute__((tls_model("initial-exec")));

void cm_amx_tiles_init(struct cm_amx_tiles *tiles);
// TILECFG from 64 bytes: palette, start_row, 14 reserved, colsb[16] of 2 bytes, rows[16]. NULL if it was
// taken, else what is wrong with it, and nothing is changed.
const char *cm_amx_tiles_configure(struct cm_amx_tiles *tiles, const uint8_t config[CM_AMX_CONFIG_BYTES]);
void cm_amx_tiles_describe(const struct cm_amx_tiles *tiles, uint8_t config[CM_AMX_CONFIG_BYTES]);
void cm_amx_tiles_zero(struct cm_amx_tiles *tiles, int tile);

// Row i of the tile from or to address + i * stride, truncated to 32 bits if `narrow`, then plus `segment`. A
// fault in memory leaves start_row at its row, so that the same call goes on there.
struct cm_amx_rows {
    uint64_t address, stride, segment;
    bool narrow;
};
void cm_amx_tiles_load(struct cm_amx_tiles *tiles, int tile, struct cm_amx_rows rows);
void cm_amx_tiles_store(struct cm_amx_tiles *tiles, int tile, struct cm_amx_rows rows);

// C += A B, for tiles that fit together. Needs AVX2, FMA and F16C. Leaves MXCSR as it was, flags included.
void cm_amx_tiles_dot(struct cm_amx_tiles *tiles, cm_amx_operation operation, int c, int a, int b);

#endif
