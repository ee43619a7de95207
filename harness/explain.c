// SPDX-License-Identifier: Apache-2.0
#include "harness/explain.h"

#include "harness/compare.h"
#include "harness/op.h"
#include "harness/parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct explainer {
    const cm_pristine *values;
    cm_accuracy accuracy;
    int output;
    const DLTensor *got;
    const cm_want *want;
};

bool cm_is_scaling(const cm_op *op, int argument)
{
    uint64_t terms = cm_effect_terms(op);
    const char *name = op->arguments[argument].name;
    for (const cm_symmetry *symmetry = op->symmetries; symmetry->name; symmetry++)
        if (symmetry->kind == CM_SYMMETRY_OMIT && (symmetry->terms & terms) == terms &&
            cm_has_word(symmetry->arguments, name, strlen(name)))
            return true;
    return false;
}

// Within the bound that the variant itself would have: its sigma may be twice that of the wanted output. A
// variant that is as good as what is wanted explains nothing.
static bool is_variant(const struct explainer *explainer, const double *delta)
{
    cm_dtype dtype = explainer->values->tensors[explainer->output].dtype;
    bool differs = false;
    for (int64_t i = 0; i < explainer->want->count; i++) {
        double value = explainer->want->value[i] + delta[i], limit = cm_bound(explainer->want, i, dtype);
        double wide = 2 * limit - cm_dtype_ulp(dtype, explainer->want->value[i]);
        double bound = (wide > 0 ? wide : 0) + cm_dtype_ulp(dtype, value);
        if (!(fabs(cm_tensor_get(explainer->got, i) - value) <= bound))
            return false;
        differs = differs || fabs(delta[i]) > limit + bound;
    }
    return differs;
}

static bool is_omitted(const struct explainer *explainer, uint64_t terms)
{
    double *delta = cm_parts_delta(explainer->values, explainer->accuracy, explainer->output, terms);
    for (int64_t i = 0; delta && i < explainer->want->count; i++)
        delta[i] = -delta[i];
    bool found = delta && is_variant(explainer, delta);
    free(delta);
    return found;
}

static double doubled(double value)
{
    return 2 * value;
}

static double ignored(double value)
{
    (void)value;
    return 1;
}

static double squared(double value)
{
    return value * value;
}

// Whether the output is that of a call in which the chosen arguments are changed. term -1: the scalings.
static bool is_changed(const struct explainer *explainer, int term, double (*change)(double))
{
    cm_pristine *copy = cm_new(1, sizeof *copy);
    const cm_op *op = explainer->values->test_case.op;
    cm_error error = {{0}};
    if (cm_pristine_copy(explainer->values, copy, &error) != CM_OK)
        cm_broken("%s", error.message);
    for (int n = 0; op->arguments[n].name; n++) {
        const DLTensor *to = copy->arguments[n], *from = explainer->values->arguments[n];
        const char *words = term < 0 ? NULL : op->terms[term].arguments, *name = op->arguments[n].name;
        if (to && (term < 0 ? cm_is_scaling(op, n) : words && cm_has_word(words, name, strlen(name))))
            for (int64_t i = 0; i < cm_tensor_count(to); i++)
                cm_tensor_set(to, i, change(cm_tensor_get(from, i)));
    }
    cm_pristine_changed(copy);
    if (cm_pristine_want(copy, explainer->accuracy, &error) != CM_OK)
        cm_broken("%s", error.message);
    double *delta = cm_new((size_t)explainer->want->count, sizeof *delta);
    for (int64_t i = 0; i < explainer->want->count; i++)
        delta[i] = copy->want[explainer->accuracy][explainer->output].value[i] - explainer->want->value[i];
    bool found = is_variant(explainer, delta);
    free(delta);
    cm_pristine_close(copy);
    free(copy);
    return found;
}

void cm_explain(const cm_pristine *values, cm_accuracy accuracy, int output, const DLTensor *got, char *text,
                size_t size)
{
    const cm_op *op = values->test_case.op;
    struct explainer explainer = {values, accuracy, output, got, &values->want[accuracy][output]};
    static const struct {
        double (*change)(double);
        const char *words;
    } changes[] = {{doubled, "all effects doubled: the scalings are applied as 2 s; "},
                   {ignored, "scaling ignored: the output is that of s = 1; "},
                   {squared, "scaling squared: the output is that of s^2; "}};
    text[0] = 0;
    if (is_omitted(&explainer, cm_effect_terms(op)))
        snprintf(text, size, "all effects dropped: the output is the base's; ");
    for (size_t n = 0; n < sizeof changes / sizeof *changes && !text[0]; n++)
        if (is_changed(&explainer, -1, changes[n].change))
            snprintf(text, size, "%s", changes[n].words);
    for (int term = 0; op->terms[term].name && !text[0]; term++)
        if (op->terms[term].effect && is_omitted(&explainer, 1ull << term))
            snprintf(text, size, "%s dropped; ", op->terms[term].name);
        else if (op->terms[term].effect && is_changed(&explainer, term, doubled))
            snprintf(text, size, "%s doubled; ", op->terms[term].name);
}
