// SPDX-License-Identifier: Apache-2.0
#include "harness/terms.h"

#include <math.h>
#include <stdlib.h>

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

cm_status cm_terms_print(cm_pristine *pristine, FILE *out, cm_error *error)
{
    const cm_op *op = pristine->test_case.op;
    cm_status status = CM_OK;
    for (int n = 0; op->arguments[n].name; n++)
        for (int term = 0; op->terms[term].name && op->arguments[n].compare != CM_COMPARE_NONE; term++) {
            double share;
            status = cm_terms_share(pristine, 1ull << term, n, &share, error);
            if (status != CM_OK)
                return status;
            if (share > 0)
                fprintf(out, "without %s `%s` changes by %.1f %%\n", op->terms[term].meaning,
                        op->arguments[n].name, 100 * share);
        }
    return status;
}
