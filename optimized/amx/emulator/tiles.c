// SPDX-License-Identifier: Apache-2.0
// Configuration, loads and stores after the pseudo-code of Intel SDM volume 2. Rows move by memcpy of 16
// bytes and less, upwards: sanitizers watch them to the byte, and the first byte that isn't there is the one
// that faults.
#include "optimized/amx/emulator/tiles.h"

#include <string.h>

_Thread_local struct cm_amx_tiles cm_amx_tiles __attribute__((tls_model("initial-exec")));

void cm_amx_tiles_init(struct cm_amx_tiles *tiles)
{
    memset(tiles->data, 0, sizeof tiles->data);
    memset(tiles->rows, 0, sizeof tiles->rows);
    memset(tiles->colsb, 0, sizeof tiles->colsb);
    tiles->palette = tiles->start_row = 0;
}

static int read_colsb(const uint8_t *config, int tile)
{
    return config[16 + 2 * tile] | config[17 + 2 * tile] << 8;
}

const char *cm_amx_tiles_configure(struct cm_amx_tiles *tiles, const uint8_t config[CM_AMX_CONFIG_BYTES])
{
    if (config[0] == 0) {
        cm_amx_tiles_init(tiles);
        return NULL;
    }
    if (config[0] > 1)
        return "the palette is above 1";
    for (int byte = 2; byte < 16; byte++)
        if (config[byte])
            return "a reserved byte is not 0";
    for (int tile = 0; tile < 16; tile++) {
        int colsb = read_colsb(config, tile), rows = config[48 + tile];
        if (tile >= CM_AMX_TILES && (colsb || rows))
            return "a tile above 7 has rows or columns";
        if (colsb > CM_AMX_ROW_BYTES)
            return "a tile has more than 64 bytes in a row";
        if (rows > CM_AMX_ROWS)
            return "a tile has more than 16 rows";
        if (!colsb != !rows)
            return "a tile has rows without columns, or columns without rows";
    }
    cm_amx_tiles_init(tiles);
    tiles->palette = config[0];
    tiles->start_row = config[1];
    for (int tile = 0; tile < CM_AMX_TILES; tile++) {
        tiles->colsb[tile] = (uint16_t)read_colsb(config, tile);
        tiles->rows[tile] = config[48 + tile];
    }
    return NULL;
}

void cm_amx_tiles_describe(const struct cm_amx_tiles *tiles, uint8_t config[CM_AMX_CONFIG_BYTES])
{
    memset(config, 0, CM_AMX_CONFIG_BYTES);
    if (tiles->palette == 0)
        return;
    config[0] = tiles->palette;
    config[1] = tiles->start_row;
    for (int tile = 0; tile < CM_AMX_TILES; tile++) {
        config[16 + 2 * tile] = (uint8_t)tiles->colsb[tile];
        config[48 + tile] = tiles->rows[tile];
    }
}

void cm_amx_tiles_zero(struct cm_amx_tiles *tiles, int tile)
{
    memset(tiles->data[tile], 0, sizeof tiles->data[tile]);
    tiles->start_row = 0;
}

static void copy_row(uint8_t *to, const uint8_t *from, int bytes)
{
    int at = 0;
    for (; at + 16 <= bytes; at += 16) {
        memcpy(to + at, from + at, 16);
        __asm__ volatile("" : : : "memory"); // keeps the order, and the loop from becoming one memcpy
    }
    for (; at < bytes; at += 4) {
        memcpy(to + at, from + at, 4);
        __asm__ volatile("" : : : "memory");
    }
}

static void *find_row(struct cm_amx_rows rows, int row)
{
    uint64_t address = rows.address + (uint64_t)row * rows.stride;
    return (void *)(uintptr_t)((rows.narrow ? (uint32_t)address : address) + rows.segment);
}

void cm_amx_tiles_load(struct cm_amx_tiles *tiles, int tile, struct cm_amx_rows rows)
{
    while (tiles->start_row < tiles->rows[tile]) {
        const void *from = find_row(rows, tiles->start_row);
        copy_row(tiles->data[tile][tiles->start_row], from, tiles->colsb[tile]);
        tiles->start_row++;
    }
    tiles->start_row = 0;
}

void cm_amx_tiles_store(struct cm_amx_tiles *tiles, int tile, struct cm_amx_rows rows)
{
    while (tiles->start_row < tiles->rows[tile]) {
        void *to = find_row(rows, tiles->start_row);
        copy_row(to, tiles->data[tile][tiles->start_row], tiles->colsb[tile]);
        tiles->start_row++;
    }
    tiles->start_row = 0;
}
