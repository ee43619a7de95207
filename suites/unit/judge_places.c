// SPDX-License-Identifier: Apache-2.0
// Permutations, and how the places of bad elements are named: the first one by its dimensions, all of them by
// the rows and columns that they are in.
#include "suites/unit/judge.h"

#include "harness/judge.h"
#include "harness/op.h"
#include "suites/unit/cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct permuted {
    int32_t got[6];
    int64_t beyond, first_bad;
} permuted[] = {
    {{1, 3, 0, 2, 4, 5}, 0, -1}, {{3, 1, 5, 4, 0, 2}, 0, -1}, // free within a key
    {{1, 1, 0, 2, 4, 5}, 1, 1},  {{1, 3, 0, 0, 0, 0}, 3, 3},  {{0, 3, 1, 2, 4, 5}, 2, 0},
    {{1, 3, 0, 2, 4, 6}, 1, 5},  {{-1, 3, 0, 2, 4, 5}, 1, 0}, {{INT32_MIN, INT32_MAX, 0, 2, 4, 5}, 2, 0},
    {{0, 1, 2, 3, 4, 5}, 2, 0},
};

// Tokens 1 and 3 have key -1, the others key 0.
START_TEST(permutations)
{
    const struct permuted *row = &permuted[_i];
    int32_t storage[6], keys[6] = {0, -1, 0, -1, 0, 0};
    double value[6] = {1, 3, 0, 2, 4, 5};
    cm_tensor got, key;
    cm_want want = {.count = 6, .value = value};
    cm_measure measure;
    cm_outcome outcome = {0};
    memcpy(storage, row->got, sizeof storage);
    cm_tensor_init(&got, CM_I32, 1, (int64_t[]){6}, storage);
    cm_tensor_init(&key, CM_I32, 1, (int64_t[]){6}, keys);
    cm_compare_permutation(&got.dl, &want, &key.dl, &measure);
    ck_assert_int_eq(measure.beyond, row->beyond);
    ck_assert_int_eq(measure.first_bad, row->first_bad);
    cm_verdict verdict = cm_judge_permutation(&measure, "p", &outcome);
    ck_assert_int_eq(verdict, row->beyond ? CM_FAIL : CM_PASS);
    ck_assert_int_eq(outcome.compared, 6);
    if (row->beyond)
        ck_assert_ptr_nonnull(
            strstr(outcome.reason, " of 6 places wrong: repeated, outside, or of another key"));
}
END_TEST

// Elements of an output [5, 16] that are bad, and how that is said.
static const struct located {
    const char *marks; // rows of the output, '/' between; x is bad; what is left out is good
    const char *pattern;
} located[] = {
    {"/x", "T 1 (1 of 5); H 0 (1 of 16)"},
    {"xxxxxxxxxxxxxxxx/xxxxxxxxxxxxxxxx/xxxxxxxxxxxxxxxx/xxxxxxxxxxxxxxxx/xxxxxxxxxxxxxxxx",
     "every T; every H"},
    {"..x/..x/..x/..x/..x", "every T; H 2 (1 of 16)"},
    {"/xxxxxxxxxxxxxxxx//xxxxxxxxxxxxxxxx", "T 1, 3 (2 of 5); every H"},
    {"//...x.xxx......x", "T 2 (1 of 5); H 3, 5..7, 14 (5 of 16)"},
    {"//..............xx/..............xx/..............xx", "T 2..4 (3 of 5); H 14..15 (2 of 16)"},
    {"x.x.x.x.x.x.x.x.", "T 0 (1 of 5); H 0, 2, 4, 6, ... (8 of 16)"},
};

START_TEST(places_are_named)
{
    cm_pristine *layer = cm_unit_open("moe_forward", "t5-k2-e4-h16-i8-bf16-random-s1");
    int n = cm_op_argument_index(layer->test_case.op, "output"), first = -1, bad = 0;
    cm_outcome outcome = {0};
    cm_measure measure;
    cm_tensor got;
    uint16_t storage[5 * 16];
    double value[5 * 16], sigma[5 * 16], order[5 * 16] = {0};
    const cm_want want = {5 * 16, value, sigma, order, NULL, NULL};
    cm_tensor_init(&got, CM_BF16, 2, (int64_t[]){5, 16}, storage);
    for (int64_t i = 0; i < 5 * 16; i++) {
        value[i] = 1;
        sigma[i] = 0x1p-10;
        cm_tensor_set(&got.dl, i, 1);
    }
    int t = 0, h = 0;
    for (const char *mark = located[_i].marks; *mark; mark++) {
        if (*mark == 'x') {
            cm_tensor_set(&got.dl, t * 16 + h, 1.5);
            first = first < 0 ? t * 16 + h : first;
            bad++;
        }
        h = *mark == '/' ? 0 : h + 1;
        t += *mark == '/';
    }
    cm_details *details = cm_new(1, sizeof *details);
    cm_outcome_use(&outcome, details);
    cm_compare_bounded(&got.dl, CM_BF16, &want, false, &measure);
    cm_compare_locate(layer, n, &got.dl, &want, false, &measure, &outcome);
    const cm_first_bad *place = &outcome.first_bad;
    ck_assert_str_eq(outcome.bad_pattern, located[_i].pattern);
    ck_assert_int_eq(outcome.bad_count, bad);
    ck_assert_str_eq(place->argument, "output");
    ck_assert(place->ndim == 2 && place->letters[0] == 'T' && place->letters[1] == 'H');
    ck_assert(place->index[0] == first / 16 && place->index[1] == first % 16);
    ck_assert(place->got == 1.5 && place->want == 1 && place->bound == cm_bound(&want, first, CM_BF16));
    cm_compare_locate(layer, n, &got.dl, &want, true, &measure, &outcome);
    ck_assert(place->bound == 0); // exact data
    for (int64_t i = 0; i < 5 * 16; i++)
        ck_assert(details->tiles.worst[i] == (cm_tensor_get(&got.dl, i) == 1 ? 0 : INFINITY));
    free(details);
    cm_outcome untouched = {0};
    measure.first_bad = -1;
    cm_compare_locate(layer, n, &got.dl, &want, false, &measure, &untouched);
    ck_assert(untouched.first_bad.argument[0] == 0 && untouched.bad_pattern[0] == 0);
    cm_unit_close(layer);
}
END_TEST

// An output [70, 100] in tiles of 4 by 4, with three bad elements.
START_TEST(tiles_of_bad_output)
{
    enum { ROWS = 70, COLUMNS = 100, COUNT = ROWS * COLUMNS };
    cm_pristine *layer = cm_unit_open("moe_forward", "t5-k2-e4-h16-i8-bf16-random-s1");
    int n = cm_op_argument_index(layer->test_case.op, "output");
    double *value = cm_new(COUNT, sizeof *value), *sigma = cm_new(COUNT, sizeof *sigma);
    double *order = cm_new(COUNT, sizeof *order);
    const cm_want want = {COUNT, value, sigma, order, NULL, NULL};
    uint16_t *storage = cm_new(COUNT, sizeof *storage);
    cm_details *details = cm_new(1, sizeof *details);
    cm_outcome outcome = {0};
    cm_measure measure;
    cm_tensor got;
    cm_outcome_use(&outcome, details);
    cm_tensor_init(&got, CM_BF16, 2, (int64_t[]){ROWS, COLUMNS}, storage);
    for (int64_t i = 0; i < COUNT; i++) {
        value[i] = 1;
        sigma[i] = 0x1p-10;
        cm_tensor_set(&got.dl, i, 1);
    }
    cm_tensor_set(&got.dl, 0, 1.125);                    // 10.4 bounds
    cm_tensor_set(&got.dl, 4 * COLUMNS + 11, 1.0078125); // 0.65 bounds: in order
    cm_tensor_set(&got.dl, 68 * COLUMNS + 99, (double)NAN);
    sigma[69 * COLUMNS] = 0; // certain, and wrong
    cm_tensor_set(&got.dl, 69 * COLUMNS, 2);
    cm_compare_bounded(&got.dl, CM_BF16, &want, false, &measure);
    cm_compare_locate(layer, n, &got.dl, &want, false, &measure, &outcome);
    const cm_tiles *tiles = &details->tiles;
    ck_assert(!memcmp(tiles->letters, "TH", 2) && outcome.bad_count == 3);
    ck_assert(tiles->extents[0] == ROWS && tiles->extents[1] == COLUMNS);
    ck_assert(tiles->steps[0] == 4 && tiles->steps[1] == 4);
    ck_assert(tiles->counts[0] == 18 && tiles->counts[1] == 25);
    double ratio = 0.125 / cm_bound(&want, 0, CM_BF16), least = 0.0078125 / cm_bound(&want, 0, CM_BF16);
    for (int i = 0; i < 18 * 25; i++) {
        double worst = (double)tiles->worst[i];
        if (i == 0)
            ck_assert(worst > 1 && worst >= ratio && worst < ratio + 1.0 / 16);
        else if (i == 1 * 25 + 2)
            ck_assert(worst < 1 && worst >= least && worst < least + 1.0 / 16);
        else if (i == 17 * 25 || i == 17 * 25 + 24)
            ck_assert(isinf(worst));
        else
            ck_assert(worst == 0);
    }
    free(value);
    free(sigma);
    free(order);
    free(storage);
    free(details);
    cm_unit_close(layer);
}
END_TEST

TCase *cm_unit_judge_places(void)
{
    TCase *tcase = tcase_create("places");
    tcase_add_loop_test(tcase, permutations, 0, (int)(sizeof permuted / sizeof *permuted));
    tcase_add_loop_test(tcase, places_are_named, 0, (int)(sizeof located / sizeof *located));
    tcase_add_test(tcase, tiles_of_bad_output);
    return tcase;
}
