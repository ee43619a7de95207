// SPDX-License-Identifier: Apache-2.0
#include "optimized/cuda/simt/launch.h"

#include "optimized/cuda/simt/global.h"

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

cm_status launch_closure(const cm_call *call, Launch launch)
{
    char message[400];
    global_begin();
    if (call->host->enter_device)
        call->host->enter_device(call);
    Fault fault = run_grid(launch, message, sizeof message);
    if (call->host->leave_device)
        call->host->leave_device(call);
    if (fault == NO_FAULT)
        return CM_OK;
    return call->host->fail(call, CM_DEVICE_FAULT, "%s", message);
}

} // namespace cm_simt
