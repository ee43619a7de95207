// SPDX-License-Identifier: Apache-2.0
#include "harness/group.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void cm_group_add(cm_group *group, const cm_check *check, const cm_kernel *kernel, const char *plugin)
{
    if (group->count == group->space) {
        group->space = group->space ? 2 * group->space : 16;
        group->tests = realloc(group->tests, group->space * sizeof *group->tests);
        if (!group->tests)
            cm_broken("out of memory for %zu tests", group->space);
    }
    group->tests[group->count++] =
        (cm_test){.check = check,
                  .kernel = kernel,
                  .plugin = plugin,
                  .name = cm_text("%s/%s/%s", kernel->name, group->pristine->name, check->name)};
    cm_test *test = &group->tests[group->count - 1];
    if (check->applies && !check->applies(group->pristine, test->skip, sizeof test->skip) && !test->skip[0])
        snprintf(test->skip, sizeof test->skip, "%s does not apply", check->name);
}

static cm_group *current; // Check hands a test nothing but its loop index

static void test_function(int index)
{
    const cm_test *test = &current->tests[index];
    if (current->stop && *current->stop)
        return;
    cm_trial trial = {test->kernel, current->pristine, &test->slot->outcome};
    cm_child_run(test->check, &trial, test->plugin, current->timeout, test->slot);
    if (cm_verdict_is_bad(test->slot->outcome.verdict))
        ck_abort_msg("%s", test->slot->outcome.reason);
    // The destructors of the libraries that built-in kernels use cost more than most checks. A plug-in's are
    // run.
    const char *forks = getenv("CK_FORK");
    if (!test->plugin && (!forks || strcmp(forks, "no") != 0)) {
        fflush(NULL); // Check's message to the parent
        _exit(EXIT_SUCCESS);
    }
}

// Check's own handlers would kill the child in flight and send the signal on to the whole process group:
// those of the runner stay.
static struct sigaction handlers[2];

static void keep_handlers(void)
{
    sigaction(SIGINT, &handlers[0], NULL);
    sigaction(SIGTERM, &handlers[1], NULL);
}

// What a child left behind that didn't finish; `message` is Check's.
static void explain_death(cm_slot *slot, bool passed, const char *message)
{
    int code;
    if (slot->stage == CM_CHILD_BROKEN)
        cm_broken("%s", slot->outcome.reason);
    if (slot->stage == CM_CHILD_DONE && !passed && !cm_verdict_is_bad(slot->outcome.verdict)) {
        cm_conclude(&slot->outcome, strstr(message, "timeout") ? CM_TIMEOUT : CM_CRASH,
                    "after the kernel had returned: %s", message);
        return;
    }
    if (slot->stage == CM_CHILD_DONE || slot->stage == CM_CHILD_DIED)
        return;
    const char *returned = strstr(message, "return value ");
    if (strstr(message, "timeout"))
        cm_conclude(&slot->outcome, CM_TIMEOUT, CM_TIMEOUT_REASON);
    else if (returned && sscanf(returned, "return value %d", &code) == 1)
        cm_conclude(&slot->outcome, CM_CRASH, "the kernel ended its process with exit status %d", code);
    else if (strstr(message, "signal"))
        cm_conclude(&slot->outcome, CM_CRASH, "%s", message);
    else // Check takes exit status 0 for success
        cm_conclude(&slot->outcome, CM_CRASH, "the kernel ended its process with exit status 0");
}

void cm_group_run(cm_group *group, double timeout)
{
    if (group->count == 0)
        return;
    group->timeout = timeout;
    group->slots_mapped = group->count * sizeof *group->slots;
    group->slots = mmap(NULL, group->slots_mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (group->slots == MAP_FAILED)
        cm_broken("no memory for the results of %zu tests", group->count);
    Suite *suite = suite_create(group->pristine->name);
    TCase *tcase = tcase_create("case");
    TTest *names = cm_new(group->count, sizeof *names); // must outlive the runner
    int added = 0;
    tcase_set_timeout(tcase, CM_PATIENCE * timeout);
    sigaction(SIGINT, NULL, &handlers[0]);
    sigaction(SIGTERM, NULL, &handlers[1]);
    tcase_add_unchecked_fixture(tcase, keep_handlers, NULL);
    for (size_t n = 0; n < group->count; n++) {
        cm_test *test = &group->tests[n];
        test->slot = &group->slots[n];
        cm_outcome_use(&test->slot->outcome, &test->slot->details);
        if (test->skip[0]) {
            cm_conclude(&test->slot->outcome, CM_SKIP, "%s", test->skip);
            continue;
        }
        names[added] = (TTest){test->name, test_function, test->kernel->file, test->kernel->line};
        _tcase_add_test(tcase, &names[added++], 0, 0, (int)n, (int)n + 1);
    }
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    current = group;
    srunner_run_all(runner, CK_SILENT);
    if (srunner_ntests_run(runner) != added)
        cm_broken("Check ran %d of %d tests (is CK_RUN_SUITE or CK_RUN_CASE set?)",
                  srunner_ntests_run(runner), added);
    TestResult **results = srunner_results(runner);
    for (size_t n = 0, result = 0; n < group->count; n++) {
        if (group->tests[n].skip[0])
            continue;
        TestResult *check_result = results[result++];
        const char *message = tr_msg(check_result);
        cm_slot *slot = group->tests[n].slot;
        cm_outcome_use(&slot->outcome, &slot->details); // whatever the child did to the pointers
        group->tests[n].left_out = group->stop && *group->stop && slot->stage == CM_CHILD_ABSENT;
        if (!group->tests[n].left_out)
            explain_death(slot, tr_rtype(check_result) == CK_PASS, message ? message : "");
    }
    free(results);
    srunner_free(runner);
    free(names);
    current = NULL;
}

void cm_group_close(cm_group *group)
{
    for (size_t n = 0; n < group->count; n++)
        free(group->tests[n].name);
    free(group->tests);
    if (group->slots)
        munmap(group->slots, group->slots_mapped);
    *group = (cm_group){0};
}
