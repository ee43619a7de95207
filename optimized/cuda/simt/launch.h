// SPDX-License-Identifier: Apache-2.0
// A launch on the emulated device, and what else kernels ask of a device's runtime.
#ifndef CM_SIMT_LAUNCH_H
#define CM_SIMT_LAUNCH_H

#include "harness/checkmoe.h"
#include "optimized/cuda/simt/block.h"

#include <memory>
#include <tuple>
#include <type_traits>

namespace cm_simt
{

// Launches take turns at schedules: the first runs the threads in order, later ones reversed or shuffled. A
// result that depends on the order shows when a kernel runs again.
uint64_t next_schedule(void);
void set_schedule(uint64_t schedule); // of all launches of this thread from now on; for tests
cm_status launch_now(const cm_call *call, const Launch &launch);

// By the running kernel: what refusal.h says; the launch returns it if it has no fault. The first one stays.
void refuse(uint64_t word);

bool captures(void); // whether this thread's launches are recorded (graph.h)
cm_status record(const cm_call *call, const Launch &launch, std::shared_ptr<void> closure);
// CM_OK, or while this thread captures the fault that `what` is then.
cm_status forbid(const cm_call *call, const char *what);

// Waits for the device and copies to host memory.
cm_status copy_out(const cm_call *call, void *to, const void *from, size_t bytes);
// Device memory, of no arena, fenced like it; poisoned. NULL when there is none, or while capturing.
void *allocate(const cm_call *call, size_t bytes);
cm_status release(const cm_call *call, void *memory); // accepts NULL

template <typename... Parameters, typename... Arguments>
cm_status launch(const cm_call *call, void (*kernel)(Parameters...), Index3 grid, Index3 block, size_t shared,
                 Arguments... arguments)
{
    struct Closure {
        void (*kernel)(Parameters...);
        std::tuple<std::decay_t<Parameters>...> parameters;
    } closure = {kernel, std::tuple<std::decay_t<Parameters>...>(arguments...)};
    Launch launch = {grid,
                     block,
                     shared,
                     [](void *self) {
                         auto *c = static_cast<Closure *>(self);
                         std::apply(c->kernel, c->parameters);
                     },
                     &closure,
                     0};
    if (captures())
        return record(call, launch, std::make_shared<Closure>(closure));
    launch.schedule = next_schedule();
    return launch_now(call, launch);
}

} // namespace cm_simt

// CM_OK, or a status with the sentence set in the call.
#define CM_LAUNCH(call, kernel, grid, block, shared, ...)                                                    \
    cm_simt::launch(call, kernel, grid, block, shared, __VA_ARGS__)

#endif
