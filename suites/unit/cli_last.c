// SPDX-License-Identifier: Apache-2.0
// What a run leaves for the next: --last-failed runs the failures and nothing else, an id finds its record,
// and neither harms the records that it read.
#include "suites/unit/cli.h"

#include "harness/last.h"
#include "suites/unit/command.h"
#include "suites/unit/loaders.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WRONG "--plugin %s/wrong.so --quiet "

static const char *plugins(void)
{
    const char *path = getenv("CHECKMOE_PLUGINS");
    ck_assert_msg(path != NULL, "set CHECKMOE_PLUGINS to the folder of the built sample plug-ins");
    return path;
}

// The state folder is this directory.
static void keep_state_here(void)
{
    char folder[PATH_MAX];
    ck_assert_ptr_nonnull(getcwd(folder, sizeof folder));
    ck_assert_int_eq(setenv("XDG_STATE_HOME", folder, 1), 0);
}

// Runs the line and asserts its status; the counted records of it that are bad, and all of them.
static void run_counting(int code, size_t bad, size_t all, const char *line)
{
    cm_records records;
    cm_error error = {{0}};
    size_t found = 0;
    cm_command run = cm_unit_command("%s", line);
    ck_assert_msg(run.code == code, "%s: exit status %d\n%s%s", line, run.code, run.out, run.err);
    cm_unit_forget(&run);
    char *path = cm_last_path();
    ck_assert_msg(cm_records_read(path, &records, &error) == CM_OK, "%s", error.message);
    for (size_t n = 0; n < records.count; n++)
        found += cm_verdict_is_bad(records.items[n].outcome.verdict);
    ck_assert_msg(found == bad && (all == 0 || records.count == all), "%s: %zu records, %zu bad", line,
                  records.count, found);
    free(path);
    cm_records_close(&records);
}

START_TEST(only_failures_run_again)
{
    char line[512];
    keep_state_here();
    cm_unit_expect_command(4, NULL, "there are no records of a last run here", "checkmoe run --last-failed");
    snprintf(line, sizeof line, "checkmoe run " WRONG "--set smoke --check numerics,bounds", plugins());
    // by_segment fails numerics on the random and the exact case, abort both checks on both
    run_counting(1, 6, 0, line);
    snprintf(line, sizeof line, "checkmoe run " WRONG "--last-failed", plugins());
    run_counting(1, 6, 6, line);
    snprintf(line, sizeof line, "checkmoe run " WRONG "--last-failed --check bounds sgmv_expand/abort",
             plugins());
    cm_unit_expect_command(1, "CRASH", "4 of 6 wanted checks did not run again", line);
    run_counting(1, 2, 2, line); // that was the last run now
    cm_unit_expect_command(5, "NOTHING RAN", "give the --plugin or --model",
                           "checkmoe run --last-failed --quiet");
    cm_unit_expect_command(0, "PASSED", NULL, "checkmoe run --set smoke sgmv_plan --quiet");
    cm_unit_expect_command(5, "NOTHING RAN", "has no failure to run again",
                           "checkmoe run --last-failed --quiet");
    cm_unit_expect_command(5, NULL, NULL, "checkmoe list --last-failed");
}
END_TEST

START_TEST(ids_find_their_record)
{
    char id[CM_RECORD_ID] = "", folder[PATH_MAX];
    keep_state_here();
    ck_assert_ptr_nonnull(getcwd(folder, sizeof folder));
    cm_command run =
        cm_unit_command("checkmoe run " WRONG "--set smoke --check effect --records kept.jsonl", plugins());
    ck_assert_int_eq(run.code, 1);
    const char *label = strstr(run.out, "\n  id ");
    ck_assert_msg(label && sscanf(label, " id %8s", id) == 1 && strlen(id) == 8, "%s", run.out);
    cm_unit_forget(&run);
    cm_unit_expect_command(4, NULL, "there are no records of a last run here", "checkmoe repro 0123abcd");
    cm_unit_expect_command(4, NULL, "no record has the id \"0123abcd\"",
                           "checkmoe repro 0123abcd --records kept.jsonl");
    run = cm_unit_command("checkmoe repro %s --records kept.jsonl " WRONG, id, plugins());
    ck_assert_msg(run.code == 1 && strstr(run.out, id) && strstr(run.out, "FAILED: 1 FAIL") &&
                      strstr(run.out, " 0 PASS"),
                  "exit status %d\n%s%s", run.code, run.out, run.err);
    cm_unit_forget(&run);
    cm_records records;
    cm_error error = {{0}};
    ck_assert_int_eq(cm_records_read("kept.jsonl", &records, &error), CM_OK);
    ck_assert_msg(records.complete && records.count > 1, "repro wrote to the records that it was given");
    cm_records_close(&records);
}
END_TEST

// A fault that got through counts as a failure, one that was killed doesn't; so do cases on files.
START_TEST(survivors_and_files_run_again)
{
    static const char *const checks[] = {"device", "numerics"};
    char *path;
    cm_record_writer writer;
    cm_error error = {{0}};
    keep_state_here();
    cm_unit_expect_command(0, "kt-7a", NULL, "checkmoe run --fault kt-7a --quiet");
    cm_unit_expect_command(5, "NOTHING RAN", "has no failure", "checkmoe run --last-failed --quiet");
    path = cm_last_path();
    ck_assert_int_eq(
        cm_record_writer_open(path, "{\"schema\":\"checkmoe.env/1\",\"run\":\"x\"}", &writer, &error), CM_OK);
    for (size_t n = 0; n < 2; n++) { // its check did not find it: a survivor
        cm_record record = {.run = "x",
                            .suite = "faults",
                            .check = (char *)(uintptr_t)checks[n],
                            .op = "moe_forward",
                            .kernel = "moe_forward/naive",
                            .target = "naive",
                            .mode = "native",
                            .case_name = "t17-k2-e8-h64-i40-r8x3-bf16-exact-s1",
                            .seed = 1,
                            .fault = "expert-neighbour",
                            .expected_check = "numerics",
                            .expected_finding = "differs",
                            .repro = "checkmoe"};
        ck_assert_int_eq(cm_record_write(&writer, &record, &error), CM_OK);
    }
    cm_record recorded = {.run = "x",
                          .suite = "golden",
                          .check = "numerics",
                          .op = "moe_forward",
                          .kernel = "moe_forward/naive",
                          .target = "naive",
                          .mode = "native",
                          .case_name = "t24-k2-e8-h48-i40-r8x1-f32-full-file-s1",
                          .seed = 1,
                          .outcome = {.verdict = CM_FAIL},
                          .repro = "checkmoe"};
    ck_assert_int_eq(cm_record_write(&writer, &recorded, &error), CM_OK);
    ck_assert_int_eq(cm_record_writer_close(&writer, false, &error), CM_OK);
    cm_unit_expect_command(0, "expert-neighbour in moe_forward/naive", NULL, "checkmoe list --last-failed");
    cm_command run = cm_unit_command("checkmoe run --last-failed --quiet --records again.jsonl");
    cm_unit_forget(&run); // names no records yet: refused
    ck_assert_int_eq(run.code, 4);
    run_counting(0, 1, 2, "checkmoe run --last-failed --quiet");
    free(path);
}
END_TEST

TCase *cm_unit_cli_last(void)
{
    TCase *tcase = tcase_create("last");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, cm_unit_enter_directory, cm_unit_leave_directory);
    tcase_add_test(tcase, only_failures_run_again);
    tcase_add_test(tcase, ids_find_their_record);
    tcase_add_test(tcase, survivors_and_files_run_again);
    return tcase;
}
