// SPDX-License-Identifier: Apache-2.0
// A layer of DeepSeek-V2-Lite at full size, from files: written as a sharded model and a PEFT adapter, opened
// with every bit in its place, and run by the program. Needs 1.2 GB of disk below the working directory.
#include "harness/registry.h"
#include "suites/unit/cases.h"
#include "suites/unit/command.h"
#include "suites/unit/write_layer.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

Suite *cm_unit_full_size(void);

static const char layer_case[] = "t4-k6-e64-h2048-i1408-d2816-r8x1-bf16-full-random-s3";
static const cm_model_names deepseek = {.model_type = "deepseek_v2",
                                        .base_model = "deepseek-ai/DeepSeek-V2-Lite",
                                        .experts_key = "n_routed_experts",
                                        .shared_experts = 2,
                                        .layers = 27,
                                        .layer = 1,
                                        .shards = 3};

static char directory[] = "full-size-XXXXXX";
static bool there;
static double scaling; // of the adapter

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info, (void)kind, (void)place;
    return remove(path);
}

static void write_files(void)
{
    struct statvfs disk;
    cm_unit_find_binary();
    ck_assert_int_eq(statvfs(".", &disk), 0);
    if ((double)disk.f_bavail * (double)disk.f_frsize < 4e9) {
        printf("skipped: less than 4 GB of disk are free below the working directory\n");
        return;
    }
    ck_assert_ptr_nonnull(mkdtemp(directory));
    ck_assert_int_eq(chdir(directory), 0);
    cm_pristine *pristine = cm_unit_open("moe_forward", layer_case);
    cm_write_layer(pristine, &deepseek, "model", "adapter");
    scaling = cm_tensor_get(cm_unit_argument(pristine, "lora_scaling"), 0);
    cm_unit_close(pristine);
    there = true;
}

static void remove_files(void)
{
    if (there && chdir("..") == 0)
        nftw(directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

// The values of the files are those that were generated: every weight and adapter, every bit.
START_TEST(files_hold_the_layer)
{
    cm_error error = {{0}};
    cm_source source = {0};
    struct timespec begin, end;
    int compared = 0;
    if (!there)
        return;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    cm_status status = cm_registry_open_source(
        &(cm_source_options){.model = "model", .adapter = "adapter", .layer = 1}, &source, &error);
    clock_gettime(CLOCK_MONOTONIC, &end);
    ck_assert_msg(status == CM_OK, "%s", error.message);
    if (getenv("CM_VERBOSE"))
        printf("opened in %.1f ms\n%s\n",
               (double)(end.tv_sec - begin.tv_sec) * 1e3 + (double)(end.tv_nsec - begin.tv_nsec) / 1e6,
               source.summary);
    cm_pristine *pristine = cm_unit_open("moe_forward", layer_case);
    const cm_op *op = pristine->test_case.op;
    for (int n = 0; op->arguments[n].name; n++) {
        const DLTensor *want = pristine->arguments[n];
        cm_tensor got;
        int64_t flat = -1;
        if (!want || (op->arguments[n].role != CM_WEIGHT && op->arguments[n].role != CM_ADAPTER))
            continue;
        ck_assert_msg(source.has(&source, op->arguments[n].name), "%s", op->arguments[n].name);
        cm_tensor_init(&got, pristine->tensors[n].dtype, want->ndim, want->shape, NULL);
        got.dl.data = cm_new(cm_tensor_extent(&got.dl), 1);
        ck_assert_msg(source.fill(&source, op->arguments[n].name, &got.dl, &error) == CM_OK, "%s",
                      error.message);
        ck_assert_msg(cm_tensor_equal(&got.dl, want, &flat), "%s: element %lld", op->arguments[n].name,
                      (long long)flat);
        free(got.dl.data);
        compared++;
    }
    ck_assert_int_eq(compared, 2 + 3 + 6 + 3 + 6);
    cm_unit_close(pristine);
    source.close(&source);
}
END_TEST

// What the program says about the layer, and its verdicts.
START_TEST(program_runs_the_layer)
{
    static const char *const found[] = {
        "model deepseek_v2: H 2048, I 1408, E 64, k 6, layer 1 of 27, bf16, shared expert D 2816\n",
        ", bf16: gate 64/64 experts, up 64/64, down 64/64, shared expert 3/3;",
        "adapter was made for \"deepseek-ai/DeepSeek-V2-Lite\"\n",
        "without LoRA on gate of the routed experts `output` changes by ",
        "without LoRA on the shared expert `output` changes by ",
        "without all of the adapter `output` changes by "};
    if (!there)
        return;
    cm_command run =
        cm_unit_command("checkmoe run --model model --adapter adapter --layer 1 --tokens 4 --timeout 60 "
                        "--check numerics,effect,bounds --require naive,openblas");
    ck_assert_msg(run.code == 0, "exit status %d\n%s%s", run.code, run.out, run.err);
    ck_assert_msg(strstr(run.out, "PASSED: 0 FAIL, 0 ERROR, 0 CRASH, 0 TIMEOUT, 0 VACUOUS, ") != NULL, "%s",
                  run.out);
    for (size_t n = 0; n < sizeof found / sizeof *found; n++)
        ck_assert_msg(strstr(run.err, found[n]) != NULL, "no \"%s\" in\n%s", found[n], run.err);
    char *adapter = cm_text("adapter r 8, alpha %g, scale %g, bf16: gate", 8 * scaling, scaling);
    ck_assert_msg(strstr(run.err, adapter) != NULL, "no \"%s\" in\n%s", adapter, run.err);
    free(adapter);
    const char *share = strstr(run.err, found[5]) + strlen(found[5]);
    ck_assert_msg(strtod(share, NULL) > 30 && strtod(share, NULL) < 100, "%s", run.err);
    if (getenv("CM_VERBOSE"))
        printf("%s%s", run.err, run.out);
    cm_unit_forget(&run);
}
END_TEST

Suite *cm_unit_full_size(void)
{
    Suite *suite = suite_create("full_size");
    TCase *tcase = tcase_create("full_size");
    tcase_set_timeout(tcase, 300);
    tcase_add_unchecked_fixture(tcase, write_files, remove_files);
    tcase_add_test(tcase, files_hold_the_layer);
    tcase_add_test(tcase, program_runs_the_layer);
    suite_add_tcase(suite, tcase);
    return suite;
}
