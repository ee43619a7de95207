// SPDX-License-Identifier: Apache-2.0
// The command line, from outside: exit status, which stream says what, and that a refusal names its cause.
// The built program runs in a directory of its own.
#include "suites/unit/cli.h"

#include "harness/registry.h"
#include "suites/unit/command.h"
#include "suites/unit/loaders.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOOD "sgmv_plan/naive/t9-l3-random-s1"

// out or err NULL: nothing is printed there.
static const struct command {
    const char *line;
    int code;
    const char *out, *err;
} commands[] = {
    {"checkmoe", 4, NULL, "usage: checkmoe VERB"},
    {"checkmoe --help", 0, "usage: checkmoe VERB", NULL},
    {"checkmoe help", 0, "usage: checkmoe VERB", NULL},
    {"checkmoe frobnicate", 4, NULL, "there is no verb \"frobnicate\""},
    {"checkmoe run --help", 0, "Usage: checkmoe run", NULL},
    {"checkmoe run --frobnicate", 4, NULL, "unrecognized option '--frobnicate'"},
    {"checkmoe list --frobnicate", 4, NULL, "unrecognized option '--frobnicate'"},
    {"checkmoe report --frobnicate x", 4, NULL, "unrecognized option '--frobnicate'"},
    {"checkmoe doctor --frobnicate", 4, NULL, "unrecognized option '--frobnicate'"},
    {"checkmoe doctor x", 4, NULL, "Too many arguments"},

    {"checkmoe run --set smoke nosuch", 4, NULL,
     "there is no op \"nosuch\"; \"checkmoe list --ops\" shows them"},
    {"checkmoe run --set smoke nosuch/naive/t1", 4, NULL, "there is no op \"nosuch\""},
    {"checkmoe list nosuch", 4, NULL, "there is no op \"nosuch\""},
    {"checkmoe run --set smoke --check nosuch", 4, NULL,
     "there is no check \"nosuch\"; \"checkmoe list --checks\""},
    {"checkmoe run --set smoke --check numerics,nosuch", 4, NULL, "there is no check \"nosuch\""},
    {"checkmoe run --set nosuch", 4, NULL, "there is no set \"nosuch\"; use smoke, ci, full or fuzz"},
    {"checkmoe run --set smoke,nosuch", 4, NULL, "there is no set \"nosuch\""},
    {"checkmoe run --set smoke --shard 3/2", 4, NULL, "--shard: \"3/2\" is not I/N"},
    {"checkmoe run --set smoke --shard 0/2", 4, NULL, "--shard: \"0/2\""},
    {"checkmoe run --set smoke --shard 1/2x", 4, NULL, "--shard: \"1/2x\""},
    {"checkmoe run --set smoke --shard 1", 4, NULL, "--shard: \"1\""},
    {"checkmoe run --set smoke --seed x", 4, NULL, "--seed: \"x\" is no whole number"},
    {"checkmoe run --set smoke --cases 0", 4, NULL, "--cases: \"0\" is no number from 1"},
    {"checkmoe run --set smoke --timeout 0", 4, NULL, "--timeout: \"0\" is no number of seconds"},
    {"checkmoe run --set smoke --timeout nan", 4, NULL, "--timeout: \"nan\""},
    {"checkmoe run --set smoke --timeout 1x", 4, NULL, "--timeout: \"1x\""},
    {"checkmoe run --set smoke --timeout ''", 4, NULL, "--timeout: \"\""},
    {"checkmoe run --layer -1 --model x", 4, NULL, "--layer: \"-1\" is no layer number"},
    {"checkmoe run --set smoke --adapter x", 4, NULL, "--adapter and --recorded go with --model"},
    {"checkmoe run --set smoke --recorded x", 4, NULL, "--adapter and --recorded go with --model"},
    {"checkmoe run --model /no/such --quiet", 4, NULL, "/no/such: not a directory"},
    {"checkmoe run --model . --quiet", 4, NULL, "config.json"},

    {"checkmoe run sgmv_plan/nosuch --set smoke --quiet", 5, "NOTHING RAN", "nothing was selected"},
    {"checkmoe run '*/*/nosuch' --set smoke --quiet", 5, "NOTHING RAN", "nothing was selected"},
    {"checkmoe run --fault 'nosuch-*' --quiet", 5, "NOTHING RAN", "nothing was selected"},
    {"checkmoe list sgmv_plan/nosuch", 5, NULL, NULL},
    {"checkmoe run --set smoke --quiet sgmv_plan", 0, "PASSED: 0 FAIL, 0 ERROR, 0 CRASH", NULL},
    {"checkmoe run --set smoke --quiet sgmv_plan --check numerics,bounds", 0, "numerics  bounds", NULL},
    {"checkmoe run --set smoke --quiet sgmv_plan/cuda --mode emulated", 0, "sgmv_plan/cuda [emulated]", NULL},
    {"checkmoe run --set smoke --quiet sgmv_plan/naive --mode emulated", 5, "NOTHING RAN",
     "nothing was selected"},
    {"checkmoe run --set smoke --quiet sgmv_plan/naive --mode native", 0, "sgmv_plan/naive [native]", NULL},
    {"checkmoe run --mode both", 4, NULL, "--mode: \"both\" is neither native nor emulated"},
    {"checkmoe list --set smoke --mode native 'sgmv_plan'", 0, GOOD "\n", NULL},
    {"checkmoe run --set smoke --quiet sgmv_plan --require naive", 0, "PASSED", NULL},
    {"checkmoe run --set smoke --quiet sgmv_plan --require naive,openblas", 0, "PASSED", NULL},
    {"checkmoe run --set smoke --quiet sgmv_plan --require amx", 1, "PASSED",
     "required target \"amx\" did not run any check"},
    {"checkmoe run --set smoke --quiet sgmv_plan --require naive,nosuch", 1, "PASSED", "target \"nosuch\""},
    {"checkmoe run --set fuzz --cases 3 --seed 5 --quiet sgmv_plan", 0, "PASSED", NULL},

    {"checkmoe repro " GOOD " --quiet", 0, "PASSED", NULL},
    {"checkmoe repro --fault expert-neighbour moe_forward/naive/t17-k2-e8-h64-i40-r8x3-bf16-exact-s1 --quiet",
     0, "expert-neighbour", NULL},
    {"checkmoe repro", 4, NULL, "exactly one OP/TARGET/CASE or id is needed"},
    {"checkmoe repro " GOOD " " GOOD, 4, NULL, "exactly one OP/TARGET/CASE"},
    {"checkmoe repro sgmv_plan", 4, NULL, "\"sgmv_plan\" is not OP/TARGET/CASE"},
    {"checkmoe repro sgmv_plan/naive", 4, NULL, "is not OP/TARGET/CASE"},
    {"checkmoe repro sgmv_plan/naive/t9-l3-zzz", 4, NULL, "case \"t9-l3-zzz\": \"zzz\" is no dimension"},
    {"checkmoe repro sgmv_plan/naive/l3", 4, NULL, "dimension T is missing"},
    {"checkmoe repro sgmv_plan/naive/", 4, NULL, "dimension T is missing"},
    {"checkmoe repro nosuch/naive/t1", 4, NULL, "there is no op \"nosuch\""},
    {"checkmoe repro sgmv_plan/nosuch/t9-l3-s1 --quiet", 4, NULL, "there is no kernel \"sgmv_plan/nosuch\""},
    {"checkmoe repro moe_forward/naive/t1-k2-e1-h8-i8-s1 --quiet", 4, NULL, "more than the 1 experts"},

    {"checkmoe list --set smoke", 0, GOOD "\n", NULL},
    {"checkmoe list --set smoke 'sgmv_*/naive'", 0, "sgmv_expand/naive/", NULL},
    {"checkmoe list --ops", 0, "moe_forward: ", NULL},
    {"checkmoe list --kernels", 0, "optimized/naive/moe_forward.c:", NULL},
    {"checkmoe list --checks", 0, "numerics   proves: ", NULL},
    {"checkmoe list --words", 0, "  shared_outer ", NULL},
    {"checkmoe list --faults", 0, "rude-hang ", NULL},
    {"checkmoe doctor", 0, "what kernels and reports can use", NULL},
    {"checkmoe doctor", 0, "native CUDA", NULL},
    {"checkmoe report", 4, NULL, "name the file that --records wrote"},
    {"checkmoe report /no/such", 4, NULL, "/no/such: cannot be opened"},
    {"checkmoe report .", 4, NULL, ".: "},
};

START_TEST(command_says)
{
    const struct command *row = &commands[_i];
    cm_unit_expect_command(row->code, row->out, row->err, row->line);
}
END_TEST

// What is listed is what the registry has.
START_TEST(lists_are_complete)
{
    cm_command kernels = cm_unit_command("checkmoe list --kernels"),
               faults = cm_unit_command("checkmoe list --faults"),
               ops = cm_unit_command("checkmoe list --ops"),
               checks = cm_unit_command("checkmoe list --checks");
    for (const cm_kernel *const *kernel = cm_registry_kernels(); *kernel; kernel++)
        ck_assert_msg(strstr(kernels.out, (*kernel)->name) != NULL, "%s", (*kernel)->name);
    for (const cm_fault *const *fault = cm_registry_faults(); *fault; fault++)
        ck_assert_msg(strstr(faults.out, (*fault)->id) != NULL, "%s", (*fault)->id);
    for (const cm_check *const *check = cm_registry_checks(); *check; check++)
        ck_assert_msg(strstr(checks.out, (*check)->name) != NULL, "%s", (*check)->name);
    for (const cm_op *const *op = cm_registry_ops(); *op; op++) {
        ck_assert_msg(strstr(ops.out, (*op)->name) != NULL, "%s", (*op)->name);
        for (const cm_argument *argument = (*op)->arguments; argument->name; argument++)
            ck_assert_msg(strstr(ops.out, argument->name) != NULL, "%s", argument->name);
    }
    cm_unit_forget(&kernels);
    cm_unit_forget(&faults);
    cm_unit_forget(&ops);
    cm_unit_forget(&checks);
}
END_TEST

// The last line of a failure runs again, as it is printed.
START_TEST(rerun_lines_work)
{
    static const char records[] = "records.jsonl";
    cm_command run =
        cm_unit_command("checkmoe run --fault kt-7a --check mutation --quiet --records %s", records);
    ck_assert_int_eq(run.code, 0);
    cm_unit_forget(&run);
    FILE *file = fopen(records, "r");
    char line[4096], *repro = NULL;
    ck_assert_ptr_nonnull(file);
    while (!repro && fgets(line, sizeof line, file))
        repro = strstr(line, "\"repro\":\"");
    fclose(file);
    ck_assert_ptr_nonnull(repro);
    repro += strlen("\"repro\":\"");
    repro[strcspn(repro, "\"")] = 0;
    run = cm_unit_command("%s --quiet", repro);
    ck_assert_msg(run.code == 0 && strstr(run.out, "kt-7a"), "%s: exit status %d\n%s", repro, run.code,
                  run.out);
    cm_unit_forget(&run);
}
END_TEST

// A model on disk: with what it recorded, with generated input, and everything that can be wrong with it.
START_TEST(recorded_models)
{
    char *model = cm_unit_fixture("golden/qwen3_moe/model"),
         *adapter = cm_unit_fixture("golden/qwen3_moe/adapter"),
         *recorded = cm_unit_fixture("golden/qwen3_moe/layer_1.safetensors");
    ck_assert(model && adapter && recorded);
    cm_command run = cm_unit_command("checkmoe run --model %s --adapter %s --layer 1 --recorded %s --quiet",
                                     model, adapter, recorded);
    ck_assert_msg(run.code == 0, "exit status %d\n%s%s", run.code, run.out, run.err);
    ck_assert_msg(strstr(run.out, "moe_forward/recorded") != NULL, "%s", run.out);
    ck_assert_str_eq(run.err, "");
    cm_unit_forget(&run);
    run = cm_unit_command("checkmoe run --model %s --layer 1 --tokens 5 --check numerics", model);
    ck_assert_msg(run.code == 0 && run.err[0], "exit status %d\n%s%s", run.code, run.out,
                  run.err); // the summary
    cm_unit_forget(&run);
    run = cm_unit_command("checkmoe run --model %s --layer 99 --quiet", model);
    ck_assert_msg(run.code == 4 && !run.out[0] && strstr(run.err, "99"), "exit status %d\n%s", run.code,
                  run.err);
    cm_unit_forget(&run);
    run = cm_unit_command("checkmoe run --model %s --adapter /no/such --quiet", model);
    ck_assert_msg(run.code == 4 && !run.out[0] && strstr(run.err, "/no/such"), "exit status %d\n%s", run.code,
                  run.err);
    cm_unit_forget(&run);
    run = cm_unit_command("checkmoe run --model %s --recorded /no/such --quiet", model);
    ck_assert_msg(run.code == 4 && !run.out[0] && strstr(run.err, "/no/such"), "exit status %d\n%s", run.code,
                  run.err);
    cm_unit_forget(&run);
    free(model);
    free(adapter);
    free(recorded);
}
END_TEST

Suite *cm_unit_cli(void)
{
    cm_unit_find_binary();
    Suite *suite = suite_create("cli");
    TCase *tcase = tcase_create("commands");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, cm_unit_enter_directory, cm_unit_leave_directory);
    tcase_add_loop_test(tcase, command_says, 0, (int)(sizeof commands / sizeof *commands));
    tcase_add_test(tcase, lists_are_complete);
    tcase_add_test(tcase, rerun_lines_work);
    tcase_add_test(tcase, recorded_models);
    suite_add_tcase(suite, tcase);
    suite_add_tcase(suite, cm_unit_cli_files());
    suite_add_tcase(suite, cm_unit_cli_last());
    return suite;
}
