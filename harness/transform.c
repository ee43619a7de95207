// SPDX-License-Identifier: Apache-2.0
#include "harness/transform.h"

#include "harness/op.h"
#include "harness/rng.h"

#include <stdlib.h>
#include <string.h>

static bool is_listed(const char *words, const char *name)
{
    return words && cm_has_word(words, name, strlen(name));
}

// Dimension of argument n that has the letter, -1: none.
static int dimension_of(const cm_pristine *pristine, int n, char letter)
{
    int64_t shape[CM_MAX_RANK];
    char letters[CM_MAX_RANK];
    int ndim = cm_op_shape(&pristine->test_case.op->arguments[n], pristine->test_case.dims, shape, letters);
    for (int d = 0; d < ndim; d++)
        if (letters[d] == letter)
            return d;
    return -1;
}

// Weights in files are read-only until a copy has its own.
static void make_writable(cm_pristine *pristine, int n)
{
    cm_error error = {{0}};
    if (pristine->files[n] && cm_pristine_own(pristine, n, &error) != CM_OK)
        cm_broken("%s", error.message);
}

// Sattolo's algorithm.
void cm_permutation_draw(const cm_case *test_case, char letter, uint64_t seed, cm_permutation *permutation)
{
    int64_t extent = test_case->dims[cm_dim_index(letter)];
    *permutation = (cm_permutation){letter, extent, cm_new((size_t)extent, sizeof(int64_t)),
                                    cm_new((size_t)extent, sizeof(int64_t))};
    int64_t *order = permutation->order;
    for (int64_t n = 0; n < extent; n++)
        order[n] = n;
    for (int64_t n = extent - 1; n > 0; n--) {
        int64_t other = cm_rng_below((cm_rng){seed, 0x73796d}, (uint64_t)n, n), keep = order[n];
        order[n] = order[other];
        order[other] = keep;
    }
    for (int64_t n = 0; n < extent; n++)
        permutation->place[order[n]] = n;
}

void cm_permutation_close(cm_permutation *permutation)
{
    free(permutation->order);
    free(permutation->place);
    *permutation = (cm_permutation){0};
}

int64_t cm_permutation_source(const cm_permutation *permutation, const cm_pristine *pristine, int n,
                              int64_t flat)
{
    const DLTensor *tensor = pristine->arguments[n];
    int d = dimension_of(pristine, n, permutation->letter);
    int64_t inner = 1;
    if (d < 0)
        return flat;
    for (int e = d + 1; e < tensor->ndim; e++)
        inner *= tensor->shape[e];
    int64_t at = flat / inner % permutation->extent;
    return flat + (permutation->order[at] - at) * inner;
}

// Writes `values` where they differ; with a stride of 0 elements are one, so all old values were read before.
static int64_t store(const DLTensor *tensor, const double *values)
{
    int64_t count = cm_tensor_count(tensor), changed = 0;
    for (int64_t i = 0; i < count; i++)
        changed += cm_tensor_get(tensor, i) != values[i];
    for (int64_t i = 0; i < count; i++)
        cm_tensor_set(tensor, i, values[i]);
    return changed;
}

// An argument with groups of elements along the letter: "E H/G", more than one.
static bool has_groups(const cm_pristine *pristine, char letter)
{
    const cm_op *op = pristine->test_case.op;
    char grouped[4] = {letter, '/', 0};
    for (int n = 0; op->arguments[n].name; n++) {
        const char *place = strstr(op->arguments[n].shape, grouped);
        int d = 0;
        for (const char *at = op->arguments[n].shape; place && at < place; at++)
            d += *at == ' ';
        if (place && pristine->arguments[n] && pristine->arguments[n]->shape[d] > 1)
            return true;
    }
    return false;
}

// Moves whole rows of the last dimension where the letter is not it.
static int64_t move(const DLTensor *to, const DLTensor *from, const cm_permutation *permutation, int d)
{
    int64_t count = cm_tensor_count(from), row = d < from->ndim - 1 ? from->shape[from->ndim - 1] : 1;
    int64_t inner = 1, changed = 0;
    size_t size = (size_t)(row * from->dtype.bits) / 8;
    for (int e = d + 1; e < from->ndim; e++)
        inner *= from->shape[e];
    for (int64_t i = 0; i < count; i += row) {
        int64_t at = i / inner % permutation->extent;
        int64_t source = i + (permutation->order[at] - at) * inner;
        if (from->dtype.bits * row % 8 == 0) {
            char *place = (char *)to->data + cm_tensor_offset(to, i) * to->dtype.bits / 8;
            memcpy(place, (char *)from->data + cm_tensor_offset(from, source) * from->dtype.bits / 8, size);
            changed += memcmp(place, (char *)from->data + cm_tensor_offset(from, i) * from->dtype.bits / 8,
                              size) != 0;
            continue;
        }
        for (int64_t c = 0; c < row; c++) {
            cm_tensor_set(to, i + c, cm_tensor_get(from, source + c));
            changed += cm_tensor_get(to, i + c) != cm_tensor_get(from, i + c);
        }
    }
    return changed;
}

int64_t cm_transform_permute(const cm_pristine *from, cm_pristine *to, const cm_permutation *permutation,
                             const char *only)
{
    const cm_op *op = from->test_case.op;
    int64_t changed = 0;
    if (permutation->extent < 2 || has_groups(from, permutation->letter))
        return 0;
    for (int n = 0; op->arguments[n].name; n++) {
        const DLTensor *tensor = to->arguments[n];
        int d = dimension_of(from, n, permutation->letter);
        if (!tensor || op->arguments[n].role == CM_OUTPUT ||
            (only && !is_listed(only, op->arguments[n].name)))
            continue;
        if (op->arguments[n].index_into == permutation->letter) {
            for (int64_t i = 0; i < cm_tensor_count(tensor); i++) {
                double index = cm_tensor_get(from->arguments[n], i);
                changed += index >= 0;
                int64_t to_place = op->arguments[n].self_map ? permutation->place[i] : i;
                if (index >= 0)
                    cm_tensor_set(tensor, to_place, (double)permutation->place[(int64_t)index]);
            }
        } else if (d >= 0) {
            make_writable(to, n);
            changed += move(tensor, from->arguments[n], permutation, d);
        }
    }
    cm_pristine_changed(to);
    return changed;
}

int64_t cm_transform_multiply(cm_pristine *pristine, const char *names, double factor)
{
    const cm_op *op = pristine->test_case.op;
    int64_t changed = 0;
    for (int n = 0; op->arguments[n].name; n++) {
        const DLTensor *tensor = pristine->arguments[n];
        if (!tensor || !is_listed(names, op->arguments[n].name) ||
            !cm_dtype_is_float(pristine->tensors[n].dtype))
            continue;
        int64_t count = cm_tensor_count(tensor);
        double *values = cm_new((size_t)count, sizeof *values);
        make_writable(pristine, n);
        for (int64_t i = 0; i < count; i++)
            values[i] = factor * cm_tensor_get(tensor, i);
        changed += store(tensor, values);
        free(values);
    }
    cm_pristine_changed(pristine);
    return changed;
}

int64_t cm_transform_clear(cm_pristine *pristine, char letter)
{
    const cm_op *op = pristine->test_case.op;
    int64_t changed = 0;
    for (int n = 0; op->arguments[n].name; n++) {
        const DLTensor *tensor = pristine->arguments[n];
        if (!tensor || op->arguments[n].index_into != letter || op->arguments[n].index_min != -1)
            continue;
        for (int64_t i = 0; i < cm_tensor_count(tensor); i++) {
            changed += cm_tensor_get(tensor, i) != -1;
            cm_tensor_set(tensor, i, -1);
        }
    }
    cm_pristine_changed(pristine);
    return changed;
}
