// SPDX-License-Identifier: Apache-2.0
// Metamorphic relations: what an op's table says about two or three calls whose inputs are transforms of each
// other. They need no reference for what is right, only for how far a result may be off.
#ifndef CM_RELATIONS_H
#define CM_RELATIONS_H

#include "harness/check.h"

// What a call computes: of each output its elements, and how far each may be off (NULL: not at all).
typedef struct cm_results {
    double *value[CM_MAX_ARGUMENTS], *bound[CM_MAX_ARGUMENTS];
} cm_results;

typedef enum cm_relation_end {
    CM_RELATION_HOLDS,
    CM_RELATION_BROKEN,
    CM_RELATION_IDLE,   // the transformation changes nothing here, or nothing of the outputs can be compared
    CM_RELATION_FAILED, // a call failed
} cm_relation_end;

// A kernel or a reference.
typedef struct cm_evaluator {
    // Fills `results`, bounds only when asked for. IDLE: such values can't be used.
    cm_relation_end (*evaluate)(struct cm_evaluator *evaluator, cm_pristine *values, bool bounds,
                                cm_results *results);
    bool row_invariant; // rows must have the same bits wherever they stand
    bool moved;         // set for evaluate: the values are those of the case, in another order or fewer
    void *self;
} cm_evaluator;

typedef struct cm_violation {
    int64_t compared, violated; // elements
    int argument;               // of the first one
    int64_t flat;
    double got, want, allowed;
} cm_violation;

// Holds one relation. base: the results of `pristine` itself. only: of the inputs that should be permuted,
// those that are (for tests); NULL: all.
cm_relation_end cm_relation_hold(const cm_symmetry *symmetry, const cm_pristine *pristine,
                                 const cm_results *base, const char *only, cm_evaluator *evaluator,
                                 cm_violation *violation);
void cm_results_open(const cm_pristine *pristine, bool bounds, cm_results *results);
void cm_results_close(cm_results *results);

// All relations of the op on a kernel: exact data to the bit, other data within the bounds, or to the bit
// where the kernel promises it. VACUOUS when no relation has anything to compare.
cm_verdict cm_relations_run(const cm_trial *trial);

#endif
