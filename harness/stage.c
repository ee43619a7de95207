// SPDX-License-Identifier: Apache-2.0
#include "harness/stage.h"

#include "harness/op.h"

#include <stdio.h>
#include <string.h>

static bool is_input(const cm_argument *argument)
{
    return argument->role != CM_OUTPUT && argument->role != CM_INOUT;
}

// The same for rows without gaps: a run of hidden elements at a time. A large weight has 10^8 of them.
static void hide_runs(const DLTensor *tensor, int64_t count, const uint8_t *mask)
{
    int64_t element = tensor->dtype.bits / 8;
    for (int64_t n = 0; n < count;) {
        int64_t first = n;
        for (uint64_t eight = 0; n + 8 <= count && eight == 0; n += eight ? 0 : 8)
            memcpy(&eight, mask + n, 8);
        while (n < count && !mask[n])
            n++;
        memset((char *)tensor->data + first * element, CM_CANARY, (size_t)((n - first) * element));
        while (n < count && mask[n])
            n++;
    }
}

// Fills the elements that the mask leaves out with NaN. With a stride of 0 an element may also be addressed
// under another index: those get their value back.
static void hide(const DLTensor *tensor, const DLTensor *from, const uint8_t *mask)
{
    int64_t count = cm_tensor_count(tensor);
    if (tensor->dtype.code != kDLFloat && tensor->dtype.code != kDLBfloat)
        return;
    if (cm_tensor_extent(tensor) * 8 == (size_t)count * tensor->dtype.bits) {
        hide_runs(tensor, count, mask);
        return;
    }
    for (int64_t n = 0; n < count; n++)
        if (!mask[n])
            memset((char *)tensor->data + cm_tensor_offset(tensor, n) * tensor->dtype.bits / 8, CM_CANARY,
                   tensor->dtype.bits / 8u);
    for (int64_t n = 0; n < count; n++)
        if (mask[n])
            memcpy((char *)tensor->data + cm_tensor_offset(tensor, n) * tensor->dtype.bits / 8,
                   (const char *)from->data + cm_tensor_offset(from, n) * from->dtype.bits / 8,
                   tensor->dtype.bits / 8u);
}

void cm_stage_open(const cm_trial *trial, const cm_stage_options *options, cm_stage *stage)
{
    const cm_pristine *pristine = trial->pristine;
    const cm_op *op = pristine->test_case.op;
    memset(stage, 0, sizeof *stage);
    stage->arena.recycle = true;
    stage->kernel = trial->kernel;
    stage->site.arena = &stage->arena;
    stage->site.side = cm_kernel_side(trial->kernel);
    for (int n = 0; op->arguments[n].name; n++) {
        const DLTensor *from = pristine->arguments[n];
        if (!from)
            continue;
        cm_tensor *tensor = &stage->tensors[n];
        cm_pristine_layout(&pristine->test_case, n, tensor);
        size_t extent = cm_tensor_extent(&tensor->dl), element = (tensor->dl.dtype.bits + 7u) / 8;
        size_t alignment =
            trial->kernel->alignment > (int)element ? (size_t)trial->kernel->alignment : element;
        if (pristine->files[n])
            tensor->dl.data =
                cm_arena_map(&stage->arena, op->arguments[n].name, extent, pristine->files[n], true);
        else
            tensor->dl.data = cm_arena_take(&stage->arena, op->arguments[n].name, extent, alignment,
                                            options->place, is_input(&op->arguments[n]));
        if (!tensor->dl.data)
            cm_broken("no memory for %s of %s", op->arguments[n].name, pristine->name);
        stage->arena.blocks[stage->arena.count - 1].tensor = &tensor->dl;
        if (trial->kernel->device > kDLCPU)
            tensor->dl.device.device_type = (DLDeviceType)trial->kernel->device;
        if (!pristine->files[n])
            memset(tensor->dl.data, CM_CANARY, extent); // gaps between rows stay so
        if (op->arguments[n].role == CM_OUTPUT)
            cm_tensor_poison(&tensor->dl, options->poison);
        else if (!pristine->files[n])
            cm_tensor_copy(&tensor->dl, from);
        if (options->hide && options->hide[n] && op->arguments[n].role != CM_OUTPUT)
            hide(&tensor->dl, from, options->hide[n]);
        stage->arguments[n] = &tensor->dl;
    }
    stage->hosted = (cm_hosted){
        .call = {.size = sizeof(cm_call),
                 .op = op,
                 .host = &cm_host_services,
                 .arguments = stage->arguments,
                 .attributes = pristine->test_case.attributes,
                 .dims = pristine->test_case.dims,
                 .device = trial->kernel->device > kDLCPU ? (DLDeviceType)trial->kernel->device : kDLCPU,
                 .threads = options->threads},
        .arena = &stage->arena,
        .site = &stage->site,
        .poison = options->poison};
    cm_arena_activate(&stage->arena);
}

void cm_stage_send(cm_stage *stage)
{
    for (int n = 0; n < stage->arena.count; n++) {
        const cm_block *block = &stage->arena.blocks[n];
        DLTensor *tensor = NULL;
        for (int argument = 0; block->tensor && argument < CM_MAX_ARGUMENTS; argument++)
            if (block->tensor == &stage->tensors[argument].dl)
                tensor = &stage->tensors[argument].dl;
        if (!tensor || (tensor->device.device_type == kDLCPU && tensor->device.device_id == 0))
            continue;
        void *there = cm_site_send(&stage->site, n);
        if (tensor->data == block->data) // not where a check moved it
            tensor->data = there;
    }
}

void cm_stage_fetch(cm_stage *stage, int first)
{
    for (int n = first; n < stage->arena.count; n++) {
        const cm_block *block = &stage->arena.blocks[n];
        void *there = stage->site.away[n] ? cm_site_send(&stage->site, n) : NULL;
        cm_site_fetch(&stage->site, n);
        for (int argument = 0; there && block->tensor && argument < CM_MAX_ARGUMENTS; argument++)
            if (block->tensor == &stage->tensors[argument].dl && block->tensor->data == there)
                stage->tensors[argument].dl.data = block->data;
    }
}

// Waits for the kernel's device.
static cm_status settle(cm_stage *stage, cm_status status)
{
    const cm_side *side = stage->site.side;
    char reason[200] = "";
    cm_status waited = side && side->synchronize ? side->synchronize(reason, sizeof reason) : CM_OK;
    if (waited != CM_OK) // a refusal, of a kernel that looked on the device, or a fault
        status =
            cm_fail(&stage->hosted.error, waited == CM_BAD_ID ? CM_BAD_ID : CM_DEVICE_FAULT, "%s", reason);
    return status;
}

cm_status cm_stage_call(cm_stage *stage, cm_function function, void **state)
{
    const cm_kernel *kernel = stage->kernel;
    const cm_call *call = &stage->hosted.call;
    cm_status status = CM_OK;
    cm_stage_send(stage);
    if (function == CM_PREPARE && kernel->prepare)
        status = kernel->prepare(call, state);
    else if (function == CM_UPDATE && kernel->update)
        status = kernel->update(call, *state);
    else if (function == CM_RUN)
        status = kernel->run(call, *state);
    return settle(stage, status);
}

cm_status cm_stage_capture(cm_stage *stage, void *state, void **graph)
{
    const cm_side *side = stage->site.side;
    char reason[200] = "";
    void *stream;
    *graph = NULL;
    cm_stage_send(stage);
    if (side->capture(&stream, reason, sizeof reason) != CM_OK)
        return cm_fail(&stage->hosted.error, CM_DEVICE_FAULT, "capture: %s", reason);
    stage->hosted.call.stream = stream;
    cm_status status = stage->kernel->run(&stage->hosted.call, state);
    stage->hosted.call.stream = NULL;
    cm_status end = side->conclude(stream, graph, reason, sizeof reason);
    if (end != CM_OK && (status == CM_OK || !stage->hosted.error.message[0])) // else the kernel has said why
        return cm_fail(&stage->hosted.error, CM_DEVICE_FAULT, "%s", reason);
    return status;
}

cm_status cm_stage_replay(cm_stage *stage, void *graph, int scratch)
{
    cm_stage_send(stage);
    for (int n = scratch; n < stage->arena.count; n++) {
        memset(stage->arena.blocks[n].data, stage->hosted.poison, stage->arena.blocks[n].size);
        cm_site_send(&stage->site, n);
    }
    return settle(stage, stage->site.side->replay(&stage->hosted.call, graph));
}

static bool refused(const cm_trial *trial, cm_stage *stage, cm_status status, const char *function)
{
    if (status == CM_OK)
        return false;
    const char *why = stage->hosted.error.message;
    if (status == CM_DEVICE_FAULT)
        cm_conclude(trial->outcome, CM_FAIL, "%s", why[0] ? why : "the device reported a fault");
    else
        cm_conclude(trial->outcome, CM_ERROR,
                    "%s returned \"%s\" on a case that the kernel claims to support: %s", function,
                    cm_status_name(status), why[0] ? why : "it gave no reason");
    return true;
}

// Canaries of scratch memory go with it: they are looked at before it is dropped.
static bool scratch_broken(const cm_trial *trial, const cm_stage *stage)
{
    int64_t distance;
    const cm_block *broken = cm_arena_broken(&stage->arena, &distance);
    if (!broken || strcmp(broken->name, "scratch") != 0)
        return false;
    cm_conclude(trial->outcome, CM_FAIL, "write outside the scratch memory, %lld bytes from its start",
                (long long)distance);
    return true;
}

// One function of the kernel, what it left in scratch memory, and its status. False: the outcome says why.
static bool perform(const cm_trial *trial, cm_stage *stage, cm_function function, void **state)
{
    static const char *const names[] = {"prepare", "update", "run"};
    int blocks = stage->arena.count;
    bool failed = refused(trial, stage, cm_stage_call(stage, function, state), names[function]);
    cm_stage_fetch(stage, blocks);
    failed = failed || scratch_broken(trial, stage);
    cm_site_drop(&stage->site, blocks);
    return !failed;
}

// Whether the kernel's device is there.
static bool is_available(const cm_kernel *kernel, char *reason, size_t size)
{
    const cm_side *side = cm_kernel_side(kernel);
    if (kernel->device <= kDLCPU)
        return true;
    if (side)
        return !side->available || side->available(reason, size);
    snprintf(reason, size, "the kernel doesn't say how to get memory of its device type %d", kernel->device);
    return false;
}

bool cm_stage_run(const cm_trial *trial, const cm_stage_options *options, cm_stage *stage)
{
    const cm_kernel *kernel = trial->kernel;
    const cm_call *call = &stage->hosted.call;
    char reason[256] = "";
    if (!is_available(kernel, reason, sizeof reason) ||
        (kernel->supports && !kernel->supports(call, reason, sizeof reason))) {
        cm_conclude(trial->outcome, CM_SKIP, "%s", reason[0] ? reason : "the kernel gave no reason");
        return false;
    }
    void *state = NULL;
    cm_arena_protect(&stage->arena, options->read_only);
    bool ran = perform(trial, stage, CM_PREPARE, &state) && perform(trial, stage, CM_UPDATE, &state) &&
               perform(trial, stage, CM_RUN, &state);
    if (kernel->release)
        kernel->release(state);
    cm_arena_protect(&stage->arena, false);
    cm_stage_fetch(stage, 0);
    return ran;
}

void cm_stage_close(cm_stage *stage)
{
    cm_arena_deactivate(&stage->arena);
    cm_site_drop(&stage->site, 0);
}
