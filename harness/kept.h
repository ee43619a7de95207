// SPDX-License-Identifier: Apache-2.0
// What the reference said about a case and about changed copies of it, in memory that all children share: the
// kernels of a case ask for the same. Found by a digest of everything that the reference reads.
#ifndef CM_KEPT_H
#define CM_KEPT_H

#include "harness/tensor.h"

struct cm_kept;

// Bytes of the mapping, zeroed, shared and untouched at first: pages that nothing is kept in cost nothing.
#define CM_KEPT_BYTES ((size_t)128 << 20)

// Digest of the attributes, of all shapes and strides, and of the bytes of all but outputs. files[n]: a
// number that stands for the bytes of argument n, which never change; 0: there is none. Two inputs share one
// with a probability of 2^-64.
uint64_t cm_kept_key(const cm_call *call, const int *files, uint64_t omit, cm_accuracy accuracy);
// Fills the arrays of `want` (by argument, count 0: not an output). False: nothing is kept under the key.
bool cm_kept_find(const struct cm_kept *kept, uint64_t key, cm_want *want);
// Keeps it while there is room. One process at a time; a process may be killed at any point.
void cm_kept_add(struct cm_kept *kept, uint64_t key, const cm_want *want);

#endif
