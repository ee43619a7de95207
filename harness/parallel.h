// SPDX-License-Identifier: Apache-2.0
// Spreads numbered items over processes, and hands over what they write in the order of the items, so that
// the result is that of one process.
#ifndef CM_PARALLEL_H
#define CM_PARALLEL_H

#include "harness/status.h"

#include <signal.h>
#include <stddef.h>

typedef struct cm_parallel {
    void *self;
    int processes;
    size_t items;
    // In a worker: does the item and writes its bytes to the descriptor.
    cm_status (*run)(void *self, size_t item, int descriptor, cm_error *error);
    // In the parent, item by item as soon as all before it are done; `bytes` are owned by the caller.
    cm_status (*take)(void *self, const char *bytes, size_t count, cm_error *error);
    // In the parent, now and then: items done, and one that was begun last.
    void (*watch)(void *self, size_t done, size_t begun);
    size_t left_size; // bytes that a worker leaves for the parent when it ends
    void (*leave)(void *self, void *left);
    void (*collect)(void *self, const void *left); // in the parent, once for each worker
    const volatile sig_atomic_t *stop;             // not 0: begin no further item
} cm_parallel;

// Returns when all workers have ended. The first error ends the others after their item; a worker that dies
// is CM_BAD_STATE.
cm_status cm_parallel_run(const cm_parallel *parallel, cm_error *error);

// Processors that this process may use, at least 1.
int cm_parallel_processors(void);

#endif
