// SPDX-License-Identifier: Apache-2.0
// shape: a call that contradicts the op's table is refused by a status and writes nothing. Each argument in
// turn: every dimension one more and one less, every other dtype, indices and ranks outside their range,
// missing. The harness does not validate for the kernel. Cannot see: contradictions that the table does not
// know.
#include "harness/attempt.h"
#include "harness/op.h"

#include <stdio.h>
#include <string.h>

static cm_verdict try_dimensions(cm_attempt *attempt, int n)
{
    const cm_argument *argument = &attempt->trial->pristine->test_case.op->arguments[n];
    cm_verdict verdict = CM_PASS;
    for (int d = 0; d < attempt->trial->pristine->arguments[n]->ndim; d++)
        for (int step = -1; step <= 1 && verdict == CM_PASS; step += 2) {
            char what[128];
            int64_t extent = attempt->trial->pristine->arguments[n]->shape[d];
            if (extent + step < 0)
                continue;
            cm_attempt_begin(attempt);
            attempt->stage.tensors[n].shape[d] += step;
            snprintf(what, sizeof what, "`%s` of extent %lld in place of %lld in dimension %d",
                     argument->name, (long long)(extent + step), (long long)extent, d);
            verdict = cm_attempt_refused(attempt, what);
        }
    return verdict;
}

static cm_verdict try_dtypes(cm_attempt *attempt, int n)
{
    const cm_op *op = attempt->trial->pristine->test_case.op;
    const cm_argument *argument = &op->arguments[n];
    bool alone = true; // the only argument of its dtype variable: another allowed dtype is legal
    for (int m = 0; op->arguments[m].name; m++)
        alone = alone && (m == n || !argument->dtype_variable || !attempt->trial->pristine->arguments[m] ||
                          op->arguments[m].dtype_variable != argument->dtype_variable);
    cm_verdict verdict = CM_PASS;
    for (int d = 0; d < CM_DTYPE_COUNT && verdict == CM_PASS; d++) {
        char what[128];
        cm_dtype right = attempt->trial->pristine->tensors[n].dtype;
        if (d == (int)right || (alone && argument->dtypes & CM_DTYPE_BIT(d)))
            continue;
        cm_attempt_begin(attempt);
        attempt->stage.tensors[n].dl.dtype = cm_dtype_to_dl((cm_dtype)d);
        snprintf(what, sizeof what, "`%s` as %s in place of %s", argument->name, cm_dtype_name((cm_dtype)d),
                 cm_dtype_name(right));
        verdict = cm_attempt_refused(attempt, what);
    }
    return verdict;
}

// Indices, ranks and offsets just outside their range, in the last element.
static cm_verdict try_values(cm_attempt *attempt, int n)
{
    const cm_pristine *pristine = attempt->trial->pristine;
    const cm_argument *argument = &pristine->test_case.op->arguments[n];
    char letter = argument->index_into ? argument->index_into
                  : argument->is_rank  ? 'r'
                                       : argument->offset_into;
    int64_t count = cm_tensor_count(pristine->arguments[n]);
    cm_verdict verdict = CM_PASS;
    if (!letter || count == 0)
        return CM_PASS;
    int64_t extent = pristine->test_case.dims[cm_dim_index(letter)];
    int64_t values[2] = {argument->index_into ? extent : extent + 1,
                         argument->index_into ? argument->index_min - 1 : -1};
    for (int v = 0; v < 2 && verdict == CM_PASS; v++) {
        char what[128];
        cm_attempt_begin(attempt);
        cm_tensor_set(&attempt->stage.tensors[n].dl, count - 1, (double)values[v]);
        snprintf(what, sizeof what, "`%s` with a value of %lld (%c is %lld)", argument->name,
                 (long long)values[v], letter, (long long)extent);
        verdict = cm_attempt_refused(attempt, what);
    }
    return verdict;
}

static cm_verdict try_missing(cm_attempt *attempt, int n)
{
    const cm_argument *argument = &attempt->trial->pristine->test_case.op->arguments[n];
    char what[128];
    if (argument->optional && !argument->with)
        return CM_PASS;
    cm_attempt_begin(attempt);
    attempt->stage.arguments[n] = NULL;
    snprintf(what, sizeof what, "`%s` missing", argument->name);
    return cm_attempt_refused(attempt, what);
}

static cm_verdict run(const cm_trial *trial)
{
    cm_attempt attempt = {.trial = trial, .options = {.place = CM_PLACE_END, .poison = CM_CANARY}};
    const cm_op *op = trial->pristine->test_case.op;
    cm_verdict verdict = CM_PASS;
    if (!cm_attempt_sensible(&attempt))
        return trial->outcome->verdict;
    for (int n = 0; op->arguments[n].name && verdict == CM_PASS; n++) {
        if (!trial->pristine->arguments[n])
            continue;
        if ((verdict = try_dimensions(&attempt, n)) == CM_PASS &&
            (verdict = try_dtypes(&attempt, n)) == CM_PASS && (verdict = try_values(&attempt, n)) == CM_PASS)
            verdict = try_missing(&attempt, n);
    }
    if (verdict == CM_PASS)
        trial->outcome->bad_pattern[0] = 0;
    return verdict;
}

const cm_check cm_check_shape = {
    .name = "shape",
    .proves = "a call that contradicts the op's table is refused by a status and writes nothing",
    .blind_to = "contradictions that the table doesn't know",
    .run = run,
};
