// SPDX-License-Identifier: Apache-2.0
// Fibers: one stack for each CUDA thread of a block, switched by hand. A switch keeps the registers that the
// System V ABI calls callee-saved and nothing else, so that it costs a few nanoseconds. x86-64 only.
#ifndef CM_SIMT_FIBER_H
#define CM_SIMT_FIBER_H

#include <stddef.h>

namespace cm_simt
{

struct Fiber {
    void *stack_pointer; // saved, while it does not run
    void *stack;         // lowest usable byte; NULL: the thread's own stack
    size_t stack_size;
    void *fake_stack; // AddressSanitizer's, while it does not run
};

constexpr size_t FIBER_STACK = 64 * 1024; // bytes; a guard page lies below

// Maps a stack on first use and keeps it; entry never returns. False: no memory. Fibers of other `number`s
// begin at other places in their pages, so that their stacks do not meet in the same lines of a cache.
bool fiber_prepare(Fiber *fiber, void (*entry)(), unsigned number);
// Leaves `from` and goes on with `to`. `ends`: `from` will never run again.
void fiber_switch(Fiber *from, Fiber *to, bool ends);
// To be called first thing in an entry function.
void fiber_entered(void);
void fiber_release(Fiber *fiber); // unmaps the stack

} // namespace cm_simt

#endif
