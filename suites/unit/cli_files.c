// SPDX-License-Identifier: Apache-2.0
// Files of the command line: records and reports are whole or not there, also after an interruption; shards
// add up; a list of known failures is read with care.
#include "suites/unit/cli.h"

#include "harness/registry.h"
#include "suites/unit/command.h"
#include "suites/unit/loaders.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RECORDS "records.jsonl"
#define SMALL   "checkmoe run --set smoke sgmv_plan sgmv_shrink --quiet "

// The names in this directory, sorted by nothing, each with a blank behind it.
static void expect_files(int count)
{
    DIR *directory = opendir(".");
    char names[2048] = "";
    int found = 0;
    ck_assert_ptr_nonnull(directory);
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;)
        if (entry->d_name[0] != '.') {
            strcat(strcat(names, entry->d_name), " ");
            found++;
        }
    closedir(directory);
    ck_assert_msg(found == count && !strstr(names, ".part-"), "%d files, expected %d: %s", found, count,
                  names);
}

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    ck_assert(file && fputs(text, file) >= 0 && fclose(file) == 0);
}

// Reads a file of records, each line parsed with jansson first.
static cm_records read_records(const char *path)
{
    cm_records records;
    cm_error error = {{0}};
    FILE *file = fopen(path, "r");
    char *line = NULL;
    size_t space = 0, lines = 0;
    ck_assert_msg(file != NULL, "%s", path);
    for (; getline(&line, &space, file) > 0; lines++) {
        json_error_t why;
        json_t *object = json_loads(line, JSON_REJECT_DUPLICATES, &why);
        ck_assert_msg(json_is_object(object), "%s:%zu: %s", path, lines + 1, why.text);
        const char *schema = json_string_value(json_object_get(object, "schema"));
        ck_assert_msg(schema && (lines > 0) == (strcmp(schema, CM_SCHEMA_ENV) != 0), "%s", line);
        static const char *const always[] = {"run",     "suite",    "check", "op",    "kernel",
                                             "target",  "mode",     "case",  "seed",  "ms",
                                             "verdict", "compared", "repro", "source"};
        for (size_t n = 0; n < sizeof always / sizeof *always && !strcmp(schema, CM_SCHEMA_RECORD); n++)
            ck_assert_msg(json_object_get(object, always[n]) != NULL, "no %s in %s", always[n], line);
        json_decref(object);
    }
    free(line);
    fclose(file);
    ck_assert_msg(cm_records_read(path, &records, &error) == CM_OK, "%s", error.message);
    return records;
}

START_TEST(records_and_reports)
{
    cm_unit_expect_command(0, NULL, NULL, SMALL "--records " RECORDS " --junit a.xml --text a.txt");
    expect_files(3);
    cm_records records = read_records(RECORDS);
    ck_assert(records.complete && records.environment && records.count > 30);
    cm_records_close(&records);
    cm_unit_expect_command(0, "PASSED", NULL, "checkmoe report " RECORDS);
    cm_unit_expect_command(0, NULL, NULL, "checkmoe report " RECORDS " --junit b.xml --text b.txt");
    expect_files(5);
    cm_unit_expect_command(0, NULL, NULL, "cmp a.xml b.xml"); // made from the records and nothing else
    cm_unit_expect_command(0, NULL, NULL, "cmp a.txt b.txt");
    cm_unit_expect_command(0, NULL, NULL, "xmllint --noout a.xml");
    cm_command report = cm_unit_command("checkmoe report %s --junit -", RECORDS);
    write_text("c.xml", report.out);
    cm_unit_forget(&report);
    cm_unit_expect_command(0, NULL, NULL, "cmp a.xml c.xml");
}
END_TEST

// A report to stdout is alone there.
START_TEST(reports_to_stdout)
{
    cm_command run = cm_unit_command(SMALL "--junit -");
    ck_assert_int_eq(run.code, 0);
    ck_assert_msg(!strncmp(run.out, "<?xml", 5), "%.200s", run.out);
    write_text("out.xml", run.out);
    cm_unit_forget(&run);
    cm_unit_expect_command(0, NULL, NULL, "xmllint --noout out.xml");
}
END_TEST

// Kernels that misbehave are killed, what they printed fits into XML and JSON, and they leave nothing behind
// that a normal run would notice.
START_TEST(survives_rudeness)
{
    cm_command rude = cm_unit_command("checkmoe run --fault 'rude-*' --check numerics --timeout 1 --quiet "
                                      "--records " RECORDS " --junit a.xml");
    ck_assert_msg(rude.code == 0 && !rude.err[0], "exit status %d: %s%s", rude.code, rude.out, rude.err);
    int count = 0;
    for (const cm_fault *const *fault = cm_registry_faults(); *fault; fault++)
        if (!strncmp((*fault)->id, "rude-", 5)) {
            ck_assert_msg(strstr(rude.out, (*fault)->id) != NULL, "%s", (*fault)->id);
            count++;
        }
    ck_assert_int_ge(count, 7);
    ck_assert_ptr_null(strstr(rude.out, "SURVIVED"));
    cm_unit_forget(&rude);
    cm_unit_expect_command(0, NULL, NULL, "xmllint --noout a.xml");
    cm_records records = read_records(RECORDS);
    ck_assert(records.complete && records.count == (size_t)count);
    cm_records_close(&records);
    expect_files(2);
    cm_unit_expect_command(0, "PASSED", NULL, "checkmoe run --set smoke --check numerics,bounds --quiet");
}
END_TEST

static const struct failing {
    const char *known;
    int code;
    const char *out, *err;
} failing[] = {
    {"# nothing is known\n\n", 0, "PASSED", NULL},
    {"sgmv_plan/none/*  numerics  FAIL  never meets\n", 0, "PASSED", NULL},
    {"sgmv_plan/naive/*  numerics  FAIL  it was broken once\n", 1, "it was broken once", NULL},
    {"sgmv_plan/naive/*\tnumerics\tFAIL\tit was broken once\r\n", 1, "it was broken once", NULL},
    {"sgmv_plan\n", 4, NULL, "known.txt:1: \"sgmv_plan\" names no kernel"},
    {"# x\nsgmv_plan/naive/* numerics\n", 4, NULL, "known.txt:2: too few words"},
    {"sgmv_plan/naive/* numerics PASS why\n", 4, NULL,
     "known.txt:1: \"PASS\" is no verdict that can be listed"},
    {"sgmv_plan/naive/* numerics BROKEN why\n", 4, NULL, "\"BROKEN\" is no verdict"},
    {"sgmv_plan/naive/* numerics FAIL\n", 4, NULL, "known.txt:1: no reason is given"},
};

// An unexpected pass is a failure, and the report of its records says so again.
START_TEST(known_failures)
{
    write_text("known.txt", failing[_i].known);
    cm_unit_expect_command(failing[_i].code, failing[_i].out, failing[_i].err,
                           SMALL "--known known.txt --records " RECORDS);
    expect_files(failing[_i].code == 4 ? 1 : 2);
    if (failing[_i].code != 4)
        cm_unit_expect_command(failing[_i].code, failing[_i].out, NULL, "checkmoe report " RECORDS);
}
END_TEST

// A list for all of CI serves a part of it, too: what can't be met there is not reported.
START_TEST(known_lists_serve_parts)
{
    static const char *const parts[] = {"--set smoke --check bounds", "--set smoke --shard 1/40",
                                        "--set smoke --fault kt-7a --check mutation"};
    write_text("known.txt", "sgmv_plan/naive/t257-*  numerics  FAIL  no such case in the smoke set\n");
    char *line = cm_text("checkmoe run --quiet --known known.txt %s", parts[_i]);
    cm_unit_expect_command(0, "PASSED", NULL, line);
    free(line);
}
END_TEST

static const struct unwritable {
    const char *options, *err;
} unwritable[] = {
    {"--records no/such/r.jsonl", "no/such/r.jsonl: cannot be written"},
    {"--records .", ".: is not a regular file"},
    {"--known no-such-file", "no-such-file: cannot be opened"},
    {"--junit no/such/a.xml", "no/such/a.xml: cannot be written"},
    {"--text no/such/a.txt", "no/such/a.txt: cannot be written"},
    {"--records r.jsonl --junit no/such/a.xml", "no/such/a.xml: cannot be written"},
};

// A path that can't be written is the user's mistake, and nothing is left of the attempt.
START_TEST(bad_paths)
{
    cm_command run = cm_unit_command(SMALL "%s", unwritable[_i].options);
    ck_assert_msg(run.code == 4, "exit status %d: %s", run.code, run.err);
    ck_assert_msg(strstr(run.err, unwritable[_i].err) != NULL, "%s", run.err);
    cm_unit_forget(&run);
    if (!strncmp(unwritable[_i].options, "--records r", 11))
        ck_assert_int_eq(unlink("r.jsonl") == 0 || errno == ENOENT, 1); // whole or not there
    expect_files(0);
}
END_TEST

// What was there before stays when a run ends early; a link is not replaced by a file.
START_TEST(older_files_stay)
{
    struct stat file;
    write_text(RECORDS, "older\n");
    cm_unit_expect_command(4, NULL, "no/such", "checkmoe run --model no/such --quiet --records " RECORDS);
    ck_assert(stat(RECORDS, &file) == 0 && file.st_size == 6);
    ck_assert_int_eq(symlink(RECORDS, "link"), 0);
    cm_command run = cm_unit_command(SMALL "--records link --junit link");
    ck_assert(run.code == 0 || run.code == 4);
    cm_unit_forget(&run);
    ck_assert_msg(lstat("link", &file) == 0 && S_ISLNK(file.st_mode), "the link became a file");
    expect_files(2);
}
END_TEST

static bool exists(const char *prefix, char *name, size_t size)
{
    DIR *directory = opendir(".");
    bool found = false;
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL && !found;)
        if (!strncmp(entry->d_name, prefix, strlen(prefix))) {
            snprintf(name, size, "%s", entry->d_name);
            found = true;
        }
    closedir(directory);
    return found;
}

// Lines of the records that are being written.
static int lines_so_far(void)
{
    char name[300], text[4096];
    int lines = 0;
    FILE *file = exists(RECORDS ".part-", name, sizeof name) ? fopen(name, "r") : NULL;
    while (file && fgets(text, sizeof text, file))
        lines += strchr(text, '\n') != NULL;
    if (file)
        fclose(file);
    return lines;
}

// In the midst of a run: exit status 2, records that can be read and say that they end early, no process
// left, and no verdict about the kernel that was stopped.
START_TEST(interruption)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGINT};
    static const char *const words[] = {"checkmoe", "run",       "--set", "ci", "sgmv_expand",
                                        "--quiet",  "--records", RECORDS, NULL};
    cm_command run;
    cm_unit_start(&run, words);
    for (int n = 0; n < 6000 && lines_so_far() < 60 + 10 * _i; n++)
        usleep(5000);
    ck_assert_int_eq(kill(run.process, signals[_i]), 0);
    time_t begin = time(NULL);
    cm_unit_finish(&run);
    ck_assert_msg(run.code == 2, "exit status %d\n%s%s", run.code, run.out, run.err);
    ck_assert_int_lt(time(NULL) - begin, 30);
    ck_assert_str_eq(run.err, "");
    cm_unit_forget(&run);
    expect_files(1);
    cm_records records = read_records(RECORDS);
    ck_assert(!records.complete && records.count >= 59);
    for (size_t n = 0; n < records.count; n++)
        ck_assert_msg(!cm_verdict_is_bad(records.items[n].outcome.verdict), "%s %s %s: %s",
                      records.items[n].check, records.items[n].kernel, records.items[n].case_name,
                      records.items[n].outcome.reason);
    cm_records_close(&records);
    cm_command report = cm_unit_command("checkmoe report " RECORDS);
    ck_assert_msg(report.code == 2, "exit status %d\n%s", report.code, report.out);
    cm_unit_forget(&report);
}
END_TEST

// A signal to the program is for the program: what else is in its process group goes on.
START_TEST(interruption_spares_neighbours)
{
    static const char *const words[] = {"checkmoe", "run",       "--set", "ci", "sgmv_expand",
                                        "--quiet",  "--records", RECORDS, NULL};
    cm_command run;
    int status;
    cm_unit_start(&run, words);
    pid_t neighbour = fork();
    if (neighbour == 0) {
        signal(SIGINT, SIG_DFL); // not those of Check, which this process has, too
        signal(SIGTERM, SIG_DFL);
        sleep(60);
        _exit(0);
    }
    for (int n = 0; n < 6000 && lines_so_far() < 60; n++)
        usleep(5000);
    ck_assert_int_eq(setpgid(neighbour, run.process), 0);
    kill(run.process, _i ? SIGTERM : SIGINT);
    cm_unit_finish(&run);
    bool alive = waitpid(neighbour, &status, WNOHANG) == 0;
    kill(neighbour, SIGKILL);
    ck_assert_int_eq(run.code, 2);
    ck_assert_msg(alive, "the neighbour got signal %d", WTERMSIG(status));
    cm_unit_forget(&run);
}
END_TEST

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

// "check kernel case" of each record, sorted.
static char **names_of(const char *path, size_t *count)
{
    cm_records records = read_records(path);
    char **names = cm_new(records.count + 1, sizeof *names);
    for (size_t n = 0; n < records.count; n++)
        names[n] =
            cm_text("%s %s %s", records.items[n].check, records.items[n].kernel, records.items[n].case_name);
    *count = records.count;
    cm_records_close(&records);
    qsort(names, *count, sizeof *names, by_name);
    return names;
}

START_TEST(shards_add_up)
{
    enum { SHARDS = 3 };
    char **parts[SHARDS], **all;
    size_t counts[SHARDS], total = 0, whole;
    for (int shard = 0; shard < SHARDS; shard++) {
        cm_command run = cm_unit_command("checkmoe run --set smoke --check bounds --quiet --shard %d/%d "
                                         "--records %d.jsonl",
                                         shard + 1, SHARDS, shard);
        ck_assert_msg(run.code == 0, "%s%s", run.out, run.err);
        cm_unit_forget(&run);
        char *path = cm_text("%d.jsonl", shard);
        parts[shard] = names_of(path, &counts[shard]);
        free(path);
        ck_assert_uint_gt(counts[shard], 0);
        total += counts[shard];
    }
    cm_command run = cm_unit_command("checkmoe run --set smoke --check bounds --quiet --records " RECORDS);
    ck_assert_int_eq(run.code, 0);
    cm_unit_forget(&run);
    all = names_of(RECORDS, &whole);
    ck_assert_uint_eq(whole, total);
    char **merged = cm_new(total, sizeof *merged);
    for (size_t shard = 0, n = 0; shard < SHARDS; n += counts[shard++])
        memcpy(merged + n, parts[shard], counts[shard] * sizeof *merged);
    qsort(merged, total, sizeof *merged, by_name);
    for (size_t n = 0; n < total; n++) {
        ck_assert_str_eq(merged[n], all[n]);
        if (n > 0)
            ck_assert_str_ne(all[n - 1], all[n]);
    }
    for (size_t n = 0; n < total; n++) {
        free(merged[n]);
        free(all[n]);
    }
    for (int shard = 0; shard < SHARDS; shard++)
        free(parts[shard]);
    free(merged);
    free(all);
}
END_TEST

// A selection by op, kernel or check holds for everything that runs.
START_TEST(selections_hold)
{
    cm_unit_expect_command(
        0, "PASSED", NULL,
        "checkmoe run --set smoke sgmv_shrink/naive --check bounds --quiet --records " RECORDS);
    cm_records records = read_records(RECORDS);
    ck_assert_uint_gt(records.count, 0);
    for (size_t n = 0; n < records.count; n++) {
        ck_assert_str_eq(records.items[n].kernel, "sgmv_shrink/naive");
        ck_assert_str_eq(records.items[n].check, "bounds");
    }
    cm_records_close(&records);
}
END_TEST

TCase *cm_unit_cli_files(void)
{
    TCase *tcase = tcase_create("files");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, cm_unit_enter_directory, cm_unit_leave_directory);
    tcase_add_test(tcase, records_and_reports);
    tcase_add_test(tcase, reports_to_stdout);
    tcase_add_test(tcase, survives_rudeness);
    tcase_add_loop_test(tcase, known_failures, 0, (int)(sizeof failing / sizeof *failing));
    tcase_add_loop_test(tcase, known_lists_serve_parts, 0, 3);
    tcase_add_loop_test(tcase, bad_paths, 0, (int)(sizeof unwritable / sizeof *unwritable));
    tcase_add_test(tcase, older_files_stay);
    tcase_add_loop_test(tcase, interruption, 0, 3);
    tcase_add_loop_test(tcase, interruption_spares_neighbours, 0, 2);
    tcase_add_test(tcase, shards_add_up);
    tcase_add_test(tcase, selections_hold);
    return tcase;
}
