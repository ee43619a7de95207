// SPDX-License-Identifier: Apache-2.0
// shape: a call that contradicts the op's table is refused by a status and writes nothing. Each argument in
// turn: every dimension one more and one less, every other dtype, indices and ranks outside their range,
// missing. The harness does not validate for the kernel. Cannot see: contradictions that the table does not
// know.
#include "harness/op.h"
#include "harness/stage.h"

#include <stdio.h>
#include <string.h>

struct attempt {
    const cm_trial *trial;
    cm_stage_options options;
    cm_stage stage;
};

// A fresh valid call, with room to spoil it.
static void begin(struct attempt *attempt)
{
    cm_stage_open(attempt->trial, &attempt->options, &attempt->stage);
}

static bool outputs_untouched(const struct attempt *attempt)
{
    const cm_op *op = attempt->trial->pristine->test_case.op;
    unsigned char poison[8];
    memset(poison, attempt->options.poison, sizeof poison);
    for (int n = 0; op->arguments[n].name; n++) {
        const cm_tensor *tensor = &attempt->stage.tensors[n];
        size_t size = cm_dtype_bits(tensor->dtype) / 8u;
        cm_tensor shape; // as the case has it: the attempt may have spoiled the tensor's own
        if (op->arguments[n].role != CM_OUTPUT || !attempt->trial->pristine->arguments[n])
            continue;
        cm_pristine_layout(&attempt->trial->pristine->test_case, n, &shape);
        for (int64_t i = 0; i < cm_tensor_count(&shape.dl); i++)
            if (memcmp((const char *)tensor->dl.data + cm_tensor_offset(&shape.dl, i) * (int64_t)size, poison,
                       size) != 0)
                return false;
    }
    return true;
}

// Runs the spoiled call from prepare on; ends the attempt. `what` says what was wrong with it.
static cm_verdict expect_refusal(struct attempt *attempt, const char *what)
{
    const cm_kernel *kernel = attempt->trial->kernel;
    const cm_call *call = &attempt->stage.hosted.call;
    cm_outcome *outcome = attempt->trial->outcome;
    void *state = NULL;
    cm_status status = CM_OK;
    cm_verdict verdict = CM_PASS;
    // Says where we were if the kernel takes the process with it.
    snprintf(outcome->bad_pattern, sizeof outcome->bad_pattern, "called with %s", what);
    if (kernel->prepare)
        status = kernel->prepare(call, &state);
    if (status == CM_OK && kernel->update)
        status = kernel->update(call, state);
    if (status == CM_OK)
        status = kernel->run(call, state);
    if (kernel->release)
        kernel->release(state);
    outcome->compared++;
    if (status == CM_OK)
        verdict = cm_conclude(outcome, CM_FAIL, "accepted %s", what);
    else if (!outputs_untouched(attempt))
        verdict = cm_conclude(outcome, CM_FAIL, "refused %s with \"%s\", but wrote to an output first", what,
                              cm_status_name(status));
    cm_stage_close(&attempt->stage);
    return verdict;
}

static cm_verdict try_dimensions(struct attempt *attempt, int n)
{
    const cm_argument *argument = &attempt->trial->pristine->test_case.op->arguments[n];
    cm_verdict verdict = CM_PASS;
    for (int d = 0; d < attempt->trial->pristine->arguments[n]->ndim; d++)
        for (int step = -1; step <= 1 && verdict == CM_PASS; step += 2) {
            char what[128];
            int64_t extent = attempt->trial->pristine->arguments[n]->shape[d];
            if (extent + step < 0)
                continue;
            begin(attempt);
            attempt->stage.tensors[n].shape[d] += step;
            snprintf(what, sizeof what, "`%s` of extent %lld in place of %lld in dimension %d",
                     argument->name, (long long)(extent + step), (long long)extent, d);
            verdict = expect_refusal(attempt, what);
        }
    return verdict;
}

static cm_verdict try_dtypes(struct attempt *attempt, int n)
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
        begin(attempt);
        attempt->stage.tensors[n].dl.dtype = cm_dtype_to_dl((cm_dtype)d);
        snprintf(what, sizeof what, "`%s` as %s in place of %s", argument->name, cm_dtype_name((cm_dtype)d),
                 cm_dtype_name(right));
        verdict = expect_refusal(attempt, what);
    }
    return verdict;
}

// Indices, ranks and offsets just outside their range, in the last element.
static cm_verdict try_values(struct attempt *attempt, int n)
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
        begin(attempt);
        cm_tensor_set(&attempt->stage.tensors[n].dl, count - 1, (double)values[v]);
        snprintf(what, sizeof what, "`%s` with a value of %lld (%c is %lld)", argument->name,
                 (long long)values[v], letter, (long long)extent);
        verdict = expect_refusal(attempt, what);
    }
    return verdict;
}

static cm_verdict try_missing(struct attempt *attempt, int n)
{
    const cm_argument *argument = &attempt->trial->pristine->test_case.op->arguments[n];
    char what[128];
    if (argument->optional && !argument->with)
        return CM_PASS;
    begin(attempt);
    attempt->stage.arguments[n] = NULL;
    snprintf(what, sizeof what, "`%s` missing", argument->name);
    return expect_refusal(attempt, what);
}

static cm_verdict run(const cm_trial *trial)
{
    struct attempt attempt = {.trial = trial, .options = {.place = CM_PLACE_END, .poison = CM_CANARY}};
    const cm_op *op = trial->pristine->test_case.op;
    char reason[256] = "";
    cm_verdict verdict = CM_PASS;
    if (trial->kernel->trusts_caller)
        return cm_conclude(trial->outcome, CM_SKIP, "the kernel trusts its caller to validate");
    begin(&attempt);
    bool supported = !trial->kernel->supports ||
                     trial->kernel->supports(&attempt.stage.hosted.call, reason, sizeof reason);
    cm_stage_close(&attempt.stage);
    if (!supported)
        return cm_conclude(trial->outcome, CM_SKIP, "%s", reason);
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
