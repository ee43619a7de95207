// SPDX-License-Identifier: Apache-2.0
#include "optimized/cuda/simt/matrix.h"

#include "optimized/cuda/device.h"

#include <string.h>

namespace cm_simt
{

typedef float Eight __attribute__((vector_size(32)));

// What a lane brings: its registers.
struct Fragments {
    float *d;
    const uint32_t *a, *b;
    const float *c;
    int count;
};

static float widen(MatrixType type, uint32_t pair, int half)
{
    uint16_t bits = (uint16_t)(pair >> 16 * half);
    return type == MATRIX_BF16 ? cm_widen(cm_bf16{bits}) : cm_widen(cm_f16{bits});
}

static const Fragments *fragments_of(const Meeting *meeting, int lane)
{
    return static_cast<const Fragments *>(meeting->lanes[lane].pointer);
}

// Lane L, g = L / 4, t = L % 4: element (row, k) of A is in lane (row % 8) * 4 + (k % 8) / 2, register
// row / 8 + 2 * (k / 8), half k % 2; element (k, n) of B in lane n * 4 + (k % 8) / 2, register k / 8; element
// (row, n) of C and D in lane (row % 8) * 4 + n / 2, register 2 * (row / 8) + n % 2.
template <MatrixType TYPE> static void multiply(Meeting *meeting)
{
    float a[16][16], b[16][8];
    Eight sums[16];
    int count = fragments_of(meeting, 0)->count;
    for (int lane = 0; lane < WARP; lane++)
        for (int n = 0; n < 8; n++)
            a[lane / 4 + n / 2 % 2 * 8][2 * (lane % 4) + n % 2 + n / 4 * 8] =
                widen(TYPE, fragments_of(meeting, lane)->a[n / 2], n % 2);
    for (int product = 0; product < count; product++) {
        for (int lane = 0; lane < WARP; lane++) {
            const Fragments *own = fragments_of(meeting, lane);
            for (int n = 0; n < 4; n++) {
                b[2 * (lane % 4) + n % 2 + n / 2 * 8][lane / 4] =
                    widen(TYPE, own->b[2 * product + n / 2], n % 2);
                sums[lane / 4 + n / 2 * 8][2 * (lane % 4) + n % 2] = own->c[4 * product + n];
            }
        }
        for (int row = 0; row < 16; row++) {
            Eight sum = sums[row];
            for (int k = 0; k < 16; k++) {
                Eight of_b;
                memcpy(&of_b, b[k], sizeof of_b);
                sum += a[row][k] * of_b;
            }
            sums[row] = sum;
        }
        for (int lane = 0; lane < WARP; lane++)
            for (int n = 0; n < 4; n++)
                fragments_of(meeting, lane)->d[4 * product + n] =
                    sums[lane / 4 + n / 2 * 8][2 * (lane % 4) + n % 2];
    }
}

void mma_16x8x16(MatrixType type, int count, float *d, const uint32_t a[4], const uint32_t *b, const float *c,
                 Place place)
{
    Fragments own = {d, a, b, c, count};
    meet(~0u, "mma.m16n8k16", place, {&own, 0, 0},
         type == MATRIX_BF16 ? multiply<MATRIX_BF16> : multiply<MATRIX_F16>);
}

// The row of lane 8 matrix + line holds what its four lanes each get two elements of.
template <int COUNT, bool TRANSPOSED> static void load(Meeting *meeting)
{
    const Block *b = block();
    for (int n = 0; n < 8 * COUNT; n++) {
        const Visitor &lane = meeting->lanes[n];
        uint32_t at = (uint32_t)lane.value;
        if (at % 16)
            fail(MISALIGNED, meeting->place, "ldmatrix of a row at byte %u, which is no multiple of 16", at);
        if (at + 16 > b->shared_bytes)
            fail(SHARED_OUT_OF_BOUNDS, meeting->place, "ldmatrix of a row at byte %u of %zu", at,
                 b->shared_bytes);
        shared_read(at, 16, meeting->place);
        uint16_t row[8];
        memcpy(row, &b->shared[at], sizeof row);
        for (int i = 0; i < 8; i++) {
            int to = TRANSPOSED ? 4 * i + n % 8 / 2 : n % 8 * 4 + i / 2;
            int half = TRANSPOSED ? n % 2 : i % 2;
            uint32_t *registers = static_cast<uint32_t *>(meeting->lanes[to].pointer);
            memcpy(reinterpret_cast<char *>(registers + n / 8) + 2 * half, &row[i], 2);
        }
    }
}

void load_matrices(uint32_t *registers, int count, uint32_t row, bool transposed, Place place)
{
    static void (*const loads[3][2])(Meeting *) = {
        {load<1, false>, load<1, true>}, {load<2, false>, load<2, true>}, {load<4, false>, load<4, true>}};
    meet(~0u, transposed ? "ldmatrix.trans" : "ldmatrix", place, {registers, row, 0},
         loads[count / 2][transposed]);
}

} // namespace cm_simt
