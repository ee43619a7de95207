// SPDX-License-Identifier: Apache-2.0
// The tests of one case: a kernel that spins ends after its time, one that sleeps (or gets no processor) a
// few times later, and one that was only kept waiting passes.
#include "harness/group.h"
#include "harness/op.h"
#include "optimized/kernels.h"
#include "suites/unit/cases.h"

#include <time.h>
#include <unistd.h>

Suite *cm_unit_group(void);

#define CM_CHECK(symbol) extern const cm_check symbol;
#include "harness/checks.inc"
#undef CM_CHECK

static const double allowed = 0.4; // seconds

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static cm_status spin(const cm_call *call, void *state)
{
    (void)call, (void)state;
    for (volatile bool on = true; on;)
        ;
    return CM_OK;
}

static cm_status sleep_on(const cm_call *call, void *state)
{
    (void)call, (void)state;
    while (pause())
        ;
    return CM_OK;
}

// Later than allowed, without a processor meanwhile: as on a loaded machine.
static cm_status wait_then_run(const cm_call *call, void *state)
{
    for (double end = now() + 1.5 * allowed; now() < end;)
        usleep(1000);
    return cm_sgmv_plan_naive.run(call, state);
}

static cm_verdict verdict_of(cm_status (*run)(const cm_call *call, void *state), double *seconds)
{
    cm_kernel kernel = {.size = sizeof kernel, .name = "sgmv_plan/test", .file = __FILE__, .run = run};
    cm_pristine *pristine = cm_unit_open("sgmv_plan", "t9-l3-random-s1");
    cm_group group = {.pristine = pristine};
    cm_error error;
    ck_assert_int_eq(cm_pristine_want(pristine, kernel.accuracy, &error), CM_OK);
    cm_group_add(&group, &cm_check_numerics, &kernel, NULL);
    double begin = now();
    cm_group_run(&group, allowed);
    *seconds = now() - begin;
    cm_verdict verdict = group.tests[0].slot->outcome.verdict;
    if (verdict == CM_TIMEOUT)
        ck_assert_str_eq(group.tests[0].slot->outcome.reason, CM_TIMEOUT_REASON);
    cm_group_close(&group);
    cm_unit_close(pristine);
    return verdict;
}

START_TEST(what_spins_ends)
{
    double seconds;
    ck_assert_int_eq(verdict_of(spin, &seconds), CM_TIMEOUT);
    ck_assert_double_ge(seconds, 0.9 * allowed);
}
END_TEST

START_TEST(what_sleeps_ends_later)
{
    double seconds;
    ck_assert_int_eq(verdict_of(sleep_on, &seconds), CM_TIMEOUT);
    ck_assert_double_ge(seconds, 0.9 * CM_PATIENCE * allowed);
}
END_TEST

START_TEST(what_starves_goes_on)
{
    double seconds;
    ck_assert_int_eq(verdict_of(wait_then_run, &seconds), CM_PASS);
    ck_assert_double_ge(seconds, allowed);
}
END_TEST

Suite *cm_unit_group(void)
{
    Suite *suite = suite_create("group");
    TCase *tcase = tcase_create("time");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, what_spins_ends);
    tcase_add_test(tcase, what_sleeps_ends_later);
    tcase_add_test(tcase, what_starves_goes_on);
    suite_add_tcase(suite, tcase);
    return suite;
}
