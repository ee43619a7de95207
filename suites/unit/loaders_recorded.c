// SPDX-License-Identifier: Apache-2.0
// A layer with recorded activations; the golden that transformers and PEFT recorded, computed again in double
// from what the source fills; what is left open after closing; the options that open it again.
#include "suites/unit/loaders.h"
#include "suites/unit/tiny_layer.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS(table) (int)(sizeof(table) / sizeof *(table))

static double id(int seed, int64_t row, int64_t column)
{
    return row == 2 && column == 1 ? seed : (double)((row + column) % E);
}

// T = 3; `skip` is left out, ids end with `last_id`.
static void write_recorded(const char *odd, cm_dtype dtype, int64_t rows, int last_id)
{
    static const struct {
        const char *name;
        cm_dtype dtype;
        int64_t columns; // 0: one dimension
    } tensors[] = {{"hidden", CM_F16, H},        {"topk_ids", CM_I32, K}, {"topk_weights", CM_F32, K},
                   {"token_adapter", CM_I32, 0}, {"output", CM_F32, H},   {"router_logits", CM_F32, E}};
    cm_writer writer = {0};
    for (size_t n = 0; n < sizeof tensors / sizeof *tensors; n++) {
        bool is_odd = odd && !strcmp(odd, tensors[n].name);
        bool ids = tensors[n].dtype == CM_I32;
        cm_writer_add(&writer, tensors[n].name, is_odd ? dtype : tensors[n].dtype, tensors[n].columns ? 2 : 1,
                      (int64_t[]){is_odd ? rows : 3, tensors[n].columns},
                      !tensors[n].columns ? cm_tiny_zero
                      : ids               ? id
                                          : cm_tiny_pattern,
                      last_id);
    }
    cm_writer_save(&writer, "recorded file.safetensors");
}

START_TEST(reads_recorded)
{
    cm_tensor tensor;
    cm_tiny_model(&cm_tiny_families[QWEN3], &cm_tiny_no_change);
    cm_tiny_adapter(SAME_SCALE, CM_F32, cm_tiny_pattern);
    write_recorded(NULL, CM_F32, 3, -1);
    cm_source source = cm_tiny_open(1, "adapter", "recorded file.safetensors");
    ck_assert_int_eq(cm_tiny_dim(&source, 'T'), 3);
    ck_assert_int_eq(source.dtypes['x'], CM_F16);
    ck_assert_int_eq(source.dtypes['y'], CM_F16);
    ck_assert_int_eq(source.dtypes['w'], CM_F32);
    cm_tiny_fill(&source, "hidden", CM_F16, "TH", &tensor);
    cm_tiny_expect_matrix(&tensor, 0, 3, H, -1, 1);
    free(tensor.dl.data);
    cm_tiny_fill(&source, "topk_ids", CM_I32, "Tk", &tensor);
    ck_assert(cm_tensor_get(&tensor.dl, 5) == -1 && cm_tensor_get(&tensor.dl, 3) == 2);
    free(tensor.dl.data);
    cm_tiny_fill(&source, "token_adapter", CM_I32, "T", &tensor);
    ck_assert(cm_tensor_get(&tensor.dl, 2) == 0);
    free(tensor.dl.data);
    ck_assert(cm_layer_recorded(&source, "output", &tensor));
    ck_assert_int_eq(tensor.shape[1], H);
    ck_assert(cm_tensor_get(&tensor.dl, 7) == cm_tiny_pattern(-1, 1, 1));
    ck_assert(!cm_layer_recorded(&source, "base_output", &tensor));
    ck_assert_str_eq(source.arguments,
                     "--model model --adapter adapter --layer 1 --recorded 'recorded file.safetensors'");
    ck_assert_ptr_nonnull(
        strstr(source.summary, "recorded: hidden [3,6], output [3,6], router_logits [3,4]"));

    cm_error error = {0};
    cm_tensor_init(&tensor, CM_F32, 2, (int64_t[]){3, H}, NULL);
    cm_unit_expect(source.fill(&source, "hidden", &tensor.dl, &error), &error, CM_BAD_DTYPE,
                   "hidden: ", "f16");
    error = (cm_error){0};
    cm_tensor_init(&tensor, CM_F16, 2, (int64_t[]){4, H}, NULL);
    cm_unit_expect(source.fill(&source, "hidden", &tensor.dl, &error), &error, CM_BAD_SHAPE,
                   "hidden: ", "dimension T is 4, the files have 3");
    error = (cm_error){0};
    cm_unit_expect(source.fill(&source, "bias_up", &tensor.dl, &error), &error, CM_BAD_VALUE,
                   "bias_up: ", NULL);
    source.close(&source);

    source = cm_tiny_open(1, NULL, "recorded file.safetensors");
    ck_assert(!source.has(&source, "token_adapter")); // nothing to point to
    source.close(&source);
}
END_TEST

static const struct {
    const char *odd;
    cm_dtype dtype;
    int64_t rows;
    int last_id;
    cm_status status;
    const char *part;
} bad_recorded[] = {
    {"topk_ids", CM_F32, 3, 0, CM_BAD_DTYPE, "\"topk_ids\" is F32; expected I32"},
    {"topk_weights", CM_BF16, 3, 0, CM_BAD_DTYPE, "\"topk_weights\" is BF16; expected F32"},
    {"hidden", CM_F64, 3, 0, CM_BAD_DTYPE, "\"hidden\" is F64; expected F32, F16 or BF16"},
    {"output", CM_F32, 4, 0, CM_BAD_SHAPE, "\"output\" is [4,6]; expected TH with T 3, k 2, H 6"},
    {"hidden", CM_F32, 0, 0, CM_BAD_SHAPE, "\"hidden\" is [0,6]"},
    {NULL, CM_F32, 3, 4, CM_BAD_ID, "\"topk_ids\": element 5 is 4, expected -1 to 3"},
    {NULL, CM_F32, 3, -2, CM_BAD_ID, "\"topk_ids\": element 5 is -2"},
};

START_TEST(refuses_recorded)
{
    cm_tiny_model(&cm_tiny_families[QWEN3], &cm_tiny_no_change);
    cm_tiny_adapter(SAME_SCALE, CM_F32, cm_tiny_pattern);
    write_recorded(bad_recorded[_i].odd, bad_recorded[_i].dtype, bad_recorded[_i].rows,
                   bad_recorded[_i].last_id);
    cm_tiny_expect_refusal(1, "adapter", "recorded file.safetensors", bad_recorded[_i].status,
                           "recorded file.safetensors: ", bad_recorded[_i].part);
    cm_tiny_expect_refusal(1, NULL, "model/model.safetensors", CM_BAD_FILE,
                           "model/model.safetensors: ", "none of hidden");
}
END_TEST

static int count_descriptors(void)
{
    int count = 0;
    DIR *directory = opendir("/proc/self/fd");
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

static int count_mappings(const char *part)
{
    char line[4096];
    int count = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps))
        count += strstr(line, part) != NULL;
    fclose(maps);
    return count;
}

START_TEST(leaks_nothing)
{
    cm_tiny_model(&cm_tiny_families[QWEN3], &cm_tiny_no_change);
    cm_tiny_adapter(SAME_SCALE, CM_F32, cm_tiny_pattern);
    write_recorded(NULL, CM_F32, 3, -1);
    int descriptors = count_descriptors();
    ck_assert_int_eq(count_mappings(".safetensors"), 0);
    for (int n = 0; n < 100; n++) {
        cm_source source = cm_tiny_open(1, "adapter", "recorded file.safetensors");
        if (n == 0)
            ck_assert_int_eq(count_mappings(".safetensors"), 3);
        source.close(&source);
        cm_tiny_expect_refusal(1, "adapter", "model/model.safetensors", CM_BAD_FILE, NULL, NULL);
        cm_tiny_expect_refusal(2, "adapter", NULL, CM_BAD_VALUE, NULL, "nothing for the experts of layer 2");
        cm_tiny_expect_refusal(7, "adapter", NULL, CM_BAD_VALUE, NULL, NULL);
        cm_tiny_expect_refusal(1, "model", NULL, CM_BAD_FILE, NULL, NULL);
    }
    ck_assert_int_eq(count_mappings(".safetensors"), 0);
    ck_assert_int_eq(count_descriptors(), descriptors);
}
END_TEST

static const struct {
    const char *path, *quoted;
} quotes[] = {{"/a/b-c_d.e", "--model /a/b-c_d.e --layer 1"},
              {"with blank", "--model 'with blank' --layer 1"},
              {"it's $HOME", "--model 'it'\\''s $HOME' --layer 1"}};

START_TEST(quotes_paths)
{
    cm_source source;
    cm_error error = {0};
    char *path = cm_text("%s", quotes[_i].path[0] == '/' ? "model" : quotes[_i].path);
    cm_tiny_model(&cm_tiny_families[QWEN3], &cm_tiny_no_change);
    rename("model", path);
    cm_unit_expect(cm_layer_open(&(cm_layer_options){.model = path, .layer = 1}, &source, &error), &error,
                   CM_OK, NULL, NULL);
    ck_assert_str_eq(source.arguments,
                     quotes[_i].path[0] == '/' ? "--model model --layer 1" : quotes[_i].quoted);
    source.close(&source);
    free(path);
}
END_TEST

// y = sum over i of (W[o][i] + s sum over j of B[o][j] A[j][i]) x[i] for one expert; s = 0 is the base.
static void project(const cm_tensor *w, const cm_tensor *a, const cm_tensor *b, int64_t e, double s,
                    const double *x, double *y)
{
    int64_t out = w->shape[1], in = w->shape[2], r = a->shape[2];
    double v[16] = {0};
    for (int64_t j = 0; j < r; j++)
        for (int64_t i = 0; i < in; i++)
            v[j] += cm_tensor_get(&a->dl, (e * r + j) * in + i) * x[i];
    for (int64_t o = 0; o < out; o++) {
        y[o] = 0;
        for (int64_t i = 0; i < in; i++)
            y[o] += cm_tensor_get(&w->dl, (e * out + o) * in + i) * x[i];
        for (int64_t j = 0; j < r; j++)
            y[o] += s * cm_tensor_get(&b->dl, (e * out + o) * r + j) * v[j];
    }
}

START_TEST(reads_golden)
{
    char *model = cm_unit_fixture("golden/qwen3_moe/model"),
         *adapter = cm_unit_fixture("golden/qwen3_moe/adapter");
    char *recorded = cm_unit_fixture("golden/qwen3_moe/layer_1.safetensors");
    ck_assert_msg(model != NULL, "set CHECKMOE_FIXTURES to the fixtures folder");
    cm_source source;
    cm_error error = {0};
    cm_layer_options options = {.model = model, .adapter = adapter, .layer = 1, .recorded = recorded};
    cm_unit_expect(cm_layer_open(&options, &source, &error), &error, CM_OK, NULL, NULL);
    static const struct {
        char letter;
        int64_t value;
    } dims[] = {{'T', 24}, {'k', 2}, {'E', 8}, {'H', 48}, {'I', 40}, {'D', 0}, {'L', 1}, {'r', 8}};
    for (size_t n = 0; n < sizeof dims / sizeof *dims; n++)
        ck_assert_int_eq(cm_tiny_dim(&source, dims[n].letter), dims[n].value);
    ck_assert_ptr_nonnull(
        strstr(source.summary, "adapter r 8, alpha 20, scale 2.5, f32: gate 8/8 experts, up 8/8, down 8/8"));

    enum { HIDDEN, IDS, WEIGHTS, SCALING, W, A = W + 3, B = A + 3, TENSORS = B + 3 };
    static const struct {
        const char *name, *letters;
    } arguments[TENSORS] = {
        [HIDDEN] = {"hidden", "TH"},
        [IDS] = {"topk_ids", "Tk"},
        [WEIGHTS] = {"topk_weights", "Tk"},
        [SCALING] = {"lora_scaling", "L"},
        [W] = {"w_gate", "EIH"},
        {"w_up", "EIH"},
        {"w_down", "EHI"},
        [A] = {"lora_a_gate", "LErH"},
        {"lora_a_up", "LErH"},
        {"lora_a_down", "LErI"},
        [B] = {"lora_b_gate", "LEIr"},
        {"lora_b_up", "LEIr"},
        {"lora_b_down", "LEHr"},
    };
    cm_tensor *t = cm_new(TENSORS, sizeof *t), want;
    for (int n = 0; n < TENSORS; n++)
        cm_tiny_fill(&source, arguments[n].name, n == IDS ? CM_I32 : CM_F32, arguments[n].letters, &t[n]);
    ck_assert(cm_tensor_get(&t[SCALING].dl, 0) == 2.5);

    for (int adapted = 0; adapted < 2; adapted++) {
        ck_assert(cm_layer_recorded(&source, adapted ? "output" : "base_output", &want));
        double errors = 0, squares = 0;
        for (int64_t token = 0; token < 24; token++) {
            double x[48], gate[40], up[40], down[48], y[48] = {0}, s = adapted ? 2.5 : 0;
            for (int i = 0; i < 48; i++)
                x[i] = cm_tensor_get(&t[HIDDEN].dl, token * 48 + i);
            for (int j = 0; j < 2; j++) {
                int64_t e = (int64_t)cm_tensor_get(&t[IDS].dl, token * 2 + j);
                project(&t[W + GATE], &t[A + GATE], &t[B + GATE], e, s, x, gate);
                project(&t[W + UP], &t[A + UP], &t[B + UP], e, s, x, up);
                for (int i = 0; i < 40; i++)
                    up[i] *= gate[i] / (1 + exp(-gate[i]));
                project(&t[W + DOWN], &t[A + DOWN], &t[B + DOWN], e, s, up, down);
                for (int i = 0; i < 48; i++)
                    y[i] += cm_tensor_get(&t[WEIGHTS].dl, token * 2 + j) * down[i];
            }
            for (int i = 0; i < 48; i++) {
                double value = cm_tensor_get(&want.dl, token * 48 + i);
                errors += (y[i] - value) * (y[i] - value);
                squares += value * value;
            }
        }
        ck_assert_msg(errors <= 1e-10 * squares, "relative error %g",
                      sqrt(errors / squares)); // recorded in f32
    }
    for (int n = 0; n < TENSORS; n++)
        free(t[n].dl.data);
    free(t);
    source.close(&source);
    free(model);
    free(adapter);
    free(recorded);
}
END_TEST

TCase *cm_unit_recorded(void)
{
    TCase *test = tcase_create("recorded");
    tcase_add_checked_fixture(test, cm_unit_enter_directory, cm_unit_leave_directory);
    tcase_set_timeout(test, 60);
    tcase_add_test(test, reads_recorded);
    tcase_add_loop_test(test, refuses_recorded, 0, ROWS(bad_recorded));
    tcase_add_test(test, leaks_nothing);
    tcase_add_loop_test(test, quotes_paths, 0, ROWS(quotes));
    tcase_add_test(test, reads_golden);
    return test;
}
