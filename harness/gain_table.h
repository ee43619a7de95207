// SPDX-License-Identifier: Apache-2.0
// The gains of an output, of each term as a whole and of its parts, and which of them are off.
#ifndef CM_GAIN_TABLE_H
#define CM_GAIN_TABLE_H

#include "harness/parts.h"

// A part whose standard error is larger than this is not judged, and a whole term so is VACUOUS.
#define CM_GAIN_ERROR 0.02

typedef struct cm_gain_table {
    cm_gain *rows;   // `wholes` of whole terms, then those of the parts that can be judged
    cm_gain *strict; // the same gains of the strict fit: they decide, the others tell what is wrong
    int wholes_off;  // of the strict ones
    int count, space, wholes;
    int unjudged;  // parts with too large a standard error
    int uncut;     // dimensions with no parts: too much work for the reference
    bool solvable; // false: the effects of the terms are too alike to be told apart
} cm_gain_table;

// Whole terms, then their parts by expert and adapter (whatever indices choose from) and by blocks of
// columns. `operations` bounds the work of the reference for the parts of one dimension. Close it.
void cm_gain_table_make(const cm_pristine *values, cm_accuracy accuracy, int output, const cm_parts *terms,
                        const DLTensor *got, double operations, cm_gain_table *table);
void cm_gain_table_close(cm_gain_table *table);

// The part that is furthest off, NULL: none is by the strict fit.
const cm_gain *cm_gain_table_worst(const cm_gain_table *table);
// Puts the rows into the outcome: if there are too many, those of the parts that are nearest to 1 are left
// out.
void cm_gain_table_record(const cm_gain_table *table, cm_outcome *outcome);

#endif
