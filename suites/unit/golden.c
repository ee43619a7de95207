// SPDX-License-Identifier: Apache-2.0
// The recorded goldens: their bytes are those that were committed, and each is judged by the suite.
#include "suites/unit/golden.h"

#include "suites/suites.h"
#include "suites/unit/loaders.h"

#include <dirent.h>
#include <ftw.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { HEX = 64 }; // digits of a SHA-256

static int listed, found;

static int count_file(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info, (void)place;
    found += kind == FTW_F && strcmp(strrchr(path, '/'), "/SHA256SUMS") != 0;
    return 0;
}

static void hash_file(const char *path, char hex[HEX + 1])
{
    unsigned char digest[EVP_MAX_MD_SIZE], block[1 << 16];
    unsigned length = 0;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "%s cannot be opened", path);
    ck_assert(context && EVP_DigestInit_ex(context, EVP_sha256(), NULL));
    for (size_t count; (count = fread(block, 1, sizeof block, file)) > 0;)
        ck_assert(EVP_DigestUpdate(context, block, count));
    ck_assert(!ferror(file) && EVP_DigestFinal_ex(context, digest, &length));
    fclose(file);
    EVP_MD_CTX_free(context);
    ck_assert_uint_eq(2 * length, HEX);
    for (unsigned n = 0; n < length; n++)
        snprintf(hex + 2 * (size_t)n, 3, "%02x", digest[n]);
}

// Every file of the folder is in its SHA256SUMS, with the hash that it has.
static void check_folder(const char *folder)
{
    char line[512], hex[HEX + 1];
    char *sums = cm_text("%s/SHA256SUMS", folder);
    FILE *file = fopen(sums, "r");
    ck_assert_msg(file != NULL, "%s cannot be opened", sums);
    listed = found = 0;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        ck_assert_msg(strlen(line) > HEX + 2 && line[HEX] == ' ' && line[HEX + 1] == ' ', "%s: %s", sums,
                      line);
        char *path = cm_text("%s/%s", folder, line + HEX + 2);
        hash_file(path, hex);
        ck_assert_msg(!strncmp(hex, line, HEX), "%s: SHA-256 is %s, %s says %.64s", path, hex, sums, line);
        free(path);
        listed++;
    }
    fclose(file);
    free(sums);
    ck_assert_int_eq(nftw(folder, count_file, 8, FTW_PHYS), 0);
    ck_assert_msg(listed == found, "%s: %d files, SHA256SUMS has %d", folder, found, listed);
    ck_assert_int_ge(listed, 5); // config and weights, of model and adapter, and the recorded layer
}

static bool in_suite(const char *name)
{
    char *start = cm_text("golden/%s/", name);
    bool model = false;
    for (const cm_file_row *row = cm_suite_golden.files; row->model; row++)
        model |= !strncmp(row->model, start, strlen(start)) && row->adapter && row->recorded;
    free(start);
    return model;
}

START_TEST(bytes_are_committed_ones)
{
    char *root = cm_unit_fixture("golden");
    ck_assert_msg(root != NULL, "set CHECKMOE_FIXTURES to the fixtures folder");
    DIR *directory = opendir(root);
    ck_assert_msg(directory != NULL, "%s cannot be opened", root);
    int goldens = 0;
    for (const struct dirent *entry; (entry = readdir(directory));) {
        struct stat info;
        char *folder = cm_text("%s/%s", root, entry->d_name);
        bool is_golden = entry->d_name[0] != '.' && entry->d_name[0] != '_' && !stat(folder, &info) &&
                         S_ISDIR(info.st_mode);
        if (is_golden) {
            check_folder(folder);
            ck_assert_msg(in_suite(entry->d_name), "%s is in no row of suites/golden.c", entry->d_name);
            goldens++;
        }
        free(folder);
    }
    closedir(directory);
    free(root);
    int rows = 0;
    while (cm_suite_golden.files[rows].model)
        rows++;
    ck_assert_int_eq(goldens, rows);
}
END_TEST

Suite *cm_unit_golden(void)
{
    Suite *suite = suite_create("golden");
    TCase *test = tcase_create("files");
    tcase_add_checked_fixture(test, cm_unit_enter_directory, cm_unit_leave_directory);
    tcase_add_test(test, bytes_are_committed_ones);
    suite_add_tcase(suite, test);
    suite_add_tcase(suite, cm_unit_golden_misread());
    return suite;
}
