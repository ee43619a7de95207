// SPDX-License-Identifier: Apache-2.0
// An AMX program that knows nothing of the emulator: asks the processor by CPUID and XGETBV, the kernel for
// permission, and multiplies in two threads,
// with its own idea of SIGILL. Exit status: 0 right, 1 wrong, 77 no AMX here.
#include "suites/unit/amx/matmul.h"

#include <cpuid.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { M = 40, N = 37, K = 144, ROUNDS = 20, THREADS = 2 };

static bool has_amx(void)
{
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return false;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low >> 17 & 3) == 3 && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 13) == 13 &&
           __get_cpuid_count(0x1d, 1, &a, &b, &c, &d) && a >> 16 == 1024 && b >> 16 == 8;
}

static bool get_permission(void)
{
    unsigned long granted = 0;
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0 && syscall(SYS_arch_prctl, 0x1022, &granted) == 0 &&
           granted >> 18 & 1;
}

static int value(int row, int column)
{
    return (row * 7 + column * 13) % 31 - 15;
}

// Small integers: every sum is exact in fp32, and so in both types. Returns how many elements are wrong.
static int multiply(int m, int n, int k)
{
    int wrong = 0;
    uint16_t *a = malloc(sizeof *a * (size_t)(m * k)), *b = malloc(sizeof *b * (size_t)(k * n));
    int8_t *a8 = malloc((size_t)(m * k)), *b8 = malloc((size_t)(k * n));
    float *out = malloc(sizeof *out * (size_t)(m * n));
    int32_t *out8 = malloc(sizeof *out8 * (size_t)(m * n));
    for (int i = 0; i < m * k; i++) {
        union {
            float number;
            uint32_t bits;
        } word = {(float)value(i / k, i % k)};
        a[i] = (uint16_t)(word.bits >> 16);
        a8[i] = (int8_t)value(i / k, i % k);
    }
    for (int i = 0; i < k * n; i++) {
        union {
            float number;
            uint32_t bits;
        } word = {(float)value(i / n, i % n)};
        b[(i / n / 2 * n + i % n) * 2 + i / n % 2] = (uint16_t)(word.bits >> 16);
        b8[(i / n / 4 * n + i % n) * 4 + i / n % 4] = (int8_t)value(i / n, i % n);
    }
    cm_unit_tiles_bf16(a, b, out, m, n, k);
    cm_unit_tiles_int8(a8, b8, out8, m, n, k);
    for (int i = 0; i < m * n; i++) {
        int sum = 0;
        for (int j = 0; j < k; j++)
            sum += value(i / n, j) * value(j, i % n);
        wrong += !(out[i] == (float)sum) || out8[i] != sum;
    }
    free(a);
    free(b);
    free(a8);
    free(b8);
    free(out);
    free(out8);
    return wrong;
}

// As threads of a pool often do: no signal is theirs.
static void block_signals(void)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
}

static void on_illegal(int number)
{
    static const char text[] = "an instruction that isn't there\n";
    (void)number;
    if (write(STDOUT_FILENO, text, sizeof text - 1) < 0)
        _exit(2);
    _exit(1);
}

static void *work(void *wrong)
{
    block_signals();
    for (int round = 0; round < ROUNDS; round++)
        *(int *)wrong += multiply(1 + (round * 5) % M, 1 + (round * 3) % N, K - 4 * round);
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    int wrong[THREADS] = {0}, all = 0;
    if (!has_amx()) {
        puts("no AMX");
        return 77;
    }
    signal(SIGILL, on_illegal);
    if (!get_permission()) {
        puts("no permission");
        return 1;
    }
    for (int n = 0; n < THREADS; n++)
        if (pthread_create(&threads[n], NULL, work, &wrong[n]))
            return 1;
    for (int n = 0; n < THREADS; n++) {
        pthread_join(threads[n], NULL);
        all += wrong[n];
    }
    printf("%d wrong elements\n", all);
    return all != 0;
}
