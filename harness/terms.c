// SPDX-License-Identifier: Apache-2.0
#include "harness/terms.h"

#include "harness/op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

cm_status cm_terms_share(cm_pristine *pristine, uint64_t omit, int argument, double *share, cm_error *error)
{
    cm_want without[CM_MAX_ARGUMENTS] = {0};
    double part = 0, whole = 0;
    cm_status status = cm_pristine_want(pristine, CM_ACCURACY_SINGLE, error);
    *share = 0;
    for (int n = 0; n < CM_MAX_ARGUMENTS && status == CM_OK; n++) {
        size_t count = (size_t)pristine->want[CM_ACCURACY_SINGLE][n].count;
        if (count == 0)
            continue;
        double *memory = cm_new(5 * count, sizeof *memory);
        without[n] =
            (cm_want){(int64_t)count,    memory, memory + count, memory + 2 * count, memory + 3 * count,
                      memory + 4 * count};
    }
    if (status == CM_OK)
        status = cm_pristine_without(pristine, omit, CM_ACCURACY_SINGLE, without, error);
    const cm_want *want = &pristine->want[CM_ACCURACY_SINGLE][argument];
    for (int64_t n = 0; n < want->count && status == CM_OK; n++) {
        double difference = want->value[n] - without[argument].value[n];
        part += difference * difference;
        whole += want->value[n] * want->value[n];
    }
    if (whole > 0)
        *share = sqrt(part / whole);
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++)
        free(without[n].value);
    return status;
}

// Whether the case has any argument that the term is made of.
static bool is_there(const cm_pristine *pristine, const cm_term *term)
{
    const cm_op *op = pristine->test_case.op;
    bool there = !term->arguments;
    for (int n = 0; op->arguments[n].name && !there; n++)
        there = pristine->arguments[n] &&
                cm_has_word(term->arguments, op->arguments[n].name, strlen(op->arguments[n].name));
    return there;
}

static cm_status print_share(cm_pristine *pristine, uint64_t omit, const char *what, int n, FILE *out,
                             cm_error *error)
{
    double share;
    cm_status status = cm_terms_share(pristine, omit, n, &share, error);
    if (status == CM_OK && share > 0)
        fprintf(out, "without %s `%s` changes by %.1f %%\n", what, pristine->test_case.op->arguments[n].name,
                100 * share);
    return status;
}

cm_status cm_terms_print(cm_pristine *pristine, FILE *out, cm_error *error)
{
    const cm_op *op = pristine->test_case.op;
    cm_status status = CM_OK;
    for (int n = 0; op->arguments[n].name && status == CM_OK; n++) {
        uint64_t effects = 0;
        if (op->arguments[n].compare == CM_COMPARE_NONE)
            continue;
        for (int term = 0; op->terms[term].name && status == CM_OK; term++) {
            if (!is_there(pristine, &op->terms[term]))
                continue;
            effects |= (uint64_t)op->terms[term].effect << term;
            status = print_share(pristine, 1ull << term, op->terms[term].meaning, n, out, error);
        }
        if (effects & (effects - 1) && status == CM_OK) // more than one
            status = print_share(pristine, effects, "all of the adapter", n, out, error);
    }
    return status;
}
