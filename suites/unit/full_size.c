// SPDX-License-Identifier: Apache-2.0
// A layer of DeepSeek-V2-Lite and one of Qwen3-30B-A3B at full size, from files: written as a sharded model
// and a PEFT adapter, opened with every bit in its place, and run by the program. Needs 1.2 GB of disk below
// the working directory.
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

static const struct layer {
    const char *test_case;
    cm_model_names names;
    int tensors;          // weights and adapters that the files hold
    const char *checks;   // that the program runs: what a second layer has to say is less
    const char *found[8]; // parts of what it prints, in this order below
} layers[] = {
    {.test_case = "t4-k6-e64-h2048-i1408-d2816-r8x1-bf16-full-random-s3",
     .names = {.model_type = "deepseek_v2",
               .base_model = "deepseek-ai/DeepSeek-V2-Lite",
               .experts_key = "n_routed_experts",
               .shared_experts = 2,
               .layers = 27,
               .layer = 1,
               .shards = 3},
     .tensors = 2 + 3 + 6 + 3 + 6,
     .checks = "numerics,effect,bounds",
     .found = {"model deepseek_v2: H 2048, I 1408, E 64, k 6, layer 1 of 27, bf16, shared expert D 2816\n",
               ", bf16: gate 64/64 experts, up 64/64, down 64/64, shared expert 3/3;",
               "adapter was made for \"deepseek-ai/DeepSeek-V2-Lite\"\n",
               "without LoRA on gate of the routed experts `output` changes by ",
               "without LoRA on the shared expert `output` changes by "}},
    {.test_case = "t4-k8-e128-h2048-i768-r8x1-bf16-full-random-s4",
     .names = {.model_type = "qwen3_moe",
               .base_model = "Qwen/Qwen3-30B-A3B",
               .experts_key = "num_experts",
               .layers = 48,
               .layer = 7,
               .shards = 2},
     .tensors = 2 + 3 + 6,
     .checks = "numerics,bounds",
     .found = {"model qwen3_moe: H 2048, I 768, E 128, k 8, layer 7 of 48, bf16\n",
               ", bf16: gate 128/128 experts, up 128/128, down 128/128;",
               "adapter was made for \"Qwen/Qwen3-30B-A3B\"\n",
               "without LoRA on down of the routed experts `output` changes by "}},
};

static const struct layer *layer;
static char directory[24];
static bool there;
static double scaling; // of the adapter

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info, (void)kind, (void)place;
    return remove(path);
}

static void write_files(const struct layer *which)
{
    struct statvfs disk;
    layer = which;
    there = false;
    snprintf(directory, sizeof directory, "full-size-XXXXXX");
    cm_unit_find_binary();
    ck_assert_int_eq(statvfs(".", &disk), 0);
    if ((double)disk.f_bavail * (double)disk.f_frsize < 4e9) {
        printf("skipped: less than 4 GB of disk are free below the working directory\n");
        return;
    }
    ck_assert_ptr_nonnull(mkdtemp(directory));
    ck_assert_int_eq(chdir(directory), 0);
    cm_pristine *pristine = cm_unit_open("moe_forward", layer->test_case);
    cm_write_layer(pristine, &layer->names, "model", "adapter");
    scaling = cm_tensor_get(cm_unit_argument(pristine, "lora_scaling"), 0);
    cm_unit_close(pristine);
    there = true;
}

static void write_deepseek(void)
{
    write_files(&layers[0]);
}

static void write_qwen(void)
{
    write_files(&layers[1]);
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
        &(cm_source_options){.model = "model", .adapter = "adapter", .layer = (int)layer->names.layer},
        &source, &error);
    clock_gettime(CLOCK_MONOTONIC, &end);
    ck_assert_msg(status == CM_OK, "%s", error.message);
    if (getenv("CM_VERBOSE"))
        printf("opened in %.1f ms\n%s\n",
               (double)(end.tv_sec - begin.tv_sec) * 1e3 + (double)(end.tv_nsec - begin.tv_nsec) / 1e6,
               source.summary);
    cm_pristine *pristine = cm_unit_open("moe_forward", layer->test_case);
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
    ck_assert_int_eq(compared, layer->tensors);
    cm_unit_close(pristine);
    source.close(&source);
}
END_TEST

// What the program says about the layer, and its verdicts.
START_TEST(program_runs_the_layer)
{
    static const char whole[] = "without all of the adapter `output` changes by ";
    if (!there)
        return;
    cm_command run =
        cm_unit_command("checkmoe run --model model --adapter adapter --layer %d --tokens 4 --timeout 60 "
                        "--check %s --require naive,openblas",
                        (int)layer->names.layer, layer->checks);
    ck_assert_msg(run.code == 0, "exit status %d\n%s%s", run.code, run.out, run.err);
    ck_assert_msg(strstr(run.out, "PASSED: 0 FAIL, 0 ERROR, 0 CRASH, 0 TIMEOUT, 0 VACUOUS, ") != NULL, "%s",
                  run.out);
    for (const char *const *part = layer->found; *part; part++)
        ck_assert_msg(strstr(run.err, *part) != NULL, "no \"%s\" in\n%s", *part, run.err);
    char *adapter = cm_text("adapter r 8, alpha %g, scale %g, bf16: gate", 8 * scaling, scaling);
    ck_assert_msg(strstr(run.err, adapter) != NULL, "no \"%s\" in\n%s", adapter, run.err);
    free(adapter);
    const char *share = strstr(run.err, whole);
    ck_assert_msg(share && strtod(share + strlen(whole), NULL) > 30 &&
                      strtod(share + strlen(whole), NULL) < 100,
                  "%s", run.err);
    if (getenv("CM_VERBOSE"))
        printf("%s%s", run.err, run.out);
    cm_unit_forget(&run);
}
END_TEST

Suite *cm_unit_full_size(void)
{
    Suite *suite = suite_create("full_size");
    static const struct {
        const char *name;
        void (*write)(void);
    } cases[] = {{"deepseek_v2_lite", write_deepseek}, {"qwen3_30b_a3b", write_qwen}};
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
        TCase *tcase = tcase_create(cases[n].name);
        tcase_set_timeout(tcase, 300);
        tcase_add_unchecked_fixture(tcase, cases[n].write, remove_files);
        tcase_add_test(tcase, files_hold_the_layer);
        tcase_add_test(tcase, program_runs_the_layer);
        suite_add_tcase(suite, tcase);
    }
    return suite;
}
