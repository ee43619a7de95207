// SPDX-License-Identifier: Apache-2.0
// What tile instructions refuse, each by its signal at its own address and with
// a sentence. By traps, by patches, and by run-ahead: the refused one stands
// behind one that ran.
#include "suites/unit/amx.h"

#if defined(__x86_64__)

#include <string.h>

enum { NONE = 16, FIRST = 7, SECOND = 6 }; // rdi, rsi: the arguments of a function
enum { BF16 = 0x5c, BYTES = 0x5e };

// Tiles: 0 16x64, 1 8x64, 2 16x64, 3 16x32, 4 8x16, 5 8x16, 6 8x6 (no multiple
// of 4), 7 none.
static void make_config(uint8_t *config)
{
    static const uint8_t rows[7] = {16, 8, 16, 16, 8, 8, 8}, columns[7] = {64, 64, 64, 32, 16, 16, 6};
    memset(config, 0, 64);
    config[0] = 1;
    for (int tile = 0; tile < 7; tile++) {
        config[48 + tile] = rows[tile];
        config[16 + 2 * tile] = columns[tile];
    }
}

static cm_amx_method method(int n)
{
    return n ? CM_AMX_PATCH : CM_AMX_TRAP;
}

static bool emulated(void)
{
    return cm_amx_available() == CM_AMX_EMULATED;
}

static void check_illegal(int number, const uint8_t *place, const char *says)
{
    ck_assert_msg(number == SIGILL, "%s: signal %d", says, number);
    ck_assert_uint_eq(cm_unit_amx_rip, (uintptr_t)place);
    ck_assert_ptr_eq(cm_unit_amx_info.si_addr, place);
    ck_assert_int_gt(cm_unit_amx_info.si_code, 0);
    if (emulated())
        ck_assert_msg(strstr(cm_amx_fault_text(), says), "\"%s\" says nothing of \"%s\"", cm_amx_fault_text(),
                      says);
}

static const struct refusal {
    int opcode, prefix, reg, rm, third; // rm < 0: a load or store
    const char *says;
} refusals[] = {
    {BF16, 2, 0, 0, 2, "tdpbf16ps: two of its tiles are the same"},
    {BF16, 2, 0, 2, 2, "two of its tiles are the same"},
    {BF16, 2, 2, 0, 2, "two of its tiles are the same"},
    {BF16, 2, 0, 2, 7, "B, tmm7, is not configured"},
    {BF16, 2, 0, 7, 2, "A, tmm7, is not configured"},
    {BF16, 3, 7, 0, 2, "tdpfp16ps: C, tmm7, is not configured"},
    {BF16, 2, 6, 4, 2, "C.colsb is 6, no multiple of 4"},
    {BF16, 2, 4, 6, 2, "A.colsb is 6, no multiple of 4"},
    {BYTES, 0, 4, 5, 6, "tdpbuud: B.colsb is 6, no multiple of 4"},
    {BYTES, 1, 0, 1, 2, "tdpbusd: C.rows is 16, A.rows 8"},
    {BYTES, 2, 0, 2, 3, "tdpbsud: C.colsb is 64, B.colsb 32"},
    {BYTES, 3, 0, 3, 2, "tdpbssd: A.colsb / 4 is 8, B.rows 16"},
    {0x49, 3, 7, 0, 0, "tilezero: the tile, tmm7, is not configured"},
    {0x4b, 3, 7, -1, 0, "tileloadd: the tile, tmm7, is not configured"},
    {0x4b, 1, 6, -1, 0, "tileloaddt1: the tile.colsb is 6, no multiple of 4"},
    {0x4b, 2, 7, -1, 0, "tilestored: the tile, tmm7, is not configured"},
    {0x4b, 2, 6, -1, 0, "tilestored: the tile.colsb is 6, no multiple of 4"},
};

static void emit_refusal(struct cm_unit_code *code, const struct refusal *refusal)
{
    if (refusal->rm < 0)
        cm_unit_emit_memory(code, refusal->opcode, refusal->prefix, refusal->reg, SECOND, NONE, 0, 0);
    else
        cm_unit_emit_tiles(code, refusal->opcode, refusal->prefix, refusal->reg, refusal->rm, refusal->third);
}

START_TEST(shapes)
{
    struct cm_unit_code code;
    uint8_t config[64], stored[64], memory[1024];
    cm_unit_amx_begin(method(_i));
    cm_unit_code_open(&code);
    make_config(config);
    cm_unit_emit_text(&code, "c4 e2 79 49 07 c3"); // sttilecfg (rdi), ret
    for (size_t n = 0; n < sizeof refusals / sizeof *refusals; n++) {
        size_t begin = code.at;
        cm_unit_emit_text(&code, "c4 e2 78 49 07"); // ldtilecfg (rdi)
        const uint8_t *place = code.bytes + code.at;
        emit_refusal(&code, &refusals[n]);
        cm_unit_emit_text(&code, "c3");
        memset(memory, 0x5a, sizeof memory);
        int number = cm_unit_amx_catch(cm_unit_code_function(&code, begin), config, memory);
        check_illegal(number, place, refusals[n].says);
        for (int at = 0; at < 1024; at++)
            ck_assert_uint_eq(memory[at], 0x5a);
        cm_unit_code_function(&code, 0)(stored, NULL); // the configuration is as it was loaded
        ck_assert_mem_eq(stored, config, 64);
        number = cm_unit_amx_catch(cm_unit_code_function(&code, begin), config,
                                   memory); // and again
        check_illegal(number, place, refusals[n].says);
    }
    cm_unit_code_close(&code);
}
END_TEST

START_TEST(nothing_configured)
{
    struct cm_unit_code code;
    uint8_t stored[64];
    cm_unit_amx_begin(method(_i));
    cm_unit_code_open(&code);
    cm_unit_emit_text(&code,
                      "c4 e2 78 49 c0 c4 e2 79 49 07 c3"); // tilerelease, sttilecfg (rdi)
    memset(stored, 0xff, sizeof stored);
    cm_unit_code_function(&code, 0)(stored, NULL);
    for (int at = 0; at < 64; at++)
        ck_assert_uint_eq(stored[at], 0);
    for (size_t n = 0; n < sizeof refusals / sizeof *refusals; n++) {
        size_t begin = code.at;
        emit_refusal(&code, &refusals[n]);
        cm_unit_emit_text(&code, "c3");
        int number = cm_unit_amx_catch(cm_unit_code_function(&code, begin), NULL, stored);
        check_illegal(number, code.bytes + begin, "tiles are not configured (palette 0)");
    }
    cm_unit_code_close(&code);
}
END_TEST

static const struct {
    int byte, value;
    const char *says;
} wrong[] = {
    {0, 2, "the palette is above 1"},
    {0, 255, "the palette is above 1"},
    {2, 1, "a reserved byte is not 0"},
    {15, 128, "a reserved byte is not 0"},
    {16, 65, "a tile has more than 64 bytes in a row"},
    {17, 1, "a tile has more than 64 bytes in a row"},
    {48, 17, "a tile has more than 16 rows"},
    {54, 255, "a tile has more than 16 rows"},
    {32, 4, "a tile above 7 has rows or columns"},
    {47, 1, "a tile above 7 has rows or columns"},
    {56, 1, "a tile above 7 has rows or columns"},
    {63, 1, "a tile above 7 has rows or columns"},
    {55, 1, "a tile has rows without columns, or columns without rows"},
    {30, 4, "a tile has rows without columns, or columns without rows"},
    {50, 0, "a tile has rows without columns, or columns without rows"},
};

// A general protection fault: SIGSEGV from the kernel, without an address, at
// the instruction.
START_TEST(configurations)
{
    struct cm_unit_code code;
    uint8_t good[64], config[64], stored[64];
    cm_unit_amx_begin(method(_i));
    cm_unit_code_open(&code);
    make_config(good);
    cm_unit_emit_text(&code, "c4 e2 78 49 07");       // ldtilecfg (rdi)
    cm_unit_emit_text(&code, "c4 e2 78 49 06 90 c3"); // ldtilecfg (rsi)
    size_t store = code.at;
    cm_unit_emit_text(&code, "c4 e2 79 49 07 c3"); // sttilecfg (rdi)
    for (size_t n = 0; n < sizeof wrong / sizeof *wrong; n++) {
        memcpy(config, good, sizeof config);
        config[wrong[n].byte] = (uint8_t)wrong[n].value;
        int number = cm_unit_amx_catch(cm_unit_code_function(&code, 0), good, config);
        ck_assert_msg(number == SIGSEGV, "byte %d: signal %d", wrong[n].byte, number);
        ck_assert_uint_eq(cm_unit_amx_rip, (uintptr_t)code.bytes + 5);
        ck_assert_int_eq(cm_unit_amx_info.si_code, SI_KERNEL);
        ck_assert_ptr_null(cm_unit_amx_info.si_addr);
        if (emulated())
            ck_assert_msg(strstr(cm_amx_fault_text(), wrong[n].says), "%s", cm_amx_fault_text());
        cm_unit_code_function(&code, store)(stored, NULL);
        ck_assert_mem_eq(stored, good, 64);
    }
    memset(config, 0xff, sizeof config); // of palette 0 nothing else counts
    config[0] = 0;
    ck_assert_int_eq(cm_unit_amx_catch(cm_unit_code_function(&code, 0), good, config), 0);
    cm_unit_code_function(&code, store)(stored, NULL);
    ck_assert_uint_eq(stored[0], 0);
    cm_unit_code_close(&code);
}
END_TEST

START_TEST(start_rows)
{
    struct cm_unit_code code;
    uint8_t config[64], memory[2][1024];
    cm_unit_amx_begin(method(_i));
    cm_unit_code_open(&code);
    cm_unit_emit_text(&code, "c4 e2 78 49 07 b9 40 00 00 00"); // ldtilecfg (rdi), mov 64, ecx
    const uint8_t *load = code.bytes + code.at;
    cm_unit_emit_memory(&code, 0x4b, 3, 0, SECOND, 1, 0, 0);
    cm_unit_emit_memory(&code, 0x4b, 2, 0, SECOND, 1, 0, 1024);
    cm_unit_emit_text(&code, "c3");
    make_config(config);
    for (int at = 0; at < 1024; at++)
        memory[0][at] = (uint8_t)(at * 31 + 1);
    config[1] = 3;
    ck_assert_int_eq(cm_unit_amx_catch(cm_unit_code_function(&code, 0), config, memory), 0);
    for (int at = 0; at < 1024; at++)
        ck_assert_uint_eq(memory[1][at], at < 3 * 64 ? 0 : memory[0][at]);
    config[1] = 16;
    int number = cm_unit_amx_catch(cm_unit_code_function(&code, 0), config, memory);
    check_illegal(number, load, "tileloadd: start_row is 16, the tile's rows 16");
    cm_unit_code_close(&code);
}
END_TEST

// Linux's rule: tile data only after arch_prctl; the configuration needs no
// permission.
START_TEST(permission)
{
    struct cm_unit_code code;
    uint8_t config[64], memory[1024] = {0};
    char reason[120];
    cm_unit_amx_begin(method(_i));
    if (!emulated())
        return; // the kernel doesn't take it back
    cm_unit_code_open(&code);
    make_config(config);
    cm_unit_emit_text(&code, "c4 e2 78 49 07 c3");
    cm_amx_revoke_permission();
    ck_assert_int_eq(cm_unit_amx_catch(cm_unit_code_function(&code, 0), config, NULL), 0);
    const struct refusal users[] = {
        {0x49, 3, 0, 0, 0, ""}, {0x4b, 3, 0, -1, 0, ""}, {0x4b, 2, 0, -1, 0, ""}, {BF16, 2, 4, 3, 5, ""}};
    for (size_t n = 0; n < sizeof users / sizeof *users; n++) {
        size_t begin = code.at;
        emit_refusal(&code, &users[n]);
        cm_unit_emit_text(&code, "c3");
        int number = cm_unit_amx_catch(cm_unit_code_function(&code, begin), config, memory);
        check_illegal(number, code.bytes + begin, "used before arch_prctl(ARCH_REQ_XCOMP_PERM, 18)");
    }
    size_t last = code.at;
    emit_refusal(&code, &users[0]);
    cm_unit_emit_text(&code, "c3");
    ck_assert_int_eq(cm_amx_request_permission(reason, sizeof reason), CM_OK);
    ck_assert_int_eq(cm_unit_amx_catch(cm_unit_code_function(&code, last), config, memory), 0);
    cm_unit_code_close(&code);
}
END_TEST

// With nobody to take it, the process ends as it would on hardware.
START_TEST(unhandled_illegal)
{
    signal(SIGILL, SIG_DFL);
    cm_unit_amx_begin(method(_i));
    __asm__ volatile(".byte 0xc4, 0xe2, 0x7b, 0x49, 0xc0"); // tilezero without configuration
}
END_TEST

START_TEST(unhandled_protection)
{
    uint8_t config[64] = {9};
    cm_unit_amx_begin(method(_i));
    signal(SIGSEGV, SIG_DFL);
    __asm__ volatile(".byte 0xc4, 0xe2, 0x78, 0x49, 0x00" : : "a"(config), "m"(config));
}
END_TEST

// A blocked fault is deadly, whatever handler there is.
START_TEST(blocked_protection)
{
    sigset_t set;
    uint8_t config[64] = {9};
    cm_unit_amx_begin(method(_i));
    sigemptyset(&set);
    sigaddset(&set, SIGSEGV);
    sigprocmask(SIG_BLOCK, &set, NULL);
    __asm__ volatile(".byte 0xc4, 0xe2, 0x78, 0x49, 0x00" : : "a"(config), "m"(config));
}
END_TEST

TCase *cm_unit_amx_faults(void)
{
    TCase *cases = tcase_create("faults");
    tcase_add_loop_test(cases, shapes, 0, 2);
    tcase_add_loop_test(cases, nothing_configured, 0, 2);
    tcase_add_loop_test(cases, configurations, 0, 2);
    tcase_add_loop_test(cases, start_rows, 0, 2);
    tcase_add_loop_test(cases, permission, 0, 2);
    tcase_add_loop_test_raise_signal(cases, unhandled_illegal, SIGILL, 0, 2);
    tcase_add_loop_test_raise_signal(cases, unhandled_protection, SIGSEGV, 0, 2);
    tcase_add_loop_test_raise_signal(cases, blocked_protection, SIGSEGV, 0, 2);
    return cases;
}

#endif
