// SPDX-License-Identifier: Apache-2.0
// What a processor's instructions do for the engine of moe_forward (run.c): products of packed weights with
// the rows of one expert, and what is done with a row. A target fills in one struct cm_products; everything
// else, threads and memory included, is plain C and shared.
//
// Packed weights are the same for all targets (pack.c). A line is 64 bytes: 16 columns, one dword each, which
// holds 2 bf16, 4 int8 or 8 int4 along k. 16 columns are a panel. Panels stand in groups of 4, what is left
// in one of 2 and one of 1; a group is [lines][panels][64 bytes]. Lines are padded with zeros to a multiple
// of 4, so that a step of every group is 4 lines of memory: 4 columns' panels, or 4 lines of one panel.
//   bf16                    w[n, 2l + j] in half j of lane n
//   int8, for codes of x    w + 128 as a byte: 4l + j in byte j
//   int4, for codes of x    w + 8: 8l + j in the low nibble of byte j, 8l + 4 + j in its high nibble
//   int8, for bf16 x        two's complement: bytes 0..31 hold 4l, 4l + 1 of each column, 32..63 the others
//   int4, for bf16 x        w + 8: 8l + 2q + j in nibble q of half j of lane n
#ifndef CM_CPU_PRODUCTS_H
#define CM_CPU_PRODUCTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum cm_format {
    CM_FORMAT_BF16,     // rows of bf16
    CM_FORMAT_BF16_F32, // the same weights, rows of fp32
    CM_FORMAT_I8,       // rows of bf16
    CM_FORMAT_I4,       // rows of bf16
    CM_FORMAT_I8_CODES, // rows of int8
    CM_FORMAT_I4_CODES, // rows of int8
    CM_FORMAT_COUNT,
} cm_format;

enum {
    CM_LINE = 64,      // bytes
    CM_LANES = 16,     // columns of a panel
    CM_WIDE = 4,       // panels of a whole group
    CM_COLUMNS = 64,   // fp32 of a row of sums
    CM_ROW_BLOCK = 48, // most rows of a product
    CM_PAD = 32,       // rows of x end with zeros up to a multiple of so many elements, in 64-byte units
};

// out[m, n] = row_scale[m] * sum over scale groups g of scale[g, n] * sum over k of g of x[m, k] w[n, k].
// Memory is 64-byte aligned, weights and scratch alike; rows of out and `sums` are CM_COLUMNS apart. A row's
// result depends neither on the other rows nor on their number.
struct cm_product {
    const char *const *x; // [rows]: codes or bf16, zeros behind them
    int64_t rows;         // 1..CM_ROW_BLOCK
    int64_t scale_at;     // of codes: byte of a row of x where its fp32 scale stands; 0: it has none
    int64_t totals_at;    // of codes: byte where -offset * (sum of a scale group's codes) stand, int32 each;
                          // offset is 128 or 8
    const char *w;        // a group of `panels` panels
    cm_format format;
    int panels;         // 4, 2 or 1
    int64_t lines;      // of a panel, a multiple of 4
    int64_t group;      // lines that share a scale, a multiple of 4 unless it is >= lines
    const float *scale; // [groups, panels * 16]; NULL: 1 (bf16)
    float *out, *sums;  // [rows, CM_COLUMNS]; sums: scratch
    const char *next;   // what is likely multiplied next, to be fetched meanwhile; NULL: nothing
    int64_t next_bytes;
};

// out[m, n] += s * sum over k of v[m, k] b[n, k]: B of an adapter; or of two, of gate and up, whose columns
// stand beside each other in out.
struct cm_addition {
    const char *const *v; // [rows], zeros behind them: fp32 if `wide`, else bf16
    int64_t rows;         // 1..CM_ROW_BLOCK
    bool wide;
    int halves;       // 1 or 2
    int64_t second;   // bytes from a row's v of the first half to that of the second
    const char *b[2]; // a group of `panels` panels of CM_FORMAT_BF16 of each half
    int panels;       // 4, 2 or 1; of two halves 2 or 1
    int64_t lines;    // of a panel
    float s, *out;    // out [rows, CM_COLUMNS]
    float *sums;      // scratch of the same size
};

// h = silu(gate + bias) * (up + bias) of one row.
struct cm_activation {
    const float *gate, *up, *gate_bias, *up_bias; // [count]; biases may be NULL
    int64_t count;                                // columns that exist; zeros behind them up to `padded`
    int64_t padded;                               // multiple of 16
    bool round;                                   // `exact` is rounded to bf16
    uint16_t *h;                                  // NULL: not needed
    float *exact;                                 // NULL: not needed
};

// Codes of a row, to nearest even, of `count` elements in fp32 or bf16 (the other is NULL).
struct cm_quantisation {
    const float *from;
    const uint16_t *from_bf16;
    int64_t count, padded; // zeros behind count
    int64_t group;         // elements that share a sum
    int32_t offset;        // 128 or 8
    int8_t *codes;         // NULL: as_bf16 is wanted
    uint16_t *as_bf16;
    int32_t *totals; // -offset * sum of a group's codes; NULL: not needed
    float *scale;    // amax/127; NaN if the row has a NaN or an infinity
};

// y[o] = sum over j of weight[j] * rows[j][o], rounded to what y holds.
struct cm_combination {
    const float *const *rows;
    const float *weights;
    int64_t count, columns;
    void *y;
    int bits;  // of an element of y
    bool bf16; // of 16 bits: bf16, else f16
};

struct cm_products {
    void (*multiply[CM_FORMAT_COUNT])(const struct cm_product *product);
    void (*add)(const struct cm_addition *addition);
    void (*round)(const float *from, int64_t count, int64_t padded, uint16_t *to); // zeros behind count
    void (*activate)(const struct cm_activation *activation);
    void (*quantise)(const struct cm_quantisation *quantisation);
    void (*combine)(const struct cm_combination *combination);
    // Bit n: a product of an expert with `rows` rows takes the kernel's path n (cm_path). NULL: it has none.
    unsigned (*paths)(const struct cm_product *product, int64_t rows);
    bool adjacent; // rows of a product must stand at equal distances: x[m] = x[0] + m * (x[1] - x[0])
};

#endif
