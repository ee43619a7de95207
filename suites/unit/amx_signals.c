// SPDX-License-Identifier: Apache-2.0
// The emulator among other handlers, other signals, other threads and forks.
#include "suites/unit/amx.h"

#if defined(__x86_64__)

#include "suites/unit/amx/matmul.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

enum { THREADS = 4, ROUNDS = 40, ROW = 64, SIZE = 24 };

static cm_amx_method method(int n)
{
    return n ? CM_AMX_PATCH : CM_AMX_TRAP;
}

static void make_config(uint8_t *config)
{
    memset(config, 0, 64);
    config[0] = 1;
    for (int tile = 0; tile < 8; tile++) {
        config[48 + tile] = 16;
        config[16 + 2 * tile] = 64;
    }
}

static atomic_int illegal, numbers;

static void skip_ud2(int number, siginfo_t *info, void *context)
{
    greg_t *rip = &((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    (void)number;
    if ((greg_t)(uintptr_t)info->si_addr == *rip) // an assertion would not be async-signal-safe
        illegal++;
    *rip += 2;
}

static void count_number(int number)
{
    numbers += number;
}

static void take(int number, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    sigaction(number, &action, NULL);
}

// What is no tile instruction reaches the handler that was there first, with
// its context.
START_TEST(another_handler)
{
    take(SIGILL, skip_ud2, 0);
    signal(SIGTRAP, count_number);
    cm_unit_amx_begin(method(_i));
    for (int n = 0; n < 3; n++)
        __asm__ volatile("ud2");
    __asm__ volatile("int3");
    raise(SIGTRAP);
    ck_assert_int_eq(illegal, 3);
    ck_assert_int_eq(numbers, 2 * SIGTRAP);
    uint8_t config[64], stored[64];
    make_config(config);
    __asm__ volatile("ud2; .byte 0xc4, 0xe2, 0x78, 0x49, 0x00; ud2; .byte 0xc4, "
                     "0xe2, 0x79, 0x49, 0x03"
                     :
                     : "a"(config), "b"(stored)
                     : "memory");
    ck_assert_mem_eq(config, stored, 64);
    ck_assert_int_eq(illegal, 5);
}
END_TEST

START_TEST(sent_signals)
{
    signal(SIGILL, count_number);
    cm_unit_amx_begin(method(_i));
    raise(SIGILL);
    kill(getpid(), SIGILL);
    ck_assert_int_eq(numbers, 2 * SIGILL);
}
END_TEST

START_TEST(ignored_signals)
{
    signal(SIGILL, SIG_IGN);
    cm_unit_amx_begin(method(_i));
    raise(SIGILL);
    ck_assert_int_eq(cm_amx_available() != CM_AMX_NONE, 1);
}
END_TEST

// A handler that is to run once is gone at the second time, and then the signal
// is deadly.
START_TEST(reset_handler)
{
    if (cm_amx_available() == CM_AMX_NATIVE)
        raise(SIGILL);
    take(SIGILL, skip_ud2, (int)SA_RESETHAND);
    cm_unit_amx_begin(method(_i));
    __asm__ volatile("ud2");
    if (illegal == 1)
        __asm__ volatile("ud2");
}
END_TEST

START_TEST(deadly_breakpoint)
{
    cm_unit_amx_begin(method(_i));
    __asm__ volatile("int3");
}
END_TEST

static void on_alarm(int number)
{
    (void)number;
    __asm__ volatile("ud2"); // a trap of another's in the midst of whatever is emulated
}

static void fill(int8_t *a, int8_t *b, int32_t *want, int seed)
{
    for (int at = 0; at < SIZE * SIZE; at++) {
        a[at] = (int8_t)(at * 7 + seed);
        b[at] = (int8_t)(at * 11 - seed);
    }
    for (int at = 0; at < SIZE * SIZE; at++) {
        want[at] = 0;
        for (int k = 0; k < SIZE; k++)
            want[at] += a[at / SIZE * SIZE + k] * b[(k / 4 * SIZE + at % SIZE) * 4 + k % 4];
    }
}

START_TEST(nested_signals)
{
    int8_t a[SIZE * SIZE], b[SIZE * SIZE];
    int32_t out[SIZE * SIZE], want[SIZE * SIZE];
    struct itimerval often = {.it_interval.tv_usec = 500, .it_value.tv_usec = 500}, never = {0};
    take(SIGILL, skip_ud2, 0);
    cm_unit_amx_begin(method(_i));
    signal(SIGALRM, on_alarm);
    setitimer(ITIMER_REAL, &often, NULL);
    for (int round = 0; round < 20000 && (round < 50 || illegal < 20); round++) {
        fill(a, b, want, round);
        memset(out, 0xff, sizeof out);
        cm_unit_tiles_int8(a, b, out, SIZE, SIZE, SIZE);
        ck_assert_mem_eq(out, want, sizeof want);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    ck_assert_int_ge(illegal, 20);
}
END_TEST

// Fresh code, which all threads enter at the same time: each site is met while
// another thread patches it.
struct crowd {
    struct cm_unit_code code;
    pthread_barrier_t begin, end;
    size_t function;
    atomic_int wrong;
};

static void *enter(void *data)
{
    struct crowd *crowd = data;
    uint8_t config[64], in[16 * ROW], out[16 * ROW];
    make_config(config);
    for (int at = 0; at < 16 * ROW; at++)
        in[at] = (uint8_t)(at * 13 + (int)(uintptr_t)&config);
    for (int round = 0; round < ROUNDS; round++) {
        memset(out, 0, sizeof out);
        pthread_barrier_wait(&crowd->begin);
        cm_unit_code_function(&crowd->code, 0)(config, NULL);
        for (int again = 0; again < 3; again++)
            cm_unit_code_function(&crowd->code, crowd->function)(in, out);
        crowd->wrong += memcmp(in, out, sizeof in) != 0 || cm_amx_palette() != 1;
        pthread_barrier_wait(&crowd->end);
    }
    return NULL;
}

START_TEST(threads)
{
    struct crowd crowd = {0};
    pthread_t others[THREADS];
    cm_unit_amx_begin(method(_i));
    cm_unit_code_open(&crowd.code);
    pthread_barrier_init(&crowd.begin, NULL, THREADS + 1);
    pthread_barrier_init(&crowd.end, NULL, THREADS + 1);
    for (int n = 0; n < THREADS; n++)
        ck_assert_int_eq(pthread_create(&others[n], NULL, enter, &crowd), 0);
    for (int round = 0; round < ROUNDS; round++) {
        crowd.code.at = 0;
        cm_unit_emit_text(&crowd.code, "c4 e2 78 49 07 c3"); // ldtilecfg (rdi)
        crowd.function = crowd.code.at;
        cm_unit_emit_text(&crowd.code, "b9 40 00 00 00"); // mov 64, ecx
        for (int n = 0; n < 30; n++) {                    // in and out through a tile, at odd places
            cm_unit_emit_memory(&crowd.code, 0x4b, 3, n % 8, 7, 1, 0, 0);
            if ((n + round) % 3)
                cm_unit_emit_text(&crowd.code, "90");
            cm_unit_emit_memory(&crowd.code, 0x4b, 2, n % 8, 6, 1, 0, 0);
        }
        cm_unit_emit_text(&crowd.code, "c3");
        pthread_barrier_wait(&crowd.begin);
        pthread_barrier_wait(&crowd.end);
    }
    for (int n = 0; n < THREADS; n++)
        pthread_join(others[n], NULL);
    ck_assert_int_eq(crowd.wrong, 0);
    pthread_barrier_destroy(&crowd.begin);
    pthread_barrier_destroy(&crowd.end);
    cm_unit_code_close(&crowd.code);
}
END_TEST

static uint64_t count_sites(void)
{
    struct cm_amx_counts counts;
    cm_amx_count(&counts);
    return counts.sites;
}

// The child of a process that has patched code runs that code, and patches more
// of its own, under the limits that the runner puts on the size of files.
START_TEST(forks)
{
    int8_t a[SIZE * SIZE], b[SIZE * SIZE];
    int32_t out[SIZE * SIZE], want[SIZE * SIZE];
    uint16_t half[4] = {0x3f80, 0x4000, 0x3f80, 0x4000};
    float sum = 0;
    int status;
    cm_unit_amx_begin(method(_i));
    fill(a, b, want, 5);
    cm_unit_tiles_int8(a, b, out, SIZE, SIZE, SIZE);
    ck_assert_mem_eq(out, want, sizeof want);
    pid_t child = fork();
    if (child == 0) {
        uint64_t before = count_sites();
        bool patches = _i && cm_amx_available() == CM_AMX_EMULATED;
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){1 << 20, 1 << 20});
        memset(out, 0, sizeof out);
        cm_unit_tiles_int8(a, b, out, SIZE, SIZE, SIZE);
        cm_unit_tiles_bf16(half, half, &sum, 1, 1, 4);
        if (memcmp(out, want, sizeof want) != 0 || !(sum == 10))
            _exit(1);
        _exit((count_sites() > before) != patches);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    cm_unit_tiles_bf16(half, half, &sum, 1, 1, 2);
    ck_assert(sum == 5);
}
END_TEST

// The state of a thread is its own.
static void *look(void *palette)
{
    *(int *)palette = cm_amx_palette();
    return NULL;
}

START_TEST(thread_state)
{
    uint8_t config[64];
    int palette = -1;
    pthread_t other;
    cm_unit_amx_begin(method(_i));
    if (cm_amx_available() != CM_AMX_EMULATED)
        return;
    make_config(config);
    __asm__ volatile(".byte 0xc4, 0xe2, 0x78, 0x49, 0x00" : : "a"(config) : "memory");
    ck_assert_int_eq(cm_amx_palette(), 1);
    ck_assert_int_eq(pthread_create(&other, NULL, look, &palette), 0);
    pthread_join(other, NULL);
    ck_assert_int_eq(palette, 0);
    cm_amx_reset();
    ck_assert_int_eq(cm_amx_palette(), 0);
    ck_assert_ptr_null(cm_amx_instruction_address());
}
END_TEST

TCase *cm_unit_amx_signals(void)
{
    TCase *cases = tcase_create("signals");
    tcase_add_loop_test(cases, another_handler, 0, 2);
    tcase_add_loop_test(cases, sent_signals, 0, 2);
    tcase_add_loop_test(cases, ignored_signals, 0, 2);
    tcase_add_loop_test_raise_signal(cases, reset_handler, SIGILL, 0, 2);
    tcase_add_loop_test_raise_signal(cases, deadly_breakpoint, SIGTRAP, 0, 2);
    tcase_add_loop_test(cases, nested_signals, 0, 2);
    tcase_add_loop_test(cases, threads, 0, 2);
    tcase_add_loop_test(cases, forks, 0, 2);
    tcase_add_loop_test(cases, thread_state, 0, 2);
    return cases;
}

#endif
