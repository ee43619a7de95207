// SPDX-License-Identifier: Apache-2.0
// What each adapter term adds to an output: as a whole, and by the slices of the dimensions that indices
// choose from (experts, adapters). D = want - want(left out), since a layer is not linear.
#ifndef CM_PARTS_H
#define CM_PARTS_H

#include "harness/gains.h"

typedef struct cm_part {
    int term;
    char letter; // dimension that is cut; 0: the whole term
    int64_t begin, end;
    cm_effect effect;
} cm_part;

typedef struct cm_parts {
    cm_part *items;
    int count, space;
} cm_parts;

// Bits of the op's terms that are an adapter's.
uint64_t cm_effect_terms(const cm_op *op);

// want - want(terms left out) of one output, or NULL when nothing changes; the caller frees it.
double *cm_parts_delta(const cm_pristine *values, cm_accuracy accuracy, int output, uint64_t omit);

// Each term that changes the output, as a whole. `values` has its wants for the accuracy.
void cm_parts_terms(const cm_pristine *values, cm_accuracy accuracy, int output, cm_parts *parts);

// Each term cut along `letter`: the arguments that leave it out are set to 0 for one slice, or for as many
// neighbours as it takes to stay within `operations` of the reference. A term that has no such dimension is
// there as a whole. False: no term has it, or it costs too much even in two pieces.
bool cm_parts_cut(const cm_pristine *values, cm_accuracy accuracy, int output, char letter, double operations,
                  cm_parts *parts);
void cm_parts_close(cm_parts *parts);

#endif
