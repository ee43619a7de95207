// SPDX-License-Identifier: Apache-2.0
#include "harness/host.h"

#include "harness/op.h"

#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

// The call is the first member of its cm_hosted; kernels see a const view of it.
static cm_hosted *hosted_of(const cm_call *call)
{
    return (cm_hosted *)(uintptr_t)call;
}

static void give_way(const cm_call *call)
{
    if (hosted_of(call)->yields > 0 && hosted_of(call)->yields--)
        sched_yield();
}

static const DLTensor *argument(const cm_call *call, const char *name)
{
    give_way(call);
    int n = cm_op_argument_index(call->op, name);
    return n < 0 ? NULL : call->arguments[n];
}

static double attribute(const cm_call *call, const char *name)
{
    give_way(call);
    for (int n = 0; call->op->attributes[n].name; n++)
        if (!strcmp(call->op->attributes[n].name, name))
            return call->attributes[n];
    return 0;
}

static int64_t dim(const cm_call *call, char letter)
{
    int d = cm_dim_index(letter);
    give_way(call);
    return d < 0 ? 0 : call->dims[d];
}

static cm_status fail(const cm_call *call, cm_status status, const char *format, ...)
{
    cm_hosted *hosted = hosted_of(call);
    va_list list;
    va_start(list, format);
    vsnprintf(hosted->error.message, sizeof hosted->error.message, format, list);
    va_end(list);
    return status;
}

static void *scratch(const cm_call *call, size_t bytes, size_t alignment)
{
    cm_hosted *hosted = hosted_of(call);
    give_way(call);
    if (!hosted->arena || alignment & (alignment - 1) || alignment > 4096)
        return NULL;
    alignment = alignment ? alignment : 1;
    void *data = cm_arena_take(hosted->arena, "scratch", bytes, alignment, CM_PLACE_END, false);
    if (data)
        memset(data, hosted->poison, bytes);
    if (data && hosted->site && call->device > kDLCPU)
        return cm_site_send(hosted->site, hosted->arena->count - 1);
    return data;
}

static void enter_device(const cm_call *call)
{
    (void)call;
    cm_arena_launch(true);
}

static void leave_device(const cm_call *call)
{
    (void)call;
    cm_arena_launch(false);
}

// Of this process, which has one kernel under test.
static _Atomic uint32_t taken;

static void path(const cm_call *call, int number)
{
    uint32_t bit = number >= 0 && number < CM_MAX_PATHS ? UINT32_C(1) << number : CM_PATH_UNKNOWN;
    (void)call;
    if (!(atomic_load_explicit(&taken, memory_order_relaxed) & bit))
        atomic_fetch_or_explicit(&taken, bit, memory_order_relaxed);
}

uint32_t cm_host_paths(void)
{
    return atomic_load_explicit(&taken, memory_order_relaxed);
}

void cm_host_forget_paths(void)
{
    atomic_store_explicit(&taken, 0, memory_order_relaxed);
}

const cm_host cm_host_services = {
    .abi_version = CM_ABI_VERSION,
    .argument = argument,
    .attribute = attribute,
    .dim = dim,
    .fail = fail,
    .validate = cm_op_validate,
    .scratch = scratch,
    .enter_device = enter_device,
    .leave_device = leave_device,
    .path = path,
};
