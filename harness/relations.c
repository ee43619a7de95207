// SPDX-License-Identifier: Apache-2.0
#include "harness/relations.h"

#include "harness/op.h"
#include "harness/transform.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct holder {
    const cm_symmetry *symmetry;
    const cm_pristine *pristine;
    const cm_results *base;
    const char *only;
    cm_evaluator *evaluator;
    cm_violation *violation;
};

void cm_results_open(const cm_pristine *pristine, bool bounds, cm_results *results)
{
    *results = (cm_results){{0}, {0}};
    for (int n = 0; pristine->test_case.op->arguments[n].name; n++) {
        if (pristine->test_case.op->arguments[n].compare == CM_COMPARE_NONE)
            continue;
        size_t count = (size_t)cm_tensor_count(pristine->arguments[n]);
        results->value[n] = cm_new(count, sizeof(double));
        results->bound[n] = bounds ? cm_new(count, sizeof(double)) : NULL;
    }
}

void cm_results_close(cm_results *results)
{
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++) {
        free(results->value[n]);
        free(results->bound[n]);
    }
    *results = (cm_results){{0}, {0}};
}

static cm_pristine *copy_of(const cm_pristine *pristine)
{
    cm_pristine *copy = cm_new(1, sizeof *copy);
    cm_error error = {{0}};
    if (cm_pristine_copy(pristine, copy, &error) != CM_OK)
        cm_broken("%s", error.message);
    return copy;
}

static void forget(cm_pristine *copy)
{
    cm_pristine_close(copy);
    free(copy);
}

static bool has_bounds(const struct holder *holder)
{
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++)
        if (holder->base->bound[n])
            return true;
    return false;
}

// Whether what is expected is beyond the largest number of the output's dtype.
static bool overflows(const struct holder *holder, int n, double expected)
{
    char storage[8];
    cm_dtype dtype = holder->pristine->tensors[n].dtype;
    cm_store(storage, dtype, 0, expected);
    return isfinite(expected) && !isfinite(cm_load(storage, dtype, 0));
}

static void compare(const struct holder *holder, int n, int64_t flat, double got, double expected,
                    double allowed)
{
    cm_violation *violation = holder->violation;
    if (overflows(holder, n, expected))
        return;
    violation->compared++;
    if (got == expected || fabs(got - expected) <= allowed) // NaN is neither
        return;
    if (violation->violated++ == 0) {
        violation->argument = n;
        violation->flat = flat;
        violation->got = got;
        violation->want = expected;
        violation->allowed = allowed;
    }
}

static double bound_of(const cm_results *results, int n, int64_t flat)
{
    return results->bound[n] ? results->bound[n][flat] : 0;
}

static cm_relation_end verdict(const struct holder *holder)
{
    if (holder->violation->violated)
        return CM_RELATION_BROKEN;
    return holder->violation->compared ? CM_RELATION_HOLDS : CM_RELATION_IDLE;
}

static cm_relation_end hold_permutation(const struct holder *holder)
{
    cm_pristine *copy = copy_of(holder->pristine);
    cm_relation_end end = CM_RELATION_IDLE;
    cm_permutation permutation;
    cm_results after;
    char letter = holder->symmetry->letter;
    bool promised = letter == 'T' && holder->evaluator->row_invariant;
    cm_permutation_draw(&copy->test_case, letter, copy->test_case.seed, &permutation);
    cm_results_open(copy, false, &after);
    if (cm_transform_permute(holder->pristine, copy, &permutation, holder->only))
        end = holder->evaluator->evaluate(holder->evaluator, copy, false, &after);
    for (int n = 0; end == CM_RELATION_HOLDS && n < CM_MAX_ARGUMENTS; n++) {
        int64_t count = after.value[n] ? cm_tensor_count(copy->arguments[n]) : 0;
        bool is_index = count && copy->test_case.op->arguments[n].index_into == letter;
        for (int64_t i = 0; i < count; i++) {
            int64_t from = cm_permutation_source(&permutation, copy, n, i);
            double expected = holder->base->value[n][from];
            if (is_index && expected >= 0)
                expected = (double)permutation.place[(int64_t)expected];
            compare(holder, n, i, after.value[n][i], expected,
                    promised ? 0 : 2 * bound_of(holder->base, n, from));
        }
    }
    cm_results_close(&after);
    cm_permutation_close(&permutation);
    forget(copy);
    return end == CM_RELATION_HOLDS ? verdict(holder) : end;
}

// Evaluates a copy that was changed; forgets the copy.
static cm_relation_end evaluate(const struct holder *holder, cm_pristine *copy, int64_t changed, bool bounds,
                                cm_results *results)
{
    cm_results_open(holder->pristine, bounds && has_bounds(holder), results);
    cm_relation_end end = CM_RELATION_IDLE;
    if (changed)
        end = holder->evaluator->evaluate(holder->evaluator, copy, bounds && has_bounds(holder), results);
    forget(copy);
    return end;
}

// Every output is `factor` times what it was; integers stay.
static cm_relation_end hold_scale(const struct holder *holder, double factor)
{
    cm_pristine *copy = copy_of(holder->pristine);
    cm_results after;
    int64_t changed = cm_transform_multiply(copy, holder->symmetry->arguments, 2);
    if (holder->symmetry->kind == CM_SYMMETRY_BALANCE)
        changed = changed && cm_transform_multiply(copy, holder->symmetry->halved, 0.5);
    cm_relation_end end = evaluate(holder, copy, changed, false, &after);
    for (int n = 0; end == CM_RELATION_HOLDS && n < CM_MAX_ARGUMENTS; n++) {
        double times = cm_dtype_is_float(holder->pristine->tensors[n].dtype) ? factor : 1;
        for (int64_t i = 0; after.value[n] && i < cm_tensor_count(holder->pristine->arguments[n]); i++)
            compare(holder, n, i, after.value[n][i], times * holder->base->value[n][i],
                    2 * times * bound_of(holder->base, n, i));
    }
    cm_results_close(&after);
    return end == CM_RELATION_HOLDS ? verdict(holder) : end;
}

// With the arguments 0, and with no index into the letter: the same.
static cm_relation_end hold_omission(const struct holder *holder)
{
    cm_pristine *zero = copy_of(holder->pristine), *none = copy_of(holder->pristine);
    cm_results with_zero, with_none;
    int64_t changed = cm_transform_multiply(zero, holder->symmetry->arguments, 0);
    int64_t cleared = holder->symmetry->letter ? cm_transform_clear(none, holder->symmetry->letter) : 0;
    cm_relation_end end = evaluate(holder, zero, changed, true, &with_zero);
    cm_relation_end second = evaluate(holder, none, cleared, true, &with_none);
    end = end == CM_RELATION_HOLDS ? second : end;
    for (int n = 0; end == CM_RELATION_HOLDS && n < CM_MAX_ARGUMENTS; n++)
        for (int64_t i = 0; with_zero.value[n] && i < cm_tensor_count(holder->pristine->arguments[n]); i++)
            compare(holder, n, i, with_zero.value[n][i], with_none.value[n][i],
                    bound_of(&with_zero, n, i) + bound_of(&with_none, n, i));
    cm_results_close(&with_zero);
    cm_results_close(&with_none);
    return end == CM_RELATION_HOLDS ? verdict(holder) : end;
}

// f(2 a) - f(a) = f(a) - f(0)
static cm_relation_end hold_linearity(const struct holder *holder)
{
    cm_pristine *zero = copy_of(holder->pristine), *twice = copy_of(holder->pristine);
    cm_results with_zero, with_twice;
    int64_t changed = cm_transform_multiply(zero, holder->symmetry->arguments, 0);
    cm_transform_multiply(twice, holder->symmetry->arguments, 2);
    cm_relation_end end = evaluate(holder, zero, changed, true, &with_zero);
    cm_relation_end second = evaluate(holder, twice, changed, true, &with_twice);
    end = end == CM_RELATION_HOLDS ? second : end;
    for (int n = 0; end == CM_RELATION_HOLDS && n < CM_MAX_ARGUMENTS; n++)
        for (int64_t i = 0; with_zero.value[n] && i < cm_tensor_count(holder->pristine->arguments[n]); i++)
            compare(
                holder, n, i, with_twice.value[n][i], 2 * holder->base->value[n][i] - with_zero.value[n][i],
                bound_of(&with_twice, n, i) + 2 * bound_of(holder->base, n, i) + bound_of(&with_zero, n, i));
    cm_results_close(&with_zero);
    cm_results_close(&with_twice);
    return end == CM_RELATION_HOLDS ? verdict(holder) : end;
}

static void reference_of(cm_pristine *values, cm_want wants[CM_MAX_ARGUMENTS])
{
    cm_error error = {{0}};
    cm_pristine_changed(values);
    if (cm_pristine_want(values, CM_ACCURACY_MODEL, &error) != CM_OK)
        cm_broken("%s", error.message);
    memcpy(wants, values->want[CM_ACCURACY_MODEL], CM_MAX_ARGUMENTS * sizeof *wants);
}

// Elements that the reference leaves as they are, to the last bit of its doubles, when nothing has an
// adapter: those had none before.
static cm_relation_end hold_none(const struct holder *holder)
{
    cm_pristine *before = copy_of(holder->pristine), *copy = copy_of(holder->pristine);
    cm_pristine *cleared = copy_of(holder->pristine);
    cm_want was[CM_MAX_ARGUMENTS], is[CM_MAX_ARGUMENTS];
    cm_results after;
    int64_t changed = cm_transform_clear(copy, holder->symmetry->letter);
    cm_transform_clear(cleared, holder->symmetry->letter);
    reference_of(before, was);
    reference_of(cleared, is);
    cm_relation_end end = evaluate(holder, copy, changed, false, &after);
    for (int n = 0; end == CM_RELATION_HOLDS && n < CM_MAX_ARGUMENTS; n++)
        for (int64_t i = 0; after.value[n] && i < was[n].count; i++)
            if (was[n].value[i] == is[n].value[i])
                compare(holder, n, i, after.value[n][i], holder->base->value[n][i],
                        holder->evaluator->row_invariant ? 0 : 2 * bound_of(holder->base, n, i));
    cm_results_close(&after);
    forget(before);
    forget(cleared);
    return end == CM_RELATION_HOLDS ? verdict(holder) : end;
}

// Rows first..first+count-1 alone.
static cm_relation_end hold_rows(const struct holder *holder, int64_t first, int64_t count)
{
    cm_pristine *part = cm_new(1, sizeof *part);
    const cm_op *op = holder->pristine->test_case.op;
    int64_t *rows = cm_new((size_t)count, sizeof *rows);
    cm_error error = {{0}};
    cm_results after;
    for (int64_t t = 0; t < count; t++)
        rows[t] = first + t;
    if (cm_pristine_select(holder->pristine, holder->symmetry->letter, rows, count, part, &error) != CM_OK)
        cm_broken("%s", error.message);
    cm_results_open(part, false, &after);
    cm_relation_end end = holder->evaluator->evaluate(holder->evaluator, part, false, &after);
    for (int n = 0; end == CM_RELATION_HOLDS && n < CM_MAX_ARGUMENTS; n++) {
        if (!after.value[n] || op->arguments[n].shape[0] != holder->symmetry->letter)
            continue;
        int64_t elements = cm_tensor_count(part->arguments[n]), offset = elements / count * first;
        for (int64_t i = 0; i < elements; i++)
            compare(holder, n, offset + i, after.value[n][i], holder->base->value[n][offset + i],
                    holder->evaluator->row_invariant ? 0 : 2 * bound_of(holder->base, n, offset + i));
    }
    cm_results_close(&after);
    cm_pristine_close(part);
    free(part);
    free(rows);
    return end;
}

static cm_relation_end hold_split(const struct holder *holder)
{
    const cm_case *test_case = &holder->pristine->test_case;
    int64_t extent = test_case->dims[cm_dim_index(holder->symmetry->letter)];
    if (extent < 2)
        return CM_RELATION_IDLE;
    int64_t first = 1 + (int64_t)(test_case->seed % (uint64_t)(extent - 1));
    cm_relation_end end = hold_rows(holder, 0, first);
    if (end == CM_RELATION_HOLDS)
        end = hold_rows(holder, first, extent - first);
    return end == CM_RELATION_HOLDS ? verdict(holder) : end;
}

cm_relation_end cm_relation_hold(const cm_symmetry *symmetry, const cm_pristine *pristine,
                                 const cm_results *base, const char *only, cm_evaluator *evaluator,
                                 cm_violation *violation)
{
    struct holder holder = {symmetry, pristine, base, only, evaluator, violation};
    *violation = (cm_violation){0};
    evaluator->moved = symmetry->kind == CM_SYMMETRY_PERMUTE || symmetry->kind == CM_SYMMETRY_SPLIT ||
                       symmetry->kind == CM_SYMMETRY_NONE;
    switch (symmetry->kind) {
    case CM_SYMMETRY_PERMUTE:
        return hold_permutation(&holder);
    case CM_SYMMETRY_SCALE:
        return hold_scale(&holder, 2);
    case CM_SYMMETRY_BALANCE:
        return hold_scale(&holder, 1);
    case CM_SYMMETRY_OMIT:
        return hold_omission(&holder);
    case CM_SYMMETRY_LINEAR:
        return hold_linearity(&holder);
    case CM_SYMMETRY_NONE:
        return hold_none(&holder);
    case CM_SYMMETRY_SPLIT:
        return hold_split(&holder);
    }
    return CM_RELATION_IDLE;
}
