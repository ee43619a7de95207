// SPDX-License-Identifier: Apache-2.0
#include "optimized/cuda/simt/launch.h"

#include "optimized/cuda/simt/global.h"
#include "optimized/cuda/simt/memory.h"

#include "optimized/cuda/refusal.h"

namespace cm_simt
{

static thread_local uint64_t launches, fixed;
static thread_local bool is_fixed;
static thread_local uint64_t refused; // in this launch; 0: nothing

uint64_t next_schedule(void)
{
    return is_fixed ? fixed : launches++;
}

void set_schedule(uint64_t schedule)
{
    fixed = schedule;
    is_fixed = true;
}

void refuse(uint64_t word)
{
    refused = refused ? refused : word;
}

cm_status launch_now(const cm_call *call, const Launch &launch)
{
    char message[400];
    global_begin();
    refused = 0;
    memory_open(call);
    Fault fault = run_grid(launch, message, sizeof message);
    memory_close(call);
    if (fault != NO_FAULT)
        return call->host->fail(call, CM_DEVICE_FAULT, "%s", message);
    if (!refused)
        return CM_OK;
    cm_refusal_print(refused, message, sizeof message);
    return call->host->fail(call, CM_BAD_ID, "%s", message);
}

} // namespace cm_simt
