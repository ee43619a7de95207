// SPDX-License-Identifier: Apache-2.0
// What is wanted against what is found: known failures, faults, and the exit status for each mixture.
#include "suites/unit/records.h"

#include <string.h>

static int exit_of(const cm_record *items, size_t count)
{
    cm_records records = {.items = (cm_record *)items, .count = count};
    cm_tally tally;
    cm_tally_make(&records, &tally);
    int code = cm_tally_exit(&tally, false);
    ck_assert_int_eq(cm_tally_exit(&tally, true), CM_EXIT_INTERRUPTED);
    cm_tally_close(&tally);
    return code;
}

START_TEST(exit_statuses)
{
    cm_record pass = cm_unit_record("numerics", "x", CM_PASS, ""),
              skip = cm_unit_record("numerics", "y", CM_SKIP, "no AMX");
    ck_assert_int_eq(exit_of(NULL, 0), CM_EXIT_NOTHING);
    ck_assert_int_eq(exit_of(&skip, 1), CM_EXIT_SKIPPED);
    ck_assert_int_eq(exit_of((cm_record[]){pass, skip}, 2), CM_EXIT_OK);
    for (int n = 0; n < CM_VERDICT_COUNT; n++) {
        cm_record bad = cm_unit_record("numerics", "z", (cm_verdict)n, "why");
        if (!cm_verdict_is_bad((cm_verdict)n))
            continue;
        ck_assert_int_eq(exit_of((cm_record[]){pass, bad}, 2), CM_EXIT_FAILED);
        ck_assert_int_eq(exit_of((cm_record[]){skip, bad}, 2), CM_EXIT_FAILED); // 1 wins over 77
        bad.known = (char *)"issue 12";
        ck_assert_int_eq(exit_of(&bad, 1), CM_EXIT_OK);
        bad.known_differs = true; // listed with another verdict
        ck_assert_int_eq(exit_of((cm_record[]){pass, bad}, 2), CM_EXIT_FAILED);
    }
    pass.known = skip.known = (char *)"issue 12";
    ck_assert_int_eq(cm_record_surprise(&pass), CM_UNEXPECTED_PASS);
    ck_assert_int_eq(exit_of(&pass, 1), CM_EXIT_FAILED);
    ck_assert_int_eq(exit_of(&skip, 1), CM_EXIT_SKIPPED);
    skip.known_differs = true; // SKIP is not the verdict that is listed, and no surprise
    ck_assert_int_eq(exit_of(&skip, 1), CM_EXIT_SKIPPED);
}
END_TEST

START_TEST(faults_are_killed)
{
    cm_record killed = cm_unit_fault_record("a", "effect", CM_FAIL, "up: gain 0.00 +- 0.01");
    cm_record other_check = cm_unit_fault_record("a", "numerics", CM_FAIL, "gain 0.00 but of another check");
    cm_record other_reason = cm_unit_fault_record("a", "effect", CM_CRASH, "SIGSEGV");
    cm_record vacuous = cm_unit_fault_record("a", "effect", CM_VACUOUS, "gain 0.00 +- 0.5");
    cm_record pass = cm_unit_fault_record("a", "effect", CM_PASS, ""),
              skip = cm_unit_fault_record("a", "effect", CM_SKIP, "gain 0.00");
    ck_assert_int_eq(exit_of(&killed, 1), CM_EXIT_OK);
    ck_assert_int_eq(exit_of((cm_record[]){pass, killed, pass}, 3), CM_EXIT_OK); // on one case is enough
    ck_assert_int_eq(exit_of(&other_check, 1), CM_EXIT_FAILED);
    ck_assert_int_eq(exit_of(&other_reason, 1), CM_EXIT_FAILED);
    ck_assert_int_eq(exit_of(&vacuous, 1), CM_EXIT_FAILED);
    ck_assert_int_eq(exit_of(&pass, 1), CM_EXIT_FAILED);
    ck_assert_int_eq(exit_of(&skip, 1), CM_EXIT_SKIPPED);
    ck_assert_int_eq(exit_of((cm_record[]){skip, other_check}, 2), CM_EXIT_FAILED); // it could run
    cm_record nameless = killed, second = cm_unit_fault_record("b", "effect", CM_PASS, "");
    nameless.expected_finding = NULL;
    ck_assert_int_eq(exit_of(&nameless, 1), CM_EXIT_FAILED);
    ck_assert_int_eq(exit_of((cm_record[]){killed, second}, 2), CM_EXIT_FAILED); // each fault for itself
    cm_record items[] = {pass, skip, other_reason};
    cm_records records = {.items = items, .count = 3};
    cm_tally tally;
    cm_tally_make(&records, &tally);
    ck_assert_ptr_eq(tally.faults[0].by, &items[2]); // the nearest miss
    ck_assert_uint_eq(tally.counts[CM_PASS] + tally.counts[CM_CRASH] + tally.known, 0);
    ck_assert_int_eq(tally.compared, 300);
    cm_tally_close(&tally);
}
END_TEST

START_TEST(known_file)
{
    cm_known known;
    cm_error error = {{0}};
    bool agrees;
    cm_unit_write_text("known", "# what we accept\n\n"
                                "moe/avx512/t17-*   effect  FAIL    issue 12: up is dropped  \n"
                                "moe/avx512/t17-h8  effect  CRASH   issue 13\n"
                                "*                  bounds  VACUOUS nothing to bound\r\n");
    ck_assert_int_eq(cm_known_read("known", &known, &error), CM_OK);
    ck_assert_uint_eq(known.count, 3);
    ck_assert_int_eq(known.entries[2].line, 5);
    ck_assert_str_eq(known.entries[2].reason, "nothing to bound");
    const char *reason = cm_known_match(&known, "moe/avx512", "t17-h8", "effect", CM_FAIL, &agrees);
    ck_assert(agrees && !strcmp(reason, "issue 12: up is dropped"));
    reason = cm_known_match(&known, "moe/avx512", "t17-h8", "effect", CM_CRASH, &agrees);
    ck_assert(agrees && !strcmp(reason, "issue 13"));
    reason = cm_known_match(&known, "moe/avx512", "t17-h8", "effect", CM_PASS, &agrees);
    ck_assert(!agrees && !strcmp(reason, "issue 12: up is dropped"));
    ck_assert_ptr_null(cm_known_match(&known, "moe/avx512", "t1", "effect", CM_FAIL, &agrees));
    ck_assert(!agrees);
    ck_assert_ptr_nonnull(cm_known_match(&known, "route/naive", "t1", "bounds", CM_VACUOUS, NULL));
    ck_assert_uint_eq(known.entries[0].met, 1);
    cm_known_close(&known);
    cm_known_close(&known);
    static const char *const rows[][2] = {
        {"\nnokernel effect FAIL why\n", "known:2: \"nokernel\" names no kernel"},
        {"moe/x effect\n", "known:1: too few words"},
        {"moe/x effect SKIP why\n", "known:1: \"SKIP\" is no verdict that can be listed"},
        {"moe/x effect PASS why\n", "known:1: \"PASS\" is no verdict"},
        {"moe/x effect FAIL  \n", "known:1: no reason is given"},
    };
    for (size_t n = 0; n < sizeof rows / sizeof *rows; n++) {
        error = (cm_error){{0}};
        cm_unit_write_text("known", rows[n][0]);
        cm_unit_expect_bad_file(cm_known_read("known", &known, &error), &error, rows[n][1]);
    }
    error = (cm_error){{0}};
    cm_unit_expect_bad_file(cm_known_read("nothing", &known, &error), &error, "nothing: cannot be opened");
}
END_TEST

TCase *cm_unit_expectations(void)
{
    TCase *tcase = tcase_create("expectations");
    tcase_add_test(tcase, exit_statuses);
    tcase_add_test(tcase, faults_are_killed);
    tcase_add_test(tcase, known_file);
    return tcase;
}
