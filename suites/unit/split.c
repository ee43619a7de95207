// SPDX-License-Identifier: Apache-2.0
// The layer in two halves, from outside: options that nobody gave or that make no sense, threads, weights
// that come from files and from tensors, and how many cores there are.
#include "harness/op.h"
#include "harness/registry.h"
#include "harness/stage.h"
#include "optimized/kernels.h"
#include "optimized/split/cores.h"
#include "suites/unit/cases.h"
#include "suites/unit/loaders.h"
#include "suites/unit/write_layer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

Suite *cm_unit_split(void);

static const cm_kernel *const kernels[] = {&cm_moe_forward_split_naive, &cm_moe_forward_split};
enum { KERNELS = sizeof kernels / sizeof *kernels };

static const char layer_case[] =
    "t9-k2-e4-h48-i37-r8x1-bf16-yf32-num_gpu_experts=2-cpu_partitions=2-random-s3";

// What a kernel is asked, and its answer.
struct session {
    const cm_pristine *weights, *adapters; // of prepare; of update and run
    const char *attribute;                 // gets `value`; NULL: as the case says
    double value;
    int threads;
    cm_status status; // of the first refusal
    char sentence[1024];
    float *output;
};

static void ask(struct session *session, const cm_kernel *kernel)
{
    const cm_op *op = session->weights->test_case.op;
    const cm_pristine *values[] = {session->weights, session->adapters, session->adapters};
    cm_stage *stages[2];
    double attributes[CM_MAX_ATTRIBUTES];
    cm_outcome outcome = {0};
    void *state = NULL;
    char reason[200];
    memcpy(attributes, session->weights->test_case.attributes, sizeof attributes);
    for (int n = 0; session->attribute && op->attributes[n].name; n++)
        if (!strcmp(op->attributes[n].name, session->attribute))
            attributes[n] = session->value;
    for (int n = 0; n < 2; n++) {
        cm_trial trial = {kernel, values[n], &outcome};
        cm_stage_options options = {.place = CM_PLACE_END, .poison = CM_CANARY, .threads = session->threads};
        stages[n] = cm_new(1, sizeof *stages[n]);
        cm_stage_open(&trial, &options, stages[n]);
        stages[n]->hosted.call.attributes = attributes;
    }
    ck_assert(session->attribute || kernel->supports(&stages[0]->hosted.call, reason, sizeof reason));
    session->status = CM_OK;
    for (int function = CM_PREPARE; function <= CM_RUN && session->status == CM_OK; function++) {
        cm_stage *stage = stages[function != CM_PREPARE];
        session->status = cm_stage_call(stage, (cm_function)function, &state);
        snprintf(session->sentence, sizeof session->sentence, "%s", stage->hosted.error.message);
    }
    const DLTensor *output = stages[1]->arguments[cm_op_argument_index(op, "output")];
    int64_t count = cm_tensor_count(output);
    session->output = cm_new((size_t)count, sizeof(float));
    for (int64_t n = 0; n < count; n++)
        session->output[n] = (float)cm_tensor_get(output, n);
    if (session->status != CM_OK)
        ck_assert(isnan(session->output[0]) && isnan(session->output[count - 1]));
    kernel->release(state);
    for (int n = 0; n < 2; n++) {
        cm_stage_close(stages[n]);
        free(stages[n]);
    }
}

static void expect_bits(const struct session *got, const struct session *want)
{
    const cm_case *test_case = &want->weights->test_case;
    int64_t count = test_case->dims[cm_dim_index('T')] * test_case->dims[cm_dim_index('H')];
    ck_assert_msg(got->status == CM_OK, "%s", got->sentence);
    ck_assert_int_eq(want->status, CM_OK);
    ck_assert_mem_eq(got->output, want->output, (size_t)count * sizeof(float));
}

static const struct option {
    const char *name;
    double value;
    const char *refusal; // NULL: taken
} options[] = {
    {"num_gpu_experts", 0, NULL},
    {"num_gpu_experts", -1, NULL},
    {"num_gpu_experts", 5, "num_gpu_experts is 5; 0..4 are possible, or -1 for unset, which is 0"},
    {"num_gpu_experts", -2, "num_gpu_experts is -2;"},
    {"num_gpu_experts", 0.5, "num_gpu_experts is 0.5;"},
    {"num_gpu_experts", 1e300, "num_gpu_experts is 1e+300;"},
    {"num_gpu_experts", NAN, "num_gpu_experts is "},
    {"cpu_partitions", 1, NULL},
    {"cpu_partitions", 0, "cpu_partitions is 0; 1..64 are possible"},
    {"cpu_partitions", 65, "cpu_partitions is 65;"},
    {"cpu_partitions", NAN, "cpu_partitions is "},
};
enum { OPTIONS = sizeof options / sizeof *options };

// Each is as if nobody had said anything, or is refused by its name; all are seen before anything is done.
START_TEST(options_have_sane_values)
{
    const struct option *option = &options[_i / KERNELS];
    const cm_kernel *kernel = kernels[_i % KERNELS];
    cm_pristine *values = cm_unit_open("moe_forward", "t5-k2-e4-h48-i40-r8x2-bf16-yf32-random-s1");
    struct session unset = {.weights = values, .adapters = values};
    struct session asked = {
        .weights = values, .adapters = values, .attribute = option->name, .value = option->value};
    ask(&unset, kernel);
    ask(&asked, kernel);
    if (option->refusal) {
        ck_assert_int_eq(asked.status, CM_BAD_VALUE);
        ck_assert_msg(strstr(asked.sentence, option->refusal) == asked.sentence, "%s", asked.sentence);
    } else {
        expect_bits(&asked, &unset);
    }
    free(unset.output);
    free(asked.output);
    cm_unit_close(values);
}
END_TEST

// Fewer threads than partitions, more, or nobody says: each partition is computed once, and the sum has its
// order.
START_TEST(threads_share_partitions)
{
    static const int limits[] = {1, 2, 3, 4, 5, 9, 64, -1};
    cm_pristine *values =
        cm_unit_open("moe_forward", "t9-k2-e4-h48-i37-r8x3-bf16-yf32-cpu_partitions=4-holes-random-s1");
    struct session unset = {.weights = values, .adapters = values};
    ask(&unset, kernels[_i]);
    for (size_t n = 0; n < sizeof limits / sizeof *limits; n++) {
        struct session limited = {.weights = values, .adapters = values, .threads = limits[n]};
        ask(&limited, kernels[_i]);
        expect_bits(&limited, &unset);
        free(limited.output);
    }
    free(unset.output);
    cm_unit_close(values);
}
END_TEST

// A layer that was written as files, as a model's and an adapter's, and the tensors that it was written from:
// whichever prepare sees and whichever update sees, the bits are the same.
START_TEST(files_and_tensors_in_either_order)
{
    static const cm_model_names names = {.model_type = "qwen3_moe",
                                         .base_model = "Qwen/Qwen3-30B-A3B",
                                         .experts_key = "num_experts",
                                         .layers = 3,
                                         .layer = 1,
                                         .shards = 2};
    const cm_kernel *kernel = kernels[_i];
    cm_pristine *tensors = cm_unit_open("moe_forward", layer_case), files;
    cm_source source = {0};
    cm_error error = {{0}};
    cm_write_layer(tensors, &names, "model", "adapter");
    cm_status status = cm_registry_open_source(
        &(cm_source_options){.model = "model", .adapter = "adapter", .layer = names.layer}, &source, &error);
    ck_assert_msg(status == CM_OK, "%s", error.message);
    status = cm_pristine_open(&tensors->test_case, &source, &files, &error);
    ck_assert_msg(status == CM_OK, "%s", error.message);
    struct session want = {.weights = tensors, .adapters = tensors};
    struct session others[] = {{.weights = &files, .adapters = &files},
                               {.weights = &files, .adapters = tensors},
                               {.weights = tensors, .adapters = &files}};
    ask(&want, kernel);
    for (size_t n = 0; n < sizeof others / sizeof *others; n++) {
        ask(&others[n], kernel);
        expect_bits(&others[n], &want);
        free(others[n].output);
    }
    free(want.output);
    cm_pristine_close(&files);
    source.close(&source);
    cm_unit_close(tensors);
}
END_TEST

static void write_number(int cpu, const char *name, int number)
{
    char path[128];
    snprintf(path, sizeof path, "cpus/cpu%d/topology/%s", cpu, name);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fprintf(file, "%d\n", number);
    fclose(file);
}

// Four cores of two threads on two packages, whose cores have the same numbers, and a CPU without files.
START_TEST(cores_are_counted_once)
{
    static const int all[] = {0, 1, 2, 3, 4, 5, 6, 7, 8}, some[] = {0, 1, 5, 4};
    ck_assert_int_eq(mkdir("cpus", 0700), 0);
    for (int cpu = 0; cpu < 8; cpu++) {
        char path[64];
        snprintf(path, sizeof path, "cpus/cpu%d", cpu);
        ck_assert_int_eq(mkdir(path, 0700), 0);
        snprintf(path, sizeof path, "cpus/cpu%d/topology", cpu);
        ck_assert_int_eq(mkdir(path, 0700), 0);
        write_number(cpu, "physical_package_id", cpu / 4);
        write_number(cpu, "core_id", cpu % 2);
    }
    ck_assert_int_eq(cm_physical_cores_of("cpus", all, 8), 4);
    ck_assert_int_eq(cm_physical_cores_of("cpus", all, 9), 5);
    ck_assert_int_eq(cm_physical_cores_of("cpus", some, 4), 4);
    ck_assert_int_eq(cm_physical_cores_of("cpus", all, 3), 2);
    ck_assert_int_eq(cm_physical_cores_of("nowhere", all, 8), 8);
    ck_assert_int_eq(cm_physical_cores_of("cpus", all, 0), 1);
    int here = cm_physical_cores();
    ck_assert_int_ge(here, 1);
    ck_assert_int_le(here, (int)sysconf(_SC_NPROCESSORS_CONF));
}
END_TEST

Suite *cm_unit_split(void)
{
    Suite *suite = suite_create("split");
    TCase *tcase = tcase_create("halves");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, cm_unit_enter_directory, cm_unit_leave_directory);
    tcase_add_loop_test(tcase, options_have_sane_values, 0, OPTIONS * KERNELS);
    tcase_add_loop_test(tcase, threads_share_partitions, 0, KERNELS);
    tcase_add_loop_test(tcase, files_and_tensors_in_either_order, 0, KERNELS);
    tcase_add_test(tcase, cores_are_counted_once);
    suite_add_tcase(suite, tcase);
    return suite;
}
