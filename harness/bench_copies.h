// SPDX-License-Identifier: Apache-2.0
// Distinct copies of a case's weights and adapters. A timed kernel goes from one to the next, so that each
// call finds its weights cold. Made before the timed processes, which share them and can't write to them.
#ifndef CM_BENCH_COPIES_H
#define CM_BENCH_COPIES_H

#include "harness/pristine.h"

enum { CM_BENCH_INPUTS = 16 };

typedef struct cm_copies {
    const cm_pristine *pristine;
    const cm_pristine *others[CM_BENCH_INPUTS - 1]; // with the same weights and other inputs, taken in turn
    int other_count;
    char *memory; // `count` times `stride` bytes
    size_t stride, mapped;
    size_t offsets[CM_MAX_ARGUMENTS]; // of weights and adapters in a copy, bytes
    int count;                        // 1 or more
    size_t touched;                   // bytes that one call reads at least
    bool short_of_memory;             // fewer than were asked for
} cm_copies;

// Whether a timed call has the argument from a copy: others are small and the same for all.
bool cm_copies_hold(const cm_pristine *pristine, int argument);

// As many copies as it takes for one round of calls, of which each reads `touched` bytes, to read `cold`
// bytes (0: one copy), held to the memory that is left when two processes pack each copy again, and to
// `memory` bytes for all of it with the pristine (0: no such limit). Alignment of each argument in bytes, a
// power of two. The pristine must outlive them. CM_NO_MEMORY when there is not even room for one.
cm_status cm_copies_open(const cm_pristine *pristine, size_t touched, size_t cold, size_t memory,
                         size_t alignment, cm_copies *copies, cm_error *error);
void cm_copies_protect(const cm_copies *copies); // read-only in this process
void *cm_copies_data(const cm_copies *copies, int copy, int argument);
void cm_copies_close(cm_copies *copies); // accepts a zeroed one

#endif
