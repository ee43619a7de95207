// SPDX-License-Identifier: Apache-2.0
// The same text for C11, C++17 and CUDA C++: a descriptor as a kernel file ends in it, and the layout of
// every struct of the contract. CONTRACT(name) makes the names of one language.
#include "harness/checkmoe.h"

#define FIELD(type, field) offsetof(type, field), sizeof(((type *)0)->field)

extern const cm_kernel CONTRACT(kernel);
extern const size_t CONTRACT(layout)[];
extern const size_t CONTRACT(layout_count);

static bool supports(const cm_call *call, char *reason, size_t reason_size)
{
    (void)call;
    if (reason_size)
        reason[0] = 0;
    return true;
}

static cm_status prepare(const cm_call *call, void **state)
{
    *state = NULL;
    return call->host->validate(call);
}

static cm_status update(const cm_call *call, void *state)
{
    (void)state;
    return call->host->validate(call);
}

static cm_status run(const cm_call *call, void *state)
{
    (void)state;
    const DLTensor *x = call->host->argument(call, "x");
    return x ? CM_OK : call->host->fail(call, CM_BAD_VALUE, "x is missing");
}

static void release(void *state)
{
    (void)state;
}

const cm_kernel CONTRACT(kernel) = {
    .size = sizeof(cm_kernel),
    .name = "contract/test",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .nondeterministic = true,
    .alignment = 64,
    .supports = supports,
    .prepare = prepare,
    .update = update,
    .run = run,
    .release = release,
};

const size_t CONTRACT(layout)[] = {
    sizeof(cm_status),
    sizeof(cm_dtype),
    sizeof(cm_role),
    sizeof(cm_compare),
    sizeof(cm_symmetry_kind),
    sizeof(cm_accuracy),
    sizeof(DLTensor),
    sizeof(cm_fill),
    sizeof(cm_argument),
    sizeof(cm_attribute),
    sizeof(cm_rounding),
    sizeof(cm_term),
    sizeof(cm_symmetry),
    sizeof(cm_counts),
    sizeof(cm_call),
    sizeof(cm_host),
    sizeof(cm_side),
    sizeof(cm_want),
    sizeof(cm_op),
    sizeof(cm_kernel),
    FIELD(cm_argument, fill),
    FIELD(cm_argument, meaning),
    FIELD(cm_call, host),
    FIELD(cm_call, stream),
    FIELD(cm_host, argument),
    FIELD(cm_host, scratch),
    FIELD(cm_side, locate),
    FIELD(cm_want, magnitude),
    FIELD(cm_op, counts),
    FIELD(cm_kernel, accuracy),
    FIELD(cm_kernel, trusts_caller),
    FIELD(cm_kernel, alignment),
    FIELD(cm_kernel, release),
    FIELD(cm_kernel, capturable),
};
const size_t CONTRACT(layout_count) = sizeof CONTRACT(layout) / sizeof *CONTRACT(layout);
