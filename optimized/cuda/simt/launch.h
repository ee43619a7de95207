// SPDX-License-Identifier: Apache-2.0
// A launch on the emulated device.
#ifndef CM_SIMT_LAUNCH_H
#define CM_SIMT_LAUNCH_H

#include "harness/checkmoe.h"
#include "optimized/cuda/simt/block.h"

#include <tuple>

namespace cm_simt
{

// Launches take turns at schedules: the first runs the threads in order, later ones reversed or shuffled. A
// result that depends on the order shows when a kernel runs again.
uint64_t next_schedule(void);
void set_schedule(uint64_t schedule); // of all launches of this thread from now on; for tests
cm_status launch_closure(const cm_call *call, Launch launch);

template <typename... Parameters, typename... Arguments>
cm_status launch(const cm_call *call, void (*kernel)(Parameters...), Index3 grid, Index3 block, size_t shared,
                 Arguments... arguments)
{
    struct Closure {
        void (*kernel)(Parameters...);
        std::tuple<Parameters...> parameters;
    } closure = {kernel, std::tuple<Parameters...>(arguments...)};
    return launch_closure(call, Launch{grid, block, shared,
                                       [](void *self) {
                                           auto *c = static_cast<Closure *>(self);
                                           std::apply(c->kernel, c->parameters);
                                       },
                                       &closure, next_schedule()});
}

} // namespace cm_simt

// CM_OK, or a status with the sentence set in the call.
#define CM_LAUNCH(call, kernel, grid, block, shared, ...)                                                    \
    cm_simt::launch(call, kernel, grid, block, shared, __VA_ARGS__)

#endif
