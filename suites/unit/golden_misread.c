// SPDX-License-Identifier: Apache-2.0
// A golden that a wrong reading passes proves nothing. So each golden is read wrongly in every way that its
// shapes allow, and the recorded output must then be judged FAIL; read rightly it must be PASS.
#include "fixtures/layer.h"
#include "harness/judge.h"
#include "harness/op.h"
#include "harness/pristine.h"
#include "harness/registry.h"
#include "suites/unit/command.h"
#include "suites/unit/golden.h"
#include "suites/unit/loaders.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct golden {
    const char *name;
    bool fused;  // the adapter
    bool square; // 2I = H: shapes do not tell gate_up's delta from its transpose
};

static const struct golden goldens[] = {
    {"qwen3_moe", false, false},        {"mixtral", false, false},       {"deepseek_v2", false, false},
    {"granitemoe", true, true},         {"qwen3_moe_fused", true, true}, {"mixtral_fused", true, false},
    {"deepseek_v2_fused", true, false},
};

enum { GOLDENS = sizeof goldens / sizeof *goldens };

// The case's values as doubles, or back; nothing where it has no such argument.
static double *take(const cm_pristine *pristine, const char *name, const DLTensor **tensor)
{
    *tensor = pristine->arguments[cm_op_argument_index(pristine->test_case.op, name)];
    if (!*tensor)
        return NULL;
    int64_t count = cm_tensor_count(*tensor);
    double *values = cm_new((size_t)count, sizeof *values);
    for (int64_t n = 0; n < count; n++)
        values[n] = cm_tensor_get(*tensor, n);
    return values;
}

// Element n of the argument becomes old element at(n); `rows` and `columns` of one matrix.
typedef int64_t (*place)(int64_t n, int64_t rows, int64_t columns, int64_t matrices);

static int64_t next_matrix(int64_t n, int64_t rows, int64_t columns, int64_t matrices)
{
    return (n + rows * columns) % (rows * columns * matrices);
}

// The bytes of [rows, columns] read as [columns, rows] and transposed.
static int64_t transposed(int64_t n, int64_t rows, int64_t columns, int64_t matrices)
{
    (void)matrices;
    int64_t size = rows * columns, in = n % size;
    return n - in + in % columns * rows + in / columns;
}

static void move(cm_pristine *pristine, const char *prefix, place at)
{
    static const char *const projections[] = {"gate", "up", "down"};
    for (int p = 0; p < 3; p++) {
        const DLTensor *tensor;
        char *name = cm_text("%s%s", prefix, projections[p]);
        double *old = take(pristine, name, &tensor);
        free(name);
        if (!old)
            continue;
        int64_t rows = tensor->shape[tensor->ndim - 2], columns = tensor->shape[tensor->ndim - 1];
        int64_t count = cm_tensor_count(tensor);
        for (int64_t n = 0; n < count; n++)
            cm_tensor_set(tensor, n, old[at(n, rows, columns, count / (rows * columns))]);
        free(old);
    }
}

static void swap_experts(cm_pristine *pristine)
{
    move(pristine, "lora_a_", next_matrix);
    move(pristine, "lora_b_", next_matrix);
}

static void swap_base_experts(cm_pristine *pristine)
{
    move(pristine, "w_", next_matrix);
}

static void transpose_a(cm_pristine *pristine)
{
    move(pristine, "lora_a_", transposed);
}

static void transpose_b(cm_pristine *pristine)
{
    move(pristine, "lora_b_", transposed);
}

static void transpose_base(cm_pristine *pristine)
{
    move(pristine, "w_", transposed);
}

static void exchange_gate_and_up(cm_pristine *pristine)
{
    const DLTensor *gate_tensor, *up_tensor;
    double *gate = take(pristine, "w_gate", &gate_tensor), *up = take(pristine, "w_up", &up_tensor);
    for (int64_t n = 0; n < cm_tensor_count(gate_tensor); n++) {
        cm_tensor_set(gate_tensor, n, up[n]);
        cm_tensor_set(up_tensor, n, gate[n]);
    }
    free(gate);
    free(up);
}

// delta of gate above up [2I,H] as its transpose: A'[j][q] = B[q][j], B'[p][j] = A[j][p]. With 2I = H only.
static void transpose_delta(cm_pristine *pristine)
{
    const DLTensor *at, *up_at, *gate_tensor, *up_tensor;
    double *a = take(pristine, "lora_a_gate", &at), *up_a = take(pristine, "lora_a_up", &up_at);
    double *gate = take(pristine, "lora_b_gate", &gate_tensor), *up = take(pristine, "lora_b_up", &up_tensor);
    int64_t E = at->shape[1], r = at->shape[2], H = at->shape[3], I = gate_tensor->shape[2];
    ck_assert_int_eq(2 * I, H);
    for (int64_t e = 0; e < E; e++)
        for (int64_t j = 0; j < r; j++)
            for (int64_t i = 0; i < H; i++) {
                int64_t row = (e * I + i % I) * r + j;
                double b = i < I ? gate[row] : up[row];
                cm_tensor_set(at, (e * r + j) * H + i, b);
                cm_tensor_set(up_at, (e * r + j) * H + i, b);
                cm_tensor_set(i < I ? gate_tensor : up_tensor, row, a[(e * r + j) * H + i]);
            }
    free(a);
    free(up_a);
    free(gate);
    free(up);
}

// A copy of the adapter whose config says scale 1 for every module.
static void write_alphaless(const char *adapter)
{
    json_error_t problem;
    char *from = cm_text("%s/adapter_config.json", adapter),
         *tensors = cm_text("%s/adapter_model.safetensors", adapter);
    json_t *config = json_load_file(from, 0, &problem);
    ck_assert_msg(config != NULL, "%s: %s", from, problem.text);
    json_object_set(config, "lora_alpha", json_object_get(config, "r"));
    json_object_set(config, "alpha_pattern", json_object_get(config, "rank_pattern"));
    json_object_set_new(config, "use_rslora", json_false());
    ck_assert_int_eq(mkdir("alphaless", 0700), 0);
    ck_assert_int_eq(json_dump_file(config, "alphaless/adapter_config.json", 0), 0);
    ck_assert_int_eq(symlink(tensors, "alphaless/adapter_model.safetensors"), 0);
    json_decref(config);
    free(from);
    free(tensors);
}

// Which goldens a reading is tried on.
static bool any(const struct golden *golden)
{
    (void)golden;
    return true;
}

static bool is_fused(const struct golden *golden)
{
    return golden->fused;
}

static bool is_square(const struct golden *golden)
{
    return golden->square;
}

static const struct reading {
    const char *name;
    bool (*applies)(const struct golden *golden);
    void (*spoil)(cm_pristine *pristine); // NULL: the loader reads wrongly by itself
    const char *b_order;
    bool alphaless;
} readings[] = {
    {"right", any, NULL, NULL, false},
    {"alpha-less", any, NULL, NULL, true},
    {"experts of LoRA swapped", any, swap_experts, NULL, false},
    {"experts of the base swapped", any, swap_base_experts, NULL, false},
    {"lora_A transposed", any, transpose_a, NULL, false},
    {"lora_B transposed", any, transpose_b, NULL, false},
    {"base transposed", any, transpose_base, NULL, false},
    {"gate and up exchanged", any, exchange_gate_and_up, NULL, false},
    {"lora_B expert by expert", is_fused, NULL, "expert_major", false},
    {"delta of gate_up transposed", is_square, transpose_delta, NULL, false},
};

enum { READINGS = sizeof readings / sizeof *readings };

static char *below(const struct golden *golden, const char *rest)
{
    char *path = cm_text("golden/%s/%s", golden->name, rest), *full = cm_unit_fixture(path);
    ck_assert_msg(full != NULL, "set CHECKMOE_FIXTURES to the fixtures folder");
    free(path);
    return full;
}

static int64_t dim(const cm_source *source, char letter)
{
    return source->dims[cm_dim_index(letter)];
}

static void open_case(const cm_source *source, cm_pristine *pristine)
{
    cm_case test_case;
    cm_error error = {0};
    const cm_op *op = cm_registry_find_op("moe_forward", strlen("moe_forward"));
    char *shared = dim(source, 'D') ? cm_text("-d%lld", (long long)dim(source, 'D')) : cm_text("%s", "");
    char *text =
        cm_text("t%lld-k%lld-e%lld-h%lld-i%lld%s-r%lldx1-f32-full-file-s1", (long long)dim(source, 'T'),
                (long long)dim(source, 'k'), (long long)dim(source, 'E'), (long long)dim(source, 'H'),
                (long long)dim(source, 'I'), shared, (long long)dim(source, 'r'));
    cm_unit_expect(cm_case_parse(op, text, &test_case, &error), &error, CM_OK, NULL, NULL);
    cm_unit_expect(cm_pristine_open(&test_case, source, pristine, &error), &error, CM_OK, NULL, NULL);
    free(shared);
    free(text);
}

START_TEST(misread)
{
    const struct golden *golden = &goldens[_i / READINGS];
    const struct reading *reading = &readings[_i % READINGS];
    if (!reading->applies(golden))
        return;
    char *model = below(golden, "model"), *adapter = below(golden, "adapter");
    char *recorded = below(golden, "layer_1.safetensors");
    cm_layer_options options = {model, adapter, 1, recorded, NULL, reading->b_order};
    if (reading->alphaless) {
        write_alphaless(adapter);
        options.adapter = "alphaless";
    }
    cm_source source;
    cm_error error = {0};
    cm_unit_expect(cm_layer_open(&options, &source, &error), &error, CM_OK, NULL, NULL);
    cm_pristine *pristine = cm_new(1, sizeof *pristine);
    open_case(&source, pristine);
    if (reading->spoil)
        reading->spoil(pristine);
    cm_unit_expect(cm_pristine_want(pristine, CM_ACCURACY_SINGLE, &error), &error, CM_OK, NULL, NULL);

    cm_tensor got;
    cm_measure measure;
    cm_outcome outcome = {0};
    int output = cm_op_argument_index(pristine->test_case.op, "output");
    ck_assert(cm_layer_recorded(&source, "output", &got));
    cm_compare_bounded(&got.dl, got.dtype, &pristine->want[CM_ACCURACY_SINGLE][output], false, &measure);
    cm_verdict verdict = cm_judge_bounded(&measure, false, "output", &outcome);
    if (getenv("CM_VERBOSE"))
        printf("%-18s %-28s %s: error_over_bound %.3g, rms_z %.3g, beyond %lld of %lld\n", golden->name,
               reading->name, cm_verdict_name(verdict), measure.worst_ratio, measure.rms_z,
               (long long)measure.beyond, (long long)measure.count);
    ck_assert_int_gt(measure.count, 0);
    ck_assert_msg(verdict == (reading == readings ? CM_PASS : CM_FAIL), "%s, %s: %s, error_over_bound %g",
                  golden->name, reading->name, cm_verdict_name(verdict), measure.worst_ratio);
    cm_pristine_close(pristine);
    free(pristine);
    source.close(&source);
    free(model);
    free(adapter);
    free(recorded);
}
END_TEST

// Orientations that shapes rule out are refused, so that no such misreading can begin.
START_TEST(wrong_orientation_is_refused)
{
    const struct golden *golden = &goldens[_i];
    if (!golden->fused)
        return;
    bool in_first = !strcmp(golden->name, "granitemoe");
    char *model = below(golden, "model"), *adapter = below(golden, "adapter");
    cm_layer_options options = {model, adapter, 1, NULL, in_first ? "out_first" : "in_first", NULL};
    cm_source source;
    cm_error error = {0};
    char *part = cm_text("can only be %s by its shapes", in_first ? "in_first" : "out_first");
    cm_unit_expect(cm_layer_open(&options, &source, &error), &error, CM_BAD_SHAPE, adapter, part);
    options.lora_orientation = in_first ? "in_first" : "out_first";
    cm_unit_expect(cm_layer_open(&options, &source, &error), &error, CM_OK, NULL, NULL);
    source.close(&source);
    free(model);
    free(adapter);
    free(part);
}
END_TEST

// The same by the command line: the recorded output fails, and the line that shows it again has the option.
START_TEST(options_reach_the_loader)
{
    char *model = below(&goldens[4], "model"), *adapter = below(&goldens[4], "adapter");
    char *recorded = below(&goldens[4], "layer_1.safetensors");
    ck_assert_str_eq(goldens[4].name, "qwen3_moe_fused");
    char *line =
        cm_text("checkmoe run --model %s --adapter %s --layer 1 --recorded %s --quiet --check numerics",
                model, adapter, recorded);
    cm_command run = cm_unit_command("%s --lora-orientation out_first --lora-b-order peft", line);
    ck_assert_msg(run.code == 0, "exit status %d\n%s%s", run.code, run.out, run.err);
    cm_unit_forget(&run);
    run = cm_unit_command("%s --lora-b-order expert_major", line);
    ck_assert_msg(run.code == 1 && strstr(run.out, "FAIL  numerics  moe_forward/recorded") &&
                      strstr(run.out, "--lora-b-order expert_major"),
                  "exit status %d\n%s%s", run.code, run.out, run.err);
    cm_unit_forget(&run);
    run = cm_unit_command("%s --lora-orientation in_first", line);
    ck_assert_msg(run.code == 4 && strstr(run.err, "leave --lora-orientation out"), "exit status %d\n%s%s",
                  run.code, run.out, run.err);
    cm_unit_forget(&run);
    cm_unit_expect_command(4, NULL, "go with --adapter", "checkmoe run --lora-b-order peft");
    free(model);
    free(adapter);
    free(recorded);
    free(line);
}
END_TEST

START_TEST(dense_first_layer_is_refused)
{
    static const struct golden deepseek[] = {{"deepseek_v2", false, false},
                                             {"deepseek_v2_fused", true, false}};
    char *model = below(&deepseek[_i], "model"), *adapter = below(&deepseek[_i], "adapter");
    cm_layer_options options = {.model = model, .adapter = adapter, .layer = 0};
    cm_source source;
    cm_error error = {0};
    cm_unit_expect(cm_layer_open(&options, &source, &error), &error, CM_BAD_VALUE, model,
                   "layer 0 is dense; MoE layers: 1");
    free(model);
    free(adapter);
}
END_TEST

TCase *cm_unit_golden_misread(void)
{
    cm_unit_find_binary();
    TCase *test = tcase_create("misread");
    tcase_add_checked_fixture(test, cm_unit_enter_directory, cm_unit_leave_directory);
    tcase_set_timeout(test, 60);
    tcase_add_loop_test(test, misread, 0, GOLDENS * READINGS);
    tcase_add_loop_test(test, wrong_orientation_is_refused, 0, GOLDENS);
    tcase_add_test(test, options_reach_the_loader);
    tcase_add_loop_test(test, dense_first_layer_is_refused, 0, 2);
    return test;
}
