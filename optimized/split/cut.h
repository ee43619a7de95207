// SPDX-License-Identifier: Apache-2.0
// Parts of tensors, cut by the letters of their shape in the op's table: a range of slots out of E, a range
// of units out of I. A part is a view, or a compact copy in which a map may have put experts into slots.
#ifndef CM_SPLIT_CUT_H
#define CM_SPLIT_CUT_H

#include "optimized/view.h"

#include <stdlib.h>

struct cm_part {
    int64_t first, experts; // slots of E
    int64_t begin, width;   // units of I
    int64_t group;          // elements that share a scale; 0: a row does. `begin` is a multiple of it
};

struct cm_cut {
    DLTensor tensor; // shape and strides point into this struct: do not copy it by value
    int64_t shape[CM_MAX_RANK], strides[CM_MAX_RANK];
    void *memory; // of a copy; NULL: a view
    size_t bytes; // of a copy
};

// The shape's next dimension.
static inline const char *cm_cut_next(const char *letter)
{
    while (*letter && *letter != ' ')
        letter++;
    return letter + (*letter == ' ');
}

// A view of `part` of a tensor that was held against `shape`.
static inline void cm_cut_view(struct cm_cut *cut, const DLTensor *from, const char *shape,
                               const struct cm_part *part)
{
    int64_t offset = 0;
    *cut = (struct cm_cut){.tensor = *from};
    cut->tensor.shape = cut->shape;
    cut->tensor.strides = cut->strides;
    for (int d = 0; d < from->ndim; d++, shape = cm_cut_next(shape)) {
        int64_t start = 0;
        cut->shape[d] = from->shape[d];
        cut->strides[d] = from->strides[d];
        if (shape[0] == 'E') {
            start = part->first;
            cut->shape[d] = part->experts;
        } else if (shape[0] == 'I' && shape[1] != '/') {
            start = part->begin;
            cut->shape[d] = part->width;
        } else if (shape[0] == 'I' && part->group > 0) {
            start = part->begin / part->group;
            cut->shape[d] = (part->width + part->group - 1) / part->group;
        }
        offset += start * from->strides[d];
    }
    cut->tensor.data = (char *)from->data + offset * from->dtype.bits / 8;
}

// Compact strides, but 0 where the view has it. Returns bytes.
static inline size_t cm_cut_pack(const struct cm_cut *view, int64_t *strides)
{
    int64_t stride = 1;
    for (int d = view->tensor.ndim - 1; d >= 0; d--) {
        bool one = view->strides[d] == 0 && view->shape[d] > 1;
        strides[d] = one ? 0 : stride;
        stride *= one ? 1 : view->shape[d];
        if (d == view->tensor.ndim - 1 && view->tensor.dtype.bits < 8)
            stride += stride % 2; // rows start at a byte
    }
    return (size_t)stride * view->tensor.dtype.bits / 8;
}

// A compact copy of `part`; with a map, slot p holds what `from` has at map[p]. False: no memory.
static inline bool cm_cut_copy(struct cm_cut *cut, const DLTensor *from, const char *shape,
                               const struct cm_part *part, const int32_t *map)
{
    struct cm_part all = *part;
    struct cm_cut view;
    int64_t rows = 1, strides[CM_MAX_RANK], last = from->ndim - 1;
    int by_slot = -1; // dimension of the slots
    const char *letter = shape;
    for (int d = 0; d < from->ndim; d++, letter = cm_cut_next(letter))
        by_slot = *letter == 'E' && map ? d : by_slot;
    if (by_slot >= 0)
        all.first = 0; // the map leads from there
    cm_cut_view(&view, from, shape, &all);
    size_t bytes = cm_cut_pack(&view, strides);
    char *memory = malloc(bytes ? bytes : 1);
    if (!memory)
        return false;
    for (int d = 0; d < last; d++)
        rows *= view.shape[d];
    for (int64_t row = 0; row < rows; row++) {
        int64_t to = 0, at = 0, rest = row;
        for (int64_t d = last - 1; d >= 0; d--) {
            int64_t index = rest % view.shape[d];
            rest /= view.shape[d];
            to += index * strides[d];
            at += (d == by_slot ? map[part->first + index] : index) * view.strides[d];
        }
        memcpy(memory + to * from->dtype.bits / 8, (char *)view.tensor.data + at * from->dtype.bits / 8,
               ((size_t)view.shape[last] * from->dtype.bits + 7) / 8);
    }
    *cut = view;
    memcpy(cut->strides, strides, sizeof strides);
    cut->tensor.shape = cut->shape;
    cut->tensor.strides = cut->strides;
    cut->tensor.data = cut->memory = memory;
    cut->bytes = bytes;
    return true;
}

static inline void cm_cut_close(struct cm_cut *cut)
{
    free(cut->memory);
    cut->memory = NULL;
}

#endif
