// SPDX-License-Identifier: Apache-2.0
// shape: a call that contradicts the op's table is refused by a status and writes nothing. Each argument in
// turn: every dimension one more, one less and negative, another number of dimensions, every other dtype,
// strides that are negative or leave gaps in a row, indices, ranks and offsets outside their range, no data,
// a byte offset, missing while arguments that need it are there; each output laid over each other argument;
// each dimension of the call off by one. The harness does not validate for the kernel. Cannot see:
// contradictions that the table does not know.
#include "harness/attempt.h"
#include "harness/op.h"

#include <stdio.h>
#include <string.h>

static cm_verdict try_dimensions(cm_attempt *attempt, int n)
{
    const cm_argument *argument = &attempt->trial->pristine->test_case.op->arguments[n];
    cm_verdict verdict = CM_PASS;
    for (int d = 0; d < attempt->trial->pristine->arguments[n]->ndim; d++)
        for (int step = -1; step <= 1 && verdict == CM_PASS; step++) {
            char what[128];
            int64_t extent = attempt->trial->pristine->arguments[n]->shape[d];
            int64_t wrong = step == 0 ? INT64_MIN : extent + step;
            cm_attempt_begin(attempt);
            attempt->stage.tensors[n].shape[d] = wrong;
            snprintf(what, sizeof what, "`%s` of extent %lld in place of %lld in dimension %d",
                     argument->name, (long long)wrong, (long long)extent, d);
            verdict = cm_attempt_refused(attempt, what);
        }
    return verdict;
}

// One dimension fewer, one more (of extent 1, at the end), none, and a number that can't be.
static cm_verdict try_ranks(cm_attempt *attempt, int n)
{
    const char *name = attempt->trial->pristine->test_case.op->arguments[n].name;
    int right = attempt->trial->pristine->arguments[n]->ndim;
    const int wrong[] = {right - 1, right + 1, 0, -1};
    cm_verdict verdict = CM_PASS;
    for (size_t w = 0; w < sizeof wrong / sizeof *wrong && verdict == CM_PASS; w++) {
        char what[128];
        if (wrong[w] == right || wrong[w] > CM_MAX_RANK)
            continue;
        cm_attempt_begin(attempt);
        cm_tensor *tensor = &attempt->stage.tensors[n];
        tensor->dl.ndim = wrong[w];
        if (wrong[w] == right + 1)
            tensor->shape[right] = tensor->strides[right] = 1;
        snprintf(what, sizeof what, "`%s` with %d dimensions in place of %d", name, wrong[w], right);
        verdict = cm_attempt_refused(attempt, what);
    }
    return verdict;
}

// A row whose elements are two apart, and one that runs backwards.
static cm_verdict try_strides(cm_attempt *attempt, int n)
{
    const char *name = attempt->trial->pristine->test_case.op->arguments[n].name;
    int last = attempt->trial->pristine->arguments[n]->ndim - 1;
    cm_verdict verdict = CM_PASS;
    if (last < 0 || attempt->trial->pristine->arguments[n]->shape[last] < 2)
        return CM_PASS;
    for (int stride = -1; stride <= 2 && verdict == CM_PASS; stride += 3) {
        char what[128];
        cm_attempt_begin(attempt);
        attempt->stage.tensors[n].strides[last] = stride;
        snprintf(what, sizeof what, "`%s` with a stride of %d in its last dimension", name, stride);
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

// One integer of an argument replaced by `value`, which `why` forbids.
static cm_verdict try_value(cm_attempt *attempt, int n, int64_t place, int64_t value, const char *why)
{
    char what[160];
    cm_attempt_begin(attempt);
    cm_tensor_set(&attempt->stage.tensors[n].dl, place, (double)value);
    snprintf(what, sizeof what, "`%s` with a value of %lld (%s) in element %lld",
             attempt->trial->pristine->test_case.op->arguments[n].name, (long long)value, why,
             (long long)place);
    return cm_attempt_refused(attempt, what);
}

// Offsets that begin late, end early or fall.
static cm_verdict try_offsets(cm_attempt *attempt, int n, int64_t extent)
{
    const DLTensor *offsets = attempt->trial->pristine->arguments[n];
    int64_t last = cm_tensor_count(offsets) - 1;
    cm_verdict verdict = try_value(attempt, n, 0, 1, "the first offset must be 0");
    if (verdict == CM_PASS)
        verdict = try_value(attempt, n, last, extent - 1, "the last offset ends before the dimension");
    for (int64_t i = 1; i < last && verdict == CM_PASS; i++)
        if (cm_tensor_get(offsets, i - 1) > 0)
            return try_value(attempt, n, i, (int64_t)cm_tensor_get(offsets, i - 1) - 1,
                             "offsets must not fall");
    return verdict;
}

// Kernels of a device can't see values from the host.
static bool looks_at_values(const cm_kernel *kernel)
{
    return kernel->device <= kDLCPU || kernel->checks_values;
}

// Indices, ranks and offsets just outside their range, in the last, the first and a middle element.
static cm_verdict try_values(cm_attempt *attempt, int n)
{
    const cm_pristine *pristine = attempt->trial->pristine;
    const cm_argument *argument = &pristine->test_case.op->arguments[n];
    char letter = argument->index_into ? argument->index_into
                  : argument->is_rank  ? 'r'
                                       : argument->offset_into;
    int64_t count = cm_tensor_count(pristine->arguments[n]);
    if (!letter || count == 0 || !looks_at_values(attempt->trial->kernel))
        return CM_PASS;
    int64_t extent = pristine->test_case.dims[cm_dim_index(letter)];
    char why[48];
    snprintf(why, sizeof why, "%c is %lld", letter, (long long)extent);
    const int64_t places[] = {count - 1, 0, count / 2}; // of one or two elements, each once
    cm_verdict verdict = CM_PASS;
    for (int p = 0; p < 3 && p < count && verdict == CM_PASS; p++) {
        verdict = try_value(attempt, n, places[p], argument->index_into ? extent : extent + 1, why);
        if (verdict == CM_PASS)
            verdict =
                try_value(attempt, n, places[p], argument->index_into ? argument->index_min - 1 : -1, why);
    }
    if (verdict == CM_PASS && argument->offset_into)
        verdict = try_offsets(attempt, n, extent);
    return verdict;
}

// Absent although the op or an argument that is there needs it; there, but without data.
static cm_verdict try_missing(cm_attempt *attempt, int n)
{
    const cm_pristine *pristine = attempt->trial->pristine;
    const cm_argument *arguments = pristine->test_case.op->arguments;
    cm_verdict verdict = CM_PASS;
    char what[128];
    bool needed = !arguments[n].optional || arguments[n].scales;
    for (int m = 0; arguments[m].name; m++)
        needed = needed || (pristine->arguments[m] &&
                            cm_has_word(arguments[m].with, arguments[n].name, strlen(arguments[n].name)));
    if (needed) {
        cm_attempt_begin(attempt);
        attempt->stage.arguments[n] = NULL;
        snprintf(what, sizeof what, "`%s` missing", arguments[n].name);
        verdict = cm_attempt_refused(attempt, what);
    }
    if (verdict != CM_PASS || cm_tensor_count(pristine->arguments[n]) == 0)
        return verdict;
    cm_attempt_begin(attempt);
    attempt->stage.tensors[n].dl.data = NULL;
    snprintf(what, sizeof what, "a null pointer for `%s`", arguments[n].name);
    return cm_attempt_refused(attempt, what);
}

// Data that would begin one element behind the pointer.
static cm_verdict try_byte_offset(cm_attempt *attempt, int n)
{
    const cm_pristine *pristine = attempt->trial->pristine;
    char what[128];
    cm_attempt_begin(attempt);
    DLTensor *tensor = &attempt->stage.tensors[n].dl;
    tensor->byte_offset = (tensor->dtype.bits + 7u) / 8;
    snprintf(what, sizeof what, "`%s` with a byte offset of %d", pristine->test_case.op->arguments[n].name,
             (int)tensor->byte_offset);
    return cm_attempt_refused(attempt, what);
}

static cm_verdict try_overlaps(cm_attempt *attempt, int n)
{
    static const char *const how[CM_OVERLAP_COUNT] = {"over the beginning of", "with its end over",
                                                      "with its beginning over the end of"};
    const cm_pristine *pristine = attempt->trial->pristine;
    const cm_argument *arguments = pristine->test_case.op->arguments;
    cm_verdict verdict = CM_PASS;
    if (arguments[n].role != CM_OUTPUT && arguments[n].role != CM_INOUT)
        return CM_PASS;
    for (int m = 0; arguments[m].name; m++)
        for (int way = 0; way < CM_OVERLAP_COUNT && pristine->arguments[m] && m != n; way++) {
            char what[128];
            cm_attempt_begin(attempt);
            if (!cm_attempt_overlap(attempt, n, m, (cm_overlap)way)) {
                cm_stage_close(&attempt->stage);
                continue;
            }
            snprintf(what, sizeof what, "`%s` %s `%s`", arguments[n].name, how[way], arguments[m].name);
            if ((verdict = cm_attempt_refused(attempt, what)) != CM_PASS)
                return verdict;
        }
    return verdict;
}

// Ranks above 0, but nothing of that rank: a kernel must not take that for "no LoRA".
static cm_verdict try_no_matrices(cm_attempt *attempt)
{
    const cm_pristine *pristine = attempt->trial->pristine;
    const cm_argument *arguments = pristine->test_case.op->arguments;
    bool ranked = false, matrices = false;
    for (int n = 0; arguments[n].name; n++) {
        const DLTensor *tensor = pristine->arguments[n];
        matrices = matrices || (tensor && strchr(arguments[n].shape, 'r'));
        for (int64_t i = 0; tensor && arguments[n].is_rank && i < cm_tensor_count(tensor); i++)
            ranked = ranked || cm_tensor_get(tensor, i) > 0;
    }
    if (!ranked || !matrices || !looks_at_values(attempt->trial->kernel))
        return CM_PASS;
    cm_attempt_begin(attempt);
    for (int n = 0; arguments[n].name; n++)
        if (strchr(arguments[n].shape, 'r'))
            attempt->stage.arguments[n] = NULL;
    return cm_attempt_refused(attempt, "ranks above 0, but no argument of that rank");
}

// The dimensions that the call itself states, each off by one.
static cm_verdict try_dims(cm_attempt *attempt)
{
    const cm_pristine *pristine = attempt->trial->pristine;
    const cm_argument *arguments = pristine->test_case.op->arguments;
    cm_verdict verdict = CM_PASS;
    for (int d = 0; d < CM_DIM_COUNT; d++) {
        char letter = CM_DIM_LETTERS[d];
        bool stated = false; // one more element in a group need not change a shape
        for (int n = 0; arguments[n].name && letter != 'G'; n++)
            stated = stated || (pristine->arguments[n] && strchr(arguments[n].shape, letter));
        for (int step = -1; stated && step <= 1 && verdict == CM_PASS; step += 2) {
            char what[64];
            cm_attempt_begin(attempt);
            attempt->dims[d] += step;
            snprintf(what, sizeof what, "%c = %lld in place of %lld", letter, (long long)attempt->dims[d],
                     (long long)(attempt->dims[d] - step));
            verdict = cm_attempt_refused(attempt, what);
        }
    }
    return verdict;
}

static cm_verdict run(const cm_trial *trial)
{
    static cm_verdict (*const tries[])(cm_attempt *, int) = {try_dimensions,  try_ranks,   try_strides,
                                                             try_dtypes,      try_values,  try_missing,
                                                             try_byte_offset, try_overlaps};
    cm_attempt attempt = {.trial = trial, .options = {.place = CM_PLACE_END, .poison = CM_CANARY}};
    const cm_op *op = trial->pristine->test_case.op;
    cm_verdict verdict = CM_PASS;
    if (!cm_attempt_sensible(&attempt))
        return trial->outcome->verdict;
    for (int n = 0; op->arguments[n].name; n++)
        for (size_t t = 0;
             t < sizeof tries / sizeof *tries && trial->pristine->arguments[n] && verdict == CM_PASS; t++)
            verdict = tries[t](&attempt, n);
    if (verdict == CM_PASS)
        verdict = try_no_matrices(&attempt);
    if (verdict == CM_PASS)
        verdict = try_dims(&attempt);
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
