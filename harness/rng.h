// SPDX-License-Identifier: Apache-2.0
// Counter-based random numbers: value = f(seed, stream, index), with Philox4x32-10 of Random123. Any part can
// be made again in any order, and nothing but integer arithmetic is involved.
#ifndef CM_RNG_H
#define CM_RNG_H

#include <Random123/philox.h>
#include <stdint.h>

typedef struct cm_rng {
    uint64_t seed;
    uint32_t stream;
} cm_rng;

// 128 random bits of element `index`.
static inline void cm_rng_block(cm_rng rng, uint64_t index, uint32_t out[4])
{
    philox4x32_ctr_t counter = {{(uint32_t)index, (uint32_t)(index >> 32), rng.stream, 0}};
    philox4x32_key_t key = {{(uint32_t)rng.seed, (uint32_t)(rng.seed >> 32)}};
    philox4x32_ctr_t bits = philox4x32(counter, key);
    for (int n = 0; n < 4; n++)
        out[n] = bits.v[n];
}

static inline uint32_t cm_rng_bits(cm_rng rng, uint64_t index)
{
    uint32_t block[4];
    cm_rng_block(rng, index, block);
    return block[0];
}

// 0 <= value < bound, bound > 0; the bias is below bound / 2^32.
static inline int64_t cm_rng_below(cm_rng rng, uint64_t index, int64_t bound)
{
    return (int64_t)(((uint64_t)cm_rng_bits(rng, index) * (uint64_t)bound) >> 32);
}

// Sum of eight 16-bit numbers about 0: nearly normal, s.d. 2^16 sqrt(8/12), |value| < 2^18.
static inline int32_t cm_rng_normal(cm_rng rng, uint64_t index)
{
    uint32_t block[4];
    int32_t sum = -(8 << 15) + 4;
    cm_rng_block(rng, index, block);
    for (int n = 0; n < 4; n++)
        sum += (int32_t)(block[n] & 0xffff) + (int32_t)(block[n] >> 16);
    return sum;
}

#endif
