// SPDX-License-Identifier: Apache-2.0
// What CPUID and XGETBV say: this processor's own answers, and tiles with bf16 and int8. Not fp16, which
// programs don't ask for without AVX512-FP16. Leaves after Intel SDM volume 2, CPUID.
#include "optimized/amx/emulator/rewrite.h"

#include <cpuid.h>
#include <stddef.h>

enum { HIGHEST = 0x1e, PALETTE = 0x1d, MULTIPLIER = 0x1e, STATE = 0xd, FEATURES = 7 };
enum { CONFIG_OFFSET = 2752, DATA_OFFSET = 2816, DATA_BYTES = 8192 }; // in a standard XSAVE area
#define TILE_STATE   (3u << 17)
#define TILE_FEATURE (1u << 22 | 1u << 24 | 1u << 25) // bf16, tiles, int8

struct answer {
    uint32_t a, b, c, d;
};

static struct answer ask(uint32_t leaf, uint32_t subleaf)
{
    struct answer answer = {0};
    uint32_t highest = __get_cpuid_max(leaf & 0x80000000u, NULL);
    if (leaf <= highest) // beyond it some processors answer with another leaf
        __cpuid_count(leaf, subleaf, answer.a, answer.b, answer.c, answer.d);
    return answer;
}

static struct answer answer_cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct answer answer = ask(leaf, subleaf);
    if (leaf == 0 && answer.a < HIGHEST)
        answer.a = HIGHEST;
    if (leaf == FEATURES && subleaf == 0)
        answer.d |= TILE_FEATURE;
    if (leaf == PALETTE)
        answer = subleaf == 0   ? (struct answer){.a = 1}
                 : subleaf == 1 ? (struct answer){1024u << 16 | DATA_BYTES, 8u << 16 | 64, 16, 0}
                                : (struct answer){0};
    if (leaf == MULTIPLIER)
        answer = subleaf == 0 ? (struct answer){.b = 64u << 8 | 16} : (struct answer){0};
    if (leaf == STATE && subleaf == 0) {
        answer.a |= TILE_STATE;
        answer.b = answer.c = DATA_OFFSET + DATA_BYTES;
    } else if (leaf == STATE && subleaf == 17) {
        answer = (struct answer){64, CONFIG_OFFSET, 0, 0};
    } else if (leaf == STATE && subleaf == 18) {
        answer = (struct answer){DATA_BYTES, DATA_OFFSET, 6, 0};
    }
    return answer;
}

bool cm_amx_answer(ucontext_t *user)
{
    greg_t *registers = user->uc_mcontext.gregs;
    cm_amx_query query = cm_amx_find_query((uint64_t)registers[REG_RIP]);
    if (query == CM_AMX_NO_QUERY)
        return false;
    if (query == CM_AMX_CPUID) {
        struct answer answer = answer_cpuid((uint32_t)registers[REG_RAX], (uint32_t)registers[REG_RCX]);
        registers[REG_RAX] = answer.a;
        registers[REG_RBX] = answer.b;
        registers[REG_RCX] = answer.c;
        registers[REG_RDX] = answer.d;
        registers[REG_RIP] += 2;
        return true;
    }
    uint32_t low, high, which = (uint32_t)registers[REG_RCX];
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(which));
    registers[REG_RAX] = which == 0 ? low | TILE_STATE : low;
    registers[REG_RDX] = high;
    registers[REG_RIP] += 3;
    return true;
}
