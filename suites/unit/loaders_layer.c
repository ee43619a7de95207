// SPDX-License-Identifier: Apache-2.0
// One layer from files: tiny models of each naming, adapters of mixed ranks and scales, and what is refused.
#include "suites/unit/loaders.h"
#include "suites/unit/tiny_layer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROWS(table) (int)(sizeof(table) / sizeof *(table))

static double spoilt(int seed, int64_t row, int64_t column)
{
    return row == 1 && column == 2   ? NAN
           : row == 1 && column == 3 ? INFINITY
                                     : cm_tiny_pattern(seed, row, column);
}

START_TEST(maps_names)
{
    static const char *const names[] = {"gate", "up", "down"};
    const cm_tiny_family *family = &cm_tiny_families[_i];
    cm_tiny_model(family, &cm_tiny_no_change);
    cm_source source = cm_tiny_open(1, NULL, NULL);
    ck_assert_int_eq(cm_tiny_dim(&source, 'H'), H);
    ck_assert_int_eq(cm_tiny_dim(&source, 'I'), I);
    ck_assert_int_eq(cm_tiny_dim(&source, 'E'), E);
    ck_assert_int_eq(cm_tiny_dim(&source, 'k'), K);
    ck_assert_int_eq(cm_tiny_dim(&source, 'D'), family->shared ? cm_tiny_shared_width(family) : 0);
    ck_assert_int_eq(cm_tiny_dim(&source, 'L'), 0);
    ck_assert_int_eq(cm_tiny_dim(&source, 'r'), 0);
    ck_assert_int_eq(cm_tiny_dim(&source, 'T'), -1);
    ck_assert_int_eq(source.dtypes['x'], CM_F32);
    ck_assert_int_eq(source.dtypes['w'], CM_F32);
    ck_assert_int_eq(source.dtypes['a'], -1);
    for (int p = GATE; p <= DOWN; p++) {
        cm_tensor tensor;
        char *routed = cm_text("w_%s", names[p]), *shared = cm_text("shared_%s", names[p]);
        cm_tiny_fill(&source, routed, CM_F32, p == DOWN ? "EHI" : "EIH", &tensor);
        for (int e = 0; e < E; e++)
            cm_tiny_expect_matrix(&tensor, e, p == DOWN ? H : I, p == DOWN ? I : H, 100 + 10 * p + e, 1);
        free(tensor.dl.data);
        ck_assert_int_eq(source.has(&source, shared), family->shared != NULL);
        if (family->shared) {
            cm_tiny_fill(&source, shared, CM_F32, p == DOWN ? "HD" : "DH", &tensor);
            cm_tiny_expect_matrix(&tensor, 0, H + D, H + D, 100 + 10 * p + 8, 1);
            free(tensor.dl.data);
        }
        free(routed);
        free(shared);
    }
    ck_assert_int_eq(source.has(&source, "shared_router"), family->gated);
    static const char *const absent[] = {"hidden", "topk_ids", "token_adapter", "lora_rank", "lora_a_gate",
                                         "output", "x"};
    for (size_t n = 0; n < sizeof absent / sizeof *absent; n++)
        ck_assert(!source.has(&source, absent[n]));
    ck_assert_ptr_nonnull(strstr(source.summary, "H 6, I 5, E 4, k 2, layer 1 of 3, f32"));
    ck_assert_str_eq(source.arguments, "--model model --layer 1");
    source.close(&source);
    source.close(&source);
}
END_TEST

static const struct {
    int family, layer;
    cm_tiny_change change;
    cm_status status;
    const char *part;
} bad_models[] = {
    {QWEN3, -1, {0}, CM_BAD_VALUE, "layer -1 is out of range; the model has layers 0-2"},
    {QWEN3, 3, {0}, CM_BAD_VALUE, "layer 3 is out of range; the model has layers 0-2"},
    {DEEPSEEK, 0, {0}, CM_BAD_VALUE, "layer 0 is dense; MoE layers: 1-2"},
    {QWEN3,
     1,
     {.skip = "model.layers.1.mlp.experts.2.up_proj.weight"},
     CM_BAD_FILE,
     "no tensor \"model.layers.1.mlp.experts.2.up_proj.weight\", config.json says 4 experts"},
    {QWEN3,
     1,
     {.skip = "model.layers.1.mlp.experts.0.gate_proj.weight"},
     CM_BAD_FILE,
     "no tensor \"model.layers.1.mlp"},
    {QWEN3,
     1,
     {.odd = "model.layers.1.mlp.experts.2.up_proj.weight", .dtype = CM_F16, .shape = {I, H}},
     CM_BAD_DTYPE,
     "is f16, other weights of the layer are f32"},
    {QWEN3,
     1,
     {.odd = "model.layers.1.mlp.experts.2.up_proj.weight", .dtype = CM_F64, .shape = {I, H}},
     CM_BAD_DTYPE,
     "is F64; expected F32, F16 or BF16"},
    {QWEN3,
     1,
     {.odd = "model.layers.1.mlp.experts.2.up_proj.weight", .dtype = CM_F32, .shape = {H, I}},
     CM_BAD_SHAPE,
     "is [6,5], expected [5,6] by config.json"},
    {QWEN3,
     1,
     {.odd = "model.layers.1.mlp.experts.4.up_proj.weight", .dtype = CM_F32, .shape = {I, H}},
     CM_BAD_SHAPE,
     "layer 1 has an expert 4, config.json says 4 experts"},
    {QWEN3,
     1,
     {.odd = "model.layers.1.mlp.gate.weight", .dtype = CM_F32, .shape = {5, H}},
     CM_BAD_SHAPE,
     "\"model.layers.1.mlp.gate.weight\" is [5,6], config.json says 4 experts"},
    {QWEN3,
     1,
     {.odd = "model.layers.1.mlp.shared_expert.up_proj.weight", .dtype = CM_F32, .shape = {D, H}},
     CM_BAD_SHAPE,
     "config.json says no shared expert"},
    {QWEN2,
     1,
     {.skip = "model.layers.1.mlp.shared_expert.up_proj.weight"},
     CM_BAD_FILE,
     "no tensor mlp.shared_expert.up_proj.weight, config.json says a shared expert of width 7"},
    {QWEN2,
     1,
     {.skip = "model.layers.1.mlp.shared_expert_gate.weight"},
     CM_BAD_FILE,
     "no tensor mlp.shared_expert_gate.weight"},
    {DEEPSEEK,
     1,
     {.odd = "model.layers.1.mlp.shared_experts.up_proj.weight", .dtype = CM_F32, .shape = {D, H}},
     CM_BAD_SHAPE,
     "is [7,6], expected [5,6] by config.json"},
};

START_TEST(refuses_models)
{
    cm_tiny_model(&cm_tiny_families[bad_models[_i].family], &bad_models[_i].change);
    cm_tiny_expect_refusal(bad_models[_i].layer, NULL, NULL, bad_models[_i].status, "model",
                           bad_models[_i].part);
}
END_TEST

START_TEST(refuses_other_layouts)
{
    cm_writer writer = {0};
    cm_tiny_model(&cm_tiny_families[QWEN3], &cm_tiny_no_change);
    cm_writer_add(&writer, "model.layers.1.feed_forward.experts.gate_up_proj", CM_F32, 1, (int64_t[]){4},
                  cm_tiny_pattern, 0);
    cm_writer_save(&writer, "model/model.safetensors");
    cm_tiny_expect_refusal(
        1, NULL, NULL, CM_UNSUPPORTED, "model: ",
        "\"model.layers.1.feed_forward.experts.gate_up_proj\": this layout of fused experts "
        "is not read; save the model per expert");
    cm_writer_add(&writer, "transformer.h.1.w", CM_F32, 1, (int64_t[]){4}, cm_tiny_pattern, 0);
    cm_writer_save(&writer, "model/model.safetensors");
    cm_tiny_expect_refusal(1, NULL, NULL, CM_BAD_FILE, "model: ", "the experts have other names");

    cm_source source;
    cm_error error = {0};
    cm_status status = cm_layer_open(&(cm_layer_options){0}, &source, &error);
    cm_unit_expect(status, &error, CM_BAD_VALUE, "no model directory", "--model");
    error = (cm_error){0};
    status = cm_layer_open(&(cm_layer_options){.model = "model/config.json"}, &source, &error);
    cm_unit_expect(status, &error, CM_BAD_FILE, "model/config.json: ", "not a directory");
}
END_TEST

START_TEST(pads_ranks)
{
    cm_tensor tensor;
    cm_tiny_model(&cm_tiny_families[QWEN3], &cm_tiny_no_change);
    cm_tiny_adapter(SAME_SCALE, CM_BF16, cm_tiny_pattern);
    cm_source source = cm_tiny_open(1, "adapter", NULL);
    ck_assert_int_eq(cm_tiny_dim(&source, 'L'), 1);
    ck_assert_int_eq(cm_tiny_dim(&source, 'r'), 4);
    ck_assert_int_eq(source.dtypes['a'], CM_BF16);
    cm_tiny_fill(&source, "lora_rank", CM_I32, "L", &tensor);
    ck_assert(cm_tensor_get(&tensor.dl, 0) == 4);
    free(tensor.dl.data);
    cm_tiny_fill(&source, "lora_scaling", CM_F32, "L", &tensor);
    ck_assert(cm_tensor_get(&tensor.dl, 0) == 2);
    free(tensor.dl.data);
    for (int p = GATE; p <= UP; p++) {
        cm_tiny_fill(&source, p == GATE ? "lora_a_gate" : "lora_a_up", CM_BF16, "LErH", &tensor);
        for (int e = 0; e < E; e++)
            cm_tiny_expect_matrix(&tensor, e,
                                  e == 2                ? 0
                                  : e == 0 && p == GATE ? 2
                                                        : 4,
                                  H, 1000 + 10 * p + e, 1);
        free(tensor.dl.data);
        cm_tiny_fill(&source, p == GATE ? "lora_b_gate" : "lora_b_up", CM_BF16, "LEIr", &tensor);
        for (int e = 0; e < E; e++)
            cm_tiny_expect_matrix(&tensor, e, e == 2 ? 0 : I, e == 0 && p == GATE ? 2 : 4, 2000 + 10 * p + e,
                                  1);
        free(tensor.dl.data);
    }
    ck_assert(!source.has(&source, "lora_a_down") && !source.has(&source, "lora_b_down"));
    ck_assert(!source.has(&source, "shared_lora_a_up") && !source.has(&source, "token_adapter"));
    ck_assert_ptr_nonnull(
        strstr(source.summary, "adapter r 4 (2 to 4), alpha 8, scale 2, bf16: gate 3/4 experts (without 2), "
                               "up 3/4 (without 2), down 0/4; |B| rms"));
    source.close(&source);
}
END_TEST

// alpha 4 on two modules: scale 1 and, for the one of rank 2, 2; the others have 2.
START_TEST(folds_scales)
{
    cm_tensor tensor;
    cm_tiny_model(&cm_tiny_families[QWEN3], &cm_tiny_no_change);
    cm_tiny_adapter(",\"alpha_pattern\":{\"experts.0.gate_proj\":4,\"experts.1.up_proj\":4}", CM_F32,
                    cm_tiny_pattern);
    cm_source source = cm_tiny_open(1, "adapter", NULL);
    cm_tiny_fill(&source, "lora_scaling", CM_F32, "L", &tensor);
    ck_assert(cm_tensor_get(&tensor.dl, 0) == 2);
    free(tensor.dl.data);
    cm_tiny_fill(&source, "lora_b_up", CM_F32, "LEIr", &tensor);
    cm_tiny_expect_matrix(&tensor, 0, I, 4, 2010, 1);
    cm_tiny_expect_matrix(&tensor, 1, I, 4, 2011, 0.5);
    free(tensor.dl.data);
    cm_tiny_fill(&source, "lora_a_up", CM_F32, "LErH", &tensor);
    cm_tiny_expect_matrix(&tensor, 1, 4, H, 1011, 1);
    free(tensor.dl.data);
    ck_assert_ptr_nonnull(
        strstr(source.summary, "scale 2 (the largest; other modules have theirs folded into lora_B)"));
    source.close(&source);

    cm_tiny_adapter(",\"alpha_pattern\":{\"experts.0.gate_proj\":4,\"experts.1.up_proj\":0.1}", CM_F32,
                    cm_tiny_pattern);
    cm_tiny_expect_refusal(1, "adapter", NULL, CM_UNSUPPORTED, "adapter/adapter_model.safetensors: ",
                           "\"model.layers.1.mlp.experts.1.up_proj\" has scale 0.025, others of the layer 2");
}
END_TEST

START_TEST(reads_shared_adapter)
{
    cm_writer writer = {0};
    cm_tensor tensor;
    cm_tiny_model(&cm_tiny_families[QWEN2], &cm_tiny_no_change);
    cm_tiny_add_pair(&writer, "model.layers.1.mlp.experts.0.down_proj", 4, I, H, CM_F32, cm_tiny_pattern, 1);
    cm_tiny_add_pair(&writer, "model.layers.1.mlp.shared_expert.down_proj", 4, D, H, CM_F32, cm_tiny_pattern,
                     2);
    cm_tiny_add_pair(&writer, "model.layers.1.mlp.shared_expert.up_proj", 4, H, D, CM_F32, cm_tiny_pattern,
                     3);
    cm_tiny_add_pair(&writer, "model.layers.1.self_attn.q_proj", 4, H, H, CM_F32, cm_tiny_pattern, 4);
    cm_tiny_add_pair(&writer, "model.layers.1.mlp.shared_expert_gate", 4, H, 1, CM_F32, cm_tiny_pattern, 5);
    cm_tiny_add_pair(&writer, "lm_head", 4, H, 9, CM_F32, cm_tiny_pattern,
                     6); // tied: the model has no such weight
    cm_tiny_save_adapter(&writer, "");
    cm_source source = cm_tiny_open(1, "adapter", NULL);
    ck_assert(!source.has(&source, "shared_lora_a_gate"));
    cm_tiny_fill(&source, "shared_lora_a_down", CM_F32, "LrD", &tensor);
    cm_tiny_expect_matrix(&tensor, 0, 4, D, 1002, 1);
    free(tensor.dl.data);
    cm_tiny_fill(&source, "shared_lora_b_down", CM_F32, "LHr", &tensor);
    cm_tiny_expect_matrix(&tensor, 0, H, 4, 2002, 1);
    free(tensor.dl.data);
    cm_tiny_fill(&source, "shared_lora_b_up", CM_F32, "LDr", &tensor);
    cm_tiny_expect_matrix(&tensor, 0, D, 4, 2003, 1);
    free(tensor.dl.data);
    cm_tiny_fill(&source, "lora_a_down", CM_F32, "LErI", &tensor);
    cm_tiny_expect_matrix(&tensor, 0, 4, I, 1001, 1);
    cm_tiny_expect_matrix(&tensor, 1, 0, 0, 0, 1);
    free(tensor.dl.data);
    cm_tiny_fill(&source, "shared_router", CM_F32, "1H", &tensor);
    cm_tiny_expect_matrix(&tensor, 0, 1, H, 150, 1);
    free(tensor.dl.data);
    ck_assert_ptr_nonnull(strstr(source.summary, "shared expert D 7 with a gate"));
    ck_assert_ptr_nonnull(strstr(source.summary, "down 1/4 (without 1-3), shared expert 2/3"));
    ck_assert_ptr_nonnull(
        strstr(source.summary, "outside moe_forward: mlp.shared_expert_gate, self_attn.q_proj"));
    source.close(&source);
}
END_TEST

#define EXPERT0 "model.layers.1.mlp.experts.0."

// Each adapter has a good pair for gate of expert 0 in layer 1, unless `alone`, and this one.
static const struct {
    const char *path;
    int64_t in, out;
    cm_dtype dtype;
    bool alone;
    cm_status status;
    const char *start, *part;
} bad_adapters[] = {
    {"model.layers.1.block.experts.0.w1", H, I, CM_F32, true, CM_BAD_FILE,
     "adapter/adapter_model.safetensors: ",
     "adapter matches no tensor of the model (first key: "
     "\"base_model.model.model.layers.1.block.experts.0.w1.lora_A.weight"},
    {"model.layers.1.mlp.experts.4.gate_proj", H, I, CM_F32, false, CM_BAD_FILE,
     "adapter/adapter_model.safetensors: ",
     "2 of 4 adapter tensors match nothing in the model: \"model.layers.1.mlp.experts.4.gate_proj\""},
    {"model.layers.2.mlp.experts.0.gate_proj", H, I, CM_F32, true, CM_BAD_VALUE,
     "adapter: ", "nothing for the experts of layer 1; it adapts those of layers 2"},
    {"model.layers.1.self_attn.q_proj", H, H, CM_F32, true, CM_BAD_VALUE,
     "adapter: ", "adapts no experts in any layer"},
    {EXPERT0 "up_proj", H + 1, I, CM_F32, false, CM_BAD_SHAPE,
     "adapter/adapter_model.safetensors: ", "lora_A is [4,7] and lora_B [5,4]; the base weight is [5,6]"},
    {EXPERT0 "up_proj", H, I + 2, CM_F32, false, CM_BAD_SHAPE, "adapter/",
     "lora_B [7,4]; the base weight is [5,6]"},
    {EXPERT0 "up_proj", H, I, CM_F16, false, CM_BAD_DTYPE, "adapter/",
     "is F16, other matrices of the layer are F32"},
};

START_TEST(refuses_adapters)
{
    cm_writer writer = {0};
    cm_tiny_model(&cm_tiny_families[QWEN3], &cm_tiny_no_change);
    if (!bad_adapters[_i].alone)
        cm_tiny_add_pair(&writer, EXPERT0 "gate_proj", 4, H, I, CM_F32, cm_tiny_pattern, 0);
    cm_tiny_add_pair(&writer, bad_adapters[_i].path, 4, bad_adapters[_i].in, bad_adapters[_i].out,
                     bad_adapters[_i].dtype, cm_tiny_pattern, 1);
    cm_tiny_save_adapter(&writer, "");
    cm_tiny_expect_refusal(1, "adapter", NULL, bad_adapters[_i].status, bad_adapters[_i].start,
                           bad_adapters[_i].part);
}
END_TEST

START_TEST(refuses_fewer_experts)
{
    cm_writer writer = {0};
    cm_tiny_model(&cm_tiny_families[QWEN3], &cm_tiny_no_change);
    for (int e = 0; e < 2; e++) {
        char *path = cm_text("model.layers.1.mlp.experts.%d.up_proj", e);
        cm_tiny_add_pair(&writer, path, 4, H, I, CM_F32, cm_tiny_pattern, e);
        free(path);
    }
    cm_tiny_save_adapter(&writer, "");
    cm_tiny_expect_refusal(1, "adapter", NULL, CM_BAD_SHAPE, "adapter: ",
                           "layer 1: the adapter covers experts 0-1, the model has 4; give the model");
}
END_TEST

START_TEST(warns)
{
    cm_tiny_model(&cm_tiny_families[QWEN3], &cm_tiny_no_change);
    cm_tiny_adapter(SAME_SCALE, CM_F32, cm_tiny_zero);
    cm_source source = cm_tiny_open(1, "adapter", NULL);
    ck_assert_ptr_nonnull(
        strstr(source.summary, "warning: every lora_B is zero: the adapter has no effect (never trained?)"));
    source.close(&source);

    cm_writer writer = {0};
    cm_tiny_add_pair(&writer, EXPERT0 "gate_proj", 4, H, I, CM_BF16, spoilt, 0);
    cm_tiny_save_adapter(&writer, ",\"new_field\":1,\"base_model_name_or_path\":\"org/m\"");
    source = cm_tiny_open(1, "adapter", NULL);
    ck_assert_ptr_nonnull(strstr(source.summary, "warning: tensor \"base_model.model." EXPERT0
                                                 "gate_proj.lora_B.weight\": 1 NaN, 1 Inf, first at [1,2]"));
    ck_assert_ptr_nonnull(strstr(source.summary, "adapter was made for \"org/m\""));
    ck_assert_ptr_nonnull(strstr(source.summary, "not known here: new_field"));
    ck_assert_ptr_null(strstr(source.summary, "every lora_B is zero"));
    source.close(&source);

    cm_tiny_add_pair(&writer, EXPERT0 "gate_proj", 4, H, I, CM_F32, cm_tiny_pattern, 0);
    cm_tiny_save_adapter(&writer, ",\"alpha_pattern\":{\"gate_proj\":0}");
    source = cm_tiny_open(1, "adapter", NULL);
    ck_assert_ptr_nonnull(strstr(source.summary, "warning: the scale is 0"));
    source.close(&source);
}
END_TEST

TCase *cm_unit_layer(void)
{
    TCase *test = tcase_create("layer");
    tcase_add_checked_fixture(test, cm_unit_enter_directory, cm_unit_leave_directory);
    tcase_add_loop_test(test, maps_names, 0, FAMILIES);
    tcase_add_loop_test(test, refuses_models, 0, ROWS(bad_models));
    tcase_add_test(test, refuses_other_layouts);
    tcase_add_test(test, pads_ranks);
    tcase_add_test(test, folds_scales);
    tcase_add_test(test, reads_shared_adapter);
    tcase_add_loop_test(test, refuses_adapters, 0, ROWS(bad_adapters));
    tcase_add_test(test, refuses_fewer_experts);
    tcase_add_test(test, warns);
    return test;
}
