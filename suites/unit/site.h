// SPDX-License-Identifier: Apache-2.0
// A kernel of sgmv_plan on the emulated device, with a mistake.
#ifndef CM_UNIT_SITE_H
#define CM_UNIT_SITE_H

#include "harness/checkmoe.h"

#ifdef __cplusplus
extern "C" {
#endif

enum cm_unit_mistake {
    CM_UNIT_CLEAN,
    CM_UNIT_HOST_READS,      // the host reads an argument in device memory
    CM_UNIT_HOST_WRITES,     // and writes one
    CM_UNIT_HOST_SCRATCH,    // and reads scratch memory
    CM_UNIT_VALIDATES_NOT,   // the device reads whatever it is given
    CM_UNIT_WRITES_INPUT,    // an input has another value afterwards
    CM_UNIT_WRITES_AND_BACK, // an input has another value for a while
    CM_UNIT_OVERRUN,         // an array is taken to be one element longer than it is
    CM_UNIT_SCRATCH_OVERRUN, // scratch memory, too
    CM_UNIT_INDEX_OVERRUN,   // an index one past the end of an array
    CM_UNIT_LEAVES_OUT,      // the last element of an output is not written
    CM_UNIT_MISTAKES,
};

extern const cm_kernel cm_unit_plans[CM_UNIT_MISTAKES];

#ifdef __cplusplus
}
#endif
#endif
