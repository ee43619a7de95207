// SPDX-License-Identifier: Apache-2.0
#include "optimized/cuda/simt/memory.h"

#include "optimized/cuda/simt/beside.h"

#include <string.h>
#include <vector>

namespace cm_simt
{

void memory_open(const cm_call *call)
{
    if (call->host->enter_device)
        call->host->enter_device(call);
    cm_simt_open();
}

void memory_close(const cm_call *call)
{
    cm_simt_close();
    if (call->host->leave_device)
        call->host->leave_device(call);
}

cm_status copy_out(const cm_call *call, void *to, const void *from, size_t bytes)
{
    cm_status status = forbid(call, "a copy to the host, which waits for the device");
    if (status != CM_OK)
        return status;
    std::vector<char> between(bytes); // arguments of the host are out of reach while the device's are not
    memory_open(call);
    memcpy(between.data(), from, bytes);
    memory_close(call);
    memcpy(to, between.data(), bytes);
    return CM_OK;
}

void *allocate(const cm_call *call, size_t bytes)
{
    char reason[200];
    void *memory = nullptr;
    if (forbid(call, "an allocation") == CM_OK &&
        cm_simt_allocate(bytes, &memory, reason, sizeof reason) != CM_OK)
        call->host->fail(call, CM_NO_MEMORY, "%s", reason);
    return memory;
}

cm_status release(const cm_call *call, void *memory)
{
    cm_status status = memory ? forbid(call, "a release of memory") : CM_OK;
    if (status == CM_OK)
        cm_simt_release(memory);
    return status;
}

} // namespace cm_simt
