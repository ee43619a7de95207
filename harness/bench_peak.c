// SPDX-License-Identifier: Apache-2.0
// Twelve independent sums hide the latency of multiply-add (4 cycles, 2 a cycle on current cores) and fit
// into 16 registers. The widest instruction that the CPU has is chosen when the program runs. Matrix units
// (AMX) are not measured.
#include "harness/bench_peak.h"

#include <stdbool.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define TWELVE(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)

static volatile float float_operand = 0.5f; // the compiler must not know the values
static volatile int whole_operand = 3;

// A function of `rounds` loops over twelve STEPs, on sums s0 to s11 of `type` and operands a and b.
// Each sum begins with a value that the compiler can't know to be that of another.
#define DECLARE(n) sum s##n = FIRST;
#define STEP(n)    s##n = NEXT(s##n);
#define KEEP(n)    kept = s##n;
#define LOOP(name, attributes, sum_type, operand_type, operand)                                              \
    attributes static void name(int64_t rounds)                                                              \
    {                                                                                                        \
        typedef sum_type sum;                                                                                \
        const operand_type a = (operand);                                                                    \
        volatile sum kept; /* all sums have to be there in the end */                                        \
        TWELVE(DECLARE)                                                                                      \
        for (int64_t n = 0; n < rounds; n++) {                                                               \
            TWELVE(STEP)                                                                                     \
        }                                                                                                    \
        TWELVE(KEEP)                                                                                         \
        (void)kept;                                                                                          \
    }

typedef float four __attribute__((vector_size(16)));

// The build allows this file to contract a product and a sum.
#define FIRST   ((four){0} + float_operand)
#define NEXT(s) (a * (s) + a)
LOOP(loop_plain, , four, four, ((four){0} + float_operand))
#undef FIRST
#undef NEXT

#if defined(__x86_64__)
#define FIRST   _mm256_set1_ps(float_operand)
#define NEXT(s) _mm256_fmadd_ps(a, s, a)
LOOP(loop_fma, __attribute__((target("avx2,fma"))), __m256, __m256, _mm256_set1_ps(float_operand))
#undef FIRST
#undef NEXT
#define FIRST   _mm512_set1_ps(float_operand)
#define NEXT(s) _mm512_fmadd_ps(a, s, a)
LOOP(loop_fma512, __attribute__((target("avx512f"))), __m512, __m512, _mm512_set1_ps(float_operand))
#undef FIRST
#undef NEXT
#define FIRST   _mm512_set1_ps(float_operand)
#define NEXT(s) _mm512_dpbf16_ps(s, (__m512bh)a, (__m512bh)a)
LOOP(loop_bf16, __attribute__((target("avx512f,avx512bw,avx512bf16"))), __m512, __m512i,
     _mm512_set1_epi16((short)(0x3f80 + whole_operand)))
#undef FIRST
#undef NEXT
#define FIRST   _mm512_set1_epi32(whole_operand)
#define NEXT(s) _mm512_dpbusd_epi32(s, a, a)
LOOP(loop_i8, __attribute__((target("avx512f,avx512bw,avx512vnni"))), __m512i, __m512i,
     _mm512_set1_epi8((char)whole_operand))
#undef FIRST
#undef NEXT
#endif

static const struct loop {
    cm_operand operand;
    const char *instruction, *feature; // feature NULL: every CPU has it
    double operations;                 // of one instruction
    void (*run)(int64_t rounds);
} loops[] = {
#if defined(__x86_64__)
    {CM_OPERAND_F32, "vfmadd231ps zmm", "avx512f", 32, loop_fma512},
    {CM_OPERAND_F32, "vfmadd231ps ymm", "fma", 16, loop_fma},
    {CM_OPERAND_BF16, "vdpbf16ps zmm", "avx512bf16", 64, loop_bf16},
    {CM_OPERAND_I8, "vpdpbusd zmm", "avx512vnni", 128, loop_i8},
#endif
    {CM_OPERAND_F32, "vectors of 4", NULL, 8, loop_plain},
};

static bool has_feature(const char *feature)
{
#if defined(__x86_64__)
    if (!feature)
        return true;
    if (!strcmp(feature, "avx512f"))
        return __builtin_cpu_supports("avx512f");
    if (!strcmp(feature, "fma"))
        return __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx2");
    if (!strcmp(feature, "avx512bf16"))
        return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw");
    if (!strcmp(feature, "avx512vnni"))
        return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw");
    return false;
#else
    return !feature;
#endif
}

static const struct loop *find_loop(cm_operand operand)
{
    for (size_t n = 0; n < sizeof loops / sizeof *loops; n++)
        if (loops[n].operand == operand && has_feature(loops[n].feature))
            return &loops[n];
    return NULL;
}

const char *cm_operand_name(cm_operand operand)
{
    static const char *const names[] = {"fp32", "bf16", "int8"};
    return (unsigned)operand < CM_OPERAND_COUNT ? names[operand] : "unknown";
}

const char *cm_operand_instruction(cm_operand operand)
{
    const struct loop *loop = find_loop(operand);
    return loop ? loop->instruction : NULL;
}

double cm_peak_multiply(cm_operand operand, int64_t rounds)
{
    const struct loop *loop = find_loop(operand);
    if (!loop)
        return 0;
    loop->run(rounds);
    return 12 * loop->operations * (double)rounds;
}

uint64_t cm_peak_read(const void *data, size_t bytes)
{
    typedef uint64_t two __attribute__((vector_size(16)));
    const two *at = data, *end = at + bytes / sizeof *at;
    two sums[8] = {{0}}; // a cache line is four of them: two lines a turn
    for (; at < end; at += 8)
        for (int n = 0; n < 8; n++)
            sums[n] ^= at[n];
    for (int n = 1; n < 8; n++)
        sums[0] ^= sums[n];
    return sums[0][0] ^ sums[0][1];
}
