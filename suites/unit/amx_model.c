// SPDX-License-Identifier: Apache-2.0
#include "suites/unit/amx_model.h"

#include <string.h>

enum { NAN_BITS = 0x7fc00000, GUARD = 64 };

bool model_is_nan(uint32_t bits)
{
    return (bits & 0x7fffffff) > 0x7f800000;
}

// +-magnitude * 2^exponent
struct number {
    bool negative;
    int exponent;
    unsigned __int128 magnitude;
};

static struct number number_of(uint32_t bits)
{
    int field = bits >> 23 & 255;
    if (field == 0)
        return (struct number){.negative = bits >> 31};
    return (struct number){bits >> 31, field - 150, (bits & 0x7fffff) | 0x800000};
}

static int top_bit(unsigned __int128 magnitude)
{
    int top = -1;
    for (; magnitude; magnitude >>= 1)
        top++;
    return top;
}

static uint32_t round_number(struct number number)
{
    uint32_t sign = (uint32_t)number.negative << 31;
    if (number.magnitude == 0)
        return sign;
    int drop = top_bit(number.magnitude) - 23;
    if (drop > 0) {
        unsigned __int128 rest = number.magnitude & (((unsigned __int128)1 << drop) - 1);
        unsigned __int128 half = (unsigned __int128)1 << (drop - 1);
        number.magnitude >>= drop;
        if (rest > half || (rest == half && number.magnitude & 1))
            number.magnitude++;
        if (number.magnitude >> 24) {
            number.magnitude >>= 1;
            drop++;
        }
    } else {
        number.magnitude <<= -drop;
    }
    int field = number.exponent + drop + 150;
    if (field <= 0)
        return sign;
    if (field >= 255)
        return sign | 0x7f800000;
    return sign | (uint32_t)field << 23 | ((uint32_t)number.magnitude & 0x7fffff);
}

// Right by `by`, with a last bit that says whether something was lost.
static unsigned __int128 shift_sticky(unsigned __int128 magnitude, int by)
{
    if (by > 126)
        return magnitude != 0;
    unsigned __int128 lost = magnitude & (((unsigned __int128)1 << by) - 1);
    return magnitude >> by | (lost != 0);
}

static uint32_t add_numbers(struct number x, struct number y)
{
    if (x.magnitude == 0 && y.magnitude == 0)
        return (uint32_t)(x.negative && y.negative) << 31;
    if (x.magnitude == 0 || y.magnitude == 0)
        return round_number(x.magnitude ? x : y);
    if (x.exponent + top_bit(x.magnitude) < y.exponent + top_bit(y.magnitude)) {
        struct number swap = x;
        x = y;
        y = swap;
    }
    x.magnitude <<= GUARD; // at most 48 bits before
    x.exponent -= GUARD;
    if (y.exponent >= x.exponent)
        y.magnitude <<= y.exponent - x.exponent;
    else
        y.magnitude = shift_sticky(y.magnitude, x.exponent - y.exponent);
    if (x.negative == y.negative) {
        x.magnitude += y.magnitude;
    } else if (x.magnitude >= y.magnitude) {
        x.magnitude -= y.magnitude;
    } else {
        x.magnitude = y.magnitude - x.magnitude;
        x.negative = y.negative;
    }
    if (x.magnitude == 0)
        return 0;
    return round_number(x);
}

uint32_t model_fma(uint32_t a, uint32_t b, uint32_t c)
{
    bool a_infinite = (a & 0x7fffffff) == 0x7f800000, b_infinite = (b & 0x7fffffff) == 0x7f800000;
    struct number x = number_of(a), y = number_of(b), z = number_of(c);
    bool negative = x.negative != y.negative;
    if (model_is_nan(a) || model_is_nan(b) || model_is_nan(c))
        return NAN_BITS;
    if (a_infinite || b_infinite) {
        if ((!a_infinite && x.magnitude == 0) || (!b_infinite && y.magnitude == 0))
            return NAN_BITS;
        uint32_t product = (uint32_t)negative << 31 | 0x7f800000;
        return (c & 0x7fffffff) == 0x7f800000 && c != product ? NAN_BITS : product;
    }
    if ((c & 0x7fffffff) == 0x7f800000)
        return c;
    return add_numbers((struct number){negative, x.exponent + y.exponent, x.magnitude * y.magnitude}, z);
}

uint32_t model_widen_half(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, field = bits >> 10 & 31, fraction = bits & 1023;
    if (field == 31)
        return sign | 0x7f800000 | fraction << 13;
    if (field)
        return sign | (field + 112) << 23 | fraction << 13;
    return sign | round_number((struct number){false, -24, fraction});
}

int model_configure(struct model *model, const uint8_t *config)
{
    struct model made = {.palette = config[0], .start = config[1]};
    if (config[0] > 1)
        return MODEL_GP;
    if (config[0] == 0) {
        *model = (struct model){0};
        return MODEL_FINE;
    }
    for (int n = 2; n < 16; n++)
        if (config[n])
            return MODEL_GP;
    for (int n = 8; n < 16; n++)
        if (config[16 + 2 * n] || config[17 + 2 * n] || config[48 + n])
            return MODEL_GP;
    for (int n = 0; n < 8; n++) {
        made.columns[n] = config[16 + 2 * n] + 256 * config[17 + 2 * n];
        made.rows[n] = config[48 + n];
        if (made.columns[n] > 64 || made.rows[n] > 16 || (made.columns[n] == 0) != (made.rows[n] == 0))
            return MODEL_GP;
    }
    *model = made;
    return MODEL_FINE;
}

void model_describe(const struct model *model, uint8_t *config)
{
    memset(config, 0, 64);
    config[0] = (uint8_t)model->palette;
    config[1] = (uint8_t)model->start;
    for (int n = 0; n < 8; n++) {
        config[16 + 2 * n] = (uint8_t)model->columns[n];
        config[48 + n] = (uint8_t)model->rows[n];
    }
}

static bool usable(const struct model *model, int tile)
{
    return model->palette == 1 && model->rows[tile] > 0 && model->columns[tile] > 0;
}

int model_zero(struct model *model, int tile)
{
    if (!usable(model, tile))
        return MODEL_UD;
    for (int n = 0; n < 1024; n++)
        model->bytes[tile][n] = 0;
    model->start = 0;
    return MODEL_FINE;
}

static bool movable(const struct model *model, int tile)
{
    return usable(model, tile) && model->columns[tile] % 4 == 0 && model->start < model->rows[tile];
}

int model_load(struct model *model, int tile, const uint8_t *from, int64_t stride)
{
    if (!movable(model, tile))
        return MODEL_UD;
    for (int row = model->start; row < 16; row++)
        for (int n = 0; n < 64; n++) {
            bool inside = row < model->rows[tile] && n < model->columns[tile];
            model->bytes[tile][64 * row + n] = inside ? from[row * stride + n] : 0;
        }
    model->start = 0;
    return MODEL_FINE;
}

int model_store(struct model *model, int tile, uint8_t *to, int64_t stride)
{
    if (!movable(model, tile))
        return MODEL_UD;
    for (int row = model->start; row < model->rows[tile]; row++)
        for (int n = 0; n < model->columns[tile]; n++)
            to[row * stride + n] = model->bytes[tile][64 * row + n];
    model->start = 0;
    return MODEL_FINE;
}

static uint32_t dword(const uint8_t *tile, int row, int n)
{
    const uint8_t *at = tile + 64 * row + 4 * n;
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint32_t element(int kind, uint32_t word, int half)
{
    uint16_t bits = (uint16_t)(word >> 16 * half);
    return kind == MODEL_FP16 ? model_widen_half(bits) : (uint32_t)bits << 16;
}

static uint32_t dot_floats(int kind, const uint8_t *a, const uint8_t *b, int m, int n, int depth, uint32_t c)
{
    uint32_t chain[2] = {0, 0};
    for (int k = 0; k < depth; k++)
        for (int half = 0; half < 2; half++)
            chain[half] = model_fma(element(kind, dword(a, m, k), half), element(kind, dword(b, k, n), half),
                                    chain[half]);
    const uint32_t one = 0x3f800000;
    return model_fma(model_fma(chain[0], one, chain[1]), one, c);
}

static int64_t byte_of(uint32_t word, int n, bool is_signed)
{
    int64_t byte = word >> 8 * n & 255;
    return is_signed && byte > 127 ? byte - 256 : byte;
}

static uint32_t dot_bytes(int kind, const uint8_t *a, const uint8_t *b, int m, int n, int depth, uint32_t c)
{
    int64_t sum = c;
    for (int k = 0; k < depth; k++)
        for (int part = 0; part < 4; part++)
            sum += byte_of(dword(a, m, k), part, kind == MODEL_SS || kind == MODEL_SU) *
                   byte_of(dword(b, k, n), part, kind == MODEL_SS || kind == MODEL_US);
    return (uint32_t)(uint64_t)sum;
}

int model_dot(struct model *model, int kind, int c, int a, int b)
{
    const int tiles[3] = {c, a, b};
    if (c == a || c == b || a == b)
        return MODEL_UD;
    for (int n = 0; n < 3; n++)
        if (!usable(model, tiles[n]) || model->columns[tiles[n]] % 4)
            return MODEL_UD;
    int rows = model->rows[c], columns = model->columns[c] / 4, depth = model->columns[a] / 4;
    if (model->rows[a] != rows || model->columns[b] / 4 != columns || model->rows[b] != depth)
        return MODEL_UD;
    for (int m = 0; m < rows; m++)
        for (int n = 0; n < columns; n++) {
            uint32_t old = dword(model->bytes[c], m, n);
            uint32_t made = (kind <= MODEL_FP16 ? dot_floats : dot_bytes)(kind, model->bytes[a],
                                                                          model->bytes[b], m, n, depth, old);
            for (int part = 0; part < 4; part++)
                model->bytes[c][64 * m + 4 * n + part] = (uint8_t)(made >> 8 * part);
        }
    model->start = 0;
    return MODEL_FINE;
}
