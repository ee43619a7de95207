// SPDX-License-Identifier: Apache-2.0
// What the emulated device found wrong with a launch: the first fault ends it.
#ifndef CM_SIMT_REPORT_H
#define CM_SIMT_REPORT_H

#include <stddef.h>

namespace cm_simt
{

enum Fault {
    NO_FAULT,
    BAD_LAUNCH,           // grid, block or shared memory beyond the limits
    MISSING_BARRIER,      // two threads touch a shared word, one writes, nothing orders them
    DIVERGENT_BARRIER,    // threads of a block wait at different __syncthreads
    DEADLOCK,             // nobody can go on
    WRONG_LANE_MASK,      // lanes of a warp disagree on a collective, or the caller is not in its mask
    EXITED_LANE,          // a mask names a lane that has returned
    UNDEFINED_LANE,       // a shuffle reads from a lane outside the mask
    SHARED_OUT_OF_BOUNDS, // of the array in shared memory
    GLOBAL_OUT_OF_BOUNDS, // of the array in device memory
    SHARED_UNINITIALISED, // a read of shared memory that no thread has written in this block
    ASYNC_NOT_WAITED,     // a read of shared memory that a cp.async is still filling
    MISALIGNED,           // a vector access off its size
    WRITE_CONFLICT,       // two blocks write an element of device memory without atomics
    NO_MEMORY,            // of the host
};

// Where in the kernel's source.
struct Place {
    const char *file;
    int line;
};

const char *fault_name(Fault fault);

} // namespace cm_simt

#endif
