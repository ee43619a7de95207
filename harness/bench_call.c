// SPDX-License-Identifier: Apache-2.0
#include "harness/bench_call.h"

#include "harness/host.h"
#include "harness/judge.h"
#include "harness/op.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ALIGNMENT = 4096, MOST_CHUNKS = 64 };

// What one copy needs: its call and everything that the call points to stay where prepare saw them.
struct copy {
    cm_tensor tensors[CM_MAX_ARGUMENTS]; // of weights and adapters
    const DLTensor *arguments[CM_MAX_ARGUMENTS];
    struct cm_bench_calls *calls;
    cm_hosted hosted; // found again from the call, see scratch()
    void *state;
    bool prepared;
};

// The arguments that are neither weights nor adapters, which all copies share.
struct input {
    const cm_pristine *pristine;
    cm_tensor tensors[CM_MAX_ARGUMENTS];
    char *judged[CM_MAX_ARGUMENTS]; // bytes of each output that the judge accepted
};

struct cm_bench_calls {
    const cm_kernel *kernel;
    const cm_copies *copies;
    cm_outcome *outcome;
    cm_host host;
    struct copy *items;
    struct input *inputs; // in turn, with every copy
    int input_count;
    char *chunks[MOST_CHUNKS]; // scratch memory, used again by each call
    size_t chunk_sizes[MOST_CHUNKS];
    int chunk_count, chunk_used;
    double clock_ns; // of reading the clock twice
};

// The n-th request of a call gets the memory that the n-th of the last call got, if it is large enough: in a
// kernel's own program scratch memory would be there, too.
static void *scratch(const cm_call *call, size_t bytes, size_t alignment)
{
    const cm_hosted *hosted = (const cm_hosted *)call;
    struct copy *copy = (struct copy *)((uintptr_t)hosted - offsetof(struct copy, hosted));
    struct cm_bench_calls *calls = copy->calls;
    if (alignment & (alignment - 1) || alignment > ALIGNMENT || calls->chunk_used == MOST_CHUNKS)
        return NULL;
    int n = calls->chunk_used++;
    if (n == calls->chunk_count || calls->chunk_sizes[n] < bytes) {
        if (n < calls->chunk_count)
            free(calls->chunks[n]);
        else
            calls->chunk_count++;
        calls->chunk_sizes[n] = (bytes / ALIGNMENT + 1) * ALIGNMENT;
        calls->chunks[n] = aligned_alloc(ALIGNMENT, calls->chunk_sizes[n]);
        if (!calls->chunks[n]) {
            calls->chunk_sizes[n] = 0;
            return NULL;
        }
    }
    return calls->chunks[n];
}

static double now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return 1e9 * (double)time.tv_sec + (double)time.tv_nsec;
}

static double clock_cost(void)
{
    double least = INFINITY;
    for (int n = 0; n < 1000; n++) {
        double begin = now_ns(), end = now_ns();
        least = end - begin < least ? end - begin : least;
    }
    return least;
}

static bool is_written(const cm_op *op, int n)
{
    return op->arguments[n].role == CM_OUTPUT || op->arguments[n].role == CM_INOUT;
}

static const cm_pristine *pristine_of(const cm_bench_calls *calls)
{
    return calls->copies->pristine;
}

// Outputs as a call must find them: poisoned, or with the values that it adds to.
static void reset_outputs(cm_bench_calls *calls, struct input *input)
{
    const cm_op *op = pristine_of(calls)->test_case.op;
    for (int n = 0; op->arguments[n].name; n++) {
        DLTensor *tensor = &input->tensors[n].dl;
        if (!tensor->data || !is_written(op, n))
            continue;
        if (op->arguments[n].role == CM_OUTPUT)
            memset(tensor->data, CM_CANARY, cm_tensor_extent(tensor));
        else
            memcpy(tensor->data, input->pristine->arguments[n]->data, cm_tensor_extent(tensor));
    }
    calls->chunk_used = 0;
}

static bool refused(cm_bench_calls *calls, const struct copy *copy, cm_status status, const char *function)
{
    const char *why = copy->hosted.error.message;
    if (status == CM_OK)
        return false;
    cm_conclude(calls->outcome, CM_ERROR,
                "%s returned \"%s\" on a case that the kernel claims to support: %s", function,
                cm_status_name(status), why[0] ? why : "it gave no reason");
    return true;
}

static bool outputs_are_judged(const struct input *input)
{
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++)
        if (input->judged[n] &&
            memcmp(input->judged[n], input->tensors[n].dl.data, cm_tensor_extent(&input->tensors[n].dl)) != 0)
            return false;
    return true;
}

// Rows of 8 bits that are rounded once more come to 6 % of a full-size layer's output: enough to know the
// output from another one; what is smaller is the business of check numerics.
static const double WIDEST_SHARE = 0.12;

// Judges the outputs of the last call, unless they have the bits of judged ones and `always` is not asked.
static cm_verdict verify(cm_bench_calls *calls, const struct copy *copy, const struct input *input,
                         bool always)
{
    cm_trial trial = {calls->kernel, input->pristine, calls->outcome};
    if (!always && outputs_are_judged(input))
        return CM_PASS;
    int64_t compared = calls->outcome->compared;
    calls->outcome->compared = 0;
    cm_verdict verdict = cm_judge_outputs_within(&trial, copy->arguments, WIDEST_SHARE);
    calls->outcome->compared += compared;
    calls->outcome->metric_count = 0; // those of the bench stand alone
    calls->outcome->verdict = verdict;
    return verdict;
}

static cm_verdict call_once(cm_bench_calls *calls, struct copy *copy, struct input *input, bool always,
                            double *ns)
{
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++)
        if (input->tensors[n].dl.data)
            copy->arguments[n] = &input->tensors[n].dl;
    reset_outputs(calls, input);
    double begin = now_ns();
    cm_status status = calls->kernel->run(&copy->hosted.call, copy->state);
    double end = now_ns();
    *ns = fmax(end - begin - calls->clock_ns, 0);
    if (refused(calls, copy, status, "run"))
        return CM_ERROR;
    return verify(calls, copy, input, always);
}

// They lie in memory of this process.
static void open_input(struct input *input, const cm_pristine *pristine)
{
    input->pristine = pristine;
    const cm_op *op = pristine->test_case.op;
    for (int n = 0; op->arguments[n].name; n++) {
        const DLTensor *from = pristine->arguments[n];
        if (!from || cm_copies_hold(pristine, n))
            continue;
        size_t extent = cm_tensor_extent(from);
        cm_pristine_layout(&pristine->test_case, n, &input->tensors[n]);
        input->tensors[n].dl.data = aligned_alloc(ALIGNMENT, (extent / ALIGNMENT + 1) * ALIGNMENT);
        if (!input->tensors[n].dl.data)
            cm_broken("no memory for %s of %s", op->arguments[n].name, pristine->name);
        memcpy(input->tensors[n].dl.data, from->data, extent);
        if (is_written(op, n))
            input->judged[n] = cm_new(extent, 1);
    }
}

static void open_copy(cm_bench_calls *calls, int index, int threads)
{
    const cm_pristine *pristine = pristine_of(calls);
    struct copy *copy = &calls->items[index];
    for (int n = 0; pristine->test_case.op->arguments[n].name; n++) {
        if (!pristine->arguments[n])
            continue;
        bool held = cm_copies_hold(pristine, n);
        if (held) {
            cm_pristine_layout(&pristine->test_case, n, &copy->tensors[n]);
            copy->tensors[n].dl.data = cm_copies_data(calls->copies, index, n);
        }
        copy->arguments[n] = held ? &copy->tensors[n].dl : &calls->inputs[0].tensors[n].dl;
    }
    copy->calls = calls;
    copy->hosted = (cm_hosted){.call = {.size = sizeof(cm_call),
                                        .op = pristine->test_case.op,
                                        .host = &calls->host,
                                        .arguments = copy->arguments,
                                        .attributes = pristine->test_case.attributes,
                                        .dims = pristine->test_case.dims,
                                        .device = kDLCPU,
                                        .threads = threads}};
}

static cm_verdict prepare_copy(cm_bench_calls *calls, struct copy *copy)
{
    const cm_kernel *kernel = calls->kernel;
    const cm_call *call = &copy->hosted.call;
    copy->prepared = true;
    calls->chunk_used = 0;
    if (kernel->prepare && refused(calls, copy, kernel->prepare(call, &copy->state), "prepare"))
        return CM_ERROR;
    calls->chunk_used = 0;
    if (kernel->update && refused(calls, copy, kernel->update(call, copy->state), "update"))
        return CM_ERROR;
    return CM_PASS;
}

static void keep_judged(struct input *input)
{
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++)
        if (input->judged[n])
            memcpy(input->judged[n], input->tensors[n].dl.data, cm_tensor_extent(&input->tensors[n].dl));
}

// One call with each input, all judged on the first copy; the shortest of those that are not the first.
static cm_verdict call_first(cm_bench_calls *calls, struct copy *copy, double *ns)
{
    cm_verdict verdict = CM_PASS;
    double took;
    bool judge = copy == calls->items;
    for (int n = 0; n < (judge ? calls->input_count : 1) && verdict == CM_PASS; n++) {
        verdict = call_once(calls, copy, &calls->inputs[n], judge, &took);
        if (verdict != CM_PASS || !judge)
            break;
        keep_judged(&calls->inputs[n]);
        verdict = call_once(calls, copy, &calls->inputs[n], false, &took); // the first call may make things
    }
    *ns = fmin(*ns, took);
    return verdict;
}

cm_verdict cm_bench_calls_open(const cm_kernel *kernel, const cm_copies *copies, int threads,
                               cm_outcome *outcome, double *ns, cm_bench_calls **opened)
{
    cm_bench_calls *calls = *opened = cm_new(1, sizeof *calls);
    char reason[256] = "";
    *calls =
        (cm_bench_calls){.kernel = kernel, .copies = copies, .outcome = outcome, .host = cm_host_services};
    calls->host.scratch = scratch;
    calls->items = cm_new((size_t)copies->count, sizeof *calls->items);
    calls->clock_ns = clock_cost();
    *ns = INFINITY;
    calls->input_count = 1 + copies->other_count;
    calls->inputs = cm_new((size_t)calls->input_count, sizeof *calls->inputs);
    open_input(&calls->inputs[0], copies->pristine);
    for (int n = 0; n < copies->other_count; n++)
        open_input(&calls->inputs[n + 1], copies->others[n]);
    for (int n = 0; n < copies->count; n++) {
        open_copy(calls, n, threads);
        if (n == 0 && kernel->supports &&
            !kernel->supports(&calls->items[0].hosted.call, reason, sizeof reason))
            return cm_conclude(outcome, CM_SKIP, "%s", reason[0] ? reason : "the kernel gave no reason");
        cm_verdict verdict = prepare_copy(calls, &calls->items[n]);
        if (verdict == CM_PASS)
            verdict = call_first(calls, &calls->items[n], ns);
        if (verdict != CM_PASS)
            return verdict;
    }
    return CM_PASS;
}

cm_verdict cm_bench_calls_time(cm_bench_calls *calls, int64_t first, int64_t count, double *ns)
{
    double sum = 0;
    for (int64_t n = 0; n < count; n++) {
        double took;
        struct copy *copy = &calls->items[(first + n) % calls->copies->count];
        struct input *input = &calls->inputs[(first + n) / calls->copies->count % calls->input_count];
        cm_verdict verdict = call_once(calls, copy, input, false, &took);
        if (verdict != CM_PASS)
            return verdict;
        sum += took;
    }
    *ns = sum / (double)count;
    return CM_PASS;
}

cm_verdict cm_bench_calls_verify(cm_bench_calls *calls)
{
    double took;
    cm_verdict verdict = CM_PASS;
    for (int n = 0; n < calls->input_count && verdict == CM_PASS; n++)
        verdict = call_once(calls, &calls->items[0], &calls->inputs[n], true, &took);
    for (int n = 1; n < calls->copies->count && verdict == CM_PASS; n++)
        verdict = call_once(calls, &calls->items[n], &calls->inputs[0], false, &took);
    return verdict;
}

void cm_bench_calls_close(cm_bench_calls *calls)
{
    if (!calls)
        return;
    for (int n = 0; n < calls->copies->count; n++)
        if (calls->items[n].prepared && calls->kernel->release)
            calls->kernel->release(calls->items[n].state);
    for (int n = 0; n < calls->input_count * CM_MAX_ARGUMENTS; n++) {
        struct input *input = &calls->inputs[n / CM_MAX_ARGUMENTS];
        free(input->tensors[n % CM_MAX_ARGUMENTS].dl.data);
        free(input->judged[n % CM_MAX_ARGUMENTS]);
    }
    free(calls->inputs);
    for (int n = 0; n < calls->chunk_count; n++)
        free(calls->chunks[n]);
    free(calls->items);
    free(calls);
}
