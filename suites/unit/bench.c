// SPDX-License-Identifier: Apache-2.0
// bench: kernels of known length are told apart, kernels that are wrong or die get no time, and what the
// measuring stands on (copies, ceilings, CPUs) is what it says. No test needs a quiet machine: what is
// asserted about times leaves room for one that has other things to do.
#include "harness/bench.h"
#include "harness/bench_ceilings.h"
#include "harness/bench_cpus.h"
#include "optimized/kernels.h"
#include "suites/unit/bench_kernels.h"
#include "suites/unit/cases.h"

#include <math.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const shrink_case = "t7-r8x2-K96-f32-random-s1";

// A pair on a case of an op, with `count` copies or so.
static bool measure(const char *op, const char *name, const cm_kernel *base, const cm_kernel *kernel,
                    double timeout, cm_bench_result *result)
{
    cm_pristine *pristine = cm_unit_open(op, name);
    cm_copies copies;
    cm_error error = {{0}};
    ck_assert_int_eq(cm_pristine_want(pristine, base->accuracy, &error), CM_OK);
    ck_assert_int_eq(cm_pristine_want(pristine, kernel->accuracy, &error), CM_OK);
    ck_assert_int_eq(cm_copies_open(pristine, 4096, 4 * 4096, 0, 256, &copies, &error), CM_OK);
    ck_assert_int_eq(copies.count, 4);
    cm_bench_job jobs[2] = {{base, NULL, &copies, 1, 60, NULL}, {kernel, NULL, &copies, 1, timeout, NULL}};
    cm_bench_options options = {.rounds = 40, .seconds = 20, .seed = 1};
    bool timed = cm_bench_pair(jobs, &options, result);
    cm_copies_close(&copies);
    cm_unit_close(pristine);
    ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1); // no process is left
    return timed;
}

static void expect_timed(bool timed, const cm_bench_result *result)
{
    for (int n = 0; n < 2; n++)
        ck_assert_msg(timed && result->outcomes[n].verdict == CM_PASS && result->outcomes[n].compared > 0,
                      "kernel %d: %s: %s", n, cm_verdict_name(result->outcomes[n].verdict),
                      result->outcomes[n].reason);
    ck_assert(result->ns[0] > 0 && result->ns[1] > 0);
    ck_assert(result->ratio.low <= result->ratio.median && result->ratio.median <= result->ratio.high);
}

// One of three attempts has to be clear: another process can be beside all of one.
START_TEST(equal_kernels_are_equal)
{
    cm_bench_result result;
    bool clear = false;
    for (int attempt = 0; attempt < 3 && !clear; attempt++) {
        expect_timed(measure("sgmv_shrink", shrink_case, &cm_unit_ten, &cm_unit_ten, 60, &result), &result);
        clear = fabs(result.ratio.median) < log(1.15) &&
                cm_speed_judge(&result.ratio, log(1.2), log(1.2)) == CM_SAME;
    }
    ck_assert_msg(clear, "ratio %g [%g, %g]", exp(result.ratio.median), exp(result.ratio.low),
                  exp(result.ratio.high));
}
END_TEST

START_TEST(a_slower_kernel_is_slower)
{
    cm_bench_result result;
    bool clear = false, slower = _i == 0;
    const cm_kernel *base = slower ? &cm_unit_ten : &cm_unit_fifteen;
    const cm_kernel *kernel = slower ? &cm_unit_fifteen : &cm_unit_ten;
    for (int attempt = 0; attempt < 3 && !clear; attempt++) {
        expect_timed(measure("sgmv_shrink", shrink_case, base, kernel, 60, &result), &result);
        clear = fabs(fabs(result.ratio.median) - log(1.5)) < log(1.2) &&
                cm_speed_judge(&result.ratio, log(1.1), 0) == (slower ? CM_SLOWER : CM_FASTER);
    }
    ck_assert_msg(clear, "ratio %g [%g, %g]", exp(result.ratio.median), exp(result.ratio.low),
                  exp(result.ratio.high));
}
END_TEST

START_TEST(bad_kernels_get_no_time)
{
    const cm_unit_bad_kernel *bad = &cm_unit_bad_kernels[_i];
    cm_bench_result result;
    // 4 copies are called 5 times for a first idea of the time, and the pairs follow.
    bool timed = measure("sgmv_shrink", shrink_case, &cm_sgmv_shrink_naive, &bad->kernel,
                         bad->verdict == CM_TIMEOUT ? 3 : 60, &result);
    ck_assert_msg(!timed, "%s got a time", bad->kernel.name);
    ck_assert_msg((int)result.outcomes[1].verdict == bad->verdict &&
                      strstr(result.outcomes[1].reason, bad->finding),
                  "%s: %s: %s", bad->kernel.name, cm_verdict_name(result.outcomes[1].verdict),
                  result.outcomes[1].reason);
    ck_assert_int_eq(result.outcomes[0].verdict, CM_PASS);
    ck_assert_double_eq(result.ns[1], 0);
}
END_TEST

// Outputs that a kernel adds to are the same before every call.
START_TEST(accumulating_outputs_start_anew)
{
    cm_bench_result result;
    expect_timed(measure("sgmv_expand", "t9-r8x4-n48-S2-bf16-full-random-s1", &cm_sgmv_expand_naive,
                         &cm_sgmv_expand_openblas, 60, &result),
                 &result);
}
END_TEST

START_TEST(states_of_their_own)
{
    cm_bench_result result;
    expect_timed(measure("moe_forward", "t5-k2-e4-h48-i40-r8x2-bf16-random-s1", &cm_moe_forward_openblas,
                         &cm_moe_forward_onednn, 60, &result),
                 &result);
}
END_TEST

START_TEST(copies_are_distinct_and_equal)
{
    cm_pristine *pristine = cm_unit_open("moe_forward", "t5-k2-e4-h48-i40-r8x2-bf16-padded-random-s1");
    cm_copies copies;
    cm_error error = {{0}};
    const cm_op *op = pristine->test_case.op;
    int held = 0;
    ck_assert_int_eq(cm_copies_open(pristine, 1000, 9999, 0, 512, &copies, &error), CM_OK);
    ck_assert_int_eq(copies.count, 10);
    ck_assert(!copies.short_of_memory);
    for (int n = 0; op->arguments[n].name; n++) {
        if (!cm_copies_hold(pristine, n))
            continue;
        size_t extent = cm_tensor_extent(pristine->arguments[n]);
        held++;
        for (int copy = 0; copy < copies.count; copy++) {
            char *data = cm_copies_data(&copies, copy, n);
            ck_assert_uint_eq((uintptr_t)data % 512, 0);
            ck_assert_mem_eq(data, pristine->arguments[n]->data, extent);
            ck_assert(copy == 0 || data - (char *)cm_copies_data(&copies, copy - 1, n) >= (long)extent);
        }
    }
    ck_assert_int_gt(held, 3);
    cm_copies_close(&copies);
    ck_assert_int_eq(cm_copies_open(pristine, 1000, 0, 0, 64, &copies, &error), CM_OK); // warm
    ck_assert_int_eq(copies.count, 1);
    cm_copies_close(&copies);
    ck_assert_int_eq(cm_copies_open(pristine, 1, (size_t)1 << 50, 0, 64, &copies, &error), CM_OK);
    ck_assert_int_le(copies.count, 4096);
    cm_copies_close(&copies);
    cm_unit_close(pristine);
}
END_TEST

START_TEST(cpus_are_those_allowed)
{
    cpu_set_t one, all, allowed, both;
    cm_cpus_choose(1, &one);
    cm_cpus_choose(cm_cpus_allowed(), &all);
    ck_assert_int_eq(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    ck_assert_int_eq(CPU_COUNT(&one), 1);
    ck_assert(CPU_EQUAL(&all, &allowed));
    CPU_AND(&both, &one, &all);
    ck_assert(CPU_EQUAL(&both, &one));
}
END_TEST

START_TEST(ceilings_are_measured)
{
    cm_ceilings ceilings;
    cm_error error = {{0}};
    ck_assert_msg(cm_ceilings_measure(1, 0.05, &ceilings, &error) == CM_OK, "%s", error.message);
    ck_assert(ceilings.read > 1e7 && ceilings.read < 1e14);
    ck_assert(ceilings.buffer >= (size_t)1 << 20);
    for (cm_operand operand = CM_OPERAND_F32; operand < CM_OPERAND_COUNT; operand++) {
        cm_operand used = operand;
        double multiply = cm_ceilings_multiply(&ceilings, &used);
        ck_assert(multiply > 1e7 && multiply < 1e14);
        ck_assert_int_eq(used == operand, cm_operand_instruction(operand) != NULL);
    }
    ck_assert_int_eq(cm_ceilings_measure(0, 0.05, &ceilings, &error), CM_BAD_VALUE);
    error.message[0] = 0;
    ck_assert_int_eq(cm_ceilings_measure(cm_cpus_allowed() + 1, 0.05, &ceilings, &error), CM_BAD_VALUE);
    ck_assert(strstr(error.message, "this process may use") != NULL);
}
END_TEST

START_TEST(reading_reads_everything)
{
    static uint64_t data[256] __attribute__((aligned(16)));
    for (size_t n = 0; n < 256; n++) {
        memset(data, 0, sizeof data);
        data[n] = 0x123456789abcdef0 + n;
        ck_assert_uint_eq(cm_peak_read(data, sizeof data), data[n]);
    }
    ck_assert_uint_eq(cm_peak_read(data, 0), 0);
}
END_TEST

Suite *cm_unit_bench(void)
{
    Suite *suite = suite_create("bench");
    TCase *quick = tcase_create("parts"), *pairs = tcase_create("pairs");
    int bad = 0;
    while (cm_unit_bad_kernels[bad].kernel.name)
        bad++;
    tcase_set_timeout(quick, 120);
    tcase_set_timeout(pairs, 300);
    tcase_add_test(quick, copies_are_distinct_and_equal);
    tcase_add_test(quick, cpus_are_those_allowed);
    tcase_add_test(quick, ceilings_are_measured);
    tcase_add_test(quick, reading_reads_everything);
    tcase_add_test(pairs, equal_kernels_are_equal);
    tcase_add_loop_test(pairs, a_slower_kernel_is_slower, 0, 2);
    tcase_add_loop_test(pairs, bad_kernels_get_no_time, 0, bad);
    tcase_add_test(pairs, accumulating_outputs_start_anew);
    tcase_add_test(pairs, states_of_their_own);
    suite_add_tcase(suite, cm_unit_bench_statistics());
    suite_add_tcase(suite, quick);
    suite_add_tcase(suite, pairs);
    suite_add_tcase(suite, cm_unit_bench_tables());
    suite_add_tcase(suite, cm_unit_bench_cli());
    return suite;
}
