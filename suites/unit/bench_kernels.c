// SPDX-License-Identifier: Apache-2.0
#include "suites/unit/bench_kernels.h"

#include "harness/outcome.h"
#include "optimized/kernels.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STEPS = 1000 }; // thousands: some 0.3 ms, 100 times what the rest takes

static void spin(int thousands)
{
    volatile unsigned sum = 0;
    for (int n = 0; n < thousands * 1000; n++)
        sum += (unsigned)n;
    (void)sum;
}

static cm_status run_right(const cm_call *call, void *state)
{
    return cm_sgmv_shrink_naive.run(call, state);
}

static cm_status run_ten(const cm_call *call, void *state)
{
    spin(STEPS);
    return run_right(call, state);
}

static cm_status run_fifteen(const cm_call *call, void *state)
{
    spin(STEPS + STEPS / 2);
    return run_right(call, state);
}

#define KERNEL(words, function)                                                                              \
    .size = sizeof(cm_kernel), .name = "sgmv_shrink/" words, .file = __FILE__, .line = __LINE__,             \
    .accuracy = CM_ACCURACY_SINGLE, .run = function

const cm_kernel cm_unit_ten = {KERNEL("ten", run_ten)};
const cm_kernel cm_unit_fifteen = {KERNEL("fifteen", run_fifteen)};

static int calls; // of this process

static const DLTensor *output_of(const cm_call *call)
{
    return call->host->argument(call, "v");
}

static cm_status run_nothing(const cm_call *call, void *state)
{
    (void)call, (void)state;
    return CM_OK;
}

static cm_status run_off_by_one(const cm_call *call, void *state)
{
    cm_status status = run_right(call, state);
    memset((char *)output_of(call)->data + output_of(call)->byte_offset, 0x42, 4);
    return status;
}

// What a cache of results or a lazy kernel looks like from outside.
static cm_status run_lazily(const cm_call *call, void *state)
{
    return ++calls > 40 ? CM_OK : run_right(call, state);
}

static cm_status run_worse_and_worse(const cm_call *call, void *state)
{
    return ++calls > 40 ? run_off_by_one(call, state) : run_right(call, state);
}

static cm_status run_into_null(const cm_call *call, void *state)
{
    volatile int *volatile nowhere = NULL;
    if (++calls > 40)
        *nowhere = 1;
    return run_right(call, state);
}

static cm_status run_to_exit(const cm_call *call, void *state)
{
    if (++calls > 40)
        exit(0);
    return run_right(call, state);
}

static cm_status run_without_end(const cm_call *call, void *state)
{
    while (calls > 40)
        pause();
    calls++;
    return run_right(call, state);
}

static cm_status run_to_refusal(const cm_call *call, void *state)
{
    if (++calls > 40)
        return (call->host->fail)(call, CM_UNSUPPORTED, "enough of this");
    return run_right(call, state);
}

static cm_status run_into_weights(const cm_call *call, void *state)
{
    cm_status status = run_right(call, state);
    *(char *)call->host->argument(call, "lora_a")->data = 0;
    return status;
}

static bool supports_nothing(const cm_call *call, char *reason, size_t size)
{
    (void)call;
    snprintf(reason, size, "not on a Monday");
    return false;
}

static cm_status refuse_to_prepare(const cm_call *call, void **state)
{
    *state = NULL;
    return (call->host->fail)(call, CM_NO_MEMORY, "no place to pack");
}

static void release_twice(void *state)
{
    (void)state;
    raise(SIGABRT);
}

static const cm_side emulated = {.size = sizeof(cm_side), .emulated = true};

const cm_unit_bad_kernel cm_unit_bad_kernels[] = {
    {{KERNEL("nothing", run_nothing)}, CM_FAIL, "v"},
    {{KERNEL("off", run_off_by_one)}, CM_FAIL, "v"},
    {{KERNEL("lazy", run_lazily)}, CM_FAIL, "v"},
    {{KERNEL("worse", run_worse_and_worse)}, CM_FAIL, "v"},
    {{KERNEL("null", run_into_null)}, CM_CRASH, "SIGSEGV"},
    {{KERNEL("exit", run_to_exit)}, CM_CRASH, "ended its process with exit status 0"},
    {{KERNEL("endless", run_without_end)}, CM_TIMEOUT, "no answer within"},
    {{KERNEL("refusal", run_to_refusal)}, CM_ERROR, "run returned \"unsupported\""},
    {{KERNEL("weights", run_into_weights)}, CM_CRASH, "SIGSEGV"},
    {{KERNEL("picky", run_right), .supports = supports_nothing}, CM_SKIP, "not on a Monday"},
    {{KERNEL("full", run_right), .prepare = refuse_to_prepare}, CM_ERROR, "prepare returned \"no memory\""},
    {{KERNEL("release", run_right), .release = release_twice}, CM_CRASH, "SIGABRT"},
    {{KERNEL("emulated", run_right), .device = kDLCUDA, .side = &emulated},
     CM_SKIP,
     "an emulated run has no speed"},
    {{KERNEL("device", run_right), .device = kDLCUDA}, CM_SKIP, "kernels of host memory only"},
    {{0}, CM_PASS, NULL},
};
