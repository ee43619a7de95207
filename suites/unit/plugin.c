// SPDX-License-Identifier: Apache-2.0
// Kernels of strangers: three good ones pass everything, wrong ones fail, and what cannot be loaded is
// refused with one sentence; and the skeleton that new-plugin writes. Needs the folder CHECKMOE_PLUGINS.
#include "harness/expect.h"
#include "harness/registry.h"
#include "suites/unit/command.h"
#include "suites/unit/loaders.h"
#include "suites/unit/oracle.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Suite *cm_unit_plugin(void);

static char folder[PATH_MAX];

static void enter(void)
{
    ck_assert_msg(folder[0] != 0, "set CHECKMOE_PLUGINS to the folder of the plug-ins");
    cm_unit_enter_directory();
}

// `verb` with the plug-in of the folder is refused with the sentence "plug-in PATH: message...".
static void expect_refusal(const char *verb, const char *plugin, const char *message)
{
    char wanted[PATH_MAX + 300];
    snprintf(wanted, sizeof wanted, "checkmoe: plug-in %s/%s: %s", folder, plugin, message);
    cm_command command = cm_unit_command("checkmoe %s --plugin '%s/%s'", verb, folder, plugin);
    ck_assert_msg(command.code == CM_EXIT_USAGE, "%s: exit status %d\n%s%s", plugin, command.code,
                  command.out, command.err);
    ck_assert_str_eq(command.out, "");
    ck_assert_msg(!strncmp(command.err, wanted, strlen(wanted)), "%s: not \"%s\": %s", plugin, wanted,
                  command.err);
    ck_assert_ptr_eq(strchr(command.err, '\n'), command.err + strlen(command.err) - 1); // one line
    cm_unit_forget(&command);
}

static const struct refusal {
    const char *plugin, *message;
} refusals[] = {
    {"other_abi.so", "built for ABI 2, this checkmoe has 1;"},
    {"no_symbol.so", "exports no symbol \"checkmoe_plugin_1\";"},
    {"null.so", "checkmoe_plugin_1(1) returned NULL"},
    {"empty.so", "its list of kernels is empty"},
    {"abort.so", "crashed (SIGABRT) while it was loaded; it printed: no licence found"},
    {"exit.so", "ended its process with exit status 0 while it was loaded"},
    {"garbage.so", "crashed (SIGSEGV) while its descriptors were read"},
    {"undefined.so", "cannot be loaded: "},
    {"old_size.so", "kernel 0 has size "},
    {"unknown_op.so", "kernel \"sgmv_fold/refused\": there is no op \"sgmv_fold\";"},
    {"no_target.so", "kernel 0 is called \"sgmv_plan\"; a name is \"op/target\""},
    {"taken_name.so", "kernel \"sgmv_plan/naive\": checkmoe has a kernel of that name;"},
    {"twice.so", "two kernels are called \"sgmv_plan/refused\""},
    {"no_run.so", "kernel \"sgmv_plan/refused\" has no run function"},
    {"accuracy.so", "kernel \"sgmv_plan/refused\": there is no accuracy 7"},
    {"alignment.so", "kernel \"sgmv_plan/refused\": alignment 48 is no power of two"},
    {"device.so", "kernel \"sgmv_plan/refused\" needs arguments on device type 8;"},
    {"path_twice.so", "kernel \"sgmv_plan/refused\": two paths are called \"tiles\""},
    {"path_endless.so", "kernel \"sgmv_plan/refused\": more than 16 paths, or no NULL behind the last one"},
    {"switch_point.so",
     "kernel \"sgmv_plan/refused\": switch point of \"H\": that is no dimension letter of sgmv_plan"},
    {"absent.so", "cannot be opened (No such file or directory)"},
    {".", "cannot be loaded: "},
    {"hang.so", "did not come back within 10 s in checkmoe_plugin_1()"},
};

START_TEST(refused)
{
    expect_refusal("run", refusals[_i].plugin, refusals[_i].message);
}
END_TEST

START_TEST(refused_by_every_verb)
{
    expect_refusal("list", "other_abi.so", "built for ABI 2, this checkmoe has 1;");
    expect_refusal("repro sgmv_plan/refused/t1-l1-random-s1", "null.so",
                   "checkmoe_plugin_1(1) returned NULL");
    cm_unit_expect_command(0, NULL, NULL, "sh -c 'echo words > text.so'");
    cm_unit_expect_command(4, NULL, "plug-in text.so: cannot be loaded: ",
                           "checkmoe run --plugin text.so"); // a bare name is a file here
}
END_TEST

START_TEST(refused_together)
{
    char line[3 * PATH_MAX];
    snprintf(line, sizeof line, "checkmoe list --plugin '%s/plain.so' --plugin '%s/plain.so'", folder,
             folder);
    cm_unit_expect_command(4, NULL, "kernel \"sgmv_expand/plain\": plug-in ", line);
    snprintf(line, sizeof line, "checkmoe run --faults --plugin '%s/plain.so'", folder);
    cm_unit_expect_command(4, NULL, "--plugin does not go with --faults", line);
}
END_TEST

static int count_lines(const char *text, const char *start)
{
    int count = 0;
    for (const char *at = text; *at; at += strcspn(at, "\n") + 1)
        count += !strncmp(at, start, strlen(start));
    return count;
}

// Without a selection only the plug-ins' kernels run; with one, all can be had.
START_TEST(selection)
{
    cm_command command =
        cm_unit_command("checkmoe list --plugin '%s/plain.so' --plugin '%s/modern.so'", folder, folder);
    int plain = count_lines(command.out, "sgmv_expand/plain/"),
        modern = count_lines(command.out, "sgmv_shrink/modern/");
    ck_assert(command.code == 0 && plain > 10 && modern > 10);
    ck_assert_int_eq(count_lines(command.out, ""), plain + modern);
    cm_unit_forget(&command);
    command = cm_unit_command("checkmoe list --plugin '%s/plain.so' sgmv_*/*/t7*", folder);
    ck_assert_int_eq(count_lines(command.out, "sgmv_expand/plain/t7"), 4);
    ck_assert_int_eq(count_lines(command.out, "sgmv_expand/naive/t7"), 4);
    ck_assert_int_gt(count_lines(command.out, "sgmv_shrink/naive/t7"), 0);
    cm_unit_forget(&command);
    command = cm_unit_command("checkmoe list --kernels --plugin '%s/plain.so'", folder);
    ck_assert_int_eq(count_lines(command.out, ""), 1);
    ck_assert_int_eq(count_lines(command.out, "sgmv_expand/plain "), 1);
    cm_unit_forget(&command);
}
END_TEST

START_TEST(required)
{
    char line[2 * PATH_MAX];
    snprintf(line, sizeof line, "checkmoe run --quiet --set smoke --require plain --plugin '%s/plain.so'",
             folder);
    cm_unit_expect_command(0, "sgmv_expand/plain", NULL, line);
    snprintf(line, sizeof line, "checkmoe run --quiet --set smoke --require plane --plugin '%s/plain.so'",
             folder);
    cm_unit_expect_command(1, "sgmv_expand/plain", "required target \"plane\" did not run any check", line);
    snprintf(line, sizeof line, "checkmoe run --quiet --plugin '%s/plain.so' sgmv_expand/plane", folder);
    cm_unit_expect_command(5, "NOTHING RAN", "nothing was selected", line);
}
END_TEST

static const cm_record *find_record(const cm_records *records, const char *kernel, const char *check,
                                    cm_verdict verdict)
{
    for (size_t n = 0; n < records->count; n++)
        if (!strcmp(records->items[n].kernel, kernel) && !strcmp(records->items[n].check, check) &&
            records->items[n].outcome.verdict == verdict)
            return &records->items[n];
    ck_abort_msg("no record of %s with %s", kernel, check);
}

// The records say whose kernel it is; a failure's line runs as it is printed, whatever the path.
START_TEST(wrong_kernels)
{
    cm_records records;
    cm_error error = {{0}};
    cm_command command = cm_unit_command("cp '%s/wrong.so' 'a (b).so'", folder);
    cm_unit_forget(&command);
    command = cm_unit_command("checkmoe run --quiet --set smoke --records r.jsonl --plugin 'a (b).so'");
    ck_assert_int_eq(command.code, CM_EXIT_FAILED);
    cm_unit_forget(&command);
    ck_assert_int_eq(cm_records_read("r.jsonl", &records, &error), CM_OK);
    const cm_record *record = find_record(&records, "sgmv_expand/by_segment", "numerics", CM_FAIL);
    ck_assert_str_eq(record->target, "by_segment");
    ck_assert_str_eq(record->mode, "native");
    ck_assert(strstr(record->source_file, "wrong.c") && record->source_line > 0);
    ck_assert_ptr_nonnull(strstr(record->repro, "--plugin 'a (b).so' sgmv_expand/by_segment/t7"));
    cm_unit_expect_command(1, "FAIL  numerics  sgmv_expand/by_segment", NULL, record->repro);
    find_record(&records, "sgmv_expand/by_segment", "effect", CM_FAIL);
    find_record(&records, "sgmv_expand/by_segment", "bounds", CM_PASS);
    record = find_record(&records, "sgmv_expand/by_segment", "numerics", CM_SKIP);
    ck_assert_str_eq(record->outcome.reason, "only f32 is implemented");
    record = find_record(&records, "sgmv_expand/abort", "bounds", CM_CRASH);
    ck_assert_str_eq(record->outcome.reason, "SIGABRT; it printed: a stranger's assertion");
    cm_records_close(&records);
}
END_TEST

// Every op's case set, as any kernel's: all checks, nothing bad.
START_TEST(good_kernels)
{
    static const char *const good[] = {"plain", "modern", "packed"};
    int passed = 0;
    cm_command command = cm_unit_command("checkmoe run --quiet --set %s --require %s --plugin '%s/%s.so'",
                                         CM_UNIT_SLOW ? "smoke" : "ci", good[_i], folder, good[_i]);
    cm_unit_expect_good(&command);
    const char *counts = strstr(command.out, "PASSED: 0 FAIL, 0 ERROR, 0 CRASH, 0 TIMEOUT, 0 VACUOUS, ");
    ck_assert_msg(counts && sscanf(strstr(counts, "VACUOUS, "), "VACUOUS, %d PASS", &passed) == 1, "%s",
                  command.out);
    ck_assert_int_gt(passed, CM_UNIT_SLOW ? 25 : 500);
    cm_unit_forget(&command);
}
END_TEST

// A skeleton builds without a warning and never passes: it says that it is not written.
START_TEST(skeleton)
{
    const cm_op *op = cm_registry_ops()[_i];
    cm_command command = cm_unit_command("checkmoe new-plugin mine --op %s", op->name);
    ck_assert_int_eq(command.code, 0);
    ck_assert_str_eq(command.out, "sh mine/build.sh\ncheckmoe run --plugin mine/mine.so\n");
    cm_unit_forget(&command);
    cm_unit_expect_command(0, NULL, NULL, "env 'CFLAGS=-Wall -Wextra -Wshadow -Werror' sh mine/build.sh");
    command = cm_unit_command("checkmoe run --quiet --check numerics,bounds --plugin mine/mine.so");
    ck_assert_msg(command.code == CM_EXIT_FAILED, "exit status %d\n%s%s", command.code, command.out,
                  command.err);
    ck_assert_ptr_nonnull(strstr(command.out, "not written yet"));
    ck_assert_ptr_nonnull(strstr(command.out, "FAILED: 0 FAIL, "));
    ck_assert_ptr_nonnull(strstr(command.out, ", 0 VACUOUS, 0 PASS, "));
    cm_unit_forget(&command);
}
END_TEST

START_TEST(skeleton_refused)
{
    cm_unit_expect_command(0, "sh taken/build.sh", NULL, "checkmoe new-plugin taken");
    cm_unit_expect_command(0, NULL, NULL, "sh -c 'echo mine > taken/taken.c'");
    cm_unit_expect_command(4, NULL, "taken: cannot be made (File exists); new-plugin overwrites nothing",
                           "checkmoe new-plugin taken");
    cm_unit_expect_command(0, "mine", NULL, "cat taken/taken.c");
    cm_unit_expect_command(4, NULL, "a NAME is needed", "checkmoe new-plugin");
    cm_unit_expect_command(4, NULL, "NAME is up to 32 of", "checkmoe new-plugin ../elsewhere");
    cm_unit_expect_command(4, NULL, "there is no op \"sgmv_fold\"",
                           "checkmoe new-plugin --op sgmv_fold other");
}
END_TEST

Suite *cm_unit_plugin(void)
{
    Suite *suite = suite_create("plugin");
    TCase *quick = tcase_create("doors"), *slow = tcase_create("kernels");
    const char *plugins = getenv("CHECKMOE_PLUGINS");
    int ops = 0;
    cm_unit_find_binary();
    if (!plugins || !realpath(plugins, folder))
        folder[0] = 0;
    while (cm_registry_ops()[ops])
        ops++;
    tcase_add_checked_fixture(quick, enter, cm_unit_leave_directory);
    tcase_set_timeout(quick, 60);
    tcase_add_loop_test(quick, refused, 0, (int)(sizeof refusals / sizeof *refusals));
    tcase_add_test(quick, refused_by_every_verb);
    tcase_add_test(quick, refused_together);
    tcase_add_test(quick, selection);
    tcase_add_test(quick, required);
    tcase_add_test(quick, wrong_kernels);
    tcase_add_test(quick, skeleton_refused);
    suite_add_tcase(suite, quick);
    tcase_add_checked_fixture(slow, enter, cm_unit_leave_directory);
    tcase_set_timeout(slow, 500);
    tcase_add_loop_test(slow, skeleton, 0, ops);
    tcase_add_loop_test(slow, good_kernels, 0, 3);
    suite_add_tcase(suite, slow);
    return suite;
}
