// SPDX-License-Identifier: Apache-2.0
// Fused models and adapters that contradict themselves, each other or the config: one sentence each.
#include "suites/unit/loaders.h"
#include "suites/unit/tiny_fused.h"

#include <stdlib.h>
#include <string.h>

#define ROWS(table) (int)(sizeof(table) / sizeof *(table))

// Matrices of at most two modules; rows of lora_A 0: none.
static const struct {
    const char *targets;
    struct {
        const char *path;
        int64_t a_rows, a_columns, b_rows, b_columns;
    } modules[2];
    cm_status status;
    const char *start, *part;
} refused[] = {
    {"[\"experts.down_proj\"]",
     {{"model.layers.1.mlp.experts", 17, I, H, 17}},
     CM_BAD_SHAPE,
     ADAPTER,
     "\"" FUSED "down_proj\": rows(lora_A) = 17 is not a multiple of 4 experts; give the model"},
    {"[\"experts.down_proj\"]",
     {{"model.layers.1.mlp.experts", 16, I, H, 12}},
     CM_BAD_SHAPE,
     ADAPTER,
     "lora_A has rank 16, lora_B 12"},
    {"[\"experts.down_proj\"]",
     {{"model.layers.1.mlp.experts", 8, I, H, 8}},
     CM_BAD_SHAPE,
     ADAPTER,
     "lora_A has rank 2 for each of 4 experts, adapter/adapter_config.json says r = 4; give the model"},
    {"[\"experts.down_proj\"]",
     {{"model.layers.1.mlp.experts", 16, 7, H, 16}},
     CM_BAD_SHAPE,
     ADAPTER,
     "\"" FUSED "down_proj\": lora_A is [16,7], lora_B [6,16]; the base is [4,6,5]; give the model"},
    {"[\"experts.down_proj\"]",
     {{"model.layers.1.mlp.experts", 16, H, 10, 16}},
     CM_BAD_SHAPE,
     ADAPTER,
     "lora_A is [16,6], lora_B [10,16]; the base is [4,6,5]"}, // gate_up's under the name of down
    {"[\"experts.gate_up_proj\",\"experts.down_proj\"]",
     {{"model.layers.1.mlp.experts.base_layer", 16, H, 10, 16}, {"model.layers.1.mlp.experts", 16, H, I, 16}},
     CM_BAD_SHAPE,
     ADAPTER,
     "is in_first, \"" FUSED "gate_up_proj\" is out_first; one release of PEFT saves them alike"},
    {"[\"experts.gate_up_proj\",\"experts.down_proj\"]",
     {{"model.layers.1.mlp.experts", 16, I, H, 16}},
     CM_BAD_FILE,
     ADAPTER,
     "target_parameters of adapter/adapter_config.json names 2 parameters of \"model.layers.1.mlp.experts\", "
     "the "
     "file has 1 wrapper level; give the config"},
    {"[\"experts.down_proj\"]",
     {{"model.layers.1.mlp.experts.base_layer", 16, H, 10, 16}, {"model.layers.1.mlp.experts", 16, I, H, 16}},
     CM_BAD_FILE,
     ADAPTER,
     "names 1 parameter of \"model.layers.1.mlp.experts\", the file has 2 wrapper levels"},
    {"[\"experts.gate_up_proj\",\"experts.down_proj\"]",
     {{"model.layers.1.mlp.experts.base_layer.base_layer", 16, H, 10, 16},
      {"model.layers.1.mlp.experts", 16, I, H, 16}},
     CM_BAD_FILE,
     ADAPTER,
     "names 2 parameters of \"model.layers.1.mlp.experts\""},
    {"[]",
     {{"model.layers.1.mlp.experts", 16, I, H, 16}},
     CM_BAD_FILE,
     ADAPTER,
     "adapts a parameter of fused experts, but target_parameters of adapter/adapter_config.json names none "
     "of "
     "\"model.layers.1.mlp.experts\""},
    {"null",
     {{"model.layers.1.block_sparse_moe.input_linear", 16, H, 10, 16}},
     CM_BAD_FILE,
     ADAPTER,
     "names none of \"model.layers.1.block_sparse_moe.input_linear\""},
    {"[\"other.experts.down_proj\"]",
     {{"model.layers.1.mlp.experts", 16, I, H, 16}},
     CM_BAD_FILE,
     ADAPTER,
     "names none of"},
    {"[\"mlp.experts.gate_up_proj_bias\"]",
     {{"model.layers.1.mlp.experts", 16, I, H, 16}},
     CM_UNSUPPORTED,
     "adapter/adapter_config.json: ",
     "target_parameters \"mlp.experts.gate_up_proj_bias\" is not supported; only gate_up_proj and down_proj"},
    {"[\"experts.down_proj\"]",
     {{"model.layers.1.mlp.experts", 16, I, 0, 0}},
     CM_BAD_FILE,
     ADAPTER,
     "\"base_model.model.model.layers.1.mlp.experts\": lora_A without lora_B"},
    {"[\"experts.down_proj\"]",
     {{"model.layers.1.mlp.experts", 0, 0, H, 16}},
     CM_BAD_FILE,
     ADAPTER,
     "\"base_model.model.model.layers.1.mlp.experts\": lora_B without lora_A"},
    {"[\"experts.down_proj\"]",
     {{"model.layers.1.mlp.experts", 16, I, H, 16}, {"model.layers.1.mlp.experts.0.down_proj", 4, I, H, 4}},
     CM_BAD_FILE,
     "adapter: ",
     "\"model.layers.1.mlp.experts.0.down_proj\" and \"" FUSED
     "down_proj\" adapt the same weight; remove one"},
    {"[\"experts.down_proj\"]",
     {{"model.layers.9.mlp.experts", 16, I, H, 16}},
     CM_BAD_FILE,
     ADAPTER,
     "adapter matches no tensor of the model (first key: "
     "\"base_model.model.model.layers.9.mlp.experts.lora_A.weight\")"},
    {"[\"experts.down_proj\"]",
     {{"model.layers.1.mlp.experts", 16, I, H, 16}, {"model.layers.9.mlp.experts", 16, I, H, 16}},
     CM_BAD_FILE,
     ADAPTER,
     "2 of 4 adapter tensors match nothing in the model: \"model.layers.9.mlp.experts.down_proj\""},
    {"[\"experts.down_proj\"]",
     {{"model.layers.1.mlp.experts", 16, I, H, 16}, {"model.layers.1.mlp.experts.4.up_proj", 4, H, I, 4}},
     CM_BAD_FILE,
     ADAPTER,
     "match nothing in the model: \"model.layers.1.mlp.experts.4.up_proj\""},
    {"[\"experts.down_proj\"]",
     {{"model.layers.1.mlp.experts", 16, I, H, 16}, {"model.layers.1.mlp.experts.1.up_proj", 4, H, H, 4}},
     CM_BAD_SHAPE,
     ADAPTER,
     "lora_A is [4,6] and lora_B [6,4]; the base weight is [5,6]; give the model"},
    {"[\"experts.down_proj\"]",
     {{"model.layers.2.mlp.experts", 16, I, H, 16}},
     CM_BAD_VALUE,
     "adapter: ",
     "nothing for the experts of layer 1; it adapts those of layers 2"},
};

START_TEST(refuses_fused_adapters)
{
    cm_writer writer = {0};
    cm_tiny_fused_qwen(I);
    for (int n = 0; n < 2 && refused[_i].modules[n].path; n++) {
        if (refused[_i].modules[n].a_rows)
            cm_tiny_add_matrix(&writer, refused[_i].modules[n].path, "A", refused[_i].modules[n].a_rows,
                               refused[_i].modules[n].a_columns, 1);
        if (refused[_i].modules[n].b_rows)
            cm_tiny_add_matrix(&writer, refused[_i].modules[n].path, "B", refused[_i].modules[n].b_rows,
                               refused[_i].modules[n].b_columns, 2);
    }
    char *config = cm_text("\"target_parameters\":%s", refused[_i].targets);
    cm_tiny_save(&writer, config);
    free(config);
    cm_tiny_refuse_with(&cm_tiny_with_adapter, refused[_i].status, refused[_i].start, refused[_i].part);
}
END_TEST

// One fused tensor is replaced; ndim 0 leaves it out. `beside` is added.
static const struct {
    const char *name;
    cm_dtype dtype;
    int ndim;
    int64_t shape[3];
    const char *beside;
    cm_status status;
    const char *part;
} bad_bases[] = {
    {"down_proj",
     CM_F32,
     3,
     {E, I, H},
     NULL,
     CM_BAD_SHAPE,
     "down_proj\" is [4,5,6], expected [4,6,5] by config.json"},
    {"gate_up_proj",
     CM_F32,
     3,
     {E, I, H},
     NULL,
     CM_BAD_SHAPE,
     "is [4,5,6], expected [4,10,6] by config.json"},
    {"gate_up_proj",
     CM_F32,
     3,
     {5, 10, H},
     NULL,
     CM_BAD_SHAPE,
     "is [5,10,6], expected [4,10,6] by config.json"},
    {"gate_up_proj",
     CM_F32,
     2,
     {E * 10, H},
     NULL,
     CM_BAD_SHAPE,
     "is [40,6], expected [4,10,6] by config.json"},
    {"down_proj",
     CM_F32,
     0,
     {0},
     NULL,
     CM_BAD_FILE,
     "no tensor \"" FUSED "down_proj\", config.json says 4 experts"},
    {"gate_up_proj", CM_F32, 0, {0}, NULL, CM_BAD_FILE, "no tensor \"" FUSED "gate_up_proj\""},
    {"down_proj", CM_BF16, 3, {E, H, I}, NULL, CM_BAD_DTYPE, "is bf16, other weights of the layer are f32"},
    {"gate_up_proj", CM_F64, 3, {E, 10, H}, NULL, CM_BAD_DTYPE, "is F64; expected F32, F16 or BF16"},
    {NULL, CM_F32, 3, {0}, FUSED "0.up_proj.weight", CM_BAD_FILE, "layer 1 has its experts twice"},
};

START_TEST(refuses_fused_bases)
{
    static const char *const names[] = {"gate_up_proj", "down_proj"};
    cm_writer writer = {0};
    cm_tiny_config("\"model_type\":\"qwen3_moe\",\"num_experts\":4", I);
    for (int n = 0; n < 2; n++) {
        char *name = cm_text(FUSED "%s", names[n]);
        const int64_t good[] = {E, n ? H : 2 * I, n ? I : H};
        if (!bad_bases[_i].name || strcmp(bad_bases[_i].name, names[n]))
            cm_writer_add(&writer, name, CM_F32, 3, good, cm_tiny_pattern, n);
        else if (bad_bases[_i].ndim)
            cm_writer_add(&writer, name, bad_bases[_i].dtype, bad_bases[_i].ndim, bad_bases[_i].shape,
                          cm_tiny_pattern, n);
        free(name);
    }
    if (bad_bases[_i].beside)
        cm_writer_add(&writer, bad_bases[_i].beside, CM_F32, 2, (int64_t[]){I, H}, cm_tiny_pattern, 3);
    cm_writer_save(&writer, "model/model.safetensors");
    cm_tiny_refuse_with(&(cm_layer_options){.model = "model", .layer = 1}, bad_bases[_i].status, "model",
                        bad_bases[_i].part);
}
END_TEST

TCase *cm_unit_fused_bad(void)
{
    TCase *test = tcase_create("fused_bad");
    tcase_add_checked_fixture(test, cm_unit_enter_directory, cm_unit_leave_directory);
    tcase_add_loop_test(test, refuses_fused_adapters, 0, ROWS(refused));
    tcase_add_loop_test(test, refuses_fused_bases, 0, ROWS(bad_bases));
    return test;
}
