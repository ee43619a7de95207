// SPDX-License-Identifier: Apache-2.0
// Records there and back, expectations and the exit statuses that follow.
#include "suites/unit/records.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[] = "/tmp/checkmoe-records-XXXXXX";
static const char environment[] =
    "{\"schema\":\"checkmoe.env/1\",\"run\":\"r1\",\"version\":\"0.1.0\",\"dirty\":true,"
    "\"start\":\"2026-11-21T10:00:00Z\"}";

static void enter_directory(void)
{
    strcpy(directory + strlen(directory) - 6, "XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    ck_assert_int_eq(chdir(directory), 0);
    unsetenv("CLICOLOR_FORCE");
}

void cm_unit_records_leave(void)
{
    static const char *const files[] = {"r.jsonl", "known", "out.xml", "out.txt", "copy.jsonl", "pipe"};
    for (size_t n = 0; n < sizeof files / sizeof *files; n++)
        unlink(files[n]);
    ck_assert_int_eq(chdir("/"), 0);
    ck_assert_msg(rmdir(directory) == 0, "files were left behind in %s", directory); // e.g. a temporary one
}

void cm_unit_write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_ge(fputs(text, file), 0);
    ck_assert_int_eq(fclose(file), 0);
}

char *cm_unit_read_text(const char *path)
{
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    char *text = cm_new(1, 1 << 20);
    size_t length = fread(text, 1, (1 << 20) - 1, file);
    text[length] = 0;
    fclose(file);
    return text;
}

void cm_unit_expect_part(const char *text, const char *part)
{
    ck_assert_msg(strstr(text, part) != NULL, "\"%s\" is not in:\n%s", part, text);
}

static void expect_error(cm_status status, const cm_error *error, const char *part)
{
    ck_assert_int_eq(status, CM_BAD_FILE);
    cm_unit_expect_part(error->message, part);
}

// A record of literals: never closed.
cm_record cm_unit_record(const char *check, const char *case_name, cm_verdict verdict, const char *reason)
{
    cm_record record = {
        .run = (char *)"r1",
        .suite = (char *)"sgmv_shrink",
        .check = (char *)check,
        .op = (char *)"sgmv_shrink",
        .kernel = (char *)"sgmv_shrink/avx512",
        .target = (char *)"avx512",
        .mode = (char *)"native",
        .case_name = (char *)case_name,
        .seed = 7,
        .ms = 1.5,
        .outcome = {.verdict = verdict, .compared = 100},
        .repro = (char *)"checkmoe repro sgmv_shrink/avx512/x",
        .source_file = (char *)"optimized/avx512/sgmv_shrink.c",
        .source_line = 88,
    };
    snprintf(record.outcome.reason, sizeof record.outcome.reason, "%s", reason);
    return record;
}

cm_record cm_unit_fault_record(const char *fault, const char *check, cm_verdict verdict, const char *reason)
{
    cm_record record = cm_unit_record(check, "x", verdict, reason);
    record.fault = (char *)fault;
    record.expected_check = (char *)"effect";
    record.expected_finding = (char *)"gain 0.00";
    return record;
}

void cm_unit_write_records(const cm_record *items, size_t count, bool interrupted)
{
    cm_record_writer writer;
    cm_error error = {{0}};
    ck_assert_int_eq(cm_record_writer_open("r.jsonl", environment, &writer, &error), CM_OK);
    for (size_t n = 0; n < count; n++)
        ck_assert_int_eq(cm_record_write(&writer, &items[n], &error), CM_OK);
    ck_assert_int_eq(access("r.jsonl", F_OK), -1); // not before it is whole
    ck_assert_int_eq(cm_record_writer_close(&writer, interrupted, &error), CM_OK);
    ck_assert_int_eq(cm_record_writer_close(&writer, interrupted, &error), CM_OK); // accepts zero
}

cm_records cm_unit_read_records(void)
{
    cm_records records;
    cm_error error = {{0}};
    cm_status status = cm_records_read("r.jsonl", &records, &error);
    ck_assert_msg(status == CM_OK, "%s", error.message);
    return records;
}

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

START_TEST(round_trip)
{
    cm_record record =
        cm_unit_record("numerics", "t17-h256", CM_FAIL, "a\x1b[31mb \x01 \"q\" \\ <&> \xc3\xa9");
    record.seed = 0xfedcba9876543210;
    record.outcome.first_bad = (cm_first_bad){.argument = "y",
                                              .ndim = 4,
                                              .letters = {'T', '#', 'T', '#'},
                                              .index = {3, 1LL << 60, 5, 6},
                                              .got = NAN,
                                              .want = 1.0625,
                                              .bound = -INFINITY};
    record.outcome.metrics[0] = (cm_metric){"max_error", INFINITY};
    record.outcome.metrics[1] = (cm_metric){"rms_z", 0.1};
    record.outcome.metric_count = 2;
    record.outcome.bad_count = 12;
    snprintf(record.outcome.bad_pattern, sizeof record.outcome.bad_pattern, "columns 8..15");
    record.known = (char *)"issue 12";
    record.known_differs = true;
    record.fault = (char *)"f1";
    record.expected_check = (char *)"effect";
    record.expected_finding = (char *)"gain";
    cm_unit_write_records(&record, 1, false);
    cm_records records = cm_unit_read_records();
    ck_assert(records.complete);
    ck_assert_uint_eq(records.count, 1);
    cm_unit_expect_part(records.environment, "\"run\":\"r1\"");
    // Same line again: every field survived.
    char *first = cm_record_line(&record), *second = cm_record_line(&records.items[0]);
    ck_assert_str_eq(first, second);
    cm_unit_expect_part(first, "\"seed\":\"0xfedcba9876543210\"");
    cm_unit_expect_part(first, "\"got\":\"NaN\"");
    cm_unit_expect_part(first, "\"bound\":\"-Inf\"");
    cm_unit_expect_part(first, "\"max_error\":\"Inf\"");
    cm_unit_expect_part(first, "\"want_hex\":\"0x1.1p+0\"");
    cm_unit_expect_part(first, "\"index\":{\"T\":3,\"#\":1152921504606846976,\"T2\":5,\"#3\":6}");
    cm_unit_expect_part(first, "\"expected\":{\"check\":\"effect\",\"finding\":\"gain\"}");
    const cm_outcome *outcome = &records.items[0].outcome;
    ck_assert_str_eq(outcome->reason, record.outcome.reason);
    ck_assert(isnan(outcome->first_bad.got));
    ck_assert(outcome->first_bad.bound == -INFINITY && outcome->metrics[1].value == 0.1);
    ck_assert(!memcmp(outcome->first_bad.letters, "T#T#", 4) && outcome->first_bad.index[3] == 6);
    ck_assert_uint_eq(records.items[0].seed, record.seed);
    free(first);
    free(second);
    cm_records_close(&records);
}
END_TEST

START_TEST(broken_text)
{
    // Too long for its field on the way back, cut in the middle of a character, overlong, a surrogate.
    cm_record record = cm_unit_record("numerics", "x", CM_FAIL, "\xff\xc0\xaf\xed\xa0\x80 ok \xe2\x82");
    char *longer = cm_new(1, 5001);
    memset(longer, 'a', 5000);
    record.known = longer;
    cm_unit_write_records(&record, 1, false);
    cm_records records = cm_unit_read_records();
    ck_assert_str_eq(records.items[0].known, longer);
    cm_unit_expect_part(records.items[0].outcome.reason, "\xef\xbf\xbd ok \xef\xbf\xbd");
    ck_assert_ptr_null(records.items[0].fault);
    ck_assert_int_eq(cm_utf8_length("\xf4\x8f\xbf\xbf"), 4);
    ck_assert_int_eq(cm_utf8_length("\xf4\x90\x80\x80"), 0);
    ck_assert_int_eq(cm_utf8_length(""), 0);
    free(longer);
    cm_records_close(&records);
}
END_TEST

// One record can be read, and the file says that it isn't whole.
static void expect_cut_off(void)
{
    cm_records records = cm_unit_read_records();
    ck_assert(!records.complete);
    ck_assert_uint_eq(records.count, 1);
    cm_records_close(&records);
}

START_TEST(interrupted_writer)
{
    cm_record record = cm_unit_record("numerics", "x", CM_PASS, "");
    cm_unit_write_records(&record, 1, true);
    expect_cut_off();
}
END_TEST

START_TEST(cut_off_line)
{
    cm_record items[] = {cm_unit_record("numerics", "x", CM_PASS, ""),
                         cm_unit_record("bounds", "x", CM_PASS, "")};
    cm_unit_write_records(items, 2, false);
    char *text = cm_unit_read_text("r.jsonl"), *end = strstr(text, "{\"schema\":\"checkmoe.end");
    ck_assert_ptr_nonnull(end);
    end[-20] = 0; // in the middle of the second record
    cm_unit_write_text("r.jsonl", text);
    expect_cut_off();
    free(text);
}
END_TEST

START_TEST(lost_line)
{
    cm_record items[] = {cm_unit_record("numerics", "x", CM_FAIL, "off"),
                         cm_unit_record("bounds", "x", CM_PASS, "")};
    cm_unit_write_records(items, 2, false);
    char *text = cm_unit_read_text("r.jsonl"), *first = strstr(text, "{\"schema\":\"checkmoe.record");
    char *second = strchr(first, '\n') + 1;
    memmove(first, second, strlen(second) + 1); // the failure is taken out; the end counts two
    cm_unit_write_text("r.jsonl", text);
    expect_cut_off();
    free(text);
}
END_TEST

START_TEST(malformed_lines)
{
    static const char *const rows[][2] = {
        {"{\"schema\":\"checkmoe.env/1\"}\n{\"schema\":\n", "r.jsonl:2: "},
        {"[1]\n", "r.jsonl:1: a line without a schema"},
        {"{\"schema\":\"checkmoe.record/1\"}\n", "r.jsonl:1: a record without the text check"},
        {"{\"schema\":\"checkmoe.record/"
         "1\",\"check\":\"c\",\"kernel\":\"k\",\"case\":\"x\",\"verdict\":\"OK\"}\n",
         "r.jsonl:1: unknown verdict OK"},
        {"{\"schema\":\"checkmoe.record/1\",\"schema\":\"x\"}\n", "r.jsonl:1: duplicate"},
        {"", "r.jsonl: is empty"},
    };
    for (size_t n = 0; n < sizeof rows / sizeof *rows; n++) {
        cm_error error = {{0}};
        cm_records records;
        cm_unit_write_text("r.jsonl", rows[n][0]);
        expect_error(cm_records_read("r.jsonl", &records, &error), &error, rows[n][1]);
        ck_assert_ptr_null(records.items); // closed
    }
    cm_error error = {{0}};
    cm_records records;
    expect_error(cm_records_read("nothing", &records, &error), &error, "nothing: cannot be opened");
    cm_unit_write_text("r.jsonl",
                       "{\"schema\":\"checkmoe.later/9\"}\n"
                       "{\"schema\":\"checkmoe.record/1\",\"check\":\"c\",\"kernel\":\"k\",\"case\":\"x\","
                       "\"verdict\":\"PASS\",\"later\":[1]}\n");
    records = cm_unit_read_records();
    ck_assert_uint_eq(records.count, 1);
    ck_assert_str_eq(records.items[0].target, ""); // always there
    cm_records_close(&records);
}
END_TEST

START_TEST(writer_refuses)
{
    cm_record_writer writer;
    cm_error error = {{0}};
    cm_record record = cm_unit_record("numerics", "x", CM_PASS, "");
    expect_error(cm_record_writer_open("no/folder/r.jsonl", environment, &writer, &error), &error,
                 "no/folder");
    error = (cm_error){{0}};
    ck_assert_int_eq(mkfifo("pipe", 0600), 0); // a rename would replace it
    expect_error(cm_record_writer_open("pipe", environment, &writer, &error), &error, "not a regular file");
    ck_assert_int_eq(cm_record_writer_open("r.jsonl", "[]", &writer, NULL), CM_BAD_VALUE);
    ck_assert_int_eq(cm_record_write(&writer, &record, NULL), CM_BAD_STATE);
    ck_assert_int_eq(access("r.jsonl", F_OK), -1);
}
END_TEST

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
        expect_error(cm_known_read("known", &known, &error), &error, rows[n][1]);
    }
    error = (cm_error){{0}};
    expect_error(cm_known_read("nothing", &known, &error), &error, "nothing: cannot be opened");
}
END_TEST

Suite *cm_unit_records(void)
{
    Suite *suite = suite_create("records");
    TCase *tcase = tcase_create("records");
    tcase_add_checked_fixture(tcase, enter_directory, cm_unit_records_leave);
    tcase_add_test(tcase, round_trip);
    tcase_add_test(tcase, broken_text);
    tcase_add_test(tcase, interrupted_writer);
    tcase_add_test(tcase, cut_off_line);
    tcase_add_test(tcase, lost_line);
    tcase_add_test(tcase, malformed_lines);
    tcase_add_test(tcase, writer_refuses);
    tcase_add_test(tcase, exit_statuses);
    tcase_add_test(tcase, faults_are_killed);
    tcase_add_test(tcase, known_file);
    suite_add_tcase(suite, tcase);
    tcase = cm_unit_reports();
    tcase_add_checked_fixture(tcase, enter_directory, cm_unit_records_leave);
    suite_add_tcase(suite, tcase);
    return suite;
}
