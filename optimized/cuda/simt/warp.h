// SPDX-License-Identifier: Apache-2.0
// Shuffles and votes of the emulated device.
#ifndef CM_SIMT_WARP_H
#define CM_SIMT_WARP_H

#include "optimized/cuda/simt/block.h"

namespace cm_simt
{

enum ShuffleKind { SHUFFLE_FROM, SHUFFLE_XOR, SHUFFLE_DOWN, SHUFFLE_UP };

uint64_t shuffle(ShuffleKind kind, unsigned mask, uint64_t value, int argument, int width, Place place);
unsigned ballot(unsigned mask, bool predicate, Place place); // bit n: predicate of lane n, for lanes in mask

} // namespace cm_simt

#endif
