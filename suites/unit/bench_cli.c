// SPDX-License-Identifier: Apache-2.0
// The verb bench from outside: what it refuses, what it prints, and the records that it leaves.
#include "harness/record.h"
#include "suites/unit/bench_kernels.h"
#include "suites/unit/command.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CASE  "t7-r8x2-K96-f32-random-s1"
#define QUICK "--quiet --cold-mib 0 --rounds 8 --threads 1 "

static const struct refusal {
    const char *words, *finding;
} refusals[] = {
    {"", "at least one OP/TARGET[,TARGET...]/CASE is needed"},
    {"sgmv_shrink", "is not OP/TARGET[,TARGET...]/CASE"},
    {"sgmv_shrink/naive", "is not OP/TARGET[,TARGET...]/CASE"},
    {"sgmv_shrink/naive/", "is not OP/TARGET[,TARGET...]/CASE"},
    {"nosuch/naive/" CASE, "there is no op \"nosuch\""},
    {"sgmv_shrink/nosuch/" CASE, "there is no kernel \"sgmv_shrink/nosuch\""},
    {"sgmv_shrink/naive,/" CASE, "there is no kernel \"sgmv_shrink/\""},
    {"sgmv_shrink/naive/t7-zzz", "\"zzz\" is no dimension"},
    {"sgmv_shrink/naive/" CASE " sgmv_shrink/naive/t7-zzz", "\"zzz\" is no dimension"},
    {"sgmv_shrink/naive/" CASE " --tokens 0", "--tokens: \"0\" is no whole number from 1"},
    {"sgmv_shrink/naive/" CASE " --tokens 1,,4", "--tokens: \"\" is no whole number"},
    {"sgmv_shrink/naive/" CASE " --threads x", "--threads: \"x\" is no whole number"},
    {"sgmv_shrink/naive/" CASE " --threads 1024", "--threads 1024: this process may use"},
    {"sgmv_shrink/naive/" CASE " --rounds 0", "--rounds: \"0\""},
    {"sgmv_shrink/naive/" CASE " --seconds nan", "--seconds: \"nan\" is no number"},
    {"sgmv_shrink/naive/" CASE " --cold-mib -1", "--cold-mib: \"-1\""},
    {"sgmv_shrink/naive/" CASE " --records /no/such/file", "/no/such/file"},
    {"sgmv_shrink/naive/" CASE " --layer ds", "with --layer it has no case"},
    {"sgmv_shrink/naive/" CASE " --format int8", "--format goes with --layer"},
    {"moe_forward/naive --layer dx", "--layer: there is no \"dx\"; there are ds, qw, mx"},
    {"moe_forward/naive --layer ds --format fp9", "--format: there is no \"fp9\"; there are bf16, int8"},
    {"moe_forward/naive --layer ds --rank -1", "--rank: \"-1\" is no whole number"},
    {"moe_forward --layer ds", "is not OP/TARGET[,TARGET...]"},
    {"sgmv_shrink/naive --layer ds", "\"ds\" is no dimension"},
    {"sgmv_shrink/naive/" CASE " --memory-gib 0", "--memory-gib: \"0\""},
    {"sgmv_shrink/naive/" CASE " --without-adapters", "sgmv_shrink has no call without adapters"},
    {"moe_forward/naive/t2-k1-e2-h8-i8-s1 --without-adapters", "has no adapters to leave out"},
    {"sgmv_shrink/naive/" CASE " --frobnicate", "unrecognized option '--frobnicate'"},
};

START_TEST(refused)
{
    char line[512];
    snprintf(line, sizeof line, "checkmoe bench %s", refusals[_i].words);
    cm_unit_expect_command(4, NULL, refusals[_i].finding, line);
}
END_TEST

START_TEST(tables)
{
    cm_unit_expect_command(0, "the baseline against itself: ", NULL,
                           "checkmoe bench " QUICK "sgmv_shrink/naive/" CASE " --tokens 1,4");
    // Fewer than 8 pairs have no interval: nothing is judged.
    cm_unit_expect_command(7, "too few", NULL,
                           "checkmoe bench " QUICK "--rounds 2 --strict-perf sgmv_shrink/naive/" CASE);
}
END_TEST

static double metric(const cm_record *record, const char *name)
{
    for (int n = 0; n < record->outcome.metric_count; n++)
        if (!strcmp(record->outcome.metrics[n].name, name))
            return record->outcome.metrics[n].value;
    ck_abort_msg("the record has no metric %s", name);
}

START_TEST(records_of_a_bench)
{
    char folder[] = "/tmp/checkmoe-bench-XXXXXX", path[64];
    cm_records records;
    cm_error error = {{0}};
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/records", folder);
    cm_command command = cm_unit_command("checkmoe bench " QUICK "--tokens 2,3 --records %s "
                                         "sgmv_shrink/naive,openblas/" CASE,
                                         path);
    cm_status status = cm_records_read(path, &records, &error);
    unlink(path);
    rmdir(folder);
    ck_assert_msg(command.code == 0, "%s", command.err);
    ck_assert_msg(status == CM_OK, "%s", error.message);
    ck_assert(records.complete);
    ck_assert_uint_eq(records.count, 4);
    for (size_t n = 0; n < records.count; n++) {
        const cm_record *record = &records.items[n];
        ck_assert_str_eq(record->check, "perf");
        ck_assert_str_eq(record->target, n % 2 ? "openblas" : "naive");
        ck_assert_str_eq(record->case_name,
                         n < 2 ? "t2-r8x2-K96-f32-random-s1" : "t3-r8x2-K96-f32-random-s1");
        ck_assert_int_eq(record->outcome.verdict, CM_PASS);
        ck_assert(record->outcome.compared > 0);
        ck_assert(metric(record, "low") <= metric(record, "ratio"));
        ck_assert(metric(record, "ratio") <= metric(record, "high"));
        ck_assert(metric(record, "ns") > 0 && metric(record, "pairs") == 8);
        ck_assert(metric(record, "share_of_bandwidth") > 0 && metric(record, "share_of_compute") > 0);
    }
    cm_records_close(&records);
    cm_unit_forget(&command);
}
END_TEST

// On and off in one call, and the table of all cells.
START_TEST(with_and_without_adapters)
{
    char folder[] = "/tmp/checkmoe-bench-XXXXXX", path[64];
    cm_records records;
    cm_error error = {{0}};
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/records", folder);
    cm_command command =
        cm_unit_command("checkmoe bench " QUICK "--tokens 2,3 --table --without-adapters --records %s "
                        "moe_forward/naive,openblas/k2-e4-h48-i40-r8x2-int8-full-random-s1",
                        path);
    cm_status status = cm_records_read(path, &records, &error);
    unlink(path);
    rmdir(folder);
    ck_assert_msg(command.code == 0, "%s%s", command.out, command.err);
    ck_assert_msg(status == CM_OK, "%s", error.message);
    ck_assert_uint_eq(records.count, 4);
    for (size_t n = 0; n < records.count; n++) {
        const cm_record *record = &records.items[n];
        ck_assert(metric(record, "adapted") > 0.01 && metric(record, "adapted") < 100);
        ck_assert(metric(record, "adapted_low") <= metric(record, "adapted_high"));
        ck_assert_ptr_nonnull(strstr(record->case_name, "act_quant=int8_row"));
    }
    ck_assert_ptr_nonnull(strstr(command.out, "with / without adapters"));
    ck_assert_ptr_nonnull(strstr(command.out, "| 1 | 3 | moe_forward/openblas |"));
    ck_assert_ptr_nonnull(strstr(command.out, "moe_forward/openblas: geometric mean of 2 ratios "));
    cm_records_close(&records);
    cm_unit_forget(&command);
}
END_TEST

// A plug-in's kernels that are wrong, or end their process: exit status 1, no time, and the bench goes on.
START_TEST(wrong_plugins)
{
    static const char *const findings[][2] = {{"by_segment", "FAIL: "}, {"abort", "CRASH: SIGABRT"}};
    const char *folder = getenv("CHECKMOE_PLUGINS");
    ck_assert_msg(folder != NULL, "set CHECKMOE_PLUGINS to the folder of the built sample plug-ins");
    cm_command command = cm_unit_command("checkmoe bench " QUICK "--plugin %s/wrong.so "
                                         "sgmv_expand/naive,%s,openblas/t9-r8x4-n48-S2-f32-random-s1",
                                         folder, findings[_i][0]);
    ck_assert_msg(command.code == 1, "%d: %s", command.code, command.err);
    ck_assert_msg(strstr(command.out, findings[_i][1]) != NULL, "%s", command.out);
    ck_assert(strstr(command.out, "sgmv_expand/openblas") != NULL);
    cm_unit_forget(&command);
}
END_TEST

TCase *cm_unit_bench_cli(void)
{
    TCase *tcase = tcase_create("cli");
    tcase_set_timeout(tcase, 300);
    cm_unit_find_binary();
    tcase_add_loop_test(tcase, refused, 0, (int)(sizeof refusals / sizeof *refusals));
    tcase_add_test(tcase, tables);
    tcase_add_test(tcase, records_of_a_bench);
    tcase_add_test(tcase, with_and_without_adapters);
    tcase_add_loop_test(tcase, wrong_plugins, 0, 2);
    return tcase;
}
