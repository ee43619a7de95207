// SPDX-License-Identifier: Apache-2.0
// Measuring and judging on made-up outputs: what must fail, what must not, and with which words. Noise is
// made with known statistics, so that the false and the missed alarms of the bias rule can be counted.
#include "suites/unit/judge.h"

#include "harness/judge.h"
#include "harness/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 64 * 64 };

// An output [T, H] and what is wanted of it.
static struct output {
    cm_tensor got;
    cm_want want;
    double storage[MOST], value[MOST], sigma[MOST], order[MOST], worst[MOST];
    cm_measure measure;
    cm_outcome outcome;
} output;

// Everything is wanted to be 1 +- 2^-10 and is 1.
static void begin(cm_dtype dtype, int64_t T, int64_t H)
{
    memset(&output, 0, sizeof output);
    cm_tensor_init(&output.got, dtype, 2, (int64_t[]){T, H}, output.storage);
    output.want = (cm_want){T * H, output.value, output.sigma, output.order, output.worst, NULL};
    for (int64_t n = 0; n < T * H; n++) {
        output.value[n] = 1;
        output.sigma[n] = 0x1p-10;
        cm_tensor_set(&output.got.dl, n, 1);
    }
}

static void set(int64_t n, double want, double got)
{
    output.value[n] = want;
    cm_tensor_set(&output.got.dl, n, got);
}

static cm_verdict judge(bool exact)
{
    output.outcome = (cm_outcome){0};
    cm_compare_bounded(&output.got.dl, output.got.dtype, &output.want, exact, &output.measure);
    cm_verdict verdict = cm_judge_bounded(&output.measure, exact, "y", &output.outcome);
    ck_assert_int_eq(output.measure.count, output.want.count);
    ck_assert_int_eq(output.outcome.compared, output.want.count);
    ck_assert_int_eq(output.outcome.verdict, verdict == CM_PASS ? 0 : (int)verdict);
    return verdict;
}

static void expect(cm_verdict want, bool exact, const char *part)
{
    cm_verdict got = judge(exact);
    ck_assert_msg(got == want, "%s, expected %s: %s", cm_verdict_name(got), cm_verdict_name(want),
                  output.outcome.reason);
    ck_assert_msg(strstr(output.outcome.reason, part) != NULL, "no \"%s\" in: %s", part,
                  output.outcome.reason);
}

static const struct nonfinite {
    double got, want;
    bool good;
} nonfinites[] = {
    {(double)NAN, 1, false},
    {-(double)NAN, 0, false},
    {(double)INFINITY, 1, false},
    {-(double)INFINITY, 1, false},
    {(double)NAN, (double)INFINITY, false},
    {(double)INFINITY, (double)NAN, false},
    {(double)INFINITY, -(double)INFINITY, false},
    {1, (double)NAN, false},
    {1, (double)INFINITY, false},
    {0, -(double)INFINITY, false},
    {(double)NAN, (double)NAN, true},
    {-(double)NAN, (double)NAN, true},
    {(double)INFINITY, (double)INFINITY, true},
    {-(double)INFINITY, -(double)INFINITY, true},
};

// Wherever it stands, with and without a sigma, on exact and on random data.
START_TEST(nonfinite_values)
{
    static const int64_t places[] = {0, 17, 8 * 16 - 1};
    const struct nonfinite *row = &nonfinites[_i];
    for (int m = 0; m < 12; m++) {
        begin(m & 1 ? CM_BF16 : CM_F32, 8, 16);
        set(places[m / 4], row->want, row->got);
        for (int64_t n = 0; m & 2 && n < 8 * 16; n++)
            output.sigma[n] = 0;
        for (int exact = 0; exact < 2; exact++) {
            expect(row->good ? CM_PASS : CM_FAIL, exact, row->good ? "" : "non-finite `y`: ");
            ck_assert_int_eq(output.measure.beyond, !row->good);
            ck_assert_int_eq(output.measure.nan + output.measure.infinite, !row->good);
            ck_assert_int_eq(output.measure.first_bad, row->good ? -1 : places[m / 4]);
        }
    }
}
END_TEST

START_TEST(nonfinite_counts)
{
    begin(CM_F32, 8, 16);
    for (int n = 0; n < 5; n++)
        set(10 * n, 1, n < 3 ? (double)NAN : (double)INFINITY);
    set(100, 1, 2);
    expect(CM_FAIL, false, "non-finite `y`: 3 NaN and 2 infinite of 128 elements");
    ck_assert_int_eq(output.measure.beyond, 6);
    begin(CM_F32, 8, 16);
    for (int n = 0; n < 128; n++)
        set(n, 1, NAN); // nothing is left to measure
    expect(CM_FAIL, false, "128 NaN and 0 infinite of 128");
}
END_TEST

// What rounds to infinity in the output's format must be infinite, exact or not.
START_TEST(overflow)
{
    static const struct {
        double want, got;
        bool good;
    } rows[] = {{70000, (double)INFINITY, true},   {-70000, -(double)INFINITY, true}, {70000, 65504, false},
                {-70000, (double)INFINITY, false}, {65500, (double)INFINITY, false},  {65519, 65504, true}};
    for (size_t n = 0; n < sizeof rows / sizeof *rows; n++)
        for (int exact = 0; exact < 2; exact++) {
            begin(CM_F16, 4, 4);
            set(5, rows[n].want, rows[n].got);
            expect(rows[n].good ? CM_PASS : CM_FAIL, exact, rows[n].good ? "" : "`y`");
            ck_assert_int_eq(output.measure.first_bad, rows[n].good ? -1 : 5);
        }
}
END_TEST

// Exact data: equal values, the sign of zero is free, what does not fit the format is rounded.
START_TEST(exact_values)
{
    begin(CM_BF16, 4, 4);
    set(1, 0, -0.0);
    set(2, -0.0, 0);
    set(3, 1 + 0x1p-20, 1);
    set(4, 1 + 0x1.8p-8, 1 + 0x1p-7);
    expect(CM_PASS, true, "");
    set(5, 1, 1 + 0x1p-7); // within 6 sigma, but not equal
    expect(CM_FAIL, true, "`y` differs in 1 of 16 elements on exact data");
    ck_assert_int_eq(output.measure.first_bad, 5);
    set(5, 1, 1);
    set(15, 0, 0x1p-133); // the smallest denormal is not 0
    expect(CM_FAIL, true, "differs in 1 of 16");
    ck_assert_int_eq(output.measure.first_bad, 15);
}
END_TEST

// Without a sigma the wanted value is certain: its rounding, and nothing else.
START_TEST(certain_elements)
{
    begin(CM_BF16, 4, 4);
    output.sigma[6] = output.sigma[7] = 0;
    set(6, 1 + 0x1.4p-7, 1 + 0x1p-7);
    set(7, 0, -0.0);
    expect(CM_PASS, false, "");
    ck_assert(cm_bound(&output.want, 6, CM_BF16) == 0x1p-9 && cm_bound(&output.want, 7, CM_BF16) == 0);
    set(6, 1 + 0x1.4p-7, 1 + 0x1p-6);
    expect(CM_FAIL, false, "`y` is beyond its bound in 1 of 16 elements, at worst 3 times");
    set(6, 1, 1);
    set(7, 0, 0x1p-100);
    expect(CM_FAIL, false, "at worst inf times");
    output.want.sigma = NULL; // integers and permutations have none
    set(7, 0, 0);
    expect(CM_PASS, false, "");
}
END_TEST

START_TEST(bounds_to_the_bit)
{
    for (int m = 0; m < 8; m++) {
        double sigma = m & 1 ? 0x1p-10 : 3e-4, order = m & 2 ? sigma / 2 : 0, sign = m & 4 ? -1 : 1;
        begin(CM_F64, 16, 16);
        output.sigma[9] = sigma;
        output.order[9] = order;
        set(9, 0, 0);
        double wide = 6 * sqrt(sigma * sigma + 3 * order * order);
        double bound = cm_bound(&output.want, 9, CM_F64);
        ck_assert(bound >= wide && bound <= wide * (1 + 0x1p-50)); // half an ulp of f64 is next to nothing
        set(9, 0, sign * bound);
        expect(CM_PASS, false, "");
        ck_assert(output.measure.worst_ratio == 1 && output.measure.worst == 9);
        ck_assert(output.measure.largest_error == bound);
        set(9, 0, sign * nextafter(bound, 1));
        expect(CM_FAIL, false, "`y` is beyond its bound in 1 of 256 elements, at worst 1 times");
    }
    begin(CM_BF16, 4, 4);
    ck_assert(cm_bound(&output.want, 0, CM_BF16) == 6 * 0x1p-10 + 0x1p-8); // half an ulp of 1 + 6 sigma
    output.value[0] = 0x1.fep0;                                            // 6 sigma reach the next binade
    output.value[1] = -0x1.fep0;
    output.sigma[0] = output.sigma[1] = 0x1p-8;
    ck_assert(cm_bound(&output.want, 0, CM_BF16) == 6 * 0x1p-8 + 0x1p-7);
    ck_assert(cm_bound(&output.want, 1, CM_BF16) == 6 * 0x1p-8 + 0x1p-7);
}
END_TEST

// Many samples must keep the limit, a few may exceed it. One sign for even tokens, the other for odd ones: no
// bias.
static const struct scattered {
    int64_t T, H;
    double z;
    const char *finding; // NULL: passes
} scattered[] = {
    {64, 64, 1.49, NULL},
    {64, 64, 1.51, "rms(err/sigma) of `y` is 1.51, the limit is 1.50"},
    {64, 8, 1.51, "rms(err/sigma) of `y` is 1.51, the limit is 1.50"},
    {4, 4, 1.51, NULL},
    {4, 4, 3.2, "rms(err/sigma) of `y` is 3.20, the limit is "},
    {4, 64, 1.51, NULL}, // 32 samples: errors of one token are related
    {1, 1, 5.9, NULL},   // one sample: the bound alone decides
};

START_TEST(rms_rule)
{
    const struct scattered *row = &scattered[_i];
    begin(CM_F64, row->T, row->H);
    for (int64_t n = 0; n < row->T * row->H; n++)
        set(n, 1, 1 + (n / row->H % 2 ? 1 : -1) * row->z * 0x1p-10);
    expect(row->finding ? CM_FAIL : CM_PASS, false, row->finding ? row->finding : "");
    ck_assert(fabs(output.measure.rms_z - row->z) < 1e-9);
    ck_assert_int_eq(output.measure.clusters, row->T);
}
END_TEST

START_TEST(vacuous_share)
{
    for (int m = 0; m < 2; m++) { // 6 sigma = 5 % of 1
        begin(CM_F64, 4, 4);
        for (int n = 0; n < 16; n++)
            output.sigma[n] = (m ? 0.0501 : 0.0499) / 6;
        expect(m ? CM_VACUOUS : CM_PASS, false,
               m ? "the bound is 5.0 % of rms(want) of `y`, the limit is 5 %" : "");
    }
    output.measure.widest_share = 0.12;
    ck_assert_int_eq(cm_judge_bounded(&output.measure, false, "y", &output.outcome), CM_PASS);
    output.measure.widest_share = 0.04;
    ck_assert_int_eq(cm_judge_bounded(&output.measure, false, "y", &output.outcome), CM_VACUOUS);
    begin(CM_F64, 4, 4);
    for (int n = 0; n < 16; n++)
        set(n, 0, 0);
    expect(CM_VACUOUS, false, "the bound is inf % of rms(want)");
    for (int n = 0; n < 16; n++)
        output.sigma[n] = 0;
    expect(CM_PASS, false, ""); // all zeros, all certain
    begin(CM_F32, 0, 16);
    expect(CM_PASS, false, ""); // nothing to compare: the check says VACUOUS
    begin(CM_F32, 16, 0);
    expect(CM_PASS, false, "");
}
END_TEST

// Values that were computed with normal errors of half an ulp, `shared` of it common to a token, and then
// stored: to nearest, or cut off.
static void make_noise(uint64_t seed, int64_t T, double shared, bool truncated)
{
    cm_rng rng = {seed, 77};
    begin(CM_BF16, T, 64);
    for (int64_t n = 0; n < T * 64; n++) {
        uint64_t at = (uint64_t)n;
        double sign = cm_rng_bits(rng, at | 1ull << 32) & 1 ? -1 : 1;
        double value = sign * (0.25 + cm_rng_bits(rng, at | 1ull << 33) * 0x1p-32);
        double ulp = cm_dtype_ulp(CM_BF16, value), unit = sqrt(1.5) * 0x1p-16; // of cm_rng_normal
        double z = sqrt(1 - shared * shared) * unit * cm_rng_normal(rng, at) +
                   sign * shared * unit * cm_rng_normal(rng, (at / 64) | 1ull << 34);
        double computed = value + z * ulp / 2;
        output.sigma[n] = ulp / 2;
        set(n, value, truncated ? trunc(computed / ulp) * ulp : computed);
    }
}

START_TEST(rounding_is_not_biased)
{
    double largest = 0;
    for (uint64_t seed = 0; seed < 300; seed++) {
        make_noise(seed, 64, _i ? 0.25 : 0, false);
        if (judge(false) != CM_PASS)
            ck_abort_msg("seed %d: %s", (int)seed, output.outcome.reason);
        largest = fmax(largest, fabs(output.measure.bias));
        ck_assert(output.measure.rms_z > 0.9 && output.measure.rms_z < 1.1);
    }
    ck_assert_msg(largest < 0.25, "%g", largest); // not even the first of the rule's conditions
}
END_TEST

START_TEST(truncation_is_biased)
{
    for (uint64_t seed = 0; seed < 300; seed++) {
        make_noise(seed, 64, _i ? 0.25 : 0, true);
        if (judge(false) != CM_FAIL || !strstr(output.outcome.reason, "`y` is biased towards zero"))
            ck_abort_msg("seed %d: %s", (int)seed, output.outcome.reason);
    }
    make_noise(1, 16, 0, true);
    expect(CM_FAIL, false, "(truncation?)");
    make_noise(1, 15, 0, true); // too few tokens to tell
    expect(CM_PASS, false, "");
    make_noise(1, 64, 0, false);
    for (int64_t n = 0; n < MOST; n++) // the other way
        set(n, output.value[n],
            output.value[n] + copysign(cm_dtype_ulp(CM_BF16, output.value[n]), output.value[n]) * 0.6);
    expect(CM_FAIL, false, "biased away from zero");
}
END_TEST

// Rows with a gap are read where they are; the gap is not compared.
START_TEST(strided_outputs)
{
    begin(CM_F32, 4, 8);
    float storage[4 * 11];
    for (int n = 0; n < 4 * 11; n++)
        storage[n] = n % 11 < 8 ? 1 : NAN;
    output.got.dl.data = storage;
    output.got.strides[0] = 11;
    expect(CM_PASS, false, "");
    storage[2 * 11 + 5] = 2;
    expect(CM_FAIL, false, "1 of 32 elements");
    ck_assert_int_eq(output.measure.first_bad, 2 * 8 + 5);
}
END_TEST

START_TEST(metrics)
{
    static const char *const names[] = {"max_error", "error_over_bound", "rms_z",           "rms_z_limit",
                                        "bias_z",    "bound_share",      "worst_case_share"};
    begin(CM_F64, 4, 4);
    for (int n = 0; n < 16; n++)
        output.worst[n] = 0.25;
    set(3, 1, 1 + 0x1p-9);
    expect(CM_PASS, false, "");
    ck_assert_int_eq(output.outcome.metric_count, 7);
    for (int n = 0; n < 7; n++)
        ck_assert_str_eq(output.outcome.metrics[n].name, names[n]);
    ck_assert(output.outcome.metrics[0].value == 0x1p-9);
    ck_assert(fabs(output.outcome.metrics[1].value - 1.0 / 3) < 1e-9);
    ck_assert(fabs(output.outcome.metrics[2].value - 0.5) < 1e-9); // sqrt(4 / 16)
    ck_assert(output.outcome.metrics[3].value > 1.5);              // 16 elements scatter more than many
    ck_assert(fabs(output.outcome.metrics[4].value - 0.125) < 1e-9);
    ck_assert(fabs(output.outcome.metrics[6].value - 0.25) < 1e-9);
    for (int n = 0; n < 20; n++)
        cm_outcome_metric(&output.outcome, "a name that is longer than its place", n);
    ck_assert_int_eq(output.outcome.metric_count, CM_MAX_METRICS);
    ck_assert_uint_eq(strlen(output.outcome.metrics[7].name), sizeof output.outcome.metrics[7].name - 1);
}
END_TEST

Suite *cm_unit_judge(void)
{
    Suite *suite = suite_create("judge");
    TCase *tcase = tcase_create("judge");
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, nonfinite_values, 0, (int)(sizeof nonfinites / sizeof *nonfinites));
    tcase_add_test(tcase, nonfinite_counts);
    tcase_add_test(tcase, overflow);
    tcase_add_test(tcase, exact_values);
    tcase_add_test(tcase, certain_elements);
    tcase_add_test(tcase, bounds_to_the_bit);
    tcase_add_loop_test(tcase, rms_rule, 0, (int)(sizeof scattered / sizeof *scattered));
    tcase_add_test(tcase, vacuous_share);
    tcase_add_loop_test(tcase, rounding_is_not_biased, 0, 2);
    tcase_add_loop_test(tcase, truncation_is_biased, 0, 2);
    tcase_add_test(tcase, strided_outputs);
    tcase_add_test(tcase, metrics);
    suite_add_tcase(suite, tcase);
    suite_add_tcase(suite, cm_unit_judge_places());
    return suite;
}
