// SPDX-License-Identifier: Apache-2.0
#include "optimized/cuda/simt/memory.h"

#include <mutex>
#include <string.h>
#include <sys/mman.h>

namespace cm_simt
{

struct Allocation {
    void *memory;
    size_t bytes;
};

static std::mutex lock;
static std::vector<Allocation> allocations;
static int users; // launches and copies under way, of all threads

static void protect_all(int protection)
{
    for (const Allocation &allocation : allocations)
        mprotect(allocation.memory, allocation.bytes, protection);
}

void memory_open(const cm_call *call)
{
    std::lock_guard<std::mutex> guard(lock);
    if (call->host->enter_device)
        call->host->enter_device(call);
    if (users++ == 0)
        protect_all(PROT_READ | PROT_WRITE);
}

void memory_close(const cm_call *call)
{
    std::lock_guard<std::mutex> guard(lock);
    if (--users == 0)
        protect_all(PROT_NONE);
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
    if (forbid(call, "an allocation") != CM_OK)
        return nullptr;
    void *memory =
        mmap(nullptr, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        call->host->fail(call, CM_NO_MEMORY, "no %zu bytes of device memory", bytes);
        return nullptr;
    }
    memset(memory, 0xff, bytes); // NaN
    std::lock_guard<std::mutex> guard(lock);
    allocations.push_back(Allocation{memory, bytes ? bytes : 1});
    if (users == 0)
        mprotect(memory, bytes ? bytes : 1, PROT_NONE);
    return memory;
}

cm_status release(const cm_call *call, void *memory)
{
    cm_status status = memory ? forbid(call, "a release of memory") : CM_OK;
    std::lock_guard<std::mutex> guard(lock);
    for (size_t n = 0; memory && status == CM_OK && n < allocations.size(); n++)
        if (allocations[n].memory == memory) {
            munmap(memory, allocations[n].bytes);
            allocations[n] = allocations.back();
            allocations.pop_back();
            return CM_OK;
        }
    return status;
}

} // namespace cm_simt
