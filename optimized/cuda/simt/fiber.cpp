// SPDX-License-Identifier: Apache-2.0
#include "optimized/cuda/simt/fiber.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#if !defined(__x86_64__)
#error "the emulated device switches fibers with x86-64 code"
#endif

#if defined(__SANITIZE_ADDRESS__)
#define CM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CM_ASAN 1
#endif
#endif
#ifdef CM_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// void cm_simt_switch(void **from, void *to): pushes rbp, rbx, r12-r15, saves rsp and takes the other's.
asm(R"(
    .text
    .type cm_simt_switch, @function
cm_simt_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size cm_simt_switch, .-cm_simt_switch
)");
extern "C" void cm_simt_switch(void **from, void *to);

namespace cm_simt
{

constexpr size_t GUARD = 4096;

// The stack that was left by the last switch, for AddressSanitizer.
static thread_local Fiber *left;

bool fiber_prepare(Fiber *fiber, void (*entry)(), unsigned number)
{
    if (!fiber->stack) {
        void *memory = mmap(nullptr, GUARD + FIBER_STACK, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
        if (memory == MAP_FAILED)
            return false;
        mprotect(memory, GUARD, PROT_NONE);
        fiber->stack = static_cast<char *>(memory) + GUARD;
        fiber->stack_size = FIBER_STACK;
    }
#ifdef CM_ASAN
    ASAN_UNPOISON_MEMORY_REGION(fiber->stack, fiber->stack_size); // left behind by the block before
#endif
    // What cm_simt_switch pops: six registers and the return address; then rsp is 8 modulo 16, as after a
    // call.
    size_t above = number * 5 % 64 * 64 + 24;
    void **top = reinterpret_cast<void **>(static_cast<char *>(fiber->stack) + fiber->stack_size - above);
    memset(top - 7, 0, 9 * sizeof *top);
    top[-1] = reinterpret_cast<void *>(entry);
    fiber->stack_pointer = top - 7;
    fiber->fake_stack = nullptr;
    return true;
}

void fiber_entered(void)
{
#ifdef CM_ASAN
    const void *bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
    if (!left->stack) { // the thread's own: its bounds are learnt here
        left->stack = const_cast<void *>(bottom);
        left->stack_size = size;
    }
#endif
}

void fiber_switch(Fiber *from, Fiber *to, bool ends)
{
    left = from;
#ifdef CM_ASAN
    __sanitizer_start_switch_fiber(ends ? nullptr : &from->fake_stack, to->stack, to->stack_size);
#else
    (void)ends;
#endif
    cm_simt_switch(&from->stack_pointer, to->stack_pointer);
#ifdef CM_ASAN
    __sanitizer_finish_switch_fiber(from->fake_stack, nullptr, nullptr);
#endif
}

void fiber_release(Fiber *fiber)
{
    if (fiber->stack)
        munmap(static_cast<char *>(fiber->stack) - GUARD, GUARD + fiber->stack_size);
    *fiber = Fiber();
}

} // namespace cm_simt
