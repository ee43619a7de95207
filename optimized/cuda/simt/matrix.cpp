// SPDX-License-Identifier: Apache-2.0
#include "optimized/cuda/simt/matrix.h"

#include "optimized/cuda/simt/shared.h"

#include <string.h>

namespace cm_simt
{

// A lane's elements, widened: register n holds 2 n and 2 n + 1.
struct Fragments {
    float a[8], b[4];
};

static uint16_t half_of(uint32_t pair, int high)
{
    return (uint16_t)(pair >> 16 * high);
}

// Lane L, g = L / 4, t = L % 4: element (row, k) of A is in lane (row % 8) * 4 + (k % 8) / 2, register
// row / 8 + 2 * (k / 8), half k % 2; element (k, n) of B in lane n * 4 + (k % 8) / 2, register k / 8.
void mma_16x8x16(float d[4], const uint32_t a[4], const uint32_t b[2], const float c[4],
                 float (*widen)(uint16_t), Place place)
{
    Fragments own;
    float result[4];
    for (int n = 0; n < 8; n++)
        own.a[n] = widen(half_of(a[n / 2], n % 2));
    for (int n = 0; n < 4; n++)
        own.b[n] = widen(half_of(b[n / 2], n % 2));
    Slots *slots = meet(~0u, "mma.m16n8k16", place, &own, 0);
    int lane = thread()->lane;
    for (int i = 0; i < 4; i++) {
        int row = lane / 4 + 8 * (i >> 1), column = 2 * (lane % 4) + (i & 1);
        float sum = c[i];
        for (int k = 0; k < 16; k++) {
            auto *from_a = static_cast<const Fragments *>(slots->pointer[row % 8 * 4 + k % 8 / 2]);
            auto *from_b = static_cast<const Fragments *>(slots->pointer[column * 4 + k % 8 / 2]);
            sum += from_a->a[2 * (row / 8 + 2 * (k / 8)) + (k & 1)] * from_b->b[2 * (k / 8) + (k & 1)];
        }
        result[i] = sum;
    }
    leave(slots);
    leave(meet(~0u, "mma.m16n8k16", place, nullptr, 0)); // `own` lives until everyone has read it
    memcpy(d, result, sizeof result);
}

void load_matrices(uint32_t *registers, int count, uint32_t row, bool transposed, Place place)
{
    Block *b = block();
    int lane = thread()->lane;
    uint32_t found[4] = {0};
    Slots *slots = meet(~0u, transposed ? "ldmatrix.trans" : "ldmatrix", place, nullptr, row);
    for (int matrix = 0; matrix < count; matrix++) {
        uint16_t pair[2];
        for (int half = 0; half < 2; half++) {
            int line = transposed ? 2 * (lane % 4) + half : lane / 4;
            int column = transposed ? lane / 4 : 2 * (lane % 4) + half;
            uint32_t at = (uint32_t)slots->value[8 * matrix + line];
            if (at % 16)
                fail(MISALIGNED, place, "ldmatrix of a row at byte %u, which is no multiple of 16", at);
            if (at + 16 > b->shared_bytes)
                fail(SHARED_OUT_OF_BOUNDS, place, "ldmatrix of a row at byte %u of %zu", at, b->shared_bytes);
            shared_read(at + 2 * (uint32_t)column, 2, place);
            memcpy(&pair[half], &b->shared[at + 2 * (uint32_t)column], 2);
        }
        found[matrix] = pair[0] | (uint32_t)pair[1] << 16;
    }
    leave(slots);
    memcpy(registers, found, (size_t)count * sizeof *registers);
}

} // namespace cm_simt
