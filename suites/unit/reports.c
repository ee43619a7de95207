// SPDX-License-Identifier: Apache-2.0
// What the text and JUnit reports say about one of each kind of result, and the verb that makes them.
#include "reports/reports.h"
#include "harness/commands.h"
#include "harness/env.h"
#include "suites/unit/records.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *cm_unit_render(const cm_report *report, const cm_record *items, size_t count, bool interrupted)
{
    cm_error error = {{0}};
    cm_unit_write_records(items, count, interrupted);
    cm_records records = cm_unit_read_records();
    FILE *out = fopen("out.xml", "w");
    ck_assert_int_eq(report->write(&records, out, &error), CM_OK);
    ck_assert_int_eq(fclose(out), 0);
    cm_records_close(&records);
    unlink("r.jsonl");
    return cm_unit_read_text("out.xml");
}

size_t cm_unit_mixture(cm_record *items)
{
    size_t count = 0;
    items[count++] = cm_unit_record("numerics", "t1.5-h8", CM_PASS, "");
    items[count] =
        cm_unit_record("numerics", "t2-h8", CM_FAIL, "`y` is beyond its bound in 12 of 64 elements");
    cm_outcome *outcome = &items[count++].outcome;
    outcome->first_bad = (cm_first_bad){.argument = "y",
                                        .ndim = 2,
                                        .letters = {'T', 'H'},
                                        .index = {3, 0},
                                        .got = 0.8828125,
                                        .want = 1.0625,
                                        .bound = 0.0117};
    outcome->bad_count = 12;
    snprintf(outcome->bad_pattern, sizeof outcome->bad_pattern, "columns 8..15");
    items[count++] =
        cm_unit_record("numerics", "t4-h8", CM_FAIL, "`y` is beyond its bound in 3 of 128 elements");
    items[count++] =
        cm_unit_record("bounds", "t2-h8", CM_CRASH, "SIGSEGV; it printed: \x1b[2J<oops> & \xff \"quoted\"");
    items[count++] = cm_unit_record("bounds", "t3-h8", CM_SKIP, "no AMX on this machine");
    items[count++] = cm_unit_record("isolation", "t2-h8", CM_VACUOUS, "nothing is unaddressed");
    items[count] = cm_unit_record("mutation", "t2-h8", CM_FAIL, "write to input");
    items[count++].known = (char *)"issue 12";
    items[count] = cm_unit_record("mutation", "t3-h8", CM_PASS, "");
    items[count++].known = (char *)"issue 13";
    items[count++] = cm_unit_fault_record("lora_dropped", "effect", CM_FAIL, "up: gain 0.00 +- 0.01");
    items[count++] = cm_unit_fault_record("lora_dropped", "numerics", CM_FAIL, "beyond");
    items[count++] = cm_unit_fault_record("gate_swapped", "effect", CM_FAIL, "gate: gain 7.00 +- 0.01");
    return count;
}

START_TEST(text_report)
{
    cm_record items[16];
    char *text = cm_unit_render(&cm_report_text, items, cm_unit_mixture(items), false);
    cm_unit_expect_part(text, "dirty tree");
    cm_unit_expect_part(
        text, "\nSURVIVED  gate_swapped  sgmv_shrink/avx512\n  expected   effect finds \"gain 0.00\"\n"
              "  nearest    FAIL on x: gate: gain 7.00 +- 0.01\n");
    cm_unit_expect_part(
        text, "\nFAIL  numerics  sgmv_shrink/avx512 [native]  t2-h8\n"
              "  `y` is beyond its bound in 12 of 64 elements\n"
              "  first bad  y[T=3, H=0]   want 0x1.1p+0 (1.0625)   got 0x1.c4p-1 (0.882812)   |err| 0.18 > "
              "bound 0.0117\n"
              "  bad        12 of 100 elements; columns 8..15\n"
              "  also on    1 more case, e.g. t4-h8\n"
              "  source     optimized/avx512/sgmv_shrink.c:88\n"
              "  id         19da5a55\n"
              "  rerun      checkmoe repro sgmv_shrink/avx512/x\n");
    cm_unit_expect_part(text, "it printed: \\x1b[2J<oops> & \xef\xbf\xbd \"quoted\"");
    ck_assert_ptr_null(strchr(text, '\033'));
    cm_unit_expect_part(text, "UNEXPECTED PASS  mutation");
    cm_unit_expect_part(text, "FAIL 2/3");
    cm_unit_expect_part(text, "CRASH 1/2 SKIP 1");
    cm_unit_expect_part(text, "VACUOUS 1/1");
    cm_unit_expect_part(text, "PASS 1 known 1");
    cm_unit_expect_part(text, "killed by effect");
    cm_unit_expect_part(text, "\"gain 0.00\"  also numerics FAIL");
    cm_unit_expect_part(text, "       1   no AMX on this machine");
    cm_unit_expect_part(text, "FAIL mutation sgmv_shrink/avx512: issue 12");
    const char *last =
        "\nFAILED: 2 FAIL, 0 ERROR, 1 CRASH, 0 TIMEOUT, 1 VACUOUS, 2 PASS, 1 SKIP, 1 known, 1 unexpected; "
        "faults: 1 killed, 1 survived, 0 skipped; 1100 elements compared\n";
    ck_assert_uint_gt(strlen(text), strlen(last));
    ck_assert_str_eq(text + strlen(text) - strlen(last), last);
    free(text);
}
END_TEST

START_TEST(text_verdicts)
{
    cm_record pass = cm_unit_record("numerics", "x", CM_PASS, ""),
              skip = cm_unit_record("numerics", "x", CM_SKIP, "why not");
    cm_record bad = cm_unit_record("numerics", "x", CM_FAIL, "off");
    const struct {
        const cm_record *items;
        size_t count;
        bool interrupted;
        const char *part;
    } rows[] = {
        {&pass, 1, false, "\nPASSED: 0 FAIL"},        {&skip, 1, false, "\nALL SKIPPED: 0 FAIL"},
        {NULL, 0, false, "\nNOTHING RAN: 0 FAIL"},    {&pass, 1, true, "\nCUT OFF: 0 FAIL"},
        {&bad, 1, true, "\nCUT OFF, FAILED: 1 FAIL"}, {NULL, 0, true, "cut off: the records end"},
    };
    for (size_t n = 0; n < sizeof rows / sizeof *rows; n++) {
        char *text = cm_unit_render(&cm_report_text, rows[n].items, rows[n].count, rows[n].interrupted);
        cm_unit_expect_part(text, rows[n].part);
        free(text);
    }
    setenv("CLICOLOR_FORCE", "1", 1);
    unsetenv("NO_COLOR");
    char *text = cm_unit_render(&cm_report_text, &pass, 1, false);
    cm_unit_expect_part(text, "\033[32mPASSED\033[0m");
    free(text);
    setenv("NO_COLOR", "1", 1);
    text = cm_unit_render(&cm_report_text, &pass, 1, false);
    ck_assert_ptr_null(strchr(text, '\033'));
    free(text);
}
END_TEST

START_TEST(text_caps_cards)
{
    cm_record items[25];
    char names[25][8];
    for (int n = 0; n < 25; n++) {
        items[n] = cm_unit_record("numerics", "x", CM_FAIL, "off");
        snprintf(names[n], sizeof names[n], "op/k%c", 'a' + n);
        items[n].kernel = names[n];
    }
    char *text = cm_unit_render(&cm_report_text, items, 25, false);
    cm_unit_expect_part(text, "and 5 more like these");
    free(text);
}
END_TEST

START_TEST(junit_report)
{
    cm_record items[16];
    size_t count = cm_unit_mixture(items);
    items[0].ms = 1e-9; // never in scientific notation
    items[1].ms = NAN;
    char *text = cm_unit_render(&cm_report_junit, items, count, false);
    ck_assert_int_eq(system("xmllint --noout out.xml"), 0);
    cm_unit_expect_part(
        text, "<testsuites name=\"checkmoe\" tests=\"10\" failures=\"5\" errors=\"1\" skipped=\"2\"");
    cm_unit_expect_part(
        text, "<testsuite name=\"sgmv_shrink\" tests=\"8\" failures=\"4\" errors=\"1\" skipped=\"2\"");
    cm_unit_expect_part(text,
                        "<testsuite name=\"faults\" tests=\"2\" failures=\"1\" errors=\"0\" skipped=\"0\"");
    cm_unit_expect_part(text, "classname=\"sgmv_shrink.avx512.numerics\" name=\"t1_5-h8\" time=\"0.000\" "
                              "file=\"optimized/avx512/sgmv_shrink.c\" line=\"88\"");
    cm_unit_expect_part(
        text, "<failure type=\"FAIL\" message=\"`y` is beyond its bound in 12 of 64 elements\">`y` is beyond "
              "its bound in 12 of 64 elements\nrerun: checkmoe repro sgmv_shrink/avx512/x</failure>");
    cm_unit_expect_part(
        text, "<error type=\"CRASH\" message=\"SIGSEGV; it printed: \xef\xbf\xbd[2J&lt;oops&gt; &amp; "
              "\xef\xbf\xbd &quot;quoted&quot;\">");
    cm_unit_expect_part(text, "<failure type=\"VACUOUS\"");
    cm_unit_expect_part(text, "<failure type=\"UNEXPECTED_PASS\"");
    cm_unit_expect_part(text, "<skipped type=\"known\" message=\"known: issue 12");
    cm_unit_expect_part(text, "<skipped type=\"SKIP\" message=\"no AMX on this machine\"/>");
    cm_unit_expect_part(text, "<system-out>killed by effect: up: gain 0.00 +- 0.01</system-out>");
    cm_unit_expect_part(
        text, "<failure type=\"SURVIVED\" message=\"survived: effect was to find &quot;gain 0.00&quot;");
    free(text);
    text = cm_unit_render(&cm_report_junit, items, 1, true);
    ck_assert_int_eq(system("xmllint --noout out.xml"), 0);
    cm_unit_expect_part(text, "tests=\"2\" failures=\"0\" errors=\"1\"");
    cm_unit_expect_part(text, "<error type=\"CUT_OFF\"");
    free(text);
    text = cm_unit_render(&cm_report_junit, NULL, 0, false);
    cm_unit_expect_part(text, "<error type=\"NOTHING\"");
    free(text);
}
END_TEST

static int run_report(const char *const *words)
{
    static const cm_report *const reports[] = {&cm_report_text, &cm_report_junit, &cm_report_html, NULL};
    char *argv[8] = {(char *)"report"};
    int argc = 1;
    for (; words[argc - 1]; argc++)
        argv[argc] = (char *)words[argc - 1];
    return cm_cmd_report(argc, argv, reports);
}

START_TEST(report_command)
{
    cm_record pass = cm_unit_record("numerics", "x", CM_PASS, ""),
              bad = cm_unit_record("numerics", "x", CM_FAIL, "off");
    cm_unit_write_records(&pass, 1, false);
    const char *const all[] = {"r.jsonl", "--text=out.txt", "--junit", "out.xml", "--html=page.html", NULL};
    ck_assert_int_eq(run_report(all), CM_EXIT_OK);
    ck_assert_int_eq(access("out.txt", F_OK) | access("out.xml", F_OK) | access("page.html", F_OK), 0);
    ck_assert_int_eq(run_report((const char *const[]){"r.jsonl", "--junit=r.jsonl", NULL}), CM_EXIT_USAGE);
    ck_assert_int_eq(run_report((const char *const[]){"r.jsonl", "--junit=no/folder", NULL}), CM_EXIT_USAGE);
    ck_assert_int_eq(run_report((const char *const[]){"nothing", NULL}), CM_EXIT_USAGE);
    cm_unit_write_text("copy.jsonl", "broken\n");
    ck_assert_int_eq(run_report((const char *const[]){"copy.jsonl", NULL}), CM_EXIT_USAGE);
    unlink("r.jsonl");
    cm_unit_write_records(&bad, 1, false);
    ck_assert_int_eq(run_report((const char *const[]){"r.jsonl", "--text=out.txt", NULL}), CM_EXIT_FAILED);
    unlink("r.jsonl");
    cm_unit_write_records(&bad, 1, true);
    ck_assert_int_eq(run_report((const char *const[]){"r.jsonl", "--text=out.txt", NULL}),
                     CM_EXIT_INTERRUPTED);
}
END_TEST

// argp ends the process itself.
START_TEST(report_usage)
{
    cm_unit_records_leave();
    exit(run_report((const char *const[]){"--junit", NULL}));
}
END_TEST

START_TEST(environment_line)
{
    char *words[] = {(char *)"checkmoe", (char *)"\xff", NULL};
    char *text = cm_environment_json("r9", 2, words), host[256] = "";
    static const char *const keys[] = {"\"schema\":\"checkmoe.env/1\"",
                                       "\"run\":\"r9\"",
                                       "\"machine_key\":\"",
                                       "\"numeric_key\":\"",
                                       "\"argv\":[\"checkmoe\",{\"absent\":",
                                       "\"glibc\":\"",
                                       "\"cores\":",
                                       "\"dirty\":",
                                       "\"start\":\"20",
                                       "\"gpu\":{\"absent\":\""};
    for (size_t n = 0; n < sizeof keys / sizeof *keys; n++)
        cm_unit_expect_part(text, keys[n]);
    ck_assert_ptr_null(strchr(text, '\n'));
    cm_record_writer writer;
    cm_error error = {{0}};
    ck_assert_int_eq(cm_record_writer_open("r.jsonl", text, &writer, &error), CM_OK);
    ck_assert_int_eq(cm_record_writer_close(&writer, false, &error), CM_OK);
    cm_records records = cm_unit_read_records();
    ck_assert_str_eq(records.environment, text);
    cm_records_close(&records);
    ck_assert_int_eq(gethostname(host, sizeof host - 1), 0);
    char *quoted = cm_text("\"%s\"", host);
    ck_assert_ptr_null(strstr(text, quoted));
    free(quoted);
    free(text);
    FILE *out = fopen("out.txt", "w");
    cm_environment_print(out);
    ck_assert_int_eq(fclose(out), 0);
    text = cm_unit_read_text("out.txt");
    cm_unit_expect_part(text, "AVX-512 BF16");
    cm_unit_expect_part(text, "NVIDIA GPU");
    free(text);
}
END_TEST

TCase *cm_unit_reports(void)
{
    TCase *tcase = tcase_create("reports");
    tcase_add_test(tcase, text_report);
    tcase_add_test(tcase, text_verdicts);
    tcase_add_test(tcase, text_caps_cards);
    tcase_add_test(tcase, junit_report);
    tcase_add_test(tcase, report_command);
    tcase_add_exit_test(tcase, report_usage, CM_EXIT_USAGE);
    tcase_add_test(tcase, environment_line);
    return tcase;
}
