// SPDX-License-Identifier: Apache-2.0
// AMX without AMX. Machine code is made at run time or compiled from intrinsics, and runs through the traps
// of the emulator; the reference is amx_model.c. On a processor with tiles the same tests run on its own.
#include "suites/unit/amx.h"

#if defined(__x86_64__)

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

void cm_unit_amx_begin(cm_amx_method method)
{
    char reason[160] = "";
    if (cm_amx_available() != CM_AMX_NATIVE)
        ck_assert_msg(cm_amx_emulate_enable(method, reason, sizeof reason) == CM_OK, "%s", reason);
    ck_assert_msg(cm_amx_request_permission(reason, sizeof reason) == CM_OK, "%s", reason);
    cm_amx_reset();
}

void cm_unit_code_open(struct cm_unit_code *code)
{
    *code = (struct cm_unit_code){.size = 1 << 16};
    code->bytes =
        mmap(NULL, code->size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert(code->bytes != MAP_FAILED);
}

void cm_unit_code_close(struct cm_unit_code *code)
{
    munmap(code->bytes, code->size);
}

void cm_unit_emit(struct cm_unit_code *code, const void *bytes, size_t count)
{
    ck_assert_uint_le(code->at + count, code->size);
    memcpy(code->bytes + code->at, bytes, count);
    code->at += count;
}

void cm_unit_emit_text(struct cm_unit_code *code, const char *hex)
{
    for (char *end; *hex; hex = end) {
        uint8_t byte = (uint8_t)strtoul(hex, &end, 16);
        cm_unit_emit(code, &byte, 1);
    }
}

static void emit_vex(struct cm_unit_code *code, int opcode, int prefix, int base, int index, int third)
{
    const uint8_t bytes[4] = {0xc4, (uint8_t)(0x82 | (base < 8) << 5 | !(index & 8) << 6),
                              (uint8_t)((~third & 15) << 3 | prefix), (uint8_t)opcode};
    cm_unit_emit(code, bytes, sizeof bytes);
}

void cm_unit_emit_tiles(struct cm_unit_code *code, int opcode, int prefix, int reg, int rm, int third)
{
    const uint8_t modrm = (uint8_t)(0xc0 | reg << 3 | rm);
    emit_vex(code, opcode, prefix, 0, 0, third);
    cm_unit_emit(code, &modrm, 1);
}

void cm_unit_emit_memory(struct cm_unit_code *code, int opcode, int prefix, int reg, int base, int index,
                         int scale, int32_t displacement)
{
    int size = displacement == (int8_t)displacement ? 1 : 4;
    if (displacement == 0 && (base & 7) != 5)
        size = 0;
    const uint8_t bytes[2] = {(uint8_t)((size == 4 ? 0x80
                                         : size    ? 0x40
                                                   : 0) |
                                        reg << 3 | 4),
                              (uint8_t)(scale << 6 | (index == 16 ? 4 : index & 7) << 3 | (base & 7))};
    emit_vex(code, opcode, prefix, base, index == 16 ? 0 : index, 0);
    cm_unit_emit(code, bytes, sizeof bytes);
    cm_unit_emit(code, &displacement, (size_t)size);
}

void cm_unit_emit_constant(struct cm_unit_code *code, int reg, uint64_t value)
{
    const uint8_t bytes[2] = {(uint8_t)(0x48 | reg >> 3), (uint8_t)(0xb8 | (reg & 7))};
    cm_unit_emit(code, bytes, sizeof bytes);
    cm_unit_emit(code, &value, sizeof value);
}

cm_unit_function cm_unit_code_function(const struct cm_unit_code *code, size_t offset)
{
    return (cm_unit_function)(uintptr_t)(code->bytes + offset);
}

siginfo_t cm_unit_amx_info;
uintptr_t cm_unit_amx_rip;
static sigjmp_buf back;

static void on_signal(int number, siginfo_t *info, void *context)
{
    cm_unit_amx_info = *info;
    cm_unit_amx_rip = (uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    siglongjmp(back, number);
}

// SIGILL belongs to the emulator by now: what it refuses goes to the handler that enable found.
int cm_unit_amx_catch(cm_unit_function function, void *first, void *second)
{
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO}, old;
    sigaction(SIGSEGV, &action, &old);
    int number = sigsetjmp(back, 1);
    if (number == 0)
        function(first, second);
    sigaction(SIGSEGV, &old, NULL);
    return number;
}

static void begin(void)
{
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
    sigaction(SIGILL, &action, NULL);
}

uint64_t cm_unit_amx_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

Suite *cm_unit_amx(void)
{
    TCase *const cases[] = {cm_unit_amx_decoding(), cm_unit_amx_length(), cm_unit_amx_random_cases(),
                            cm_unit_amx_faults(),   cm_unit_amx_memory(), cm_unit_amx_signals(),
                            cm_unit_amx_matmul()};
    Suite *suite = suite_create("amx");
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
        tcase_add_checked_fixture(cases[n], begin, NULL);
        tcase_set_timeout(cases[n], 120);
        suite_add_tcase(suite, cases[n]);
    }
    return suite;
}

#else

START_TEST(says_that_it_is_absent)
{
    char reason[80] = "";
    ck_assert_int_eq(cm_amx_emulate_enable(CM_AMX_TRAP, reason, sizeof reason), CM_UNSUPPORTED);
    ck_assert_str_eq(reason, "this is no x86-64 processor");
    ck_assert_int_eq(cm_amx_available(), CM_AMX_NONE);
}
END_TEST

Suite *cm_unit_amx(void)
{
    Suite *suite = suite_create("amx");
    TCase *absent = tcase_create("absent");
    tcase_add_test(absent, says_that_it_is_absent);
    suite_add_tcase(suite, absent);
    return suite;
}

#endif
