// SPDX-License-Identifier: Apache-2.0
// Products by tiles, for the amx kernels: included by files that are compiled for AMX, whose code reaches
// them only after cm_amx_ready has said yes. In sanitizer builds the tile instructions are calls of the
// emulator.
//
// A block is two tiles of 16 rows of x by two panels of 16 columns: tiles 0 to 3 are its sums, 4 and 5 the
// rows, 6 and 7 the panels. A step takes 16 dwords of each row, a dword being 2 bf16 or 4 int8. Dwords beyond
// whole steps have tiles of their own depth and are added to the sums afterwards.
#ifndef CM_AMX_BLOCKS_H
#define CM_AMX_BLOCKS_H

#include "optimized/amx/products.h"

enum { CM_TILE_ROWS = 16, CM_TILE_DEPTH = 16, CM_TILE_ROW_BYTES = 64 };

#if CM_AMX_BUILT

#include <immintrin.h>
#if CM_AMX_CALLS
#include "optimized/amx/emulator/replace.h"
#endif

typedef enum cm_tiles_kind {
    CM_TILES_BF16,
    CM_TILES_INT8,          // signed rows and panels
    CM_TILES_INT8_UNSIGNED, // signed rows, unsigned panels
} cm_tiles_kind;

struct cm_tiles_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t colsb[16]; // bytes of a row
    uint8_t rows[16];
};

static inline void cm_tiles_shape(struct cm_tiles_config *config, int tile, int64_t rows, int64_t dwords)
{
    config->rows[tile] = (uint8_t)(dwords ? rows : 0);
    config->colsb[tile] = (uint16_t)(rows ? 4 * dwords : 0);
}

// For blocks of `rows` rows, 1 to 32, and `depth` dwords, 1 to 16.
static inline void cm_tiles_configure(int64_t rows, int64_t depth)
{
    struct cm_tiles_config config;
    memset(&config, 0, sizeof config);
    config.palette = 1;
    for (int half = 0; half < 2; half++) {
        int64_t here = half ? rows - CM_TILE_ROWS : rows;
        here = here < 0 ? 0 : here > CM_TILE_ROWS ? CM_TILE_ROWS : here;
        cm_tiles_shape(&config, 2 * half, here, CM_TILE_DEPTH);
        cm_tiles_shape(&config, 2 * half + 1, here, CM_TILE_DEPTH);
        cm_tiles_shape(&config, 4 + half, here, depth);
        cm_tiles_shape(&config, 6 + half, depth, CM_TILE_DEPTH);
    }
    // gcc 12's intrinsic says that it reads 8 bytes of the 64: without this the stores to the rest may go
    __asm__ volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
}

// What the thread's tiles are configured for; zero: they are released.
struct cm_tiles {
    int64_t rows, depth;
};

static inline void cm_tiles_shape_for(struct cm_tiles *tiles, int64_t rows, int64_t depth)
{
    if (tiles->rows != rows || tiles->depth != depth)
        cm_tiles_configure(rows, depth);
    *tiles = (struct cm_tiles){rows, depth};
}

static inline void cm_tiles_release(struct cm_tiles *tiles)
{
    _tile_release();
    *tiles = (struct cm_tiles){0};
}

// Of a product: x [rows, dwords], w [panels] of [dwords, 16], out [rows, panels * 16], all of dwords. Strides
// in bytes; w_stride: between panels, w_row: between a panel's dwords.
struct cm_tiles_product {
    const char *x, *w;
    char *out;
    int64_t x_stride, w_stride, w_row, out_stride;
};

// The step whose dwords are `x` and `w`, added to the sums.
#define CM_TILES_STEP(multiply)                                                                              \
    do {                                                                                                     \
        _tile_loadd(4, x, product->x_stride);                                                                \
        _tile_loadd(6, w, product->w_row);                                                                   \
        multiply(0, 4, 6);                                                                                   \
        if (both_panels) {                                                                                   \
            _tile_loadd(7, w + product->w_stride, product->w_row);                                           \
            multiply(1, 4, 7);                                                                               \
        }                                                                                                    \
        if (both_rows) {                                                                                     \
            _tile_loadd(5, x + CM_TILE_ROWS * product->x_stride, product->x_stride);                         \
            multiply(2, 5, 6);                                                                               \
            if (both_panels)                                                                                 \
                multiply(3, 5, 7);                                                                           \
        }                                                                                                    \
    } while (0)

// `steps` steps of `depth` dwords; keep: added to what stands in out.
static inline void cm_tiles_block(cm_tiles_kind kind, const struct cm_tiles_product *product, bool both_rows,
                                  bool both_panels, int64_t steps, int64_t depth, bool keep)
{
    char *out = product->out, *below = out + CM_TILE_ROWS * product->out_stride;
    _tile_zero(0);
    if (both_panels)
        _tile_zero(1);
    if (both_rows)
        _tile_zero(2);
    if (both_rows && both_panels)
        _tile_zero(3);
    if (keep) {
        _tile_loadd(0, out, product->out_stride);
        if (both_panels)
            _tile_loadd(1, out + CM_TILE_ROW_BYTES, product->out_stride);
        if (both_rows)
            _tile_loadd(2, below, product->out_stride);
        if (both_rows && both_panels)
            _tile_loadd(3, below + CM_TILE_ROW_BYTES, product->out_stride);
    }
    const char *x = product->x, *w = product->w;
    for (int64_t step = 0; step < steps; step++, x += 4 * depth, w += product->w_row * depth)
        if (kind == CM_TILES_BF16)
            CM_TILES_STEP(_tile_dpbf16ps);
        else if (kind == CM_TILES_INT8)
            CM_TILES_STEP(_tile_dpbssd);
        else
            CM_TILES_STEP(_tile_dpbsud);
    _tile_stored(0, out, product->out_stride);
    if (both_panels)
        _tile_stored(1, out + CM_TILE_ROW_BYTES, product->out_stride);
    if (both_rows)
        _tile_stored(2, below, product->out_stride);
    if (both_rows && both_panels)
        _tile_stored(3, below + CM_TILE_ROW_BYTES, product->out_stride);
}

// All panels for rows that are whole blocks, or fewer than one.
static inline void cm_tiles_rows(struct cm_tiles *tiles, cm_tiles_kind kind, struct cm_tiles_product product,
                                 int64_t rows, int64_t panels, int64_t steps, int64_t depth, bool keep)
{
    enum { BLOCK = 2 * CM_TILE_ROWS };
    cm_tiles_shape_for(tiles, rows < BLOCK ? rows : BLOCK, depth);
    for (int64_t panel = 0; panel < panels; panel += 2) {
        struct cm_tiles_product at = product;
        at.w += panel * product.w_stride;
        at.out += panel * CM_TILE_ROW_BYTES;
        for (int64_t row = 0; row < rows; row += BLOCK) {
            cm_tiles_block(kind, &at, rows - row > CM_TILE_ROWS, panels - panel > 1, steps, depth, keep);
            at.x += BLOCK * product.x_stride;
            at.out += BLOCK * product.out_stride;
        }
    }
}

// out[m, n] = sum_k x[m, k] w[n, k] (+ out[m, n] if `keep`): fp32 sums of bf16, or int32 sums of int8. A
// row's result does not depend on the other rows. Reads `dwords` dwords of a row of x, and writes whole
// panels. Leaves the tiles configured.
static inline void cm_tiles_add(struct cm_tiles *tiles, cm_tiles_kind kind,
                                const struct cm_tiles_product *product, int64_t rows, int64_t panels,
                                int64_t dwords, bool keep)
{
    int64_t steps = dwords / CM_TILE_DEPTH, tail = dwords % CM_TILE_DEPTH;
    int64_t whole = rows / (2 * CM_TILE_ROWS) * (2 * CM_TILE_ROWS);
    for (int64_t begin = 0, end = whole; begin < rows; begin = end, end = rows) {
        if (begin == end)
            continue;
        struct cm_tiles_product part = *product;
        part.x += begin * product->x_stride;
        part.out += begin * product->out_stride;
        if (steps > 0)
            cm_tiles_rows(tiles, kind, part, end - begin, panels, steps, CM_TILE_DEPTH, keep);
        part.x += steps * CM_TILE_ROW_BYTES;
        part.w += steps * CM_TILE_DEPTH * product->w_row;
        if (tail > 0)
            cm_tiles_rows(tiles, kind, part, end - begin, panels, 1, tail, keep || steps > 0);
    }
}

// The same with panels behind each other, strides in bytes. Leaves the tiles released.
static inline void cm_tiles_multiply(cm_tiles_kind kind, const void *x, int64_t x_stride, int64_t rows,
                                     const void *w, int64_t panels, int64_t dwords, bool keep, void *out,
                                     int64_t out_stride)
{
    struct cm_tiles tiles = {0};
    const struct cm_tiles_product product = {.x = x,
                                             .w = w,
                                             .out = out,
                                             .x_stride = x_stride,
                                             .w_stride = dwords * CM_TILE_ROW_BYTES,
                                             .w_row = CM_TILE_ROW_BYTES,
                                             .out_stride = out_stride};
    cm_tiles_add(&tiles, kind, &product, rows, panels, dwords, keep);
    cm_tiles_release(&tiles);
}

#else

typedef enum cm_tiles_kind {
    CM_TILES_BF16,
    CM_TILES_INT8,          // signed rows and panels
    CM_TILES_INT8_UNSIGNED, // signed rows, unsigned panels
} cm_tiles_kind;

static inline void cm_tiles_multiply(cm_tiles_kind kind, const void *x, int64_t x_stride, int64_t rows,
                                     const void *w, int64_t panels, int64_t dwords, bool keep, void *out,
                                     int64_t out_stride)
{
    (void)kind, (void)x, (void)x_stride, (void)rows, (void)w, (void)panels, (void)dwords;
    (void)keep, (void)out, (void)out_stride;
}

#endif
#endif
