// SPDX-License-Identifier: Apache-2.0
// Runs the test suites of checkmoe itself: those named, or all. Nothing run is a failure.
#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_UNIT(name) Suite *cm_unit_##name(void);
#include "suites/unit/units.inc"
#undef CM_UNIT

static const struct unit {
    const char *name;
    Suite *(*make)(void);
} units[] = {
#define CM_UNIT(name) {#name, cm_unit_##name},
#include "suites/unit/units.inc"
#undef CM_UNIT
};

int main(int argc, char **argv)
{
    SRunner *runner = NULL;
    for (size_t n = 0; n < sizeof units / sizeof *units; n++) {
        bool wanted = argc < 2;
        for (int a = 1; a < argc; a++)
            wanted = wanted || !strcmp(argv[a], units[n].name);
        if (!wanted)
            continue;
        if (runner)
            srunner_add_suite(runner, units[n].make());
        else
            runner = srunner_create(units[n].make());
    }
    if (!runner) {
        fprintf(stderr, "no such test suite; units.inc lists them\n");
        return EXIT_FAILURE;
    }
    srunner_run_all(runner, CK_NORMAL);
    int run = srunner_ntests_run(runner), failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return run > 0 && failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
