// SPDX-License-Identifier: Apache-2.0
// moe_forward's arguments by meaning, for its own files: table (moe_forward.c), computation
// (moe_forward_compute.c), quantised rows (moe_forward_quant.c), proof of exactness (moe_forward_exact.c),
// addressing and counts (moe_forward_use.c).
#ifndef CM_REFERENCE_MOE_FORWARD_H
#define CM_REFERENCE_MOE_FORWARD_H

#include "reference/values.h"

// p(x) = W x + bias + s_a B_a (A_a x). Routed tensors have a leading expert index, shared ones do not.
struct moe_projection {
    const DLTensor *weight, *scale, *bias, *a, *b; // scale, bias, a, b may be absent
};

struct moe_ffn {
    struct moe_projection gate, up, down;
    int64_t width; // I or D
};

struct moe_layer {
    int64_t T, k, E, H, L, r;
    const DLTensor *hidden, *ids, *weights, *map, *token_adapter, *rank, *scaling, *shared_router;
    struct moe_ffn routed, shared; // shared.gate.weight is NULL when there is none
    int64_t group;                 // elements of a weight's row that share a scale
    bool act_quant, from_model;    // x and h are quantised; h from its value in x's dtype
};

enum moe_term { MOE_LORA_GATE, MOE_LORA_UP, MOE_LORA_DOWN, MOE_SHARED, MOE_SHARED_LORA, MOE_BIAS };

// Collects the arguments; refuses with CM_UNSUPPORTED what the reference does not compute yet.
cm_status moe_open(const cm_call *call, struct moe_layer *layer);
int64_t moe_expert(const struct moe_layer *layer, int64_t t, int64_t j); // of a slot; -1: none
int64_t moe_adapter(const struct moe_layer *layer, int64_t t);           // -1: none
int64_t moe_rank(const struct moe_layer *layer, int64_t adapter);        // 0 for -1
double moe_scaling(const struct moe_layer *layer, int64_t adapter);      // 0 for -1
// Row `row` of a projection's tensor for adapter (if it has one) and expert (-1: shared).
void moe_row(const DLTensor *tensor, int64_t adapter, int64_t expert, int64_t row, double *values);

// Row of a weight, integer codes times their scales.
void moe_weight_row(const struct moe_layer *layer, const struct moe_projection *p, int64_t expert,
                    int64_t row, double *values);

// Values with the errors that they have so far, and the size of what they were summed from.
struct moe_vector {
    double *value, *magnitude;
    cm_error_size *error;
};

// What a projection sees of a row: W sees `base`, A sees `plain`. They are the same without act_quant.
struct moe_input {
    const struct moe_vector *plain, *base;
    cm_error_size scale; // relative error that all of base's values share
    const double *flip;  // half a step where a single code may well move, else 0; NULL: never
};

// Codes of a row, times amax/127. `flip` has room for n numbers and belongs to the result.
struct moe_input moe_quantise(const struct moe_vector *row, int64_t n, struct moe_vector *out, double *flip);
// Rounds a row to a dtype, as the op demands; errors become those of what is rounded to.
void moe_round(DLDataType dtype, struct moe_vector *row, int64_t n);

cm_status moe_forward_reference(const cm_call *call, uint64_t omit, cm_accuracy accuracy, cm_want *want);
cm_status moe_forward_exact(const cm_call *call);
cm_status moe_forward_addressed(const cm_call *call, int argument, uint8_t *mask);
void moe_forward_counts(const cm_call *call, cm_counts *counts);

#endif
