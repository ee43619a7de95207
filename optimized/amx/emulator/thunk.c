// SPDX-License-Identifier: Apache-2.0
// From a patched site to cm_amx_execute and back, with every register, flag and the red zone as they were.
// All vector state is kept by XSAVE, because libc's memcpy uses whatever vectors the processor has.
#include "optimized/amx/emulator/execute.h"
#include "optimized/amx/emulator/patch.h"

#include <cpuid.h>
#include <string.h>

_Static_assert(sizeof(struct cm_amx_site) <= CM_AMX_THUNK_BYTES, "a site's data are as long as its code");

// Bytes of a standard XSAVE area of this system, and what the assembly calls; symbols without prefix.
extern uint64_t cm_amx_thunk_area;
uint64_t cm_amx_thunk_area = 4096;
int cm_amx_thunk_run(const struct cm_amx_site *site, const uint64_t *registers);

int cm_amx_thunk_run(const struct cm_amx_site *site, const uint64_t *registers)
{
    return cm_amx_execute(&site->instruction, registers) != CM_AMX_NO_FAULT;
}

void cm_amx_thunk_open(void)
{
    unsigned a, b, c, d;
    if (__get_cpuid_count(0xd, 0, &a, &b, &c, &d))
        cm_amx_thunk_area = b;
}

// On entry: return address into the thunk, rdi of the code, its red zone; rdi is the site. XSAVE keeps SSE,
// AVX and AVX-512 (components 1, 2, 5, 6, 7). If the instruction is refused, returns 15 bytes further.
__asm__(".text\n"
        ".balign 16\n"
        ".globl cm_amx_thunk_enter\n"
        ".hidden cm_amx_thunk_enter\n"
        ".type cm_amx_thunk_enter, @function\n"
        "cm_amx_thunk_enter:\n"
        "  pushfq\n"
        "  cld\n"
        "  pushq %r15\n"
        "  pushq %r14\n"
        "  pushq %r13\n"
        "  pushq %r12\n"
        "  pushq %r11\n"
        "  pushq %r10\n"
        "  pushq %r9\n"
        "  pushq %r8\n"
        "  pushq 80(%rsp)\n" // rdi, above flags and return address
        "  pushq %rsi\n"
        "  pushq %rbp\n"
        "  leaq 240(%rsp), %rsi\n" // rsp before the thunk
        "  pushq %rsi\n"
        "  pushq %rbx\n"
        "  pushq %rdx\n"
        "  pushq %rcx\n"
        "  pushq %rax\n"
        "  movq %rsp, %rsi\n"
        "  movq %rsp, %rbx\n"
        "  subq cm_amx_thunk_area(%rip), %rsp\n"
        "  andq $-64, %rsp\n"
        "  xorl %eax, %eax\n"
        "  movq %rax, 512(%rsp)\n"
        "  movq %rax, 520(%rsp)\n"
        "  movq %rax, 528(%rsp)\n"
        "  movq %rax, 536(%rsp)\n"
        "  movq %rax, 544(%rsp)\n"
        "  movq %rax, 552(%rsp)\n"
        "  movq %rax, 560(%rsp)\n"
        "  movq %rax, 568(%rsp)\n"
        "  movl $0xe6, %eax\n"
        "  xorl %edx, %edx\n"
        "  xsave64 (%rsp)\n"
        "  call cm_amx_thunk_run\n"
        "  movl %eax, %r12d\n"
        "  movl $0xe6, %eax\n"
        "  xorl %edx, %edx\n"
        "  xrstor64 (%rsp)\n"
        "  movq %rbx, %rsp\n"
        "  testl %r12d, %r12d\n"
        "  jz 1f\n"
        "  addq $15, 136(%rsp)\n" // the return address
        "1:\n"
        "  popq %rax\n"
        "  popq %rcx\n"
        "  popq %rdx\n"
        "  popq %rbx\n"
        "  leaq 8(%rsp), %rsp\n"
        "  popq %rbp\n"
        "  popq %rsi\n"
        "  leaq 8(%rsp), %rsp\n"
        "  popq %r8\n"
        "  popq %r9\n"
        "  popq %r10\n"
        "  popq %r11\n"
        "  popq %r12\n"
        "  popq %r13\n"
        "  popq %r14\n"
        "  popq %r15\n"
        "  popfq\n"
        "  ret\n"
        ".size cm_amx_thunk_enter, .-cm_amx_thunk_enter\n");

static void write_distance(uint8_t *code, const uint8_t *end, const void *to)
{
    int32_t distance = (int32_t)((intptr_t)to - (intptr_t)end);
    memcpy(code, &distance, sizeof distance);
}

void cm_amx_thunk_write(uint8_t code[CM_AMX_THUNK_BYTES], const struct cm_amx_site *site)
{
    static const uint8_t template[] = {
        0x48, 0x8d, 0x64, 0x24, 0x80,          //  0  lea -128(%rsp), %rsp: over the red zone
        0x57,                                  //  5  push %rdi
        0x48, 0x8d, 0x3d, 0,    0,    0, 0,    //  6  lea site(%rip), %rdi
        0xff, 0x15, 0,    0,    0,    0,       // 13  call *enter(%rip)
        0x5f,                                  // 19  pop %rdi
        0x48, 0x8d, 0xa4, 0x24, 0x80, 0, 0, 0, // 20  lea 128(%rsp), %rsp
        0xff, 0x25, 0,    0,    0,    0,       // 28  jmp *resume(%rip)
        0x5f,                                  // 34  refused: pop %rdi
        0x48, 0x8d, 0xa4, 0x24, 0x80, 0, 0, 0, // 35  lea 128(%rsp), %rsp
        0x0f, 0x0b,                            // 43  ud2
    };
    memset(code, 0xcc, CM_AMX_THUNK_BYTES);
    memcpy(code, template, sizeof template);
    write_distance(code + 9, code + 13, site);
    write_distance(code + 15, code + 19, &site->enter);
    write_distance(code + 30, code + 34, &site->resume);
}
