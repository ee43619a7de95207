// SPDX-License-Identifier: Apache-2.0
// What the products of moe_forward share: how a product is cut into blocks, and how its sums end. For files
// that are compiled for AVX-512.
//
// A block is up to 6 rows by 4 lines of memory: 24 sums in registers. Of a group of 4 panels these are the
// sums of 4 panels; of 2 panels, of even and odd lines of each; of 1 panel, of every fourth line. The chains
// of a panel are added at the end, so that a column's result depends on its group, not on the rows beside it.
//
// Few rows (one block) take one pass over the weights: memory sets the pace. More rows take several passes
// over pieces of the weights that stay in the cache, and fetch the next piece meanwhile.
#ifndef CM_AVX512_BLOCKS_H
#define CM_AVX512_BLOCKS_H

#include "optimized/avx512/multiply.h"

#include <immintrin.h>
#include <string.h>

enum { CM_BLOCK_SUMS = 4 }; // of a row

#define INLINE static inline __attribute__((always_inline))

// Lines first..last-1 of a product for `rows` rows from x on; w: the first of them. keep: sums of the lines
// before stand in `sums`.
struct cm_piece {
    const struct cm_product *product;
    const char *w;
    int64_t first, last, row;
    const char *ahead; // to be fetched, `fetch` lines (0, 1, 2 or 4) a step
    int fetch;
};

typedef void (*cm_block_function)(const struct cm_piece *piece);

// By number of rows - 1, and by panels: 1, 2, 4.
typedef cm_block_function cm_block_table[CM_BLOCK_ROWS][3];

INLINE int cm_block_column(int panels)
{
    return panels == 4 ? 2 : panels - 1;
}

INLINE const char *cm_fetch(const char *ahead, int fetch)
{
    for (int n = 0; n < fetch; n++)
        _mm_prefetch(ahead + n * CM_LINE, _MM_HINT_T1);
    return ahead + fetch * CM_LINE;
}

// All rows, lines first..last-1, which stand at w.
INLINE void cm_multiply_piece(const cm_block_table table, const struct cm_product *product, const char *w,
                              int64_t first, int64_t last, const char *next, int64_t next_bytes)
{
    int64_t passes = (product->rows + CM_BLOCK_ROWS - 1) / CM_BLOCK_ROWS, row = 0;
    int64_t steps = (last - first) * product->panels / CM_BLOCK_SUMS, lines = next_bytes / CM_LINE;
    int64_t each = passes > 1 && steps > 0 ? (lines + passes * steps - 1) / (passes * steps) : 0;
    int fetch = each > 2 ? 4 : (int)each;
    for (int64_t pass = 0; pass < passes; pass++) {
        int64_t rows = (product->rows - row) / (passes - pass), begin = pass * steps * fetch;
        struct cm_piece piece = {.product = product, .w = w, .first = first, .last = last, .row = row};
        if (passes == 1) {
            piece.ahead = w + CM_AHEAD_BYTES;
            piece.fetch = CM_BLOCK_SUMS;
        } else if (next && begin < lines) {
            piece.ahead = next + begin * CM_LINE;
            piece.fetch = fetch;
        }
        table[rows - 1][cm_block_column(product->panels)](&piece);
        row += rows;
    }
}

// Lines of a piece of weights of `lines` lines that are `panels` lines of memory each.
INLINE int64_t cm_piece_lines(const struct cm_product *product)
{
    int64_t lines = CM_PIECE_BYTES / CM_LINE / product->panels;
    return product->rows > CM_BLOCK_ROWS && lines < product->lines ? lines : product->lines;
}

// The whole of a product whose weights are multiplied as they lie.
INLINE void cm_multiply_blocks(const cm_block_table table, const struct cm_product *product)
{
    int64_t most = cm_piece_lines(product), line = (int64_t)product->panels * CM_LINE;
    for (int64_t first = 0, last; first < product->lines; first = last) {
        last = first + most < product->lines ? first + most : product->lines;
        bool final = last == product->lines;
        const char *next = final ? product->next : product->w + last * line;
        int64_t bytes = final ? product->next_bytes : (product->lines - last) * line;
        bytes = next ? bytes : 0;
        cm_multiply_piece(table, product, product->w + first * line, first, last, next,
                          bytes < CM_PIECE_BYTES ? bytes : CM_PIECE_BYTES);
    }
}

// out = the chains of each panel, added and multiplied by the row's scale.
INLINE void cm_end_rows(const struct cm_product *product, const float *sums)
{
    int panels = product->panels;
    for (int64_t m = 0; m < product->rows; m++) {
        const float *from = sums + m * CM_COLUMNS;
        float *to = product->out + m * CM_COLUMNS, scale = 1;
        if (product->scale_at)
            memcpy(&scale, product->x[m] + product->scale_at, sizeof scale);
        for (int p = 0; p < panels; p++) {
            __m512 sum = _mm512_load_ps(from + p * CM_LANES);
            if (panels == 2)
                sum = _mm512_add_ps(sum, _mm512_load_ps(from + (p + 2) * CM_LANES));
            if (panels == 1)
                sum = _mm512_add_ps(
                    _mm512_add_ps(sum, _mm512_load_ps(from + CM_LANES)),
                    _mm512_add_ps(_mm512_load_ps(from + 2 * CM_LANES), _mm512_load_ps(from + 3 * CM_LANES)));
            _mm512_store_ps(to + p * CM_LANES, _mm512_mul_ps(sum, _mm512_set1_ps(scale)));
        }
    }
}

// At the end of a scale group: out (+)= sums * scale.
INLINE void cm_add_group(const struct cm_product *product, int64_t group, int64_t m, int n, __m512 sum)
{
    int panels = product->panels;
    float *to = product->out + m * CM_COLUMNS + n * CM_LANES;
    __m512 scale = _mm512_load_ps(product->scale + (group * panels + n % panels) * CM_LANES);
    _mm512_store_ps(to,
                    group == 0 ? _mm512_mul_ps(sum, scale) : _mm512_fmadd_ps(sum, scale, _mm512_load_ps(to)));
}

// Defines name_ROWS_PANELS(piece), which calls block(rows, panels, piece) with constants, and a table of
// them.
#define CM_BLOCK(name, block, rows, panels)                                                                  \
    static void name##_##rows##_##panels(const struct cm_piece *piece)                                       \
    {                                                                                                        \
        block(rows, panels, piece);                                                                          \
    }
#define CM_BLOCK_ROW(name, block, rows)                                                                      \
    CM_BLOCK(name, block, rows, 1) CM_BLOCK(name, block, rows, 2) CM_BLOCK(name, block, rows, 4)
#define CM_BLOCK_ENTRY(name, rows)                                                                           \
    {                                                                                                        \
        name##_##rows##_1, name##_##rows##_2, name##_##rows##_4                                              \
    }
#define CM_BLOCK_TABLE(name, block)                                                                          \
    CM_BLOCK_ROW(name, block, 1)                                                                             \
    CM_BLOCK_ROW(name, block, 2)                                                                             \
    CM_BLOCK_ROW(name, block, 3)                                                                             \
    CM_BLOCK_ROW(name, block, 4)                                                                             \
    CM_BLOCK_ROW(name, block, 5)                                                                             \
    CM_BLOCK_ROW(name, block, 6)                                                                             \
    static const cm_block_table name = {CM_BLOCK_ENTRY(name, 1), CM_BLOCK_ENTRY(name, 2),                    \
                                        CM_BLOCK_ENTRY(name, 3), CM_BLOCK_ENTRY(name, 4),                    \
                                        CM_BLOCK_ENTRY(name, 5), CM_BLOCK_ENTRY(name, 6)};

#endif
