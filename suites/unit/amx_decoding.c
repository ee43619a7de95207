// SPDX-License-Identifier: Apache-2.0
// Bytes that are tile instructions, and bytes that almost are. The encodings
// are those of binutils 2.40.
#include "suites/unit/amx.h"

#if defined(__x86_64__)

#include "optimized/amx/emulator/decode.h"

#include <stdlib.h>
#include <string.h>

enum { NONE = CM_AMX_NO_REGISTER };

static const struct row {
    const char *bytes, *name;
    int c, a, b, base, index, scale, displacement;
} tiles[] = {
    {"c4 e2 78 49 00", "ldtilecfg", 0, 0, 0, 0, NONE, 0, 0},
    {"c4 e2 79 49 00", "sttilecfg", 0, 0, 0, 0, NONE, 0, 0},
    {"c4 e2 78 49 c0", "tilerelease", 0, 0, 0, NONE, NONE, 0, 0},
    {"c4 e2 7b 49 e8", "tilezero", 5, 0, 0, NONE, NONE, 0, 0},
    {"c4 e2 7b 4b 24 16", "tileloadd", 4, 0, 0, 6, 2, 0, 0},
    {"c4 82 79 4b b4 75 00 01 00 00", "tileloaddt1", 6, 0, 0, 13, 14, 1, 256},
    {"c4 e2 7a 4b 04 cf", "tilestored", 0, 0, 0, 7, 1, 3, 0},
    {"c4 e2 7a 4b 44 cf 80", "tilestored", 0, 0, 0, 7, 1, 3, -128},
    {"c4 e2 7b 4b 04 20", "tileloadd", 0, 0, 0, 0, NONE, 0, 0},                      // no index
    {"c4 a2 7b 4b 04 20", "tileloadd", 0, 0, 0, 0, 12, 0, 0},                        // r12 is one
    {"c4 e2 7b 4b 0c 15 78 56 34 12", "tileloadd", 1, 0, 0, NONE, 2, 0, 0x12345678}, // no base
    {"c4 c2 7b 4b 44 15 00", "tileloadd", 0, 0, 0, 13, 2, 0, 0},
    {"c4 e2 78 49 05 f0 ff ff ff", "ldtilecfg", 0, 0, 0, CM_AMX_RIP, NONE, 0, -16},
    {"c4 e2 78 49 04 25 00 00 01 00", "ldtilecfg", 0, 0, 0, NONE, NONE, 0, 0x10000},
    {"64 c4 e2 78 49 04 25 c0 ff ff ff", "ldtilecfg", 0, 0, 0, NONE, NONE, 0, -64},
    {"67 c4 e2 7b 4b 24 16", "tileloadd", 4, 0, 0, 6, 2, 0, 0},
    {"2e 65 c4 e2 7b 4b 24 16", "tileloadd", 4, 0, 0, 6, 2, 0, 0},
    {"c4 e2 4a 5c d9", "tdpbf16ps", 3, 1, 6, NONE, NONE, 0, 0},
    {"c4 e2 4b 5c d9", "tdpfp16ps", 3, 1, 6, NONE, NONE, 0, 0},
    {"c4 e2 4b 5e d9", "tdpbssd", 3, 1, 6, NONE, NONE, 0, 0},
    {"c4 e2 4a 5e d9", "tdpbsud", 3, 1, 6, NONE, NONE, 0, 0},
    {"c4 e2 49 5e d9", "tdpbusd", 3, 1, 6, NONE, NONE, 0, 0},
    {"c4 e2 48 5e d9", "tdpbuud", 3, 1, 6, NONE, NONE, 0, 0},
};

static const char *const others[] = {
    "66 c4 e2 78 49 c0", // prefixes that VEX forbids
    "f2 c4 e2 78 49 c0",
    "f3 c4 e2 78 49 c0",
    "f0 c4 e2 78 49 c0",
    "48 c4 e2 78 49 c0",
    "c4 e2 78 49 c1", // tilerelease is C0 alone
    "c4 e2 78 49 c8",
    "c4 e2 79 49 c0",
    "c4 e2 7b 49 e9", // rm of tilezero
    "c4 e2 73 49 e8", // vvvv of tilezero
    "c4 e2 70 49 00", // vvvv of ldtilecfg
    "c4 e2 78 49 08", // reg of ldtilecfg
    "c4 e2 f8 49 00", // W
    "c4 e2 7c 49 00", // L
    "c4 e1 78 49 00", // map
    "c4 e3 78 49 00",
    "c4 62 7b 4b 24 16", // tile 12
    "c4 e2 7b 4b 26",    // no SIB byte
    "c4 e2 73 4b 24 16", // vvvv of a load
    "c4 e2 78 4b 24 16", // pp of a load
    "c4 62 4a 5c d9",    // C of tile 11
    "c4 c2 4a 5c d9",    // A of tile 9
    "c4 e2 0a 5c d9",    // B of tile 14
    "c4 e2 4a 5c 19",    // a product with memory
    "c4 e2 48 5c d9",    // a product that isn't there
    "c4 e2 4a 5d d9",
    "62 f2 7d 08 49 00 90",                            // EVEX
    "0f 0b",                                           // ud2
    "26 26 26 26 26 26 26 26 26 26 26 c4 e2 78 49 c0", // 16 bytes
};

static size_t read_bytes(const char *text, uint8_t *bytes)
{
    size_t count = 0;
    for (char *end; *text; text = end)
        bytes[count++] = (uint8_t)strtoul(text, &end, 16);
    return count;
}

START_TEST(tile_instructions)
{
    for (size_t n = 0; n < sizeof tiles / sizeof *tiles; n++) {
        uint8_t bytes[32];
        memset(bytes, 0xcc, sizeof bytes);
        size_t count = read_bytes(tiles[n].bytes, bytes);
        struct cm_amx_instruction got;
        ck_assert_msg(cm_amx_decode(bytes, sizeof bytes, &got) == CM_AMX_IS_TILE, "%s", tiles[n].bytes);
        ck_assert_str_eq(cm_amx_name(got.operation), tiles[n].name);
        ck_assert_uint_eq(got.length, count);
        ck_assert_int_eq(got.c, tiles[n].c);
        ck_assert_int_eq(got.a, tiles[n].a);
        ck_assert_int_eq(got.b, tiles[n].b);
        ck_assert_int_eq(got.base, tiles[n].base);
        ck_assert_int_eq(got.index, tiles[n].index);
        ck_assert_int_eq(got.scale, tiles[n].scale);
        ck_assert_int_eq(got.displacement, tiles[n].displacement);
        ck_assert_int_eq(got.segment, strstr(tiles[n].bytes, "64 c4")   ? 0x64
                                      : strstr(tiles[n].bytes, "65 c4") ? 0x65
                                                                        : 0);
        ck_assert_int_eq(got.narrow, strstr(tiles[n].bytes, "67 c4") != NULL);
        for (size_t cut = 0; cut < count; cut++)
            ck_assert_msg(cm_amx_decode(bytes, cut, &got) == CM_AMX_CUT_SHORT, "%s, %zu bytes of it",
                          tiles[n].bytes, cut);
        ck_assert_int_eq(cm_amx_decode(bytes, count, &got), CM_AMX_IS_TILE);
    }
}
END_TEST

START_TEST(other_instructions)
{
    for (size_t n = 0; n < sizeof others / sizeof *others; n++) {
        uint8_t bytes[32];
        struct cm_amx_instruction got;
        memset(bytes, 0x90, sizeof bytes);
        read_bytes(others[n], bytes);
        ck_assert_msg(cm_amx_decode(bytes, sizeof bytes, &got) == CM_AMX_NOT_TILE, "%s", others[n]);
    }
}
END_TEST

// What is undefined raises SIGILL at its own address.
START_TEST(other_instructions_trap)
{
    struct cm_unit_code code;
    cm_unit_amx_begin(_i ? CM_AMX_PATCH : CM_AMX_TRAP);
    cm_unit_code_open(&code);
    for (size_t n = 0; n + 1 < sizeof others / sizeof *others; n++) { // the last is too long to be #UD
        code.at = 0;
        cm_unit_emit_text(&code, others[n]);
        cm_unit_emit_text(&code, "c3");
        int number = cm_unit_amx_catch(cm_unit_code_function(&code, 0), NULL, NULL);
        ck_assert_msg(number == SIGILL, "%s raised %d", others[n], number);
        ck_assert_uint_eq(cm_unit_amx_rip, (uintptr_t)code.bytes);
    }
    cm_unit_code_close(&code);
}
END_TEST

TCase *cm_unit_amx_decoding(void)
{
    TCase *cases = tcase_create("decoding");
    tcase_add_test(cases, tile_instructions);
    tcase_add_test(cases, other_instructions);
    tcase_add_loop_test(cases, other_instructions_trap, 0, 2);
    return cases;
}

#endif
