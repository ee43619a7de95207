// SPDX-License-Identifier: Apache-2.0
// Tests of the loaders. Every file is written by the test that reads it, except for the recorded golden.
#include "suites/unit/loaders.h"

#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char before[PATH_MAX], directory[] = "/tmp/checkmoe-loaders-XXXXXX";

void cm_unit_enter_directory(void)
{
    strcpy(directory + strlen(directory) - 6, "XXXXXX");
    ck_assert_ptr_nonnull(getcwd(before, sizeof before));
    ck_assert_ptr_nonnull(mkdtemp(directory));
    ck_assert_int_eq(chdir(directory), 0);
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info, (void)kind, (void)place;
    return remove(path);
}

void cm_unit_leave_directory(void)
{
    ck_assert_int_eq(chdir(before), 0);
    ck_assert_int_eq(nftw(directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS), 0);
}

void cm_unit_expect(cm_status got, const cm_error *error, cm_status want, const char *start, const char *part)
{
    ck_assert_msg(got == want, "status \"%s\", expected \"%s\"; message: %s", cm_status_name(got),
                  cm_status_name(want), error->message);
    if (start)
        ck_assert_msg(!strncmp(error->message, start, strlen(start)),
                      "message does not begin with \"%s\": %s", start, error->message);
    if (part)
        ck_assert_msg(strstr(error->message, part) != NULL, "message has no \"%s\": %s", part,
                      error->message);
}

char *cm_unit_fixture(const char *path)
{
    const char *root = getenv("CHECKMOE_FIXTURES");
#ifdef CM_FIXTURES_DIR
    if (!root)
        root = CM_FIXTURES_DIR;
#endif
    if (!root)
        return NULL;
    return root[0] == '/' ? cm_text("%s/%s", root, path) : cm_text("%s/%s/%s", before, root, path);
}

Suite *cm_unit_loaders(void)
{
    Suite *suite = suite_create("loaders");
    suite_add_tcase(suite, cm_unit_safetensors_files());
    suite_add_tcase(suite, cm_unit_safetensors_headers());
    suite_add_tcase(suite, cm_unit_scan());
    suite_add_tcase(suite, cm_unit_config());
    suite_add_tcase(suite, cm_unit_peft());
    suite_add_tcase(suite, cm_unit_layer());
    suite_add_tcase(suite, cm_unit_fused());
    suite_add_tcase(suite, cm_unit_fused_bad());
    suite_add_tcase(suite, cm_unit_foreign());
    suite_add_tcase(suite, cm_unit_recorded());
    return suite;
}
