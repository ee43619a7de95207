// SPDX-License-Identifier: Apache-2.0
// Records there and back: every field, hostile text, and files that lost something.
#include "suites/unit/records.h"
#include "harness/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[] = "/tmp/checkmoe-unit-records-XXXXXX";
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
    static const char *const files[] = {"r.jsonl", "known",     "out.xml", "out.txt", "copy.jsonl",
                                        "pipe",    "page.html", "gnuplot", "pwned"};
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

void cm_unit_expect_bad_file(cm_status status, const cm_error *error, const char *part)
{
    ck_assert_int_eq(status, CM_BAD_FILE);
    cm_unit_expect_part(error->message, part);
}

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
    cm_details *details = cm_new(1, sizeof *details);
    cm_outcome_use(&record.outcome, details);
    cm_outcome_gain(&record.outcome, &(cm_gain){"down delta", "E=3", 0.0, 0.125, true});
    cm_outcome_gain(&record.outcome, &(cm_gain){"up delta", "", NAN, INFINITY, false});
    details->tiles = (cm_tiles){.letters = {'T', 'H'},
                                .extents = {33, 1LL << 40},
                                .steps = {32, 1LL << 39},
                                .counts = {2, 2},
                                .worst = {0, 1.0625F, INFINITY, 1e30F}};
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
    cm_unit_expect_part(first, "\"gains\":[{\"term\":\"down delta\",\"part\":\"E=3\",\"gain\":0.0,"
                               "\"error\":0.125,\"off\":true},{\"term\":\"up delta\",\"part\":\"\","
                               "\"gain\":\"NaN\",\"error\":\"Inf\",\"off\":false}]");
    cm_unit_expect_part(first, "\"tiles\":{\"letters\":\"TH\",\"extents\":[33,1099511627776],"
                               "\"steps\":[32,549755813888],\"counts\":[2,2],"
                               "\"worst\":[[0,1.0625],[null,");
    const cm_outcome *outcome = &records.items[0].outcome;
    ck_assert(!memcmp(outcome->tiles->worst, details->tiles.worst, 4 * sizeof(float)));
    free(details);
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
    ck_assert_int_eq(cm_utf8_length("\xe0\x80\x80"), 0);
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
    close(STDIN_FILENO); // the next descriptor is 0, which means not open
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
        cm_unit_expect_bad_file(cm_records_read("r.jsonl", &records, &error), &error, rows[n][1]);
        ck_assert_ptr_null(records.items); // closed
    }
    cm_error error = {{0}};
    cm_records records;
    cm_unit_expect_bad_file(cm_records_read("nothing", &records, &error), &error,
                            "nothing: cannot be opened");
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

#define RECORD_LINE                                                                                          \
    "{\"schema\":\"checkmoe.record/"                                                                         \
    "1\",\"check\":\"c\",\"kernel\":\"k\",\"case\":\"x\",\"verdict\":\"FAIL\","
#define TILES_HEAD RECORD_LINE "\"tiles\":{\"letters\":\"TH\",\"extents\":[3,4],"

START_TEST(malformed_details)
{
    static const char *const rows[][2] = {
        {RECORD_LINE "\"gains\":{}}\n", "\"gains\" is no list"},
        {RECORD_LINE "\"gains\":[{\"term\":\"a\",\"part\":\"\",\"gain\":1,\"error\":0}]}\n",
         "a row of \"gains\""},
        {RECORD_LINE
         "\"gains\":[{\"term\":\"a\",\"part\":\"\",\"gain\":\"one\",\"error\":0,\"off\":true}]}\n",
         "a row of \"gains\""},
        {RECORD_LINE "\"gains\":[{\"term\":\"a term that is much too long\",\"part\":\"\",\"gain\":1,"
                     "\"error\":0,\"off\":true}]}\n",
         "a row of \"gains\""},
        {RECORD_LINE "\"tiles\":[]}\n", "\"tiles\" lacks"},
        {TILES_HEAD "\"steps\":[2,0],\"counts\":[2,2],\"worst\":[[0,0],[0,0]]}}\n", "\"tiles\" lacks"},
        {TILES_HEAD "\"steps\":[2,2],\"counts\":[2,33],\"worst\":[]}}\n", "\"tiles\" lacks"},
        {TILES_HEAD "\"steps\":[2,2],\"counts\":[3,2],\"worst\":[[0,0],[0,0],[0,0]]}}\n", "don't cover"},
        {TILES_HEAD "\"steps\":[2,2],\"counts\":[2,2],\"worst\":[[0,0]]}}\n", "not as many rows"},
        {TILES_HEAD "\"steps\":[2,2],\"counts\":[2,2],\"worst\":[[0,0],[0,0,0]]}}\n", "not as long"},
        {TILES_HEAD "\"steps\":[2,2],\"counts\":[2,2],\"worst\":[[0,0],[0,-1]]}}\n", "a tile is neither"},
        {TILES_HEAD "\"steps\":[2,2],\"counts\":[2,2],\"worst\":[[0,0],[0,\"x\"]]}}\n", "a tile is neither"},
    };
    for (size_t n = 0; n < sizeof rows / sizeof *rows; n++) {
        cm_error error = {{0}};
        cm_records records;
        char *text = cm_text("{\"schema\":\"checkmoe.env/1\"}\n%s", rows[n][0]);
        cm_unit_write_text("r.jsonl", text);
        free(text);
        cm_unit_expect_bad_file(cm_records_read("r.jsonl", &records, &error), &error, rows[n][1]);
        cm_unit_expect_part(error.message, "r.jsonl:2: ");
    }
    cm_details *details = cm_new(1, sizeof *details);
    cm_outcome outcome = {0};
    cm_outcome_gain(&outcome, &(cm_gain){.gain = 1}); // no room: dropped
    cm_outcome_use(&outcome, details);
    for (int n = 0; n <= CM_MAX_GAIN_ROWS; n++)
        cm_outcome_gain(&outcome, &(cm_gain){.gain = n});
    ck_assert_int_eq(outcome.gain_count, CM_MAX_GAIN_ROWS); // one too many: dropped
    ck_assert(details->gains[CM_MAX_GAIN_ROWS - 1].gain == CM_MAX_GAIN_ROWS - 1);
    free(details);
}
END_TEST

START_TEST(writer_refuses)
{
    cm_record_writer writer;
    cm_error error = {{0}};
    cm_record record = cm_unit_record("numerics", "x", CM_PASS, "");
    cm_unit_expect_bad_file(cm_record_writer_open("no/folder/r.jsonl", environment, &writer, &error), &error,
                            "no/folder");
    error = (cm_error){{0}};
    ck_assert_int_eq(mkfifo("pipe", 0600), 0); // a rename would replace it
    cm_unit_expect_bad_file(cm_record_writer_open("pipe", environment, &writer, &error), &error,
                            "not a regular file");
    ck_assert_int_eq(cm_record_writer_open("r.jsonl", "[]", &writer, NULL), CM_BAD_VALUE);
    ck_assert_int_eq(cm_record_write(&writer, &record, NULL), CM_BAD_STATE);
    ck_assert_int_eq(access("r.jsonl", F_OK), -1);
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
    tcase_add_test(tcase, malformed_details);
    tcase_add_test(tcase, writer_refuses);
    suite_add_tcase(suite, tcase);
    tcase = cm_unit_expectations();
    tcase_add_checked_fixture(tcase, enter_directory, cm_unit_records_leave);
    suite_add_tcase(suite, tcase);
    tcase = cm_unit_reports();
    tcase_add_checked_fixture(tcase, enter_directory, cm_unit_records_leave);
    suite_add_tcase(suite, tcase);
    tcase = cm_unit_reports_html();
    tcase_add_checked_fixture(tcase, enter_directory, cm_unit_records_leave);
    suite_add_tcase(suite, tcase);
    return suite;
}
