// SPDX-License-Identifier: Apache-2.0
#include "optimized/cuda/simt/launch.h"

#include "optimized/cuda/simt/global.h"
#include "optimized/cuda/simt/memory.h"

namespace cm_simt
{

static thread_local uint64_t launches, fixed;
static thread_local bool is_fixed;

uint64_t next_schedule(void)
{
    return is_fixed ? fixed : launches++;
}

void set_schedule(uint64_t schedule)
{
    fixed = schedule;
    is_fixed = true;
}

cm_status launch_now(const cm_call *call, const Launch &launch)
{
    char message[400];
    global_begin();
    memory_open(call);
    Fault fault = run_grid(launch, message, sizeof message);
    memory_close(call);
    if (fault == NO_FAULT)
        return CM_OK;
    return call->host->fail(call, CM_DEVICE_FAULT, "%s", message);
}

} // namespace cm_simt
