// SPDX-License-Identifier: Apache-2.0
// The statistics of a bench on data whose truth is known.
#include "harness/bench_statistics.h"
#include "harness/rng.h"
#include "suites/unit/bench_kernels.h"

#include <math.h>

// Ranks of the sign test's tables.
static const struct rank {
    size_t count, at_95, at_99;
} ranks[] = {{5, 0, 0},   {6, 1, 0},    {7, 1, 0},    {8, 1, 1},     {10, 2, 1},    {15, 4, 3},   {20, 6, 4},
             {30, 10, 8}, {40, 14, 12}, {60, 22, 20}, {100, 40, 37}, {120, 49, 46}, {200, 86, 82}};

START_TEST(rank_of_the_interval)
{
    const struct rank *row = &ranks[_i];
    ck_assert_uint_eq(cm_median_rank(row->count, 0.95), row->at_95);
    ck_assert_uint_eq(cm_median_rank(row->count, 0.99), row->at_99);
}
END_TEST

START_TEST(medians)
{
    double odd[] = {5, -1, 3}, even[] = {4, 1, 3, 100}, one[] = {7};
    ck_assert_double_eq(cm_median(odd, 3), 3);
    ck_assert_double_eq(cm_median(even, 4), 3.5);
    cm_interval interval = cm_median_interval(one, 1, 0.95);
    ck_assert_double_eq(interval.median, 7);
    ck_assert(isnan(interval.low) && isnan(interval.high));
    double six[] = {6, 5, 4, 3, 2, 1};
    interval = cm_median_interval(six, 6, 0.95);
    ck_assert_double_eq(interval.low, 1);
    ck_assert_double_eq(interval.high, 6);
}
END_TEST

enum { EXPERIMENTS = 2000 };

// Part of the intervals that enclose the true median: of times with a long tail, as a busy machine gives
// them.
static double coverage(size_t count, double level)
{
    int enclosed = 0;
    for (uint64_t experiment = 0; experiment < EXPERIMENTS; experiment++) {
        double values[128];
        cm_rng rng = {experiment, 1};
        for (size_t n = 0; n < count; n++)
            values[n] = exp((double)cm_rng_normal(rng, n) / 40000);
        cm_interval interval = cm_median_interval(values, count, level);
        enclosed += interval.low <= 1 && 1 <= interval.high;
    }
    return (double)enclosed / EXPERIMENTS;
}

// With the probability that the ranks give: never much below the level, and above it where n is small.
static const struct exact {
    size_t count;
    double at_95, at_99;
} exact[] = {{20, 0.9586, 0.9974}, {30, 0.9572, 0.9948}, {60, 0.9727, 0.9938}, {100, 0.9648, 0.9933}};

START_TEST(intervals_enclose_the_median)
{
    const struct exact *row = &exact[_i];
    double at_95 = coverage(row->count, 0.95), at_99 = coverage(row->count, 0.99);
    ck_assert_msg(fabs(at_95 - row->at_95) < 0.015, "%zu values: %g of the 95 %% intervals", row->count,
                  at_95);
    ck_assert_msg(fabs(at_99 - row->at_99) < 0.006, "%zu values: %g of the 99 %% intervals", row->count,
                  at_99);
}
END_TEST

// Ratios about `truth` with a s.d. of 3 %, against an A/A measurement of the same noise: how often each
// outcome is said.
static void judge_often(double truth, double least, int said[CM_SPEED_COUNT])
{
    for (int n = 0; n < CM_SPEED_COUNT; n++)
        said[n] = 0;
    for (uint64_t experiment = 0; experiment < EXPERIMENTS; experiment++) {
        double same[60], other[60];
        cm_rng rng = {experiment, 2};
        for (uint64_t n = 0; n < 60; n++) {
            same[n] = 0.03 * cm_rng_normal(rng, 2 * n) / 53510; // s.d. of cm_rng_normal
            other[n] = log(truth) + 0.03 * cm_rng_normal(rng, 2 * n + 1) / 53510;
        }
        cm_interval base = cm_median_interval(same, 60, 0.99), ratio = cm_median_interval(other, 60, 0.99);
        said[cm_speed_judge(&ratio, cm_speed_gate(&base, log(least)), log(least))]++;
    }
}

START_TEST(changes_are_found_and_not_made_up)
{
    int said[CM_SPEED_COUNT];
    judge_often(1, 1.01, said);
    ck_assert_int_eq(said[CM_FASTER], 0);
    ck_assert_int_eq(said[CM_SLOWER], 0);
    ck_assert_int_gt(said[CM_SAME], 0);
    judge_often(1, 1.05, said);
    ck_assert_int_eq(said[CM_SAME], EXPERIMENTS);
    judge_often(1.1, 1.01, said);
    ck_assert_int_eq(said[CM_SLOWER], EXPERIMENTS);
    judge_often(1 / 1.1, 1.01, said);
    ck_assert_int_eq(said[CM_FASTER], EXPERIMENTS);
    judge_often(1.02, 1.02, said); // on the border nothing can be said
    ck_assert_int_gt(said[CM_AMBIGUOUS], EXPERIMENTS * 9 / 10);
}
END_TEST

START_TEST(outcomes)
{
    static const struct {
        double low, high, gate;
        cm_speed speed;
    } rows[] = {
        {-0.3, -0.2, 0.1, CM_FASTER},    {0.2, 0.3, 0.1, CM_SLOWER},         {-0.09, 0.09, 0.1, CM_SAME},
        {-0.2, 0.05, 0.1, CM_AMBIGUOUS}, {0.05, 0.2, 0.1, CM_AMBIGUOUS},     {0.1, 0.3, 0.1, CM_AMBIGUOUS},
        {NAN, NAN, 0.1, CM_AMBIGUOUS},   {0.2, 0.3, INFINITY, CM_AMBIGUOUS}, {0.2, 0.3, NAN, CM_AMBIGUOUS},
        {-0.2, 0.1, 3, CM_AMBIGUOUS},    {-0.05, 0.05, 3, CM_SAME}};
    for (size_t n = 0; n < sizeof rows / sizeof *rows; n++) {
        cm_interval ratio = {(rows[n].low + rows[n].high) / 2, rows[n].low, rows[n].high};
        ck_assert_msg(cm_speed_judge(&ratio, rows[n].gate, 0.01) == rows[n].speed, "row %zu: %s", n,
                      cm_speed_name(cm_speed_judge(&ratio, rows[n].gate, 0.01)));
    }
    ck_assert_double_eq(cm_speed_gate(&(cm_interval){0, -0.03, 0.02}, 0.01), 0.03);
    ck_assert_double_eq(cm_speed_gate(&(cm_interval){0, -0.001, 0.002}, 0.01), 0.01);
    ck_assert(isinf(cm_speed_gate(&(cm_interval){0, NAN, NAN}, 0.01)));
}
END_TEST

TCase *cm_unit_bench_statistics(void)
{
    TCase *tcase = tcase_create("statistics");
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, rank_of_the_interval, 0, (int)(sizeof ranks / sizeof *ranks));
    tcase_add_test(tcase, medians);
    tcase_add_loop_test(tcase, intervals_enclose_the_median, 0, 4);
    tcase_add_test(tcase, changes_are_found_and_not_made_up);
    tcase_add_test(tcase, outcomes);
    return tcase;
}
