// SPDX-License-Identifier: Apache-2.0
#include "suites/unit/amx/matmul.h"

#include <immintrin.h>
#include <string.h>

#ifdef CM_UNIT_REPLACED
#include "optimized/amx/emulator/replace.h"
#define NAME(type) cm_unit_calls_##type
#else
#define NAME(type) cm_unit_tiles_##type
#endif

enum { ROWS = 16, DEPTH = 16 }; // of a tile; DEPTH in dwords

struct config {
    uint8_t palette, start_row, reserved[14];
    uint16_t colsb[16];
    uint8_t rows[16];
};

static void shape(struct config *config, int tile, int rows, int dwords)
{
    config->rows[tile] = (uint8_t)(dwords ? rows : 0);
    config->colsb[tile] = (uint16_t)(rows ? 4 * dwords : 0);
}

// Tiles: 0 out, 1 and 2 a and b, 3 and 4 their last part of k.
static void configure(int rows, int columns, int tail)
{
    struct config config;
    memset(&config, 0, sizeof config);
    config.palette = 1;
    shape(&config, 0, rows, columns);
    shape(&config, 1, rows, DEPTH);
    shape(&config, 2, DEPTH, columns);
    shape(&config, 3, rows, tail);
    shape(&config, 4, tail, columns);
    // gcc 12's intrinsic says that it reads 8 bytes of the 64: without this the stores to the rest may go
    __asm__ volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
}

static int smaller(int x, int y)
{
    return x < y ? x : y;
}

void NAME(bf16)(const uint16_t *a, const uint16_t *b, float *out, int m, int n, int k)
{
    int dwords = k / 2, whole = dwords / DEPTH * DEPTH;
    for (int row = 0; row < m; row += ROWS)
        for (int column = 0; column < n; column += ROWS) {
            const uint16_t *left = a + (size_t)row * k, *right = b + 2 * column;
            configure(smaller(ROWS, m - row), smaller(ROWS, n - column), dwords - whole);
            _tile_zero(0);
            for (int at = 0; at < whole; at += DEPTH) {
                _tile_loadd(1, left + 2 * at, 2 * k);
                _tile_stream_loadd(2, right + (size_t)at * 2 * n, 4 * n);
                _tile_dpbf16ps(0, 1, 2);
            }
            if (whole < dwords) {
                _tile_loadd(3, left + 2 * whole, 2 * k);
                _tile_loadd(4, right + (size_t)whole * 2 * n, 4 * n);
                _tile_dpbf16ps(0, 3, 4);
            }
            _tile_stored(0, out + (size_t)row * n + column, 4 * n);
        }
    _tile_release();
}

void NAME(int8)(const int8_t *a, const int8_t *b, int32_t *out, int m, int n, int k)
{
    int dwords = k / 4, whole = dwords / DEPTH * DEPTH;
    for (int row = 0; row < m; row += ROWS)
        for (int column = 0; column < n; column += ROWS) {
            const int8_t *left = a + (size_t)row * k, *right = b + 4 * column;
            configure(smaller(ROWS, m - row), smaller(ROWS, n - column), dwords - whole);
            _tile_zero(0);
            for (int at = 0; at < whole; at += DEPTH) {
                _tile_loadd(1, left + 4 * at, k);
                _tile_loadd(2, right + (size_t)at * 4 * n, 4 * n);
                _tile_dpbssd(0, 1, 2);
            }
            if (whole < dwords) {
                _tile_loadd(3, left + 4 * whole, k);
                _tile_loadd(4, right + (size_t)whole * 4 * n, 4 * n);
                _tile_dpbssd(0, 3, 4);
            }
            _tile_stored(0, out + (size_t)row * n + column, 4 * n);
        }
    _tile_release();
}
