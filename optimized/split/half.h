// SPDX-License-Identifier: Apache-2.0
// One kernel at work inside the split layer: a call of its own to a part of the experts and of I, with
// services that pass on to those of the caller. Its arguments are views of the caller's, or lie on the
// device beside.
#ifndef CM_SPLIT_HALF_H
#define CM_SPLIT_HALF_H

#include "optimized/split/cut.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>

enum { CM_SPLIT_SCRATCH = 32 }; // blocks that a kernel of the device may take in one call

struct cm_split_half {
    cm_call call;          // first: what the kernel sees; its services get a pointer to it
    const cm_call *outer;  // the call that is under way
    pthread_mutex_t *lock; // of the caller's services: partitions run at the same time
    const cm_kernel *kernel;
    const cm_side *side; // memory of the device; NULL: a half on the host
    void *state;
    struct cm_part part;
    bool lead;   // adds the bias of down
    bool shared; // has the shared expert
    const DLTensor *arguments[CM_MAX_ARGUMENTS];
    struct cm_cut cuts[CM_MAX_ARGUMENTS];
    int64_t dims[CM_DIM_COUNT];
    double attributes[CM_MAX_ATTRIBUTES];
    void *remote[CM_MAX_ARGUMENTS]; // what it has on the device
    size_t remote_bytes[CM_MAX_ARGUMENTS];
    void *scratch[CM_SPLIT_SCRATCH]; // on the device, until the call returns
    int scratch_count;
    cm_status status;
};

static inline struct cm_split_half *cm_half_of(const cm_call *call)
{
    return (struct cm_split_half *)(uintptr_t)call;
}

static inline int cm_half_index(const cm_call *call, const char *name)
{
    for (int n = 0; call->op->arguments[n].name; n++)
        if (!strcmp(call->op->arguments[n].name, name))
            return n;
    return -1;
}

static inline const DLTensor *cm_half_argument(const cm_call *call, const char *name)
{
    int n = cm_half_index(call, name);
    return n < 0 ? NULL : call->arguments[n];
}

static inline double cm_half_attribute(const cm_call *call, const char *name)
{
    for (int n = 0; call->op->attributes[n].name; n++)
        if (!strcmp(call->op->attributes[n].name, name))
            return call->attributes[n];
    return 0;
}

static inline int64_t cm_half_dim(const cm_call *call, char letter)
{
    const char *place = strchr(CM_DIM_LETTERS, letter);
    return letter && place ? call->dims[place - CM_DIM_LETTERS] : 0;
}

static inline cm_status cm_half_fail(const cm_call *call, cm_status status, const char *format, ...)
{
    struct cm_split_half *half = cm_half_of(call);
    char text[300];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    pthread_mutex_lock(half->lock);
    half->outer->host->fail(half->outer, status, "%s: %s", half->side ? "device half" : "host half", text);
    pthread_mutex_unlock(half->lock);
    return status;
}

static inline cm_status cm_half_validate(const cm_call *call)
{
    return cm_half_of(call)->outer->host->validate(call);
}

static inline void *cm_half_scratch(const cm_call *call, size_t bytes, size_t alignment)
{
    struct cm_split_half *half = cm_half_of(call);
    void *memory = NULL;
    char reason[200];
    if (!half->side) {
        pthread_mutex_lock(half->lock);
        memory = half->outer->host->scratch(half->outer, bytes, alignment);
        pthread_mutex_unlock(half->lock);
        return memory;
    }
    if (half->scratch_count == CM_SPLIT_SCRATCH ||
        half->side->allocate(bytes ? bytes : 1, &memory, reason, sizeof reason) != CM_OK)
        return NULL;
    half->scratch[half->scratch_count++] = memory;
    return memory;
}

static inline void cm_half_enter(const cm_call *call)
{
    const cm_call *outer = cm_half_of(call)->outer;
    if (outer->host->enter_device)
        outer->host->enter_device(outer);
}

static inline void cm_half_leave(const cm_call *call)
{
    const cm_call *outer = cm_half_of(call)->outer;
    if (outer->host->leave_device)
        outer->host->leave_device(outer);
}

// The paths of a half are its own kernel's affair.
static inline void cm_half_path(const cm_call *call, int number)
{
    (void)call;
    (void)number;
}

// Drops what the kernel took on the device; its launches are over.
static inline void cm_half_drop_scratch(struct cm_split_half *half)
{
    while (half->scratch_count > 0)
        half->side->release(half->scratch[--half->scratch_count]);
}

// Puts argument n, a tensor of the host, on the device; with `copy` its values, too.
static inline cm_status cm_half_send(struct cm_split_half *half, int n, size_t bytes, bool copy)
{
    char reason[200] = "";
    cm_status status = CM_OK;
    DLTensor *tensor = &half->cuts[n].tensor;
    if (half->remote[n] && half->remote_bytes[n] != bytes) {
        half->side->release(half->remote[n]);
        half->remote[n] = NULL;
    }
    if (!half->remote[n])
        status = half->side->allocate(bytes, &half->remote[n], reason, sizeof reason);
    half->remote_bytes[n] = bytes;
    if (status == CM_OK && copy)
        status = half->side->copy_in(half->remote[n], tensor->data, bytes, reason, sizeof reason);
    if (status != CM_OK)
        return half->outer->host->fail(half->outer, status, "%s could not be sent to the device: %s",
                                       half->outer->op->arguments[n].name, reason);
    tensor->data = half->remote[n];
    return CM_OK;
}

static inline void cm_half_close(struct cm_split_half *half)
{
    if (half->kernel && half->kernel->release)
        half->kernel->release(half->state);
    for (int n = 0; n < CM_MAX_ARGUMENTS && half->side; n++)
        half->side->release(half->remote[n]);
}

#endif
