// SPDX-License-Identifier: Apache-2.0
// Where the blocks of an arena lie while a kernel has them: at home, or away in its device's memory. An
// emulated device's memory is the block itself, fenced; a real one has a copy of the block's pages, canaries
// included.
#ifndef CM_SITE_H
#define CM_SITE_H

#include "harness/arena.h"

typedef struct cm_site {
    cm_arena *arena;
    const cm_side *side;        // NULL: of no device that could run
    bool away[CM_ARENA_BLOCKS]; // in device memory; a real device's copy is the block's `remote`
} cm_site;

// The memory of the kernel's device; NULL for kernels of the host and of devices that can't run here.
const cm_side *cm_kernel_side(const cm_kernel *kernel);
// "native" or "emulated".
const char *cm_kernel_mode(const cm_kernel *kernel);

// Sends a block away; returns what its data is called there. What can't be done is a fault of the harness.
void *cm_site_send(cm_site *site, int block);
// Brings it home; false: the device has nothing more to say.
bool cm_site_fetch(cm_site *site, int block);
// Drops blocks from `first` on, here and there.
void cm_site_drop(cm_site *site, int first);

#endif
