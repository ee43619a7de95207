// SPDX-License-Identifier: Apache-2.0
// The services of cm_host, for a call that a cm_hosted carries.
#ifndef CM_HOST_H
#define CM_HOST_H

#include "harness/site.h"

typedef struct cm_hosted {
    cm_call call;         // first: host functions get a pointer to it
    cm_error error;       // the sentence of the last failure
    cm_arena *arena;      // for scratch; NULL: plain memory is refused
    cm_site *site;        // where scratch lies; NULL: in host memory
    unsigned char poison; // byte that fills scratch
    int yields;           // how often services still give way to other threads
} cm_hosted;

extern const cm_host cm_host_services;

#define CM_PATH_UNKNOWN (UINT32_C(1) << 31) // a number that no kernel can have

// Bits of the paths that kernels of this process said they take, since the last cm_host_forget_paths.
uint32_t cm_host_paths(void); // async-signal-safe
void cm_host_forget_paths(void);

#endif
