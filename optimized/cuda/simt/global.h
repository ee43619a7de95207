// SPDX-License-Identifier: Apache-2.0
// Device memory of the emulated device: which block wrote what during a launch. Blocks run in any order, so
// that an element which one block writes may not be read or written by another.
#ifndef CM_SIMT_GLOBAL_H
#define CM_SIMT_GLOBAL_H

#include "optimized/cuda/simt/block.h"

namespace cm_simt
{

void global_begin(void); // of a launch: forgets what was written
void global_read(const void *address, size_t bytes, Place place);
void global_write(const void *address, size_t bytes, Place place);
void global_atomic(const void *address, size_t bytes, Place place); // conflicts with plain writes only

} // namespace cm_simt

#endif
