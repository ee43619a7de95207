// SPDX-License-Identifier: Apache-2.0
// PEFT adapters: every field that changes the result is refused by name, patterns give each module its own
// rank and alpha, and every key that is no plain pair is refused.
#include "fixtures/peft.h"
#include "suites/unit/loaders.h"
#include "suites/unit/write_safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PREFIX    "base_model.model."
#define GATE      "model.layers.0.mlp.experts.0.gate_proj"
#define UP        "model.layers.0.mlp.experts.1.up_proj"
#define CONFIG    "ad/adapter_config.json"
#define FILE_NAME "ad/adapter_model.safetensors"

static double ramp(int seed, int64_t row, int64_t column)
{
    return seed + (double)(row + column);
}

static void add(cm_writer *writer, const char *name, cm_dtype dtype, int64_t rows, int64_t columns)
{
    cm_writer_add(writer, name, dtype, 2, (int64_t[]){rows, columns}, ramp, 1);
}

static void add_pair(cm_writer *writer, const char *path, int64_t rank, int64_t in, int64_t out)
{
    char *a = cm_text(PREFIX "%s.lora_A.weight", path), *b = cm_text(PREFIX "%s.lora_B.weight", path);
    add(writer, a, CM_F32, rank, in);
    add(writer, b, CM_F32, out, rank);
    free(a);
    free(b);
}

// GATE with rank 8 and UP with rank 4, 16 -> 12.
static void write_adapter(const char *config)
{
    cm_writer writer = {0};
    mkdir("ad", 0700);
    add_pair(&writer, GATE, 8, 16, 12);
    add_pair(&writer, UP, 4, 16, 12);
    cm_writer_save(&writer, FILE_NAME);
    cm_write_text(CONFIG, config);
}

static void expect_refusal(cm_status want, const char *start, const char *part)
{
    cm_peft peft;
    cm_error error = {0};
    cm_unit_expect(cm_peft_open("ad", &peft, &error), &error, want, start, part);
    cm_peft_close(&peft);
}

#define BASE "\"peft_type\":\"LORA\",\"r\":8,\"lora_alpha\":20"
#define RANK ",\"rank_pattern\":{\"up_proj\":4}"

static const struct {
    const char *config;
    cm_status status;
    const char *part;
} refused[] = {
    {"{\"peft_type\":\"IA3\"}", CM_UNSUPPORTED, "peft_type \"IA3\" is not supported"},
    {"{\"r\":8,\"lora_alpha\":20}", CM_BAD_FILE, "peft_type is nothing"},
    {"{\"peft_type\":\"LORA\",\"lora_alpha\":20}", CM_BAD_FILE, "r is nothing, expected an integer"},
    {"{\"peft_type\":\"LORA\",\"r\":8}", CM_BAD_FILE, "lora_alpha is nothing, expected a number"},
    {"{\"peft_type\":\"LORA\",\"r\":8.0,\"lora_alpha\":20}", CM_BAD_FILE, "r is a real number"},
    {"{\"peft_type\":\"LORA\",\"r\":0,\"lora_alpha\":20}", CM_BAD_VALUE, "r is 0, expected 1 or more"},
    {"{\"peft_type\":\"LORA\",\"r\":8,\"lora_alpha\":\"20\"}", CM_BAD_FILE, "lora_alpha is a string"},
    {"{" BASE ",\"use_rslora\":1}", CM_BAD_FILE, "use_rslora is an integer"},
    {"{" BASE ",\"use_dora\":true}", CM_UNSUPPORTED, "use_dora is not supported"},
    {"{" BASE ",\"use_dora\":\"no\"}", CM_BAD_FILE, "use_dora is a string"},
    {"{" BASE ",\"lora_bias\":true}", CM_UNSUPPORTED, "lora_bias is not supported"},
    {"{" BASE ",\"fan_in_fan_out\":true}", CM_UNSUPPORTED, "fan_in_fan_out is not supported"},
    {"{" BASE ",\"use_qalora\":true}", CM_UNSUPPORTED, "use_qalora is not supported"},
    {"{" BASE ",\"use_bdlora\":{\"a\":1}}", CM_UNSUPPORTED, "use_bdlora is not supported"},
    {"{" BASE ",\"arrow_config\":{\"a\":1}}", CM_UNSUPPORTED, "arrow_config is not supported"},
    {"{" BASE ",\"kasa_config\":{\"a\":1}}", CM_UNSUPPORTED, "kasa_config is not supported"},
    {"{" BASE ",\"monteclora_config\":{\"a\":1}}", CM_UNSUPPORTED, "monteclora_config is not supported"},
    {"{" BASE ",\"bias\":\"all\"}", CM_UNSUPPORTED, "bias \"all\" is not supported"},
    {"{" BASE ",\"bias\":false}", CM_BAD_FILE, "bias is false"},
    {"{" BASE ",\"modules_to_save\":[\"lm_head\"]}", CM_UNSUPPORTED, "modules_to_save is not supported"},
    {"{" BASE ",\"trainable_token_indices\":[3]}", CM_UNSUPPORTED,
     "trainable_token_indices is not supported"},
    {"{" BASE ",\"layer_replication\":[[0,4]]}", CM_UNSUPPORTED, "layer_replication is not supported"},
    {"{" BASE ",\"alora_invocation_tokens\":[1]}", CM_UNSUPPORTED,
     "alora_invocation_tokens is not supported"},
    {"{" BASE ",\"init_lora_weights\":\"pissa\"}", CM_UNSUPPORTED,
     "init_lora_weights \"pissa\" changes the base weights; convert the adapter first"},
    {"{" BASE ",\"init_lora_weights\":\"pissa_niter_4\"}", CM_UNSUPPORTED, "changes the base weights"},
    {"{" BASE ",\"init_lora_weights\":\"olora\"}", CM_UNSUPPORTED, "changes the base weights"},
    {"{" BASE ",\"init_lora_weights\":\"loftq\"}", CM_UNSUPPORTED, "changes the base weights"},
    {"{" BASE ",\"init_lora_weights\":\"new\"}", CM_UNSUPPORTED, "\"new\" is unknown"},
    {"{" BASE ",\"init_lora_weights\":3}", CM_BAD_FILE, "init_lora_weights is an integer"},
    {"{" BASE ",\"target_parameters\":\"mlp.experts.down_proj\"}", CM_BAD_FILE,
     "target_parameters is a string, expected an array of names"},
    {"{" BASE ",\"target_parameters\":[\"mlp.experts.down_proj\",3]}", CM_BAD_FILE,
     "target_parameters[1] is an integer, expected a name"},
    {"{" BASE ",\"rank_pattern\":{\"layers\\\\.[0-9]+\\\\.up\":4}}", CM_UNSUPPORTED,
     "only literal paths and .*\\.name are supported"},
    {"{" BASE ",\"alpha_pattern\":{\"up|down\":4}}", CM_UNSUPPORTED, "alpha_pattern key \"up|down\""},
    {"{" BASE ",\"alpha_pattern\":{\".*up_proj\":4}}", CM_UNSUPPORTED, "only literal paths"},
    {"{" BASE ",\"rank_pattern\":{\"\":4}}", CM_UNSUPPORTED, "only literal paths"},
    {"{" BASE ",\"rank_pattern\":{\"up_proj\":4.0}}", CM_BAD_FILE, "\"up_proj\" is a real number"},
    {"{" BASE ",\"rank_pattern\":[4]}", CM_BAD_FILE, "rank_pattern is an array"},
    {"{" BASE ",\"r\":8}", CM_BAD_FILE, "duplicate"},
};

START_TEST(refuses_config)
{
    write_adapter(refused[_i].config);
    expect_refusal(refused[_i].status, CONFIG ": ", refused[_i].part);
}
END_TEST

// Harmless values of the same fields, all at once.
START_TEST(accepts_harmless_fields)
{
    cm_peft peft;
    cm_error error = {0};
    write_adapter(
        "{" BASE RANK ",\"use_dora\":false,\"lora_bias\":null,\"modules_to_save\":[],\"target_parameters\":[]"
        ",\"bias\":\"none\","
        "\"init_lora_weights\":\"gaussian\",\"loftq_config\":{},\"brand_new_field\":1,\"another\":null,"
        "\"base_model_name_or_path\":\"org/model\",\"use_bdlora\":false}");
    cm_unit_expect(cm_peft_open("ad", &peft, &error), &error, CM_OK, NULL, NULL);
    ck_assert_str_eq(peft.unknown, "brand_new_field, another");
    ck_assert_str_eq(peft.base_model, "org/model");
    ck_assert_int_eq(peft.r, 8);
    ck_assert_uint_eq(peft.count, 2);
    const cm_peft_module *gate = cm_peft_find(&peft, GATE);
    ck_assert_ptr_nonnull(gate);
    ck_assert_int_eq(gate->rank, 8);
    ck_assert_int_eq(gate->in, 16);
    ck_assert_int_eq(gate->out, 12);
    ck_assert(gate->scale == 2.5);
    ck_assert(cm_load(gate->b->data, CM_F32, 9) == 1 + 1 + 1);
    ck_assert_ptr_null(cm_peft_find(&peft, "model.layers.0.mlp.experts.0"));
    cm_peft_close(&peft);
    cm_peft_close(&peft);
}
END_TEST

// What rank and alpha of UP (rank 4 in the file) become; the expected scale says which key won.
static const struct {
    const char *patterns;
    double scale;
} patterns[] = {
    {"\"rank_pattern\":{\"up_proj\":4}", 20 / 4.},
    {"\"rank_pattern\":{\".*\\\\.up_proj\":4}", 20 / 4.},
    {"\"rank_pattern\":{\"experts.1.up_proj\":4}", 20 / 4.},
    {"\"rank_pattern\":{\"experts\\\\.1\\\\.up_proj\":4}", 20 / 4.},
    {"\"rank_pattern\":{\"" UP "\":4}", 20 / 4.},
    {"\"rank_pattern\":{\"" UP "\":4,\"up_proj\":5}", 20 / 4.},
    {"\"rank_pattern\":{\"gate\":3,\"p_proj\":3,\"proj\":3,\"1.up\":3,\"up_proj\":4}", 20 / 4.},
    {"\"rank_pattern\":{\"up_proj\":4},\"alpha_pattern\":{\"up_proj\":6,\"experts.1.up_proj\":7}", 6 / 4.},
    {"\"rank_pattern\":{\"up_proj\":4},\"alpha_pattern\":{\"experts.1.up_proj\":7,\"up_proj\":6}", 7 / 4.},
    {"\"rank_pattern\":{\"up_proj\":4},\"alpha_pattern\":{\"experts.0.up_proj\":7}", 20 / 4.},
    {"\"rank_pattern\":{\"up_proj\":4},\"alpha_pattern\":{\"up_proj\":0.5},\"use_rslora\":true", 0.5 / 2},
    {"\"rank_pattern\":{\"up_proj\":4},\"use_rslora\":true", 20 / 2.},
};

START_TEST(applies_patterns)
{
    cm_peft peft;
    cm_error error = {0};
    char *config = cm_text("{" BASE ",%s}", patterns[_i].patterns);
    write_adapter(config);
    free(config);
    cm_unit_expect(cm_peft_open("ad", &peft, &error), &error, CM_OK, NULL, NULL);
    const cm_peft_module *up = cm_peft_find(&peft, UP), *gate = cm_peft_find(&peft, GATE);
    ck_assert(up->scale == patterns[_i].scale);
    ck_assert(gate->scale == (peft.rslora ? 20 / sqrt(8) : 2.5));
    cm_peft_close(&peft);
}
END_TEST

START_TEST(refuses_ranks)
{
    write_adapter("{" BASE "}");
    expect_refusal(CM_BAD_SHAPE, FILE_NAME ": ", "\"" UP "\": lora_A has rank 4, " CONFIG " says r = 8");
    write_adapter("{" BASE ",\"rank_pattern\":{\"up_proj\":5,\"" UP "\":4}}"); // the first one wins
    expect_refusal(CM_BAD_SHAPE, FILE_NAME ": ", "says r = 5");

    cm_writer writer = {0};
    add(&writer, PREFIX GATE ".lora_A.weight", CM_F32, 8, 16);
    add(&writer, PREFIX GATE ".lora_B.weight", CM_F32, 12, 16);
    cm_writer_save(&writer, FILE_NAME);
    expect_refusal(CM_BAD_SHAPE, FILE_NAME ": ", "lora_A has rank 8, lora_B 16");
}
END_TEST

// A single key beside a good pair.
static const struct {
    const char *key;
    cm_dtype dtype;
    cm_status status;
    const char *part;
} keys[] = {
    {PREFIX UP ".lora_A.weight", CM_F32, CM_BAD_FILE, UP "\": lora_A without lora_B"},
    {PREFIX UP ".lora_B.weight", CM_F32, CM_BAD_FILE, UP "\": lora_B without lora_A"},
    {PREFIX UP ".lora_A.default.weight", CM_F32, CM_UNSUPPORTED, "has the adapter's name in the key"},
    {PREFIX UP ".lora_B.my.weight", CM_F32, CM_UNSUPPORTED, "has the adapter's name in the key"},
    {PREFIX UP ".lora_B.bias", CM_F32, CM_UNSUPPORTED, "lora_bias is not supported"},
    {PREFIX UP ".lora_magnitude_vector", CM_F32, CM_UNSUPPORTED, "DoRA is not supported"},
    {PREFIX UP ".lora_magnitude_vector.weight", CM_F32, CM_UNSUPPORTED, "DoRA is not supported"},
    {PREFIX "model.embed_tokens.lora_embedding_A", CM_F32, CM_UNSUPPORTED, "LoRA on embeddings"},
    {PREFIX "lm_head.weight", CM_F32, CM_UNSUPPORTED, "not a LoRA matrix (modules_to_save"},
    {"model.layers.0.up.lora_A.weight", CM_F32, CM_UNSUPPORTED, "does not begin with base_model.model."},
    {"base_model.model.lora_A.weight", CM_F32, CM_UNSUPPORTED,
     "does not begin with base_model.model. and a module"},
    {PREFIX ".lora_A.weight", CM_F32, CM_UNSUPPORTED, "and a module"},
};

START_TEST(refuses_keys)
{
    cm_writer writer = {0};
    write_adapter("{" BASE "}");
    add_pair(&writer, GATE, 8, 16, 12);
    add(&writer, keys[_i].key, keys[_i].dtype, 8, 8);
    cm_writer_save(&writer, FILE_NAME);
    expect_refusal(keys[_i].status, FILE_NAME ": ", keys[_i].part);
}
END_TEST

START_TEST(refuses_matrices)
{
    cm_writer writer = {0};
    write_adapter("{" BASE "}");
    add(&writer, PREFIX GATE ".lora_A.weight", CM_F64, 8, 16);
    add(&writer, PREFIX GATE ".lora_B.weight", CM_F32, 12, 8);
    cm_writer_save(&writer, FILE_NAME);
    expect_refusal(CM_BAD_DTYPE, FILE_NAME ": ", "lora_A.weight\" is F64; expected F32, F16 or BF16");

    add(&writer, PREFIX GATE ".lora_A.weight", CM_F32, 8, 16);
    cm_writer_add(&writer, PREFIX GATE ".lora_B.weight", CM_F32, 1, (int64_t[]){96}, ramp, 0);
    cm_writer_save(&writer, FILE_NAME);
    expect_refusal(CM_BAD_SHAPE, FILE_NAME ": ", "lora_B.weight\" is [96]; expected two dimensions");

    add(&writer, PREFIX GATE ".lora_A.weight", CM_F32, 0, 16);
    add(&writer, PREFIX GATE ".lora_B.weight", CM_F32, 12, 0);
    cm_writer_save(&writer, FILE_NAME);
    expect_refusal(CM_BAD_SHAPE, FILE_NAME ": ", "is [0,16]; expected two dimensions of 1 or more");

    cm_writer_save(&writer, FILE_NAME);
    expect_refusal(CM_BAD_FILE, FILE_NAME ": ", "no LoRA matrices in it");
}
END_TEST

START_TEST(refuses_directories)
{
    expect_refusal(CM_BAD_FILE, "ad: ", "not a directory");
    mkdir("ad", 0700);
    expect_refusal(CM_BAD_FILE, FILE_NAME ": ", "no such file");
    cm_write_text("ad/adapter_model.bin", "x");
    expect_refusal(CM_UNSUPPORTED, "ad/adapter_model.bin: ", "a PyTorch checkpoint (torch.save)");
    write_adapter("{}");
    remove(CONFIG);
    expect_refusal(CM_BAD_FILE, CONFIG ": ", "cannot be opened");
    cm_write_text(CONFIG, "{" BASE "}");
    cm_write_text(FILE_NAME, "version https://git-lfs.github.com/spec/v1\n");
    expect_refusal(CM_BAD_FILE, FILE_NAME ": ", "a Git LFS pointer of 43 bytes");
}
END_TEST

TCase *cm_unit_peft(void)
{
    TCase *test = tcase_create("peft");
    tcase_add_checked_fixture(test, cm_unit_enter_directory, cm_unit_leave_directory);
    tcase_add_loop_test(test, refuses_config, 0, (int)(sizeof refused / sizeof *refused));
    tcase_add_test(test, accepts_harmless_fields);
    tcase_add_loop_test(test, applies_patterns, 0, (int)(sizeof patterns / sizeof *patterns));
    tcase_add_test(test, refuses_ranks);
    tcase_add_loop_test(test, refuses_keys, 0, (int)(sizeof keys / sizeof *keys));
    tcase_add_test(test, refuses_matrices);
    tcase_add_test(test, refuses_directories);
    return test;
}
