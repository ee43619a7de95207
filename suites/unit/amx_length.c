// SPDX-License-Identifier: Apache-2.0
// Lengths of instructions of every form that the table of length.c
// distinguishes, as binutils 2.40 has them.
#include "suites/unit/amx.h"

#if defined(__x86_64__)

#include "optimized/amx/emulator/length.h"

#include <stdlib.h>
#include <string.h>

static const char *const instructions[] = {
    "90",
    "c3",
    "0f a2",                            // cpuid
    "0f 01 d0",                         // xgetbv
    "0f 05",                            // syscall
    "0f 0b",                            // ud2
    "50",                               // push %rax
    "41 57",                            // push %r15
    "48 89 e5",                         // mov %rsp, %rbp
    "48 8b 04 25 00 00 00 00",          // absolute
    "48 8b 05 00 a2 0f a2",             // rip-relative; has cpuid's bytes in it
    "48 8b 44 24 08",                   // SIB, 8-bit displacement
    "48 8b 84 24 0f a2 00 00",          // SIB, 32-bit
    "48 8b 04 8d 00 00 00 00",          // SIB without base
    "8b 45 08",                         //
    "c7 00 0f a2 00 00",                // mov $imm32, (%rax)
    "66 c7 00 0f a2",                   // imm16
    "48 c7 c0 0f a2 00 00",             // sign-extended imm32
    "48 b8 0f a2 0f a2 0f a2 0f a2",    // movabs
    "b8 0f a2 00 00",                   //
    "66 b8 0f a2",                      //
    "a1 0f a2 0f a2 0f a2 0f a2",       // movabs with an address
    "05 0f a2 00 00",                   // add imm32, eax
    "83 c0 0f",                         //
    "81 c0 0f a2 00 00",                //
    "6b c0 0f",                         // imul
    "69 c0 0f a2 00 00",                //
    "f7 c0 0f a2 00 00",                // test imm32
    "f7 d8",                            // neg
    "f6 00 0f",                         // test imm8
    "f6 d8",                            //
    "e8 0f a2 00 00",                   // call
    "eb 0f",                            // jmp
    "74 a2",                            //
    "0f 84 0f a2 00 00",                // je
    "c2 08 00",                         // ret imm16
    "c8 10 00 00",                      // enter
    "cd 80",                            //
    "f3 a4",                            // rep movsb
    "f0 48 0f b1 0f",                   // lock cmpxchg
    "0f ba e0 0f",                      // bt imm8
    "0f c8",                            // bswap
    "66 0f 70 c0 1b",                   // pshufd
    "66 0f 38 00 c1",                   // pshufb
    "66 0f 3a 0f c1 08",                // palignr
    "0f 1f 84 00 00 00 00 00",          // long nop
    "66 66 2e 0f 1f 84 00 00 00 00 00", //
    "d9 7c 24 02",                      // fnstcw
    "c5 f8 77",                         // vzeroupper
    "c5 fc 10 04 24",                   // vmovups
    "c5 fd 70 c0 1b",                   // vpshufd
    "c4 e2 7d 18 05 0f a2 00 00",       // vbroadcastss
    "c4 e3 7d 19 c1 01",                // vextractf128
    "c4 e2 7b 4b 24 16",                // tileloadd
    "62 f1 7c 48 10 44 24 01",          // EVEX, compressed displacement
    "62 f2 7d 48 18 05 0f a2 00 00",    // EVEX, rip-relative
    "62 f3 fd 48 3b c1 01",             // EVEX, immediate
    "62 f1 7d 48 70 c0 1b",             //
};

static size_t read_bytes(const char *text, uint8_t *bytes)
{
    size_t count = 0;
    for (char *end; *text; text = end)
        bytes[count++] = (uint8_t)strtoul(text, &end, 16);
    return count;
}

START_TEST(lengths)
{
    for (size_t n = 0; n < sizeof instructions / sizeof *instructions; n++) {
        uint8_t bytes[32];
        memset(bytes, 0x0f, sizeof bytes);
        size_t count = read_bytes(instructions[n], bytes);
        ck_assert_msg(cm_amx_length(bytes, sizeof bytes) == count, "%s: %zu bytes", instructions[n],
                      cm_amx_length(bytes, sizeof bytes));
        ck_assert_uint_eq(cm_amx_length(bytes, count), count);
        for (size_t cut = 0; cut < count; cut++)
            ck_assert_msg(cm_amx_length(bytes, cut) == 0, "%s, %zu bytes of it", instructions[n], cut);
    }
}
END_TEST

START_TEST(unknown)
{
    static const uint8_t none[][4] = {{0x06}, {0x27}, {0x82, 0xc0}, {0x9a},
                                      {0xd4}, {0xea}, {0x0f, 0x04}, {0x0f, 0x0f}};
    for (size_t n = 0; n < sizeof none / sizeof *none; n++)
        ck_assert_uint_eq(cm_amx_length(none[n], 4), 0);
}
END_TEST

TCase *cm_unit_amx_length(void)
{
    TCase *cases = tcase_create("length");
    tcase_add_test(cases, lengths);
    tcase_add_test(cases, unknown);
    return cases;
}

#endif
