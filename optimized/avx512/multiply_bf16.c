// SPDX-License-Identifier: Apache-2.0
// Products of bf16 rows, by VDPBF16PS: weights of bf16 as they lie; integers are made into bf16, which holds
// them exactly, piece by piece, and get their scale when a group's sum is complete. In a chain
// (blocks.h) the odd element of a pair comes first, each addition is rounded to nearest; denormals count as
// zero.
#include "optimized/avx512/multiply.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512VNNI__)

#include "optimized/avx512/blocks.h"
#include "optimized/avx512/unpack.h"

const bool cm_avx512_moe_built = true;

INLINE __m512bh pair_at(const char *x, int64_t line)
{
    int both;
    memcpy(&both, x + 4 * line, sizeof both);
    return (__m512bh)_mm512_set1_epi32(both);
}

// `rows` and `panels` are constants where this is called, so that all sums are registers.
INLINE void block(const int rows, const int panels, const struct cm_piece *piece)
{
    const struct cm_product *product = piece->product;
    const char *x[CM_BLOCK_ROWS], *w = piece->w, *ahead = piece->ahead;
    const int fetch = piece->fetch, lines = CM_BLOCK_SUMS / panels; // of a step
    for (int m = 0; m < rows; m++)
        x[m] = product->x[piece->row + m];
    for (int64_t at = piece->first, end; at < piece->last; at = end) {
        int64_t group = at / product->group, limit = (group + 1) * product->group;
        end = limit < piece->last ? limit : piece->last;
        float *kept = product->sums + piece->row * CM_COLUMNS;
        __m512 sum[CM_BLOCK_ROWS][CM_BLOCK_SUMS];
        bool begins = at == group * product->group;
#pragma GCC unroll 6
        for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
            for (int n = 0; n < CM_BLOCK_SUMS; n++)
                sum[m][n] =
                    begins ? _mm512_setzero_ps() : _mm512_load_ps(kept + m * CM_COLUMNS + n * CM_LANES);
        for (int64_t line = at; line < end; line += lines, w += CM_BLOCK_SUMS * CM_LINE) {
            __m512bh weight[CM_BLOCK_SUMS];
            if (fetch)
                ahead = cm_fetch(ahead, fetch);
#pragma GCC unroll 4
            for (int n = 0; n < CM_BLOCK_SUMS; n++)
                weight[n] = (__m512bh)_mm512_load_si512(w + n * CM_LINE);
#pragma GCC unroll 6
            for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
                for (int n = 0; n < CM_BLOCK_SUMS; n++)
                    sum[m][n] = _mm512_dpbf16_ps(sum[m][n], pair_at(x[m], line + n / panels), weight[n]);
        }
        bool complete = product->scale && (end == limit || end == product->lines);
#pragma GCC unroll 6
        for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
            for (int n = 0; n < CM_BLOCK_SUMS; n++) {
                if (complete)
                    cm_add_group(product, group, piece->row + m, n, sum[m][n]);
                else
                    _mm512_store_ps(kept + m * CM_COLUMNS + n * CM_LANES, sum[m][n]);
            }
    }
}

CM_BLOCK_TABLE(bf16, block)

void cm_avx512_multiply_bf16(const struct cm_product *product)
{
    cm_multiply_blocks(bf16, product);
    cm_end_rows(product, product->sums);
}

// Lines of integers are taken a few at a time to lines of bf16, which stay in the first level of the cache.
enum { UNPACKED_BYTES = CM_UNPACKED_LINES * CM_WIDE * CM_LINE };

// `expand`: lines of bf16 in one of integers.
INLINE void multiply_unpacked(const struct cm_product *product, const int expand)
{
    _Alignas(64) char unpacked[UNPACKED_BYTES];
    struct cm_product wide = *product;
    wide.lines *= expand;
    wide.group *= expand;
    int64_t line = (int64_t)product->panels * CM_LINE, step = CM_UNPACKED_LINES / expand;
    for (int64_t first = 0, last; first < product->lines; first = last) {
        last = first + step < product->lines ? first + step : product->lines;
        if (expand == 2)
            cm_unpack_i8(product->w + first * line, last - first, product->panels, unpacked);
        else
            cm_unpack_i4(product->w + first * line, last - first, product->panels, unpacked);
        cm_multiply_piece(bf16, &wide, unpacked, first * expand, last * expand, NULL, 0);
    }
    cm_end_rows(product, product->out);
}

void cm_avx512_multiply_i8(const struct cm_product *product)
{
    multiply_unpacked(product, 2);
}

void cm_avx512_multiply_i4(const struct cm_product *product)
{
    multiply_unpacked(product, 4);
}

#else

const bool cm_avx512_moe_built = false;

void cm_avx512_multiply_bf16(const struct cm_product *product)
{
    (void)product;
}
void cm_avx512_multiply_i8(const struct cm_product *product)
{
    (void)product;
}
void cm_avx512_multiply_i4(const struct cm_product *product)
{
    (void)product;
}

#endif
