// SPDX-License-Identifier: Apache-2.0
// Changes of a case's inputs that an op's table describes by letters and names alone. Each returns how many
// input elements it changed: 0 means that nothing can be learnt from it.
#ifndef CM_TRANSFORM_H
#define CM_TRANSFORM_H

#include "harness/pristine.h"

typedef struct cm_permutation {
    char letter;
    int64_t extent;
    int64_t *order, *place; // new place -> old place, and back
} cm_permutation;

// A random cycle over the case's extent of `letter`: nothing stays in place. Close it.
void cm_permutation_draw(const cm_case *test_case, char letter, uint64_t seed, cm_permutation *permutation);
void cm_permutation_close(cm_permutation *permutation);

// Reorders every input of `from` along the letter and maps the indices into it; `to` is a copy of `from`.
// Nothing changes when an input has groups along the letter, whose members belong together. only: names, the
// inputs that take part; NULL: all.
int64_t cm_transform_permute(const cm_pristine *from, cm_pristine *to, const cm_permutation *permutation,
                             const char *only);
// Flat index before the permutation of what stands at `flat` after it; tensor has shape and letters of
// argument n.
int64_t cm_permutation_source(const cm_permutation *permutation, const cm_pristine *pristine, int n,
                              int64_t flat);
// Multiplies the named floating-point inputs.
int64_t cm_transform_multiply(cm_pristine *pristine, const char *names, double factor);
// Sets all indices into `letter` to -1 where that means none.
int64_t cm_transform_clear(cm_pristine *pristine, char letter);

#endif
