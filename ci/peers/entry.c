// SPDX-License-Identifier: Apache-2.0
#include "ci/peers/entry.h"

#include "optimized/kernels.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_OP(symbol) extern const cm_op symbol;
#include "reference/ops.inc"
#undef CM_OP

#define CM_OP(symbol) &symbol,
static const cm_op *const ops[] = {
#include "reference/ops.inc"
    NULL};
#undef CM_OP

// Compiled for a GPU, or for the emulated device, whose memory is the host's.
#define CM_KERNEL(symbol)
#ifdef CM_ENTRY_NATIVE
#define CM_NATIVE(symbol) &symbol##_native,
#else
#define CM_NATIVE(symbol) &symbol,
#endif
#define CM_NATIVE_HOST(symbol) // wants kernels of the host, which are not here
static const cm_kernel *const kernels[] = {
#include "optimized/kernels.inc"
    NULL};
#undef CM_KERNEL
#undef CM_NATIVE
#undef CM_NATIVE_HOST

struct checkmoe_call {
    cm_call call; // first: host functions get a pointer to it
    const cm_kernel *kernel;
    DLTensor tensors[CM_MAX_ARGUMENTS];
    int64_t shapes[CM_MAX_ARGUMENTS][2 * CM_MAX_RANK];
    const DLTensor *arguments[CM_MAX_ARGUMENTS];
    double attributes[CM_MAX_ATTRIBUTES];
    int64_t dims[CM_DIM_COUNT];
    void *state;
    char *scratch;
    size_t scratch_size, used, most;
    char error[512];
};

static checkmoe_call *own(const cm_call *call)
{
    return (checkmoe_call *)(uintptr_t)call;
}

static int fail(checkmoe_call *call, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(call->error, sizeof call->error, format, list);
    va_end(list);
    return -1;
}

static int index_of(const cm_op *op, const char *name)
{
    for (int n = 0; op->arguments[n].name; n++)
        if (!strcmp(op->arguments[n].name, name))
            return n;
    return -1;
}

static const DLTensor *host_argument(const cm_call *call, const char *name)
{
    int n = index_of(call->op, name);
    return n < 0 ? NULL : call->arguments[n];
}

static double host_attribute(const cm_call *call, const char *name)
{
    for (int n = 0; call->op->attributes[n].name; n++)
        if (!strcmp(call->op->attributes[n].name, name))
            return call->attributes[n];
    return 0;
}

static int64_t host_dim(const cm_call *call, char letter)
{
    const char *at = letter ? strchr(CM_DIM_LETTERS, letter) : NULL;
    return at ? call->dims[at - CM_DIM_LETTERS] : 0;
}

static cm_status host_fail(const cm_call *call, cm_status status, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(own(call)->error, sizeof own(call)->error, format, list);
    va_end(list);
    return status;
}

static cm_status host_validate(const cm_call *call)
{
    (void)call; // the caller made every tensor for this call
    return CM_OK;
}

// From one block of device memory, from its start in each run: a graph finds the same addresses.
static void *host_scratch(const cm_call *call, size_t bytes, size_t alignment)
{
    checkmoe_call *self = own(call);
    size_t step = alignment > 256 ? alignment : 256, at = (self->used + step - 1) / step * step;
    self->most = at + bytes > self->most ? at + bytes : self->most;
    if (at + bytes > self->scratch_size)
        return NULL;
    self->used = at + bytes;
    return self->scratch + at;
}

static void host_path(const cm_call *call, int number)
{
    (void)call;
    (void)number;
}

static const cm_host host = {.abi_version = CM_ABI_VERSION,
                             .argument = host_argument,
                             .attribute = host_attribute,
                             .dim = host_dim,
                             .fail = host_fail,
                             .validate = host_validate,
                             .scratch = host_scratch,
                             .path = host_path};

checkmoe_call *checkmoe_open(const char *name, char *error, size_t size)
{
    const cm_kernel *kernel = NULL;
    const cm_op *op = NULL;
    for (int n = 0; kernels[n] && !kernel; n++)
        kernel = !strcmp(kernels[n]->name, name) ? kernels[n] : NULL;
    for (int n = 0; kernel && ops[n] && !op; n++)
        if (strlen(ops[n]->name) == strcspn(name, "/") && !strncmp(ops[n]->name, name, strlen(ops[n]->name)))
            op = ops[n];
    if (!op) {
        snprintf(error, size, "there is no CUDA kernel \"%s\"", name);
        return NULL;
    }
    if (kernel->side->available && !kernel->side->available(error, size))
        return NULL;
    checkmoe_call *call = calloc(1, sizeof *call);
    if (!call) {
        snprintf(error, size, "out of memory");
        return NULL;
    }
    call->kernel = kernel;
    for (int n = 0; op->attributes[n].name; n++)
        call->attributes[n] = op->attributes[n].fallback;
    call->call = (cm_call){.size = sizeof(cm_call),
                           .op = op,
                           .host = &host,
                           .arguments = call->arguments,
                           .attributes = call->attributes,
                           .dims = call->dims,
                           .device = (DLDeviceType)kernel->device};
    return call;
}

int checkmoe_tensor(checkmoe_call *call, const char *name, void *data, const char *dtype, int ndim,
                    const int64_t *shape, const int64_t *strides)
{
    static const struct {
        const char *name;
        DLDataType type;
    } types[] = {{"bf16", {kDLBfloat, 16, 1}},
                 {"f16", {kDLFloat, 16, 1}},
                 {"f32", {kDLFloat, 32, 1}},
                 {"i32", {kDLInt, 32, 1}}};
    int n = index_of(call->call.op, name);
    size_t type = 0;
    while (type < sizeof types / sizeof *types && strcmp(types[type].name, dtype) != 0)
        type++;
    if (n < 0)
        return fail(call, "%s has no argument \"%s\"", call->call.op->name, name);
    if (type == sizeof types / sizeof *types)
        return fail(call, "%s: there is no dtype \"%s\"", name, dtype);
    if (ndim < 1 || ndim > CM_MAX_RANK)
        return fail(call, "%s: %d dimensions", name, ndim);
    for (int d = 0; d < ndim; d++) {
        call->shapes[n][d] = shape[d];
        call->shapes[n][CM_MAX_RANK + d] = strides[d];
    }
    call->tensors[n] = (DLTensor){.data = data,
                                  .device = {(DLDeviceType)call->kernel->device, 0},
                                  .ndim = ndim,
                                  .dtype = types[type].type,
                                  .shape = call->shapes[n],
                                  .strides = call->shapes[n] + CM_MAX_RANK};
    call->arguments[n] = &call->tensors[n];
    return 0;
}

int checkmoe_attribute(checkmoe_call *call, const char *name, double value)
{
    for (int n = 0; call->call.op->attributes[n].name; n++)
        if (!strcmp(call->call.op->attributes[n].name, name)) {
            call->attributes[n] = value;
            return 0;
        }
    return fail(call, "%s has no attribute \"%s\"", call->call.op->name, name);
}

int checkmoe_dim(checkmoe_call *call, char letter, int64_t value)
{
    const char *at = letter ? strchr(CM_DIM_LETTERS, letter) : NULL;
    if (!at)
        return fail(call, "there is no dimension %c", letter);
    call->dims[at - CM_DIM_LETTERS] = value;
    return 0;
}

int checkmoe_scratch(checkmoe_call *call, void *memory, size_t bytes)
{
    call->scratch = memory;
    call->scratch_size = bytes;
    return 0;
}

// The kernel's own sentence, if it left one.
static int said(checkmoe_call *call, cm_status status, const char *function)
{
    if (status == CM_OK)
        return 0;
    if (!call->error[0])
        fail(call, "%s of %s returned status %d", function, call->kernel->name, (int)status);
    return -1;
}

int checkmoe_prepare(checkmoe_call *call)
{
    const cm_kernel *kernel = call->kernel;
    cm_status status = CM_OK;
    call->error[0] = 0;
    call->used = 0;
    for (int n = 0; call->call.op->arguments[n].name; n++)
        if (!call->arguments[n] && !call->call.op->arguments[n].optional)
            return fail(call, "`%s` is missing", call->call.op->arguments[n].name);
    if (kernel->supports && !kernel->supports(&call->call, call->error, sizeof call->error))
        return call->error[0] ? -1 : fail(call, "%s does not support this call", kernel->name);
    if (kernel->prepare && !call->state)
        status = kernel->prepare(&call->call, &call->state);
    if (said(call, status, "prepare"))
        return -1;
    return said(call, kernel->update ? kernel->update(&call->call, call->state) : CM_OK, "update");
}

int checkmoe_run(checkmoe_call *call, void *stream)
{
    call->error[0] = 0;
    call->used = 0;
    call->call.stream = stream;
    return said(call, call->kernel->run(&call->call, call->state), "run");
}

size_t checkmoe_scratch_used(const checkmoe_call *call)
{
    return call->most;
}

const char *checkmoe_error(const checkmoe_call *call)
{
    return call->error;
}

void checkmoe_close(checkmoe_call *call)
{
    if (call && call->kernel->release)
        call->kernel->release(call->state);
    free(call);
}
