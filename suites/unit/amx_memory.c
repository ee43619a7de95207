// SPDX-License-Identifier: Apache-2.0
// Addresses of tile instructions, faults within their memory operands, and what
// they leave alone: registers, flags, vectors, MXCSR, the red zone, code on
// pages that aren't there.
#include "suites/unit/amx.h"

#if defined(__x86_64__)

#include "suites/unit/amx_model.h"

#include <immintrin.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

enum { PAGE = 4096 };

static _Thread_local uint8_t thread_config[64];

static void make_config(uint8_t *config) // tiles 0 to 2 of 16x64
{
    memset(config, 0, 64);
    config[0] = 1;
    for (int tile = 0; tile < 3; tile++) {
        config[48 + tile] = 16;
        config[16 + 2 * tile] = 64;
    }
}

static void begin(int n, struct cm_unit_code *code)
{
    cm_unit_amx_begin(n ? CM_AMX_PATCH : CM_AMX_TRAP);
    cm_unit_code_open(code);
}

START_TEST(addresses)
{
    struct cm_unit_code code;
    uint8_t got[64], config[64], want[64];
    uint64_t thread_pointer;
    begin(_i, &code);
    make_config(config);
    // relative to RIP, from a configuration within the code
    make_config(want);
    want[48] = 9;
    cm_unit_emit(&code, want, 64);
    size_t function = code.at;
    int32_t distance = -(int32_t)(code.at + 9);
    cm_unit_emit_text(&code, "c4 e2 78 49 05");
    cm_unit_emit(&code, &distance, 4);
    cm_unit_emit_text(&code, "c4 e2 79 49 07 c3"); // sttilecfg (rdi)
    cm_unit_code_function(&code, function)(got, NULL);
    ck_assert_mem_eq(got, want, 64);
    // relative to FS, as compilers address thread-local variables
    __asm__("movq %%fs:0, %0" : "=r"(thread_pointer));
    make_config(thread_config);
    thread_config[49] = 5;
    distance = (int32_t)((int64_t)(uintptr_t)thread_config - (int64_t)thread_pointer);
    function = code.at;
    cm_unit_emit_text(&code, "64 c4 e2 78 49 04 25");
    cm_unit_emit(&code, &distance, 4);
    cm_unit_emit_text(&code, "c4 e2 79 49 07 c3");
    cm_unit_code_function(&code, function)(got, NULL);
    ck_assert_mem_eq(got, thread_config, 64);
    // 32-bit addresses: the upper half of a register does not count
    uint8_t *low = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    ck_assert(low != MAP_FAILED);
    memcpy(low + 128, want, 64);
    function = code.at;
    cm_unit_emit_text(&code,
                      "67 c4 e2 78 49 86 80 00 00 00"); // ldtilecfg 128(esi)
    cm_unit_emit_text(&code, "c4 e2 79 49 07 c3");
    memset(got, 0, sizeof got);
    cm_unit_code_function(&code, function)(got, low + ((uint64_t)0x1234 << 32));
    ck_assert_mem_eq(got, want, 64);
    munmap(low, PAGE);
    cm_unit_code_close(&code);
}
END_TEST

// A new configuration has zeros in its tiles, of whatever shape; TILERELEASE
// leaves nothing.
START_TEST(fresh_tiles)
{
    struct cm_unit_code code;
    uint8_t config[64], memory[2][1024];
    begin(_i, &code);
    make_config(config);
    for (int kind = 0; kind < 2; kind++) {
        size_t function = code.at;
        cm_unit_emit_text(&code,
                          "b9 40 00 00 00 c4 e2 78 49 07 c4 e2 7b 4b 04 0e"); // load tile 0
        if (kind)
            cm_unit_emit_text(&code, "c4 e2 78 49 c0"); // tilerelease
        cm_unit_emit_text(&code, "c4 e2 78 49 07");
        cm_unit_emit_memory(&code, 0x4b, 2, 0, 6, 1, 0, 1024);
        cm_unit_emit_text(&code, "c3");
        memset(memory, 0x77, sizeof memory);
        cm_unit_code_function(&code, function)(config, memory);
        for (int at = 0; at < 1024; at++)
            ck_assert_uint_eq(memory[1][at], 0);
    }
    cm_unit_code_close(&code);
}
END_TEST

// What takes part in no restart ends with start_row 0, and works on all rows.
START_TEST(start_row_ends)
{
    static const char *const instructions[] = {"c4 e2 6a 5c c1", "c4 e2 6b 5c c1", "c4 e2 6b 5e c1",
                                               "c4 e2 68 5e c1",
                                               "c4 e2 7b 49 c0"}; // products of 0, 1, 2; tilezero
    struct cm_unit_code code;
    uint8_t config[64], got[64], want[64];
    begin(_i, &code);
    make_config(want);
    make_config(config);
    config[1] = 3;
    for (size_t n = 0; n < sizeof instructions / sizeof *instructions; n++) {
        size_t function = code.at;
        cm_unit_emit_text(&code,
                          "c4 e2 78 49 07 c4 e2 79 49 06 c3"); // ldtilecfg (rdi), sttilecfg (rsi)
        size_t after = code.at;
        cm_unit_emit_text(&code, instructions[n]);
        cm_unit_emit_text(&code, "c4 e2 79 49 06 c3");
        cm_unit_code_function(&code, function)(config, got);
        ck_assert_mem_eq(got, config, 64);
        cm_unit_code_function(&code, after)(NULL, got);
        ck_assert_mem_eq(got, want, 64);
    }
    cm_unit_code_close(&code);
}
END_TEST

static struct {
    int count;
    const void *address, *instruction;
    uint8_t *pages;
    bool write;
} repaired;

// Makes the page accessible, so that the instruction goes on at the row where
// it stopped.
static void repair(int number, siginfo_t *info, void *context)
{
    (void)number;
    repaired.count++;
    repaired.address = info->si_addr;
    repaired.instruction = cm_amx_instruction_address();
    repaired.write = ((ucontext_t *)context)->uc_mcontext.gregs[REG_ERR] & 2;
    mprotect(repaired.pages + PAGE, PAGE, PROT_READ | PROT_WRITE);
}

// 16 rows of 64 bytes, 5 of them before the page that isn't there; behind an
// instruction that runs.
START_TEST(guard_pages)
{
    struct cm_unit_code code;
    uint8_t config[64], copy[1024];
    struct sigaction action = {.sa_sigaction = repair, .sa_flags = SA_SIGINFO}, old;
    begin(_i, &code);
    make_config(config);
    uint8_t *pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert(pages != MAP_FAILED);
    uint8_t *rows = pages + PAGE - 5 * 64;
    for (int at = 0; at < 1024; at++)
        rows[at] = copy[at] = (uint8_t)(at * 7 + at / 64);
    const void *instructions[2];
    cm_unit_emit_text(&code,
                      "b9 40 00 00 00 c4 e2 78 49 07 c4 e2 7b 49 c8"); // ldtilecfg (rdi),
                                                                       // tilezero 1
    instructions[0] = code.bytes + code.at;
    cm_unit_emit_text(&code, "c4 e2 7b 4b 04 0e c3"); // tileloadd 0, (rsi, rcx)
    size_t store = code.at;
    cm_unit_emit_text(&code, "b9 40 00 00 00 c4 e2 7b 49 c8");
    instructions[1] = code.bytes + code.at;
    cm_unit_emit_text(&code, "c4 e2 7a 4b 04 0e c3"); // tilestored
    size_t describe = code.at;
    cm_unit_emit_text(&code, "c4 e2 79 49 07 c3");
    const size_t functions[2] = {0, store};
    repaired.pages = pages;
    for (int n = 0; n < 2; n++) {
        mprotect(pages + PAGE, PAGE, PROT_NONE);
        // the fault as others see it: the very byte, and the row at which to go on
        ck_assert_int_eq(cm_unit_amx_catch(cm_unit_code_function(&code, functions[n]), config, rows),
                         SIGSEGV);
        ck_assert_ptr_eq(cm_unit_amx_info.si_addr, pages + PAGE);
        ck_assert_int_eq(cm_unit_amx_info.si_code, SEGV_ACCERR);
        uint8_t state[64];
        cm_unit_code_function(&code, describe)(state, NULL);
        ck_assert_uint_eq(state[1], 5);
        // the other way: repaired, it goes on (from row 0 again, as ldtilecfg or
        // tilezero reset start_row)
        mprotect(pages + PAGE, PAGE, PROT_NONE);
        repaired.count = 0;
        sigaction(SIGSEGV, &action, &old);
        cm_unit_code_function(&code, functions[n])(config, rows);
        sigaction(SIGSEGV, &old, NULL);
        ck_assert_int_eq(repaired.count, 1);
        ck_assert_ptr_eq(repaired.address, pages + PAGE);
        ck_assert_int_eq(repaired.write, n);
        if (cm_amx_available() == CM_AMX_EMULATED)
            ck_assert_ptr_eq(repaired.instruction, instructions[n]);
        ck_assert_mem_eq(rows, copy, 1024); // loaded, then stored unchanged
        memset(rows, n ? 0 : 0x11, 5 * 64);
    }
    munmap(pages, 2 * PAGE);
    cm_unit_code_close(&code);
}
END_TEST

static void emit_move(struct cm_unit_code *code, int reg,
                      int at) // mov reg, at(rsp)
{
    const uint8_t bytes[5] = {(uint8_t)(0x48 | reg >> 3 << 2), 0x89, (uint8_t)(0x44 | (reg & 7) << 3), 0x24,
                              (uint8_t)at};
    cm_unit_emit(code, bytes, sizeof bytes);
}

// Every general register and the flags, DF among them, in a leaf function that
// uses its red zone.
START_TEST(registers_and_red_zone)
{
    struct cm_unit_code code;
    uint8_t config[64];
    uint64_t values[17] = {0}, *out = values + 1; // flags, then registers
    begin(_i, &code);
    make_config(config);
    cm_unit_emit_text(&code, "c4 e2 78 49 07 c3");
    size_t function = code.at;
    cm_unit_emit_text(&code,
                      "53 55 41 54 41 55 41 56 41 57 fd f9"); // push..., std, stc
    for (int reg = 0; reg < 16; reg++)
        if (reg != 4)
            cm_unit_emit_constant(&code, reg, 0x0101010101010101u * (unsigned)(reg + 1));
    emit_move(&code, 3, -128); // rbx into the far end of the red zone
    cm_unit_emit_text(&code, "c4 e2 7b 49 c0 c4 e2 7b 49 c8 90 c4 e2 7b 49 d0");
    for (int reg = 0; reg < 16; reg++)
        if (reg != 4)
            emit_move(&code, reg,
                      -8 - 8 * reg + (reg == 15 ? 8 * 11 : 0)); // rsp's place is r15's
    cm_unit_emit_constant(&code, 0, (uint64_t)(uintptr_t)out);
    for (int n = 0; n < 16; n++) {
        const uint8_t copy[9] = {0x48,
                                 0x8b,
                                 0x4c,
                                 0x24,
                                 (uint8_t)(n == 15 ? -128 : -8 - 8 * n),
                                 0x48,
                                 0x89,
                                 0x48,
                                 (uint8_t)(8 * n)};
        cm_unit_emit(&code, copy,
                     sizeof copy); // mov -8-8n(rsp), rcx; mov rcx, 8n(rax)
    }
    cm_unit_emit_text(&code,
                      "9c 59 48 89 48 f8"); // pushfq, pop rcx, mov rcx, -8(rax)
    cm_unit_emit_text(&code, "fc 41 5f 41 5e 41 5d 41 5c 5d 5b c3");
    cm_unit_code_function(&code, 0)(config, NULL);
    cm_unit_code_function(&code, function)(NULL, NULL);
    for (int reg = 0; reg < 15; reg++)
        if (reg != 4)
            ck_assert_uint_eq(out[reg], 0x0101010101010101u * (unsigned)(reg + 1));
    ck_assert_uint_eq(out[15], 0x0404040404040404u); // rbx from -128(rsp)
    ck_assert_uint_eq(out[4], 0x1010101010101010u);  // r15
    ck_assert_uint_eq(values[0] & 0x401, 0x401);     // DF, CF
    cm_unit_code_close(&code);
}
END_TEST

__attribute__((target("avx512f,avx512bw"))) static void check_wide_vectors(cm_unit_function function)
{
    uint64_t in[8], low[8] = {0}, high[8] = {0}, mask = 0;
    for (int n = 0; n < 8; n++)
        in[n] = 0x1122334455667788u * (unsigned)(n + 1);
    __asm__ volatile(
        "leaq -128(%%rsp), %%rsp\n"
        "vmovdqu64 (%[in]), %%zmm1\n"
        "vmovdqu64 (%[in]), %%zmm29\n"
        "kmovq (%[in]), %%k5\n"
        "call *%[function]\n"
        "vmovdqu64 %%zmm1, (%[low])\n"
        "vmovdqu64 %%zmm29, (%[high])\n"
        "kmovq %%k5, (%[mask])\n"
        "leaq 128(%%rsp), %%rsp\n"
        :
        : [in] "r"(in), [low] "r"(low), [high] "r"(high), [mask] "r"(&mask), [function] "r"(function)
        : "xmm1", "xmm29", "k5", "memory", "cc");
    ck_assert_mem_eq(in, low, sizeof in);
    ck_assert_mem_eq(in, high, sizeof in);
    ck_assert_uint_eq(mask, in[0]);
}

START_TEST(vectors)
{
    struct cm_unit_code code;
    uint8_t config[64];
    float in[8] = {1, 2, 3, 4, 5, 6, 7, 8}, out[8] = {0};
    begin(_i, &code);
    make_config(config);
    cm_unit_emit_text(&code, "c4 e2 78 49 07 c3");
    size_t function = code.at;
    cm_unit_emit_text(&code, "c4 e2 6a 5c c1 c4 e2 6b 5e c1 c3"); // tdpbf16ps 0, 1, 2; tdpbssd
    cm_unit_code_function(&code, 0)(config, NULL);
    __asm__ volatile("leaq -128(%%rsp), %%rsp\n"
                     "vmovups (%[in]), %%ymm3\n"
                     "vmovups (%[in]), %%ymm14\n"
                     "call *%[function]\n"
                     "vmulps %%ymm3, %%ymm14, %%ymm3\n"
                     "vmovups %%ymm3, (%[out])\n"
                     "leaq 128(%%rsp), %%rsp\n"
                     :
                     : [in] "r"(in), [out] "r"(out), [function] "r"(cm_unit_code_function(&code, function))
                     : "xmm3", "xmm14", "memory", "cc");
    for (int n = 0; n < 8; n++)
        ck_assert(out[n] == in[n] * in[n]);
    if (__builtin_cpu_supports("avx512bw"))
        check_wide_vectors(cm_unit_code_function(&code, function));
    cm_unit_code_close(&code);
}
END_TEST

// Round up, denormals kept, flags clear: none of it has an effect on a product,
// nor a product on it.
START_TEST(mxcsr)
{
    struct cm_unit_code code;
    uint8_t config[64], out[2][1024];
    static uint16_t factors[512];
    begin(_i, &code);
    make_config(config);
    for (int n = 0; n < 512; n++)
        factors[n] = (uint16_t)(n % 7 == 0 ? 0x0001 : n % 5 == 0 ? 0x1f81 + n : 0x3f81 + n % 64);
    cm_unit_emit_text(&code, "b9 40 00 00 00 c4 e2 78 49 07 c3");
    size_t function = code.at; // loads of tiles 0 to 2, a product, a store
    cm_unit_emit_text(&code, "b9 40 00 00 00 c4 e2 7b 49 c0 c4 e2 7b 4b 0c 0f c4 "
                             "e2 7b 4b 14 0f c4 e2 6a 5c c1");
    cm_unit_emit_text(&code, "c4 e2 7a 4b 04 0e c3");
    for (int n = 0; n < 2; n++) {
        unsigned before = _mm_getcsr(),
                 strange = n ? 0x5f80 : 0x1f80; // towards +infinity
        cm_unit_code_function(&code, 0)(config, NULL);
        _mm_setcsr(strange);
        cm_unit_code_function(&code, function)(factors, out[n]);
        unsigned after = _mm_getcsr();
        _mm_setcsr(before);
        ck_assert_uint_eq(after, strange);
    }
    ck_assert_mem_eq(out[0], out[1], 1024);
    uint32_t chain[2] = {0, 0}, got;
    for (int k = 0; k < 32; k++)
        chain[k % 2] =
            model_fma((uint32_t)factors[k] << 16, (uint32_t)factors[k / 2 * 32 + k % 2] << 16, chain[k % 2]);
    memcpy(&got, out[0], 4);
    ck_assert_uint_eq(got, model_fma(model_fma(chain[0], 0x3f800000, chain[1]), 0x3f800000, 0));
    cm_unit_code_close(&code);
}
END_TEST

// Tile instructions at the very end of the last executable page, and across two
// pages.
START_TEST(ends_of_pages)
{
    uint8_t config[64];
    struct cm_unit_code code;
    begin(_i, &code);
    make_config(config);
    cm_unit_emit_text(&code, "c4 e2 78 49 07 c3");
    cm_unit_code_function(&code, 0)(config, NULL);
    uint8_t *pages = code.bytes + 8 * PAGE;
    for (int before = 0; before <= 16; before++) { // bytes of: tilezero, tilezero, ret, of which some lie in
                                                   // the next page
        code.at = (size_t)(9 * PAGE - before);
        cm_unit_emit_text(&code, "c4 e2 7b 49 c0 c4 e2 7b 49 c8 c3");
        ck_assert_int_eq(
            cm_unit_amx_catch(cm_unit_code_function(&code, (size_t)(9 * PAGE - before)), NULL, NULL), 0);
    }
    // the next page isn't there: the one that ends with its page runs, the fetch
    // behind it faults
    code.at = 9 * PAGE - 5;
    cm_unit_emit_text(&code, "c4 e2 7b 49 c0");
    mprotect(pages + PAGE, PAGE, PROT_NONE);
    ck_assert_int_eq(cm_unit_amx_catch(cm_unit_code_function(&code, 9 * PAGE - 5), NULL, NULL), SIGSEGV);
    ck_assert_ptr_eq(cm_unit_amx_info.si_addr, pages + PAGE);
    ck_assert_uint_eq(cm_unit_amx_rip, (uintptr_t)pages + PAGE);
    cm_unit_code_close(&code);
}
END_TEST

TCase *cm_unit_amx_memory(void)
{
    TCase *cases = tcase_create("memory");
    tcase_add_loop_test(cases, addresses, 0, 2);
    tcase_add_loop_test(cases, fresh_tiles, 0, 2);
    tcase_add_loop_test(cases, start_row_ends, 0, 2);
    tcase_add_loop_test(cases, guard_pages, 0, 2);
    tcase_add_loop_test(cases, registers_and_red_zone, 0, 2);
    tcase_add_loop_test(cases, vectors, 0, 2);
    tcase_add_loop_test(cases, mxcsr, 0, 2);
    tcase_add_loop_test(cases, ends_of_pages, 0, 2);
    return cases;
}

#endif
