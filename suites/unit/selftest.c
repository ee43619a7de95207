// SPDX-License-Identifier: Apache-2.0
// The kill matrix: the program runs all faults and must say that each was killed as expected; and a tally
// must notice every way in which a fault is not.
#include "harness/expect.h"
#include "harness/registry.h"
#include "suites/unit/command.h"
#include "suites/unit/oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Suite *cm_unit_selftest(void);

// Faults of other targets may be skipped on a machine that lacks their instructions.
static bool runs_everywhere(const cm_fault *fault)
{
    const char *target = strchr(fault->kernel->name, '/') + 1;
    return !strcmp(target, "naive") || !strcmp(target, "openblas");
}

// Sanitizers make a child ten times dearer: a part of the faults there.
START_TEST(faults_are_killed)
{
    cm_command command = cm_unit_command("checkmoe run --faults --fault %s --timeout 20 --quiet",
                                         CM_UNIT_SLOW ? "[d-j]*" : "*");
    cm_unit_expect_good(&command);
    for (const cm_fault *const *fault = cm_registry_faults(); !CM_UNIT_SLOW && *fault; fault++)
        ck_assert_msg(strstr(command.out, (*fault)->id) != NULL, "%s is not in the report", (*fault)->id);
    cm_unit_forget(&command);
}
END_TEST

START_TEST(faults_are_complete)
{
    for (const cm_fault *const *fault = cm_registry_faults(); *fault; fault++) {
        const char *id = (*fault)->id;
        bool by_run = !strcmp((*fault)->check, CM_CHECK_PATHS); // no case has that check
        ck_assert_msg(by_run || cm_registry_find_check((*fault)->check, strlen((*fault)->check)) != NULL,
                      "%s: no check %s", id, (*fault)->check);
        ck_assert_msg((*fault)->finding[0] && (*fault)->cases[0] && (*fault)->story[0], "%s", id);
        for (const cm_fault *const *other = fault + 1; *other; other++)
            ck_assert_str_ne(id, (*other)->id);
    }
}
END_TEST

// Every check kills two faults at least, in kernels that run on any machine.
START_TEST(checks_are_needed)
{
    for (const cm_check *const *check = cm_registry_checks(); *check; check++) {
        int kills = 0;
        for (const cm_fault *const *fault = cm_registry_faults(); *fault; fault++)
            kills += runs_everywhere(*fault) && !strcmp((*fault)->check, (*check)->name);
        ck_assert_msg(kills >= 2, "%s kills %d faults, not two", (*check)->name, kills);
    }
}
END_TEST

// Records of one fault, expected to be killed by numerics with "differs".
struct line {
    const char *check;
    cm_verdict verdict;
    const char *reason;
};

static const struct tallied {
    struct line lines[3];
    size_t killed, survivors, skipped;
    int code;
} tallied[] = {
    {{{"numerics", CM_FAIL, "`y` differs in 3"}}, 1, 0, 0, CM_EXIT_OK},
    {{{"numerics", CM_CRASH, "SIGFPE where it differs"}}, 1, 0, 0, CM_EXIT_OK},
    {{{"bounds", CM_PASS, ""}, {"numerics", CM_FAIL, "differs"}, {"mutation", CM_FAIL, "x"}},
     1,
     0,
     0,
     CM_EXIT_OK},
    {{{"numerics", CM_FAIL, "differs"}, {"numerics", CM_PASS, ""}}, 1, 0, 0, CM_EXIT_OK}, // of two cases, one
    {{{"numerics", CM_SKIP, "no AMX"}, {"bounds", CM_SKIP, "no AMX"}}, 0, 0, 1, CM_EXIT_SKIPPED},
    {{{"numerics", CM_PASS, ""}}, 0, 1, 0, CM_EXIT_FAILED},                    // not seen at all
    {{{"numerics", CM_FAIL, "is beyond its bound"}}, 0, 1, 0, CM_EXIT_FAILED}, // for another reason
    {{{"bounds", CM_FAIL, "differs"}}, 0, 1, 0, CM_EXIT_FAILED},               // by another check
    {{{"bounds", CM_FAIL, "differs"}, {"numerics", CM_PASS, ""}}, 0, 1, 0, CM_EXIT_FAILED},
    {{{"numerics", CM_VACUOUS, "differs"}}, 0, 1, 0, CM_EXIT_FAILED}, // the check had no power
    {{{"numerics", CM_SKIP, "differs"}, {"bounds", CM_PASS, ""}}, 0, 1, 0, CM_EXIT_FAILED},
};

static cm_records fabricate(const struct tallied *row, cm_record *items, const char *finding)
{
    cm_records records = {.items = items, .complete = true};
    for (int n = 0; n < 3 && row->lines[n].check; n++, records.count++) {
        items[n] = (cm_record){.check = (char *)(uintptr_t)row->lines[n].check,
                               .kernel = (char *)(uintptr_t) "op/target",
                               .fault = (char *)(uintptr_t) "some-fault",
                               .expected_check = (char *)(uintptr_t) "numerics",
                               .expected_finding = (char *)(uintptr_t)finding,
                               .outcome = {.verdict = row->lines[n].verdict, .compared = 1}};
        snprintf(items[n].outcome.reason, sizeof items[n].outcome.reason, "%s", row->lines[n].reason);
    }
    return records;
}

START_TEST(survivors_are_noticed)
{
    cm_record items[3];
    cm_records records = fabricate(&tallied[_i], items, "differs");
    cm_tally tally;
    cm_tally_make(&records, &tally);
    ck_assert_uint_eq(tally.fault_count, 1);
    ck_assert_uint_eq(tally.faults[0].killed, tallied[_i].killed);
    ck_assert_uint_eq(tally.survivors, tallied[_i].survivors);
    ck_assert_uint_eq(tally.faults_skipped, tallied[_i].skipped);
    ck_assert_int_eq(cm_tally_exit(&tally, false), tallied[_i].code);
    ck_assert_int_eq(cm_tally_exit(&tally, true), CM_EXIT_INTERRUPTED);
    cm_tally_close(&tally);
    records =
        fabricate(&tallied[_i], items, ""); // without a finding any failure would do: that kills nothing
    cm_tally_make(&records, &tally);
    ck_assert_uint_eq(tally.survivors, !tallied[_i].skipped);
    cm_tally_close(&tally);
}
END_TEST

// One survivor among the killed is enough.
START_TEST(one_survivor_fails_the_run)
{
    cm_record items[4];
    cm_records records = fabricate(&tallied[0], items, "differs");
    fabricate(&tallied[5], items + 1, "differs");
    items[1].fault = (char *)(uintptr_t) "other-fault";
    records.count = 2;
    cm_tally tally;
    cm_tally_make(&records, &tally);
    ck_assert_uint_eq(tally.fault_count, 2);
    ck_assert_uint_eq(tally.survivors, 1);
    ck_assert_int_eq(cm_tally_exit(&tally, false), CM_EXIT_FAILED);
    cm_tally_close(&tally);
}
END_TEST

Suite *cm_unit_selftest(void)
{
    cm_unit_find_binary();
    Suite *suite = suite_create("selftest");
    TCase *kills = tcase_create("kills"), *tally = tcase_create("tally");
    tcase_set_timeout(kills, 500);
    tcase_add_test(kills, faults_are_killed);
    tcase_add_test(tally, faults_are_complete);
    tcase_add_test(tally, checks_are_needed);
    tcase_add_loop_test(tally, survivors_are_noticed, 0, (int)(sizeof tallied / sizeof *tallied));
    tcase_add_test(tally, one_survivor_fails_the_run);
    suite_add_tcase(suite, kills);
    suite_add_tcase(suite, tally);
    return suite;
}
