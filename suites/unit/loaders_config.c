// SPDX-License-Identifier: Apache-2.0
// config.json of the families: shapes as released (cut to a few layers), the pattern of MoE layers, refusals.
#include "fixtures/config.h"
#include "suites/unit/loaders.h"
#include "suites/unit/write_safetensors.h"

#include <string.h>

#define COMMON "\"hidden_size\":64,\"num_hidden_layers\":6,\"hidden_act\":\"silu\","

static const struct model {
    const char *text;
    int64_t H, I, E, k, D;
    bool gated;
    const char *moe_layers;
} models[] = {
    {"{\"model_type\":\"mixtral\"," COMMON "\"num_local_experts\":8,\"num_experts_per_tok\":2,"
     "\"intermediate_size\":96}",
     64, 96, 8, 2, 0, false, "0-5"},
    {"{\"model_type\":\"qwen3_moe\"," COMMON
     "\"num_experts\":128,\"num_experts_per_tok\":8,\"moe_intermediate_size\":"
     "48,\"intermediate_size\":512,\"mlp_only_layers\":[1,4],\"decoder_sparse_step\":1,\"n_group\":null}",
     64, 48, 128, 8, 0, false, "0, 2-3, 5"},
    {"{\"model_type\":\"qwen2_moe\"," COMMON
     "\"num_experts\":60,\"num_experts_per_tok\":4,\"moe_intermediate_size\":"
     "44,\"intermediate_size\":512,\"shared_expert_intermediate_size\":176,\"decoder_sparse_step\":2}",
     64, 44, 60, 4, 176, true, "1, 3, 5"},
    {"{\"model_type\":\"deepseek_v2\"," COMMON "\"n_routed_experts\":64,\"num_experts_per_tok\":6,"
     "\"moe_intermediate_size\":44,\"intermediate_size\":342,\"n_shared_experts\":2,\"first_k_dense_"
     "replace\":1,"
     "\"moe_layer_freq\":1,\"n_group\":1,\"topk_group\":1}",
     64, 44, 64, 6, 88, false, "1-5"},
    {"{\"model_type\":\"glm4_moe\"," COMMON "\"n_routed_experts\":128,\"num_experts_per_tok\":8,"
     "\"moe_intermediate_size\":44,\"intermediate_size\":342,\"n_shared_experts\":1,\"first_k_dense_"
     "replace\":3}",
     64, 44, 128, 8, 44, false, "3-5"},
    {"{\"model_type\":\"afmoe\"," COMMON
     "\"num_experts\":16,\"num_experts_per_tok\":4,\"moe_intermediate_size\":32,"
     "\"intermediate_size\":192,\"num_shared_experts\":1,\"num_dense_layers\":2}",
     64, 32, 16, 4, 32, false, "2-5"},
    {"{\"model_type\":\"ernie4_5_moe\"," COMMON
     "\"moe_num_experts\":16,\"moe_k\":4,\"moe_intermediate_size\":32,"
     "\"moe_num_shared_experts\":2,\"moe_layer_interval\":2,\"moe_layer_start_index\":1,\"moe_layer_end_"
     "index\":-1}",
     64, 32, 16, 4, 64, false, "1, 3, 5"},
    {"{\"model_type\":\"jamba\"," COMMON
     "\"num_experts\":16,\"num_experts_per_tok\":2,\"intermediate_size\":32,"
     "\"expert_layer_period\":2,\"expert_layer_offset\":1}",
     64, 32, 16, 2, 0, false, "1, 3, 5"},
    {"{\"model_type\":\"some_vl\",\"text_config\":{\"model_type\":\"qwen3_moe\"," COMMON
     "\"num_experts\":4,\"num_experts_per_tok\":2,\"moe_intermediate_size\":48}}",
     64, 48, 4, 2, 0, false, "0-5"},
    {"{\"model_type\":\"dbrx\",\"d_model\":64,\"n_layers\":3,\"ffn_config\":{\"moe_num_experts\":16,\"moe_"
     "top_k\":4,"
     "\"ffn_hidden_size\":80,\"ffn_act_fn\":{\"name\":\"silu\"}}}",
     64, 80, 16, 4, 0, false, "0-2"},
    {"{\"model_type\":\"new_moe\"," COMMON
     "\"num_experts\":[8,8],\"moe_topk\":[2,2],\"intermediate_size\":96}",
     64, 96, 8, 2, 0, false, "0-5"},
};

START_TEST(reads_families)
{
    const struct model *model = &models[_i];
    cm_moe_config config;
    cm_error error = {0};
    char ranges[64];
    cm_write_text("config.json", model->text);
    cm_unit_expect(cm_moe_config_open("config.json", &config, &error), &error, CM_OK, NULL, NULL);
    ck_assert_int_eq(config.H, model->H);
    ck_assert_int_eq(config.I, model->I);
    ck_assert_int_eq(config.E, model->E);
    ck_assert_int_eq(config.k, model->k);
    ck_assert_int_eq(config.D, model->D);
    ck_assert_int_eq(config.shared_gated, model->gated);
    ck_assert_str_eq(config.activation, "silu");
    ck_assert_str_eq(cm_ranges(config.moe_layers, config.layers, ranges, sizeof ranges), model->moe_layers);
    ck_assert(!cm_moe_config_layer_is_moe(&config, -1));
    ck_assert(!cm_moe_config_layer_is_moe(&config, config.layers));
    cm_moe_config_close(&config);
    cm_moe_config_close(&config);
}
END_TEST

#define EXPERTS "\"num_experts\":8,\"num_experts_per_tok\":2,"
#define WIDTH   "\"moe_intermediate_size\":48,"

static const struct {
    const char *text;
    cm_status status;
    const char *part;
} refused[] = {
    {"[1]", CM_BAD_FILE, "holds an array, expected an object"},
    {"{\"a\":1,}", CM_BAD_FILE, "line 1"},
    {"{\"hidden_size\":1,\"hidden_size\":2}", CM_BAD_FILE, "duplicate"},
    {"{" COMMON WIDTH "\"model_type\":\"llama\"}", CM_UNSUPPORTED, "no experts: llama is a dense model"},
    {"{" COMMON WIDTH "\"num_experts\":1}", CM_UNSUPPORTED, "no experts"},
    {"{" COMMON WIDTH "\"num_experts\":0}", CM_UNSUPPORTED, "no experts"},
    {"{" COMMON WIDTH "\"num_experts\":[]}", CM_UNSUPPORTED, "no experts"},
    {"{" COMMON WIDTH "\"expert_capacity\":64,\"router_aux_loss_coef\":0.01}", CM_UNSUPPORTED, "no experts"},
    {"{" COMMON WIDTH "\"num_experts\":8}", CM_BAD_FILE, "\"num_experts_per_tok\" is missing"},
    {"{" COMMON WIDTH "\"num_experts\":8,\"num_experts_per_tok\":null}", CM_BAD_FILE, "is missing"},
    {"{" COMMON WIDTH "\"num_experts\":8,\"num_experts_per_tok\":9}", CM_BAD_VALUE, "is 9, expected 1 to 8"},
    {"{" COMMON WIDTH "\"num_experts\":8,\"num_experts_per_tok\":0}", CM_BAD_VALUE, "is 0, expected 1 to 8"},
    {"{" COMMON WIDTH "\"num_experts\":8.0,\"num_experts_per_tok\":2}", CM_BAD_FILE,
     "\"num_experts\" is a real number, expected an integer"},
    {"{" COMMON WIDTH "\"num_experts\":[8,4],\"num_experts_per_tok\":2}", CM_UNSUPPORTED,
     "differs between layers"},
    {"{" COMMON EXPERTS "\"model_type\":\"new\"}", CM_BAD_FILE, "\"intermediate_size\" is missing"},
    {"{" COMMON EXPERTS "\"model_type\":\"deepseek_v2\",\"intermediate_size\":342}", CM_BAD_FILE,
     "\"moe_intermediate_size\" is missing; in deepseek_v2 \"intermediate_size\" is the width of the dense "
     "layers"},
    {"{" EXPERTS WIDTH "\"num_hidden_layers\":2,\"hidden_act\":\"silu\"}", CM_BAD_FILE,
     "\"hidden_size\" is missing"},
    {"{" EXPERTS WIDTH "\"hidden_size\":64,\"hidden_act\":\"silu\"}", CM_BAD_FILE,
     "\"num_hidden_layers\" is missing"},
    {"{" EXPERTS WIDTH "\"hidden_size\":64,\"num_hidden_layers\":2000000000,\"hidden_act\":\"silu\"}",
     CM_BAD_VALUE, "\"num_hidden_layers\" is 2000000000"},
    {"{" EXPERTS WIDTH "\"hidden_size\":64,\"num_hidden_layers\":2}", CM_BAD_FILE,
     "\"hidden_act\" is missing"},
    {"{" EXPERTS WIDTH "\"hidden_size\":64,\"num_hidden_layers\":2,\"hidden_act\":\"gelu\"}", CM_UNSUPPORTED,
     "\"hidden_act\" is \"gelu\"; only silu is implemented"},
    {"{" COMMON EXPERTS WIDTH "\"n_group\":3}", CM_BAD_VALUE, "do not fit 8 experts"},
    {"{" COMMON EXPERTS WIDTH "\"n_group\":4,\"topk_group\":5}", CM_BAD_VALUE, "do not fit 8 experts"},
    {"{" COMMON EXPERTS WIDTH "\"decoder_sparse_step\":0}", CM_BAD_VALUE, "\"decoder_sparse_step\" is 0"},
    {"{" COMMON EXPERTS WIDTH "\"mlp_only_layers\":3}", CM_BAD_FILE, "\"mlp_only_layers\" is an integer"},
    {"{" COMMON EXPERTS WIDTH "\"model_type\":\"gpt_oss\"}", CM_UNSUPPORTED,
     "not implemented: its experts use a clamped"},
    {"{\"model_type\":\"llama4\",\"text_config\":{}}", CM_UNSUPPORTED, "\"llama4\" is not implemented"},
    {"{\"model_type\":\"x\",\"text_config\":{\"num_experts\":8,\"model_type\":\"llama4_text\"}}",
     CM_UNSUPPORTED, "\"llama4_text\" is not implemented"},
    {"{\"model_type\":3}", CM_BAD_FILE, "\"model_type\" is an integer"},
};

START_TEST(refuses)
{
    cm_moe_config config;
    cm_error error = {0};
    cm_write_text("config.json", refused[_i].text);
    cm_status status = cm_moe_config_open("config.json", &config, &error);
    cm_unit_expect(status, &error, refused[_i].status, "config.json: ", refused[_i].part);
}
END_TEST

START_TEST(refuses_absent_file)
{
    cm_moe_config config;
    cm_error error = {0};
    cm_status status = cm_moe_config_open("no/config.json", &config, &error);
    cm_unit_expect(status, &error, CM_BAD_FILE, "no/config.json: ", "give a model directory");
}
END_TEST

TCase *cm_unit_config(void)
{
    TCase *test = tcase_create("config");
    tcase_add_checked_fixture(test, cm_unit_enter_directory, cm_unit_leave_directory);
    tcase_add_loop_test(test, reads_families, 0, (int)(sizeof models / sizeof *models));
    tcase_add_loop_test(test, refuses, 0, (int)(sizeof refused / sizeof *refused));
    tcase_add_test(test, refuses_absent_file);
    return test;
}
