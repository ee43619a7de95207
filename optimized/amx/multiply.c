// SPDX-License-Identifier: Apache-2.0
// Products of many rows by tiles. Rows of bf16 by TDPBF16PS: weights of bf16 as they lie; integers are made
// into bf16, which holds them exactly, a few lines at a time. Codes by integer products: bytes as they lie,
// unsigned and 128 too large (TDPBSUD; what that adds to a sum does not depend on the column and is taken off
// again), nibbles made into signed bytes (TDPBSSD). A scale group's sums leave the tiles and get their scale
// by vectors.
#include "optimized/amx/multiply.h"

#include "optimized/amx/blocks.h"
#include "optimized/avx512/multiply.h"

#if CM_AMX_BUILT && defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__) &&             \
    defined(__AVX512VNNI__)

#include "optimized/avx512/unpack.h"

const bool cm_amx_moe_built = true;

// Of unpacked weights: dwords at a time, a multiple of what a line becomes.
enum { PIECE = 128, PIECE_BYTES = PIECE * CM_WIDE * CM_LINE };

// How weights of a format reach the tiles.
struct route {
    cm_tiles_kind kind;
    int expand; // dwords along k that a line becomes
    void (*unpack)(const char *from, int64_t lines, int panels, char *to); // NULL: they lie as they are used
    bool offset; // a row's totals belong to its sums
};

static void unpack_i8(const char *from, int64_t lines, int panels, char *to)
{
    cm_unpack_i8(from, lines, panels, to);
}

static void unpack_i4(const char *from, int64_t lines, int panels, char *to)
{
    cm_unpack_i4(from, lines, panels, to);
}

static void unpack_i4_codes(const char *from, int64_t lines, int panels, char *to)
{
    const __m512i mask = _mm512_set1_epi8(15), eight = _mm512_set1_epi8(8);
    for (int64_t line = 0; line < lines; line++)
        for (int p = 0; p < panels; p++, from += CM_LINE) {
            __m512i both = _mm512_load_si512(from);
            char *at = to + (2 * line * panels + p) * CM_LINE;
            _mm512_store_si512(at, _mm512_sub_epi8(_mm512_and_si512(both, mask), eight));
            both = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
            _mm512_store_si512(at + (int64_t)panels * CM_LINE, _mm512_sub_epi8(both, eight));
        }
}

static const struct route routes[CM_FORMAT_COUNT] = {
    [CM_FORMAT_BF16] = {CM_TILES_BF16, 1, NULL, false},
    [CM_FORMAT_I8] = {CM_TILES_BF16, 2, unpack_i8, false},
    [CM_FORMAT_I4] = {CM_TILES_BF16, 4, unpack_i4, false},
    [CM_FORMAT_I8_CODES] = {CM_TILES_INT8_UNSIGNED, 1, NULL, true},
    [CM_FORMAT_I4_CODES] = {CM_TILES_INT8, 2, unpack_i4_codes, false},
};

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

// out = sums of the lines first..last-1.
static void add_lines(struct cm_tiles *tiles, const struct route *route, const struct cm_product *product,
                      int64_t first, int64_t last, float *out)
{
    _Alignas(64) char unpacked[PIECE_BYTES];
    int64_t row = (int64_t)product->panels * CM_LINE, most = route->unpack ? PIECE / route->expand : last;
    struct cm_tiles_product at = {.x_stride = product->rows > 1 ? product->x[1] - product->x[0] : 0,
                                  .w_stride = CM_LINE,
                                  .w_row = row,
                                  .out = (char *)out,
                                  .out_stride = CM_COLUMNS * (int64_t)sizeof(float)};
    for (int64_t line = first, end; line < last; line = end) {
        end = smaller(line + most, last);
        at.x = product->x[0] + line * route->expand * 4;
        at.w = product->w + line * row;
        if (route->unpack) {
            route->unpack(at.w, end - line, product->panels, unpacked);
            at.w = unpacked;
        }
        cm_tiles_add(tiles, route->kind, &at, product->rows, product->panels, (end - line) * route->expand,
                     line > first);
    }
}

// out (+)= scale * sums of a scale group; sums are int32 but for rows of bf16.
static void add_group(const struct route *route, const struct cm_product *product, int64_t group)
{
    int panels = product->panels;
    for (int64_t m = 0; m < product->rows; m++) {
        __m512i total = _mm512_setzero_si512();
        if (route->offset) {
            int32_t one;
            memcpy(&one, product->x[m] + product->totals_at + 4 * group, sizeof one);
            total = _mm512_set1_epi32(one);
        }
        for (int p = 0; p < panels; p++) {
            const float *from = product->sums + m * CM_COLUMNS + p * CM_LANES;
            float *to = product->out + m * CM_COLUMNS + p * CM_LANES;
            __m512i whole = _mm512_add_epi32(_mm512_load_si512(from), total);
            __m512 sum = route->kind == CM_TILES_BF16 ? _mm512_load_ps(from) : _mm512_cvtepi32_ps(whole);
            __m512 scale = _mm512_load_ps(product->scale + (group * panels + p) * CM_LANES);
            _mm512_store_ps(to, group == 0 ? _mm512_mul_ps(sum, scale)
                                           : _mm512_fmadd_ps(sum, scale, _mm512_load_ps(to)));
        }
    }
}

// out = from * the row's scale.
static void end_rows(const struct cm_product *product, const float *from)
{
    for (int64_t m = 0; product->scale_at && m < product->rows; m++) {
        float scale;
        memcpy(&scale, product->x[m] + product->scale_at, sizeof scale);
        for (int p = 0; p < product->panels; p++) {
            int64_t at = m * CM_COLUMNS + p * CM_LANES;
            __m512 sum = _mm512_mul_ps(_mm512_load_ps(from + at), _mm512_set1_ps(scale));
            _mm512_store_ps(product->out + at, sum);
        }
    }
}

static void multiply(cm_format format, const struct cm_product *product)
{
    const struct route *route = &routes[format];
    struct cm_tiles tiles = {0};
    if (!product->scale) {
        float *sums = product->scale_at ? product->sums : product->out;
        add_lines(&tiles, route, product, 0, product->lines, sums);
        cm_tiles_release(&tiles);
        end_rows(product, sums);
        return;
    }
    for (int64_t first = 0, group = 0; first < product->lines; first += product->group, group++) {
        add_lines(&tiles, route, product, first, smaller(first + product->group, product->lines),
                  product->sums);
        add_group(route, product, group);
    }
    cm_tiles_release(&tiles);
    end_rows(product, product->out);
}

#define CM_MULTIPLY(name, format)                                                                            \
    static void multiply_##name(const struct cm_product *product)                                            \
    {                                                                                                        \
        if (product->rows < CM_AMX_FEWEST_ROWS)                                                              \
            cm_avx512_multiply_##name(product);                                                              \
        else                                                                                                 \
            multiply(format, product);                                                                       \
    }
CM_MULTIPLY(bf16, CM_FORMAT_BF16)
CM_MULTIPLY(i8, CM_FORMAT_I8)
CM_MULTIPLY(i4, CM_FORMAT_I4)
CM_MULTIPLY(i8_codes, CM_FORMAT_I8_CODES)
CM_MULTIPLY(i4_codes, CM_FORMAT_I4_CODES)

// One half, whose columns begin at `column`.
static void add_half(const struct cm_addition *addition, int half, int64_t column)
{
    const char *v[CM_ROW_BLOCK];
    for (int64_t m = 0; m < addition->rows; m++)
        v[m] = addition->v[m] + half * addition->second;
    const struct cm_product product = {.x = v,
                                       .rows = addition->rows,
                                       .w = addition->b[half],
                                       .panels = addition->panels,
                                       .lines = addition->lines,
                                       .group = addition->lines,
                                       .out = addition->sums};
    multiply(CM_FORMAT_BF16, &product);
    for (int64_t m = 0; m < addition->rows; m++)
        for (int p = 0; p < addition->panels; p++) {
            int64_t at = m * CM_COLUMNS + p * CM_LANES;
            float *to = addition->out + at + column;
            __m512 sum = _mm512_load_ps(addition->sums + at);
            _mm512_store_ps(to, _mm512_fmadd_ps(sum, _mm512_set1_ps(addition->s), _mm512_load_ps(to)));
        }
}

static void add(const struct cm_addition *addition)
{
    if (addition->rows < CM_AMX_FEWEST_ROWS || addition->wide) {
        cm_avx512_add(addition);
        return;
    }
    for (int half = 0; half < addition->halves; half++)
        add_half(addition, half, (int64_t)half * addition->panels * CM_LANES);
}

static unsigned find_paths(const struct cm_product *product, int64_t rows)
{
    unsigned path = product->rows < CM_AMX_FEWEST_ROWS ? CM_AMX_STREAM : CM_AMX_TILES;
    return 1u << path | (rows > CM_ROW_BLOCK ? 1u << CM_AMX_BLOCKS : 0);
}

const struct cm_products cm_amx_products = {
    .multiply =
        {
            [CM_FORMAT_BF16] = multiply_bf16,
            [CM_FORMAT_BF16_F32] = cm_avx512_multiply_bf16_f32,
            [CM_FORMAT_I8] = multiply_i8,
            [CM_FORMAT_I4] = multiply_i4,
            [CM_FORMAT_I8_CODES] = multiply_i8_codes,
            [CM_FORMAT_I4_CODES] = multiply_i4_codes,
        },
    .add = add,
    .round = cm_avx512_round_row,
    .activate = cm_avx512_activate,
    .quantise = cm_avx512_quantise,
    .combine = cm_avx512_combine,
    .paths = find_paths,
    .adjacent = true,
};

#else

const bool cm_amx_moe_built = false;
const struct cm_products cm_amx_products = {0};

#endif
