// SPDX-License-Identifier: Apache-2.0
// Declared paths: patterns at switch points, which selections are held to them, what a run says of a path
// that no case took, and that the suites cross the switch points of all kernels. Needs the folder
// CHECKMOE_PLUGINS.
#include "harness/paths.h"

#include "harness/op.h"
#include "suites/unit/command.h"
#include "suites/unit/loaders.h"
#include "suites/unit/records.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Suite *cm_unit_paths(void);

static char folder[PATH_MAX];

static const cm_op *op_of(const char *kernel)
{
    const cm_op *op = cm_registry_find_op(kernel, strcspn(kernel, "/"));
    ck_assert_msg(op != NULL, "no op of %s", kernel);
    return op;
}

static const cm_switch_point early[] = {{"rows", 16, ""}, {"T", 1, ""}, {"rows", 6, ""}, {0}};
static const cm_switch_point late[] = {{"rows", 17, ""}, {"T", 64, ""}, {0}};
static const cm_switch_point foreign[] = {{"rows", 1000, ""}, {0}};
static const cm_kernel one = {.name = "sgmv_shrink/one", .switch_points = early},
                       two = {.name = "sgmv_shrink/two", .switch_points = late},
                       none = {.name = "sgmv_shrink/none"},
                       other = {.name = "sgmv_expand/other", .switch_points = foreign};
static const cm_kernel *const kernels[] = {&one, &none, &other, &two, NULL};

static const struct pattern {
    const char *pattern, *want; // NULL: no case
} patterns[] = {
    {"t{@rows}-r8x1-K64-s1", "t{5,6,15,16,17}-r8x1-K64-s1"},
    {"t{@T}-r8x1-K{@rows}-{bf16,f32}-s1", "t{1,63,64}-r8x1-K{5,6,15,16,17}-{bf16,f32}-s1"},
    {"t{1..3}-r8x1-K64-s1", "t{1..3}-r8x1-K64-s1"},
    {"t3-r{@r}x1-K64-s1", NULL},
    {"t{@row}-r8x1-K64-s1", NULL},
    {"t{@rows", "t{@rows"}, // refused where it is expanded
};

START_TEST(patterns_are_filled)
{
    char *text = cm_paths_pattern(patterns[_i].pattern, op_of("sgmv_shrink"), kernels);
    ck_assert_msg(patterns[_i].want ? text && !strcmp(text, patterns[_i].want) : !text, "%s: %s",
                  patterns[_i].pattern, text ? text : "nothing");
    free(text);
}
END_TEST

static cm_status count_case(const char *text, void *self)
{
    cm_case test_case;
    cm_error error = {{0}};
    ck_assert_msg(cm_case_parse(self, text, &test_case, &error) == CM_OK, "%s", error.message);
    return CM_OK;
}

// Rows that stand for no case today are held to the grammar with switch points that someone may declare.
START_TEST(rows_fit_any_switch_point)
{
    int found = 0;
    for (const cm_suite *const *suite = cm_registry_suites(); *suite; suite++)
        for (const cm_row *row = (*suite)->rows; row->cases; row++) {
            static const cm_switch_point points[] = {{"T", 40, ""}, {"rows", 17, ""}, {"H", 129, ""}, {0}};
            char name[96];
            cm_error error = {{0}};
            snprintf(name, sizeof name, "%s/any", (*suite)->op);
            cm_kernel kernel = {.name = name, .switch_points = points};
            const cm_kernel *const any[] = {&kernel, NULL};
            char *text = cm_paths_pattern(row->cases, op_of(name), any);
            ck_assert_msg(text != NULL, "%s: of no known quantity", row->cases);
            ck_assert_msg(strcmp(text, row->cases) == 0 || !(row->sets & CM_SET_FUZZ),
                          "%s: a draw has no switch points", row->cases);
            found += strcmp(text, row->cases) != 0;
            if (strcmp(text, row->cases) != 0)
                ck_assert_msg(cm_paths_expand(row->cases, op_of(name), any, count_case,
                                              (void *)(uintptr_t)op_of(name), &error) == CM_OK,
                              "%s", error.message);
            free(text);
        }
    ck_assert_int_ge(found, 6);
}
END_TEST

static bool row_has(const char *op, const char *quantity)
{
    char wanted[64];
    bool found = false;
    snprintf(wanted, sizeof wanted, "{@%s}", quantity);
    for (const cm_suite *const *suite = cm_registry_suites(); *suite; suite++)
        for (const cm_row *row = (*suite)->rows; row->cases && !strcmp((*suite)->op, op); row++)
            found = found || (row->sets & CM_SET_CI && strstr(row->cases, wanted));
    return found;
}

START_TEST(suites_cross_every_switch_point)
{
    int declared = 0;
    for (const cm_kernel *const *kernel = cm_registry_kernels(); *kernel; kernel++) {
        char reason[160] = "";
        ck_assert_msg(!cm_paths_wrong(*kernel, op_of((*kernel)->name), reason, sizeof reason), "%s: %s",
                      (*kernel)->name, reason);
        declared += cm_paths_count(*kernel) > 0;
        for (const cm_switch_point *point = (*kernel)->switch_points; point && point->quantity; point++)
            ck_assert_msg(row_has(op_of((*kernel)->name)->name, point->quantity),
                          "%s: no row of its ci suite has {@%s}", (*kernel)->name, point->quantity);
    }
    ck_assert_int_gt(declared, 0);
}
END_TEST

static bool covered(const cm_selection *selection, const char *glob)
{
    const char *globs[] = {glob, NULL};
    cm_selection copy = *selection;
    copy.globs = glob ? globs : NULL;
    return cm_paths_covered(&copy, &one, NULL);
}

START_TEST(whole_selections_are_held_to_paths)
{
    cm_selection ci = {.sets = CM_SET_CI | CM_SET_SMOKE}, smoke = {.sets = CM_SET_SMOKE};
    ck_assert(covered(&ci, NULL) && covered(&ci, "sgmv_shrink") && covered(&ci, "sgmv_*/one"));
    ck_assert(covered(&ci, "sgmv_shrink/one/*") && covered(&(cm_selection){.sets = CM_SET_FULL}, NULL));
    ck_assert(!covered(&ci, "sgmv_expand") && !covered(&ci, "sgmv_shrink/two"));
    ck_assert(!covered(&ci, "sgmv_shrink/one/t7*") && !covered(&ci, "*/*/t7*"));
    ck_assert(!covered(&smoke, NULL) && !covered(&(cm_selection){.sets = CM_SET_FUZZ}, NULL));
    cm_selection narrower[] = {ci, ci, ci, ci, ci};
    narrower[0].checks = "numerics";
    narrower[1].shards = 2;
    narrower[2].model = "folder";
    narrower[3].repro_kernel = one.name;
    narrower[4].last = (cm_last *)&narrower[0]; // not looked into
    for (size_t n = 0; n < sizeof narrower / sizeof *narrower; n++)
        ck_assert_msg(!covered(&narrower[n], NULL), "%zu", n);
    cm_fault by_path = {.kernel = &one, .check = "paths"}, by_value = {.kernel = &one, .check = "numerics"};
    cm_selection faults = {.sets = CM_SET_CI, .faults = true};
    ck_assert(cm_paths_covered(&faults, &one, &by_path) && !cm_paths_covered(&faults, &one, &by_value));
    ck_assert(!cm_paths_covered(&faults, &one, NULL));
    faults.shards = 2; // what is never taken is never taken in a part
    ck_assert(cm_paths_covered(&faults, &one, &by_path));
}
END_TEST

// A fault is killed by a path that was never taken, and by no other lack of power.
START_TEST(vacuous_kills_by_paths)
{
    static const cm_path paths[] = {{"few", "row by row"}, {"blocks", "blocks of rows"}, {0}};
    cm_kernel kernel = {.name = "sgmv_shrink/one", .paths = paths};
    cm_paths_met met = {.ran = 12, .cases = {12, 0}};
    cm_record record = cm_unit_fault_record("a", "paths", CM_PASS, "");
    cm_records records = {.items = &record, .count = 1};
    record.expected_check = (char *)"paths";
    record.expected_finding = (char *)"`blocks`";
    for (int path = 0; path < 2; path++) {
        cm_tally tally;
        cm_paths_judge(&kernel, path, &met, &record.outcome);
        ck_assert_int_eq(record.outcome.verdict, path ? CM_VACUOUS : CM_PASS);
        cm_tally_make(&records, &tally);
        ck_assert_uint_eq(tally.survivors, path ? 0 : 1);
        cm_tally_close(&tally);
    }
    ck_assert_str_eq(record.outcome.reason, "none of 12 cases took the declared path `blocks` (blocks of "
                                            "rows): add cases that do, or mend its switch point");
}
END_TEST

START_TEST(records_keep_paths)
{
    cm_record record = cm_unit_record("numerics", "x", CM_PASS, "");
    record.path_names = (char *)"few blocks tail";
    record.outcome.paths = 5;
    cm_unit_write_records(&record, 1, false);
    char *text = cm_unit_read_text("r.jsonl");
    cm_unit_expect_part(text, "\"paths\":{\"few\":true,\"blocks\":false,\"tail\":true}");
    cm_records records = cm_unit_read_records();
    ck_assert_str_eq(records.items[0].path_names, "few blocks tail");
    ck_assert_uint_eq(records.items[0].outcome.paths, 5);
    char *at = strstr(text, "false,\"tail\"");
    memcpy(at, "11111", 5);
    cm_records_close(&records);
    cm_unit_write_text("r.jsonl", text);
    cm_error error = {{0}};
    cm_unit_expect_bad_file(cm_records_read("r.jsonl", &records, &error), &error, "\"paths\" is no object");
    free(text);
}
END_TEST

static cm_command run_plugin(const char *plugin, const char *words)
{
    return cm_unit_command("checkmoe run --quiet --timeout 120 --records r.jsonl --plugin '%s/%s.so' %s",
                           folder, plugin, words);
}

static void expect(const char *plugin, const char *words, int code, const char *part)
{
    cm_command command = run_plugin(plugin, words);
    ck_assert_msg(command.code == code && (!part || strstr(command.out, part)),
                  "%s %s: exit status %d, without \"%s\":\n%s%s", plugin, words, command.code,
                  part ? part : "", command.out, command.err);
    cm_unit_forget(&command);
}

// Verdict of the record of that path; -1: there is none.
static int verdict_of(const char *path, int64_t *cases)
{
    cm_records records = cm_unit_read_records();
    int verdict = -1;
    for (size_t n = 0; n < records.count; n++)
        if (!strcmp(records.items[n].check, "paths") && !strcmp(records.items[n].case_name, path)) {
            verdict = (int)records.items[n].outcome.verdict;
            *cases = records.items[n].outcome.compared;
        }
    cm_records_close(&records);
    return verdict;
}

// Cases of t5000 are there because the kernel says so.
START_TEST(both_paths_of_a_kernel)
{
    int64_t search[2] = {0}, count[2] = {0};
    for (int jobs = 1; jobs <= 2; jobs++) {
        char words[16];
        snprintf(words, sizeof words, "--jobs %d", jobs);
        expect("paths", words, 0, "search");
        ck_assert_int_eq(verdict_of("search", &search[jobs - 1]), CM_PASS);
        ck_assert_int_eq(verdict_of("count", &count[jobs - 1]), CM_PASS);
    }
    ck_assert_int_eq(count[0], 1);
    ck_assert(search[0] > 20 && search[1] == search[0] && count[1] == count[0]);
    cm_command command = cm_unit_command("checkmoe list --kernels --plugin '%s/paths.so'", folder);
    cm_unit_expect_part(command.out, "path count");
    cm_unit_expect_part(command.out, "from T = 5000");
    cm_unit_forget(&command);
    command = cm_unit_command("checkmoe list --plugin '%s/paths.so'", folder);
    cm_unit_expect_part(command.out, "sgmv_plan/paths/t4999-");
    cm_unit_expect_part(command.out, "sgmv_plan/paths/t5000-");
    cm_unit_forget(&command);
}
END_TEST

START_TEST(a_path_that_is_never_taken)
{
    int64_t cases;
    expect("paths_forgotten", "", 1, "took the declared path `count`");
    ck_assert_int_eq(verdict_of("search", &cases), CM_PASS);
    char *row = cm_text("search %lld  count 0  of %lld cases", (long long)cases, (long long)cases);
    ck_assert_int_eq(verdict_of("count", &cases), CM_VACUOUS);
    cm_command page = cm_unit_command("checkmoe report --html - r.jsonl");
    cm_unit_expect_part(page.out, "<td>count</td><td class=\"number\"><span class=\"badge bad\">0</span>");
    cm_unit_forget(&page);
    page = cm_unit_command("checkmoe report r.jsonl");
    cm_unit_expect_part(page.out, row);
    cm_unit_forget(&page);
    free(row);
    cm_unit_write_text("known", "sgmv_plan/paths/count paths VACUOUS the second path is not finished\n");
    expect("paths_forgotten", "--known known", 0, "known");
    expect("paths", "--known known", 1, NULL); // listed, and taken all the same
    expect("paths_forgotten", "sgmv_plan/paths/t9*", 0, NULL);
    ck_assert_int_eq(verdict_of("count", &cases), -1);
    expect("paths_forgotten", "--set smoke", 0, NULL);
    expect("paths_forgotten", "--check numerics", 0, NULL);
}
END_TEST

START_TEST(a_path_that_is_not_declared)
{
    expect("paths_undeclared", "sgmv_plan/paths/t9*", 1, "a path of a number that it does not declare");
}
END_TEST

Suite *cm_unit_paths(void)
{
    const char *plugins = getenv("CHECKMOE_PLUGINS");
    Suite *suite = suite_create("paths");
    TCase *tcase = tcase_create("declarations");
    if (plugins && !realpath(plugins, folder))
        folder[0] = 0;
    cm_unit_find_binary();
    tcase_add_loop_test(tcase, patterns_are_filled, 0, sizeof patterns / sizeof *patterns);
    tcase_add_test(tcase, rows_fit_any_switch_point);
    tcase_add_test(tcase, suites_cross_every_switch_point);
    tcase_add_test(tcase, whole_selections_are_held_to_paths);
    tcase_add_test(tcase, vacuous_kills_by_paths);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("runs");
    tcase_set_timeout(tcase, 300);
    tcase_add_checked_fixture(tcase, cm_unit_enter_directory, cm_unit_leave_directory);
    tcase_add_test(tcase, records_keep_paths);
    tcase_add_test(tcase, both_paths_of_a_kernel);
    tcase_add_test(tcase, a_path_that_is_never_taken);
    tcase_add_test(tcase, a_path_that_is_not_declared);
    suite_add_tcase(suite, tcase);
    return suite;
}
