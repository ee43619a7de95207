// SPDX-License-Identifier: Apache-2.0
// Shared memory of the emulated device. Every access is held against what other threads did to the same
// bytes since the last barrier; see Shadow in block.h.
#ifndef CM_SIMT_SHARED_H
#define CM_SIMT_SHARED_H

#include "optimized/cuda/simt/block.h"

namespace cm_simt
{

// An access of `bytes` bytes at byte `at` of the block's shared memory by the running thread: fails on a
// race, on bytes that nobody wrote, or that a cp.async is still filling.
void shared_read(uint32_t at, uint32_t bytes, Place place);
void shared_write(uint32_t at, uint32_t bytes, Place place);
void shared_atomic(uint32_t at, uint32_t bytes, Place place);

// cp.async: the copy happens when it is waited for; until then the bytes are poison.
void async_copy(uint32_t to, const void *from, uint32_t bytes, uint32_t zeros, Place place);
void async_commit(void);
void async_wait(int youngest); // completes all but the `youngest` groups

} // namespace cm_simt

#endif
