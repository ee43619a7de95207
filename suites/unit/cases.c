// SPDX-License-Identifier: Apache-2.0
// Names of cases: every row of every suite and thousands of draws survive parsing and printing; what is
// refused, and with which words; patterns and their expansion.
#include "suites/unit/cases.h"

#include "harness/op.h"
#include "harness/paths.h"
#include "harness/registry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const cm_op *op_of(const char *name)
{
    const cm_op *op = cm_registry_find_op(name, strlen(name));
    ck_assert_msg(op != NULL, "no op %s", name);
    return op;
}

cm_case cm_unit_case(const char *op, const char *name)
{
    cm_case test_case;
    cm_error error = {{0}};
    if (cm_case_parse(op_of(op), name, &test_case, &error) != CM_OK)
        ck_abort_msg("%s", error.message);
    return test_case;
}

void cm_unit_draw(int count, void (*each)(const cm_op *op, const char *name))
{
    for (const cm_suite *const *suite = cm_registry_suites(); *suite; suite++)
        for (const cm_row *row = (*suite)->rows; row->cases; row++)
            for (int n = 0; row->sets & CM_SET_FUZZ && n < count; n++) {
                char text[CM_CASE_TEXT];
                cm_error error = {{0}};
                if (cm_case_draw(row->cases, (uint64_t)n, text, &error) != CM_OK)
                    ck_abort_msg("%s", error.message);
                each(op_of((*suite)->op), text);
            }
}

// dtypes count where the op has them.
static bool is_same(const cm_case *a, const cm_case *b)
{
    for (int variable = 1; variable < 128; variable++)
        if (cm_op_has_dtype(a->op, (char)variable) && a->dtypes[variable] != b->dtypes[variable])
            return false;
    return a->op == b->op && !memcmp(a->dims, b->dims, sizeof a->dims) &&
           !memcmp(a->attributes, b->attributes, sizeof a->attributes) &&
           !memcmp(a->words, b->words, sizeof a->words) && a->seed == b->seed;
}

static void expect_round_trip(const cm_op *op, const char *text)
{
    cm_case first, second;
    cm_error error = {{0}};
    char once[CM_CASE_TEXT], twice[CM_CASE_TEXT];
    if (cm_case_parse(op, text, &first, &error) != CM_OK)
        ck_abort_msg("%s", error.message);
    cm_case_print(&first, once);
    if (cm_case_parse(op, once, &second, &error) != CM_OK)
        ck_abort_msg("%s was printed as %s: %s", text, once, error.message);
    cm_case_print(&second, twice);
    if (!is_same(&first, &second) || strcmp(once, twice) != 0)
        ck_abort_msg("%s was printed as %s, then as %s", text, once, twice);
}

struct expansion {
    const cm_op *op;
    size_t count;
};

static cm_status expand_one(const char *text, void *self)
{
    struct expansion *expansion = self;
    expansion->count++;
    expect_round_trip(expansion->op, text);
    return CM_OK;
}

// Product of the numbers of alternatives, by counting commas and parsing ranges alone.
static size_t product(const char *pattern)
{
    size_t count = 1;
    for (const char *open = strchr(pattern, '{'); open; open = strchr(open + 1, '{')) {
        const char *close = strchr(open, '}'), *dots = strstr(open, "..");
        size_t here = 1;
        for (const char *c = open; c < close; c++)
            here += *c == ',';
        if (dots && dots < close)
            here = (size_t)(atoi(dots + 2) - atoi(open + 1) + 1);
        count *= here;
    }
    return count;
}

START_TEST(suites_round_trip)
{
    size_t total = 0;
    for (const cm_suite *const *suite = cm_registry_suites(); *suite; suite++)
        for (const cm_row *row = (*suite)->rows; row->cases; row++) {
            struct expansion expansion = {op_of((*suite)->op), 0};
            cm_error error = {{0}};
            if (row->sets & CM_SET_FUZZ)
                continue;
            if (cm_paths_expand(row->cases, expansion.op, cm_registry_kernels(), expand_one, &expansion,
                                &error) != CM_OK)
                ck_abort_msg("%s", error.message);
            char *filled = cm_paths_pattern(row->cases, expansion.op, cm_registry_kernels());
            if (expansion.count != (filled ? product(filled) : 0))
                ck_abort_msg("%s: %zu cases, expected %zu", row->cases, expansion.count,
                             filled ? product(filled) : 0);
            free(filled);
            total += expansion.count;
        }
    ck_assert_uint_gt(total, 100);
}
END_TEST

START_TEST(draws_round_trip)
{
    cm_unit_draw(700, expect_round_trip);
}
END_TEST

START_TEST(faults_round_trip)
{
    size_t faults = 0;
    for (const cm_fault *const *fault = cm_registry_faults(); *fault; fault++, faults++) {
        const char *kernel = (*fault)->kernel->name;
        struct expansion expansion = {cm_registry_find_op(kernel, strcspn(kernel, "/")), 0};
        cm_error error = {{0}};
        ck_assert_msg(expansion.op != NULL, "%s", kernel);
        if (cm_paths_expand((*fault)->cases, expansion.op, cm_registry_kernels(), expand_one, &expansion,
                            &error) != CM_OK)
            ck_abort_msg("%s: %s", (*fault)->id, error.message);
    }
    ck_assert_uint_gt(faults, 0);
}
END_TEST

#define LAYER "t1-k1-e1-h8-i8"

// What is written and what is printed: defaults filled in, parts in their order.
static const struct printed {
    const char *op, *text, *want;
} printed[] = {
    {"moe_forward", LAYER, LAYER "-f32-random-s0"},
    {"moe_forward", "s7-exact-bf16-i8-h8-e1-k1-t1", LAYER "-bf16-exact-s7"},
    {"moe_forward", LAYER "-d0-r0x0-uniform-mixed-packed-random-s1", LAYER "-f32-random-s1"},
    {"moe_forward", LAYER "-r16x2-bf16-yf32-hot-rank0-padded-s1",
     LAYER "-r16x2-bf16-yf32-hot-rank0-padded-random-s1"},
    {"moe_forward", LAYER "-r4x0-s1", LAYER "-r4x0-f32-random-s1"},
    {"moe_forward", LAYER "-bf16-wi8-s1", LAYER "-bf16-wi8-random-s1"},
    {"moe_forward", LAYER "-xf16-wf16-pf16-af16-yf16-s1", LAYER "-f16-random-s1"},
    {"moe_forward", LAYER "-activation=clamped_swiglu-activation_alpha=1.5-s1",
     LAYER "-f32-activation=clamped_swiglu-activation_alpha=1.5-random-s1"},
    {"moe_forward", LAYER "-activation=1-act_quant=none-s1",
     LAYER "-f32-activation=clamped_swiglu-random-s1"},
    {"moe_forward", LAYER "-s18446744073709551615", LAYER "-f32-random-s18446744073709551615"},
    {"sgmv_plan", "t9-l3", "t9-l3-random-s0"},
    {"sgmv_plan", "t9", "t9-random-s0"},
    {"quantize", "t9-K8-qi4-bf16-qi8-ordinary", "t9-K8-bf16-qi8-random-s0"},
    {"dequantize", "t9-K8-g4-f16-qi4-huge-exact", "t9-K8-g4-f16-qi4-huge-exact-s0"},
    {"sgmv_shrink", "t1-r1x1-K8-S1", "t1-r1x1-K8-f32-random-s0"},
    {"sgmv_expand", "t1-r1x1-n8-S3-accumulate=0", "t1-r1x1-n8-S3-f32-accumulate=0-random-s0"},
};

START_TEST(prints_canonically)
{
    char text[CM_CASE_TEXT];
    cm_case test_case = cm_unit_case(printed[_i].op, printed[_i].text);
    cm_case_print(&test_case, text);
    ck_assert_str_eq(text, printed[_i].want);
    expect_round_trip(test_case.op, printed[_i].text);
}
END_TEST

// Names that are legal or not, but never printed as another case.
static const char *const odd[] = {
    LAYER "-r0x3",
    LAYER "-activation_alpha=0.00001",
    LAYER "-activation_limit=1e6",
    LAYER "-act_quant=0.5",
    LAYER "-weight_on_input=0.5",
    LAYER "-activation_alpha=0.1-activation_limit=0x1p4",
};

START_TEST(odd_names_survive)
{
    cm_case test_case;
    cm_error error = {{0}};
    if (cm_case_parse(op_of("moe_forward"), odd[_i], &test_case, &error) == CM_OK)
        expect_round_trip(test_case.op, odd[_i]);
    else
        ck_assert_msg(strstr(error.message, odd[_i]) != NULL, "%s", error.message);
}
END_TEST

START_TEST(defaults)
{
    cm_case layer = cm_unit_case("moe_forward", LAYER), shrink = cm_unit_case("sgmv_shrink", "t1-K8");
    for (int n = 0; layer.op->attributes[n].name; n++)
        ck_assert(layer.attributes[n] == layer.op->attributes[n].fallback);
    for (const char *letter = "LrDSKNG"; *letter; letter++)
        ck_assert_int_eq(layer.dims[cm_dim_index(*letter)], 0);
    ck_assert_int_eq(shrink.dims[cm_dim_index('S')], 1);
    for (int axis = 0; axis < CM_AXIS_COUNT; axis++)
        ck_assert_str_eq(cm_case_word(&layer, (cm_axis_kind)axis), cm_registry_axes()[axis].words[0].name);
    ck_assert_int_eq(layer.dtypes['x'], CM_F32);
    ck_assert_uint_eq(layer.seed, 0);
    ck_assert(cm_dim_index('?') == -1 && cm_dim_index(0) == -1);
}
END_TEST

static const struct refused {
    const char *op, *text, *part;
} refused[] = {
    {"moe_forward", LAYER "-zzz", "\"zzz\" is no dimension, dtype, attribute, word or seed of moe_forward"},
    {"moe_forward", LAYER "-zzz", "checkmoe list --words"},
    {"moe_forward", "", "dimension T is missing; write it as tN"},
    {"moe_forward", "t1-k1-e1-h8", "dimension I is missing; write it as iN"},
    {"sgmv_shrink", "t1-r1x1", "dimension K is missing; write it as KN"},
    {"moe_forward", "t1-k0-e1-h8-i8", "k = 0, outside 1..64"},
    {"moe_forward", "t1-k65-e1-h8-i8", "k = 65, outside 1..64"},
    {"moe_forward", "t1048577-k1-e1-h8-i8", "T = 1048577, outside 0..1048576"},
    {"moe_forward", LAYER "-r1025x1", "r = 1025, outside 0..1024"},
    {"moe_forward", LAYER "-r1x4097", "L = 4097, outside 0..4096"},
    {"sgmv_shrink", "t1-r1x1-K8-S17", "S = 17, outside 1..16"},
    {"moe_forward", "t1x-k1-e1-h8-i8", "\"t1x\""},
    {"moe_forward", "t-1-k1-e1-h8-i8", "\"t\""},
    {"moe_forward", "t1234567890123456-k1-e1-h8-i8", "\"t1234567890123456\""},
    {"moe_forward", LAYER "-r4", "\"r4\""},
    {"moe_forward", LAYER "-r4x", "\"r4x\""},
    {"moe_forward", LAYER "-rx4", "\"rx4\""},
    {"moe_forward", LAYER "-l2", "\"l2\""},
    {"moe_forward", LAYER "-K8", "\"K8\""},
    {"moe_forward", LAYER "-n8", "\"n8\""},
    {"sgmv_shrink", "t1-K8-h8", "\"h8\""},
    {"sgmv_shrink", "t1-K8-hot", "\"hot\""},
    {"sgmv_plan", "t1-l1-r1x1", "\"r1x1\""},
    {"moe_forward", LAYER "-act_quant=int9", "\"act_quant=int9\""},
    {"moe_forward", LAYER "-act_quant=2", "\"act_quant=2\""},
    {"moe_forward", LAYER "-act_quant=", "\"act_quant=\""},
    {"moe_forward", LAYER "-activation_alpha=17", "\"activation_alpha=17\""},
    {"moe_forward", LAYER "-activation_alpha=nan", "\"activation_alpha=nan\""},
    {"moe_forward", LAYER "-activation_alpha=1.5x", "\"activation_alpha=1.5x\""},
    {"moe_forward", LAYER "-alpha=1", "\"alpha=1\""},
    {"moe_forward", LAYER "-accumulate=1", "\"accumulate=1\""},
    {"sgmv_shrink", "t1-K8-i8", "\"i8\""}, // an integer dtype for everything
    {"sgmv_shrink", "t1-K8-qf32", "\"qf32\""},
    {"sgmv_shrink", "t1-K8-xf8", "\"xf8\""},
    {"moe_forward", LAYER "-s", "\"s\""},
    {"moe_forward", LAYER "-s1x", "\"s1x\""},
    {"moe_forward", LAYER "-s18446744073709551616", "\"s18446744073709551616\""},
};

START_TEST(refuses)
{
    cm_case test_case;
    cm_error error = {{0}};
    cm_status status = cm_case_parse(op_of(refused[_i].op), refused[_i].text, &test_case, &error);
    ck_assert_msg(status == CM_BAD_VALUE, "%s: %s", refused[_i].text, cm_status_name(status));
    ck_assert_msg(strstr(error.message, refused[_i].part) != NULL, "%s", error.message);
}
END_TEST

START_TEST(refuses_long_names)
{
    char text[400];
    cm_case test_case;
    cm_error error = {{0}};
    snprintf(text, sizeof text, "%s", LAYER);
    while (strlen(text) < CM_CASE_TEXT - 1)
        strcat(text, "-");
    ck_assert_int_eq(cm_case_parse(op_of("moe_forward"), text, &test_case, &error), CM_OK);
    strcat(text, "-");
    ck_assert_int_eq(cm_case_parse(op_of("moe_forward"), text, &test_case, &error), CM_BAD_VALUE);
    ck_assert_msg(strstr(error.message, "at most 255 characters") != NULL, "%s", error.message);
}
END_TEST

static cm_status join(const char *text, void *self)
{
    strcat(strcat(self, text), " ");
    return CM_OK;
}

static const struct pattern {
    const char *pattern, *want;
} patterns[] = {
    {"t1", "t1 "},
    {"t{1,22}-h{3..5}", "t1-h3 t1-h4 t1-h5 t22-h3 t22-h4 t22-h5 "},
    {"t1-{,d20}-h1", "t1-h1 t1-d20-h1 "},
    {"t1-{a,}", "t1-a t1 "},
    {"a{,b}c", "ac abc "},
    {"r{1,16}x{1,2}", "r1x1 r1x2 r16x1 r16x2 "},
    {"{bf16,f16-yf32}-s1", "bf16-s1 f16-yf32-s1 "},
    {"s{7..7}", "s7 "},
    {"s{9..11}", "s9 s10 s11 "},
    {"x{1..2,5}", "x1..2 x5 "}, // no range: parsing will refuse it
};

START_TEST(expands)
{
    char text[512] = "";
    cm_error error = {{0}};
    ck_assert_int_eq(cm_case_expand(patterns[_i].pattern, join, text, &error), CM_OK);
    ck_assert_str_eq(text, patterns[_i].want);
}
END_TEST

static cm_status stop_at_two(const char *text, void *self)
{
    (void)text;
    return ++*(int *)self == 2 ? CM_BAD_STATE : CM_OK;
}

static cm_status never(const char *text, void *self)
{
    (void)self;
    if (strchr(text, '{')) // what stands before the unclosed brace may be expanded
        ck_abort_msg("\"%s\" was expanded", text);
    return CM_OK;
}

static const struct bad_pattern {
    const char *pattern;
    int longer; // x behind it
    const char *part;
} bad_patterns[] = {
    {"t{1,2-h1", 0, "\"t{1,2-h1\": { without }"},
    {"t{1}-h{1,2", 0, "{ without }"},
    {"{a,b}", 300, "too long"},
    {"t1", 300, "too long"},
    {"t{5..1}", 0, "t{5..1}"}, // not nothing
};

START_TEST(refuses_patterns)
{
    const struct bad_pattern *row = &bad_patterns[_i];
    char text[CM_CASE_TEXT], pattern[400];
    cm_error expanding = {{0}}, drawing = {{0}};
    memset(pattern, 'x', sizeof pattern);
    memcpy(pattern, row->pattern, strlen(row->pattern));
    pattern[strlen(row->pattern) + (size_t)row->longer] = 0;
    if (strchr(row->pattern, '{')) { // without braces, parsing will refuse it
        ck_assert_int_eq(cm_case_expand(pattern, never, NULL, &expanding), CM_BAD_VALUE);
        ck_assert_msg(strstr(expanding.message, row->part) != NULL, "%s", expanding.message);
    }
    ck_assert_int_eq(cm_case_draw(pattern, 1, text, &drawing), CM_BAD_VALUE);
    ck_assert_msg(strstr(drawing.message, row->part) != NULL, "%s", drawing.message);
}
END_TEST

START_TEST(expansion_stops)
{
    int count = 0;
    ck_assert_int_eq(cm_case_expand("{1..4}", stop_at_two, &count, NULL), CM_BAD_STATE);
    ck_assert_int_eq(count, 2);
}
END_TEST

START_TEST(draws)
{
    static const char pattern[] = "t{1,2}-h{3..5}-{,d20}-s*";
    char text[CM_CASE_TEXT], again[CM_CASE_TEXT];
    unsigned seen = 0; // of the 12 combinations
    for (uint64_t seed = 0; seed < 300; seed++) {
        int t, h, d = 0;
        unsigned long long s;
        cm_error error = {{0}};
        ck_assert_int_eq(cm_case_draw(pattern, seed, text, &error), CM_OK);
        ck_assert_int_eq(cm_case_draw(pattern, seed, again, &error), CM_OK);
        ck_assert_str_eq(text, again);
        bool wide = sscanf(text, "t%d-h%d-d%d-s%llu", &t, &h, &d, &s) == 4;
        ck_assert_msg(wide || sscanf(text, "t%d-h%d-s%llu", &t, &h, &s) == 3, "%s", text);
        ck_assert_msg(t >= 1 && t <= 2 && h >= 3 && h <= 5 && s == seed, "%s", text);
        ck_assert_int_eq(wide && d == 20, wide);
        seen |= 1u << ((t - 1) * 6 + (h - 3) * 2 + wide);
    }
    ck_assert_uint_eq(seen, 0xfff);
}
END_TEST

Suite *cm_unit_cases(void)
{
    Suite *suite = suite_create("cases");
    TCase *names = tcase_create("names");
    tcase_set_timeout(names, 60);
    tcase_add_test(names, suites_round_trip);
    tcase_add_test(names, draws_round_trip);
    tcase_add_test(names, faults_round_trip);
    tcase_add_loop_test(names, prints_canonically, 0, (int)(sizeof printed / sizeof *printed));
    tcase_add_loop_test(names, odd_names_survive, 0, (int)(sizeof odd / sizeof *odd));
    tcase_add_test(names, defaults);
    tcase_add_loop_test(names, refuses, 0, (int)(sizeof refused / sizeof *refused));
    tcase_add_test(names, refuses_long_names);
    tcase_add_loop_test(names, expands, 0, (int)(sizeof patterns / sizeof *patterns));
    tcase_add_loop_test(names, refuses_patterns, 0, (int)(sizeof bad_patterns / sizeof *bad_patterns));
    tcase_add_test(names, expansion_stops);
    tcase_add_test(names, draws);
    suite_add_tcase(suite, names);
    suite_add_tcase(suite, cm_unit_case_generators());
    suite_add_tcase(suite, cm_unit_case_values());
    return suite;
}
