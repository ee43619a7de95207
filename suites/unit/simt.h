// SPDX-License-Identifier: Apache-2.0
// Running small kernels on the emulated device, with what it said.
#ifndef CM_UNIT_SIMT_H
#define CM_UNIT_SIMT_H

#include "optimized/cuda/device.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

extern "C" {
Suite *cm_unit_simt(void);
}
TCase *cm_unit_simt_faults(void);
TCase *cm_unit_simt_far(void);
TCase *cm_unit_simt_graph(void);

extern char cm_unit_said[512]; // the sentence of the last launch; "" when it went well
extern const cm_call cm_unit_call;

// Launches on `threads` threads in `blocks` blocks.
#define CM_UNIT_LAUNCH(kernel, blocks, threads, shared, ...)                                                 \
    (cm_unit_said[0] = 0,                                                                                    \
     CM_LAUNCH(&cm_unit_call, kernel, (dim3{blocks, 1, 1}), (dim3{threads, 1, 1}), shared, __VA_ARGS__))

#endif
