// SPDX-License-Identifier: Apache-2.0
#include "harness/parts.h"

#include "harness/host.h"
#include "harness/op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

uint64_t cm_effect_terms(const cm_op *op)
{
    uint64_t terms = 0;
    for (int n = 0; op->terms[n].name; n++)
        terms |= (uint64_t)op->terms[n].effect << n;
    return terms;
}

// The reference of `values`, with terms left out, in memory of its own. Only its values are used: they are
// those of every accuracy.
static void evaluate(const cm_pristine *values, uint64_t omit, cm_want without[CM_MAX_ARGUMENTS])
{
    cm_error error = {{0}};
    const cm_op *op = values->test_case.op;
    memset(without, 0, CM_MAX_ARGUMENTS * sizeof *without);
    for (int n = 0; op->arguments[n].name; n++) {
        if (op->arguments[n].compare == CM_COMPARE_NONE)
            continue;
        size_t count = (size_t)cm_tensor_count(values->arguments[n]);
        double *memory = cm_new(5 * count + 1, sizeof *memory);
        without[n] =
            (cm_want){(int64_t)count,    memory, memory + count, memory + 2 * count, memory + 3 * count,
                      memory + 4 * count};
    }
    if (cm_pristine_without(values, omit, CM_ACCURACY_MODEL, without, &error) != CM_OK)
        cm_broken("%s", error.message);
}

static void forget(cm_want without[CM_MAX_ARGUMENTS])
{
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++)
        free(without[n].value);
}

double *cm_parts_delta(const cm_pristine *values, cm_accuracy accuracy, int output, uint64_t omit)
{
    cm_want without[CM_MAX_ARGUMENTS];
    const cm_want *want = &values->want[accuracy][output];
    double *delta = cm_new((size_t)want->count + 1, sizeof *delta), size = 0;
    evaluate(values, omit, without);
    for (int64_t i = 0; i < want->count; i++) {
        delta[i] = want->value[i] - without[output].value[i];
        size += fabs(delta[i]);
    }
    forget(without);
    if (size > 0)
        return delta;
    free(delta);
    return NULL;
}

static void add(cm_parts *parts, const cm_part *part)
{
    if (parts->count == parts->space) {
        parts->space = parts->space ? 2 * parts->space : 16;
        parts->items = realloc(parts->items, (size_t)parts->space * sizeof *parts->items);
        if (!parts->items)
            cm_broken("out of memory for %d parts", parts->space);
    }
    parts->items[parts->count++] = *part;
}

// Adds the part if it has any effect. delta: [count, row] of the rows listed; takes both.
static void add_rows(cm_parts *parts, cm_part part, int64_t *rows, double *delta, int64_t count, int64_t row)
{
    int64_t kept = 0;
    for (int64_t t = 0; t < count; t++) {
        bool touched = false;
        for (int64_t i = 0; i < row; i++)
            touched = touched || delta[t * row + i] != 0;
        if (!touched)
            continue;
        memmove(delta + kept * row, delta + t * row, (size_t)row * sizeof *delta);
        rows[kept++] = rows[t];
    }
    part.effect = (cm_effect){kept, rows, delta};
    if (kept) {
        add(parts, &part);
        return;
    }
    free(rows);
    free(delta);
}

static int64_t *all_rows(int64_t count)
{
    int64_t *rows = cm_new((size_t)count, sizeof *rows);
    for (int64_t t = 0; t < count; t++)
        rows[t] = t;
    return rows;
}

static void add_term(const cm_pristine *values, cm_accuracy accuracy, int output, int term, cm_parts *parts)
{
    int64_t count = values->arguments[output]->shape[0], elements = values->want[accuracy][output].count;
    double *delta = cm_parts_delta(values, accuracy, output, 1ull << term);
    if (delta)
        add_rows(parts, (cm_part){.term = term}, all_rows(count), delta, count, elements / count);
}

void cm_parts_terms(const cm_pristine *values, cm_accuracy accuracy, int output, cm_parts *parts)
{
    const cm_op *op = values->test_case.op;
    *parts = (cm_parts){0};
    for (int n = 0; op->terms[n].name; n++)
        if (op->terms[n].effect)
            add_term(values, accuracy, output, n, parts);
}

static bool leaves_out(const cm_op *op, int term, int n)
{
    return op->terms[term].arguments &&
           cm_has_word(op->terms[term].arguments, op->arguments[n].name, strlen(op->arguments[n].name));
}

// Dimension `letter` of argument n, -1: it has none.
static int dimension_of(const cm_pristine *values, int n, char letter)
{
    int64_t shape[CM_MAX_RANK];
    char letters[CM_MAX_RANK];
    int ndim = cm_op_shape(&values->test_case.op->arguments[n], values->test_case.dims, shape, letters);
    for (int d = 0; d < ndim; d++)
        if (letters[d] == letter)
            return d;
    return -1;
}

// All arguments that leave the term out have the dimension, and there are some.
static bool can_cut(const cm_pristine *values, int term, char letter)
{
    const cm_op *op = values->test_case.op;
    int with = 0, without = 0;
    for (int n = 0; op->arguments[n].name; n++) {
        if (!values->arguments[n] || !leaves_out(op, term, n))
            continue;
        bool has = dimension_of(values, n, letter) >= 0;
        with += has;
        without += !has;
    }
    return with > 0 && without == 0;
}

// A copy of the case in which slices of one term can be set to 0.
struct cutter {
    const cm_pristine *values;
    cm_pristine *own; // owns the arguments that leave the term out
    int output;
    char letter;
    bool selects; // rows of a call are independent: only those that index into the slice are computed
};

static bool can_select(const cm_op *op)
{
    for (const cm_symmetry *symmetry = op->symmetries; symmetry->name; symmetry++)
        if (symmetry->kind == CM_SYMMETRY_SPLIT && symmetry->letter == 'T')
            return true;
    return false;
}

// Rows that index into begin..end-1 of the dimension; without such indices all of them. Returns how many.
static int64_t find_rows(const struct cutter *cutter, int64_t begin, int64_t end, int64_t **rows)
{
    const cm_op *op = cutter->values->test_case.op;
    int64_t count = cutter->values->arguments[cutter->output]->shape[0], found = 0;
    bool *used = cm_new((size_t)count, sizeof *used), any = false;
    *rows = all_rows(count);
    for (int n = 0; cutter->selects && op->arguments[n].name; n++) {
        const DLTensor *tensor = cutter->values->arguments[n];
        if (!tensor || op->arguments[n].index_into != cutter->letter || op->arguments[n].shape[0] != 'T')
            continue;
        int64_t elements = cm_tensor_count(tensor);
        any = true;
        for (int64_t i = 0; i < elements; i++) {
            int64_t index = (int64_t)cm_tensor_get(tensor, i);
            used[i / (elements / count)] |= index >= begin && index < end;
        }
    }
    for (int64_t t = 0; any && t < count; t++)
        if (used[t])
            (*rows)[found++] = t;
    free(used);
    return any ? found : count;
}

// Zeroes one slice of the arguments of a term, or puts the values back.
static void set_slice(const struct cutter *cutter, int term, int64_t begin, int64_t end, bool zero)
{
    const cm_op *op = cutter->values->test_case.op;
    for (int n = 0; op->arguments[n].name; n++) {
        const DLTensor *own = cutter->own->arguments[n];
        if (!own || !leaves_out(op, term, n))
            continue;
        int d = dimension_of(cutter->values, n, cutter->letter);
        int64_t inner = 1, extent = own->shape[d], outer = 1;
        for (int e = 0; e < own->ndim; e++)
            *(e < d ? &outer : &inner) *= e == d ? 1 : own->shape[e];
        for (int64_t o = 0; o < outer; o++)
            for (int64_t i = (o * extent + begin) * inner; i < (o * extent + end) * inner; i++)
                cm_tensor_set(own, i, zero ? 0 : cm_tensor_get(cutter->values->arguments[n], i));
    }
}

static void add_slice(const struct cutter *cutter, cm_accuracy accuracy, cm_part part, cm_parts *parts)
{
    int64_t *rows, count = find_rows(cutter, part.begin, part.end, &rows);
    const cm_want *want = &cutter->values->want[accuracy][cutter->output];
    int64_t row = want->count / cutter->values->arguments[cutter->output]->shape[0];
    cm_want without[CM_MAX_ARGUMENTS];
    cm_pristine *some = NULL;
    cm_error error = {{0}};
    double *delta = cm_new((size_t)(count * row), sizeof *delta);
    if (cutter->selects && count) {
        some = cm_new(1, sizeof *some);
        if (cm_pristine_select(cutter->own, 'T', rows, count, some, &error) != CM_OK)
            cm_broken("%s", error.message);
    }
    if (count) {
        set_slice(cutter, part.term, part.begin, part.end, true);
        evaluate(some ? some : cutter->own, 0, without);
        set_slice(cutter, part.term, part.begin, part.end, false);
        for (int64_t i = 0; i < count * row; i++)
            delta[i] = want->value[rows[i / row] * row + i % row] - without[cutter->output].value[i];
        forget(without);
    }
    if (some)
        cm_pristine_close(some);
    free(some);
    add_rows(parts, part, rows, delta, count, row);
}

static double operations_of(const cm_pristine *values)
{
    cm_counts counts;
    cm_hosted hosted = {.call = {.size = sizeof(cm_call),
                                 .op = values->test_case.op,
                                 .host = &cm_host_services,
                                 .arguments = values->arguments,
                                 .attributes = values->test_case.attributes,
                                 .dims = values->test_case.dims,
                                 .device = kDLCPU}};
    values->test_case.op->counts(&hosted.call, &counts);
    return counts.operations;
}

// Neighbours that are left out together; 0: no number below the extent is cheap enough.
static int64_t find_step(const struct cutter *cutter, double operations)
{
    int64_t extent = cutter->values->test_case.dims[cm_dim_index(cutter->letter)];
    double all = (double)cutter->values->arguments[cutter->output]->shape[0];
    double call = operations_of(cutter->values);
    for (int64_t step = 1; step < extent; step *= 2) {
        double rows = 0;
        for (int64_t begin = 0; begin < extent; begin += step) {
            int64_t *list;
            rows += (double)find_rows(cutter, begin, begin + step, &list);
            free(list);
        }
        if (rows / all * call <= operations)
            return step;
    }
    return 0;
}

bool cm_parts_cut(const cm_pristine *values, cm_accuracy accuracy, int output, char letter, double operations,
                  cm_parts *parts)
{
    const cm_op *op = values->test_case.op;
    int64_t extent = values->test_case.dims[cm_dim_index(letter)];
    cm_error error = {{0}};
    int cuts = 0;
    *parts = (cm_parts){0};
    for (int term = 0; op->terms[term].name; term++)
        cuts += op->terms[term].effect && can_cut(values, term, letter);
    struct cutter cutter = {values, cm_new(1, sizeof *cutter.own), output, letter, can_select(op)};
    int64_t step = cuts && extent > 1 ? find_step(&cutter, operations / cuts) : 0;
    if (step && cm_pristine_copy(values, cutter.own, &error) != CM_OK)
        cm_broken("%s", error.message);
    cm_pristine_changed(cutter.own);
    for (int term = 0; step && op->terms[term].name; term++) {
        if (!op->terms[term].effect)
            continue;
        if (!can_cut(values, term, letter)) {
            add_term(values, accuracy, output, term, parts);
            continue;
        }
        for (int n = 0; op->arguments[n].name; n++)
            if (values->arguments[n] && leaves_out(op, term, n) &&
                cm_pristine_own(cutter.own, n, &error) != CM_OK)
                cm_broken("%s", error.message);
        for (int64_t begin = 0; begin < extent; begin += step) {
            int64_t end = begin + step < extent ? begin + step : extent;
            add_slice(&cutter, accuracy,
                      (cm_part){.term = term, .letter = letter, .begin = begin, .end = end}, parts);
        }
    }
    cm_pristine_close(cutter.own);
    free(cutter.own);
    return step > 0;
}

void cm_parts_close(cm_parts *parts)
{
    for (int n = 0; n < parts->count; n++) {
        free(parts->items[n].effect.rows);
        free(parts->items[n].effect.values);
    }
    free(parts->items);
    *parts = (cm_parts){0};
}
