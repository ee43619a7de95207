// SPDX-License-Identifier: Apache-2.0
// A matrix product compiled from intrinsics (amx/matmul.c), as instructions and as calls, on shapes with
// partial tiles, against the scalar model's arithmetic in the order of the tiles: equal to the bit.
#include "suites/unit/amx.h"

#if defined(__x86_64__)

#include "suites/unit/amx/matmul.h"
#include "suites/unit/amx_model.h"

#include <stdlib.h>
#include <string.h>

enum { MOST = 80 };

struct product {
    int m, n, k;
    uint16_t a[MOST * MOST], b[MOST * MOST]; // bf16, or bytes in the first half
    uint32_t out[MOST * MOST], want[MOST * MOST];
};

typedef void (*multiply_bf16)(const uint16_t *a, const uint16_t *b, float *out, int m, int n, int k);
typedef void (*multiply_int8)(const int8_t *a, const int8_t *b, int32_t *out, int m, int n, int k);

static struct product *open_product(uint64_t seed, int quantum)
{
    struct product *product = calloc(1, sizeof *product);
    product->m = 1 + (int)(cm_unit_amx_random(&seed) % (MOST - 1));
    product->n = 1 + (int)(cm_unit_amx_random(&seed) % (MOST - 1));
    product->k = quantum * (1 + (int)(cm_unit_amx_random(&seed) % (MOST / quantum)));
    for (int at = 0; at < MOST * MOST; at++) {
        uint64_t bits = cm_unit_amx_random(&seed);
        product->a[at] = (uint16_t)((bits & 0x81ff) + 0x3e00);
        product->b[at] = (uint16_t)((bits >> 16 & 0x81ff) + 0x3e00);
    }
    memset(product->out, 0xff, sizeof product->out);
    return product;
}

// Blocks of 32 in k: two chains each, their sum added to out.
static void want_bf16(struct product *product)
{
    const uint32_t one = 0x3f800000;
    int n = product->n, k = product->k;
    for (int at = 0; at < product->m * n; at++) {
        uint32_t sum = 0;
        for (int block = 0; block < k; block += 32) {
            uint32_t chain[2] = {0, 0};
            for (int i = block; i < k && i < block + 32; i++)
                chain[i % 2] =
                    model_fma((uint32_t)product->a[at / n * k + i] << 16,
                              (uint32_t)product->b[(i / 2 * n + at % n) * 2 + i % 2] << 16, chain[i % 2]);
            sum = model_fma(model_fma(chain[0], one, chain[1]), one, sum);
        }
        product->want[at] = sum;
    }
}

static void want_int8(struct product *product)
{
    const int8_t *a = (const int8_t *)product->a, *b = (const int8_t *)product->b;
    int n = product->n, k = product->k;
    for (int at = 0; at < product->m * n; at++) {
        int sum = 0;
        for (int i = 0; i < k; i++)
            sum += a[at / n * k + i] * b[(i / 4 * n + at % n) * 4 + i % 4];
        product->want[at] = (uint32_t)sum;
    }
}

static void close_product(struct product *product)
{
    ck_assert_mem_eq(product->out, product->want, sizeof(uint32_t) * (size_t)(product->m * product->n));
    for (int at = product->m * product->n; at < MOST * MOST; at++)
        ck_assert_uint_eq(product->out[at], 0xffffffff);
    free(product);
}

static void run(multiply_bf16 bf16, multiply_int8 int8, int count)
{
    for (int n = 0; n < count; n++) {
        struct product *product = open_product((uint64_t)n, 2);
        want_bf16(product);
        bf16(product->a, product->b, (float *)(void *)product->out, product->m, product->n, product->k);
        close_product(product);
        product = open_product((uint64_t)n + 1000, 4);
        want_int8(product);
        int8((const int8_t *)product->a, (const int8_t *)product->b, (int32_t *)(void *)product->out,
             product->m, product->n, product->k);
        close_product(product);
        ck_assert_int_eq(cm_amx_palette(), 0);
    }
}

START_TEST(instructions)
{
    struct cm_amx_counts counts;
    cm_unit_amx_begin(_i ? CM_AMX_PATCH : CM_AMX_TRAP);
    run(cm_unit_tiles_bf16, cm_unit_tiles_int8, 12);
    cm_amx_count(&counts);
    if (cm_amx_available() == CM_AMX_EMULATED) {
        ck_assert_uint_gt(counts.instructions, 1000);
        // of two functions: each site traps once, or is patched with the one before it
        ck_assert(_i ? counts.sites > 10 && counts.traps <= counts.sites
                     : counts.traps > 500 && !counts.sites);
    }
}
END_TEST

// Run-ahead and patches change the count of traps, not the result.
START_TEST(calls)
{
    cm_unit_amx_begin(CM_AMX_TRAP);
    run(cm_unit_calls_bf16, cm_unit_calls_int8, 12);
}
END_TEST

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

#ifdef SANITIZED
// One row too many is a byte that AddressSanitizer names.
START_TEST(calls_are_watched)
{
    cm_unit_amx_begin(CM_AMX_TRAP);
    uint16_t *a = malloc(16 * 32 * 2 - 1), *b = calloc(32 * 16, 2);
    float out[256];
    memset(a, 0, 16 * 32 * 2 - 1);
    cm_unit_calls_bf16(a, b, out, 16, 16, 32);
    free(a);
    free(b);
}
END_TEST
#endif

TCase *cm_unit_amx_matmul(void)
{
    TCase *cases = tcase_create("matmul");
    tcase_add_loop_test(cases, instructions, 0, 2);
    tcase_add_test(cases, calls);
#ifdef SANITIZED
    tcase_add_exit_test(cases, calls_are_watched, 1);
#endif
    return cases;
}

#endif
