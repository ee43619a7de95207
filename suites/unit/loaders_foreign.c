// SPDX-License-Identifier: Apache-2.0
// An adapter of another family may have the shapes of this model: names alone tell that its experts are not
// these. Every pair of families, and each family's own adapters on files of both releases of transformers.
#include "suites/unit/loaders.h"
#include "suites/unit/tiny_fused.h"

#include <stdlib.h>
#include <string.h>

#define ROWS(table) (int)(sizeof(table) / sizeof *(table))
#define LAYER       "model.layers.1."

// Models on disk: a family's own files, and those with fused experts.
enum model { QWEN3_APART, MIXTRAL_APART, DEEPSEEK_APART, QWEN2_APART, QWEN3_FUSED, MIXTRAL_FUSED, GRANITE };

static void write_model(enum model model)
{
    static const struct fused {
        const char *type, *gate_up, *down;
    } fused[] = {
        {"\"model_type\":\"qwen3_moe\",\"num_experts\":4", "mlp.experts.gate_up_proj",
         "mlp.experts.down_proj"},
        {"\"model_type\":\"mixtral\",\"num_local_experts\":4", "mlp.experts.gate_up_proj",
         "mlp.experts.down_proj"},
        {"\"model_type\":\"granitemoe\",\"num_local_experts\":4", "block_sparse_moe.input_linear.weight",
         "block_sparse_moe.output_linear.weight"},
    };
    const struct fused *row = &fused[model < QWEN3_FUSED ? 0 : model - QWEN3_FUSED];
    if (model < QWEN3_FUSED)
        cm_tiny_model(&cm_tiny_families[model], &cm_tiny_no_change);
    else
        cm_tiny_fused(row->type, row->gate_up, row->down, I);
}

// A pair behind "model.layers.1."; `all`: of every expert, whose number is the 0 of the path.
struct pair {
    const char *path;
    int64_t in, out;
    bool all, fused;
};

static const struct pair qwen[] = {{"mlp.experts.0.gate_proj", H, I, true, false},
                                   {"mlp.experts.0.down_proj", I, H, true, false}};
static const struct pair mixtral[] = {{"block_sparse_moe.experts.0.w1", H, I, true, false},
                                      {"block_sparse_moe.experts.0.w2", I, H, true, false}};
static const struct pair mixtral_first[] = {{"block_sparse_moe.experts.0.w1", H, I, false, false}};
static const struct pair deepseek[] = {{"mlp.experts.0.gate_proj", H, I, true, false},
                                       {"mlp.shared_experts.gate_proj", H, I, false, false}};
static const struct pair qwen2[] = {{"mlp.experts.0.gate_proj", H, I, true, false},
                                    {"mlp.shared_expert.gate_proj", H, I, false, false}};
static const struct pair granite[] = {{"block_sparse_moe.input_linear", H, 2 * I, false, true},
                                      {"block_sparse_moe.output_linear", I, H, false, true}};
static const struct pair later[] = {{"mlp.experts.base_layer", H, 2 * I, false, true},
                                    {"mlp.experts", I, H, false, true}};

#define PAIRS(name) name, ROWS(name)
#define TARGETS                                                                                              \
    "\"target_parameters\":[\"input_linear.weight\",\"output_linear.weight\",\"experts.gate_up_proj\","      \
    "\"experts.down_proj\"]"

static void write_adapter(const struct pair *pairs, int count)
{
    cm_writer writer = {0};
    bool fused = false;
    for (int n = 0; n < count; n++)
        for (int e = 0; e < (pairs[n].all ? E : 1); e++) {
            char *path = cm_text(LAYER "%s", pairs[n].path);
            char *number = strstr(path, ".0.");
            if (pairs[n].all)
                number[1] = (char)('0' + e);
            fused |= pairs[n].fused;
            if (pairs[n].fused)
                cm_tiny_add_fused(&writer, path, 4, pairs[n].in, pairs[n].out, 10 * n);
            else
                cm_tiny_add_pair(&writer, path, 4, pairs[n].in, pairs[n].out, CM_F32, cm_tiny_pattern,
                                 10 * n + e);
            free(path);
        }
    if (fused)
        cm_tiny_save(&writer, TARGETS);
    else
        cm_tiny_save_adapter(&writer, "");
}

#define NONE        "adapter matches no tensor of the model (first key: \"base_model.model." LAYER
#define ITS(family) "the model (" family ") has \"" LAYER

static const struct foreign {
    enum model model;
    const struct pair *pairs;
    int count;
    const char *key, *has; // parts of the message
} foreign[] = {
    {QWEN3_APART, PAIRS(mixtral), NONE "block_sparse_moe.experts.0.w1.lora_A.weight\")",
     ITS("qwen3_moe") "mlp.experts.0.gate_proj.weight\" and no shared expert; give the model"},
    {QWEN3_APART, PAIRS(mixtral_first), NONE "block_sparse_moe.experts.0.w1", ITS("qwen3_moe")},
    {QWEN3_FUSED, PAIRS(mixtral), NONE "block_sparse_moe.experts.0.w1",
     ITS("qwen3_moe") "mlp.experts.gate_up_proj\" and no shared expert"},
    {DEEPSEEK_APART, PAIRS(mixtral), NONE "block_sparse_moe.experts.0.w1",
     ITS("deepseek_v2") "mlp.experts.0.gate_proj.weight\" and \"" LAYER
                        "mlp.shared_experts.gate_proj.weight\";"},
    {GRANITE, PAIRS(mixtral), NONE "block_sparse_moe.experts.0.w1",
     ITS("granitemoe") "block_sparse_moe.input_linear.weight\""},
    {MIXTRAL_APART, PAIRS(qwen), NONE "mlp.experts.0.down_proj",
     ITS("mixtral") "block_sparse_moe.experts.0.w1.weight\""},
    {MIXTRAL_FUSED, PAIRS(qwen), NONE "mlp.experts.0.down_proj", ITS("mixtral") "mlp.experts.gate_up_proj\""},
    {GRANITE, PAIRS(qwen), NONE "mlp.experts.0.down_proj", ITS("granitemoe")},
    {QWEN3_APART, PAIRS(deepseek),
     "2 of 10 adapter tensors match nothing in the model: \"" LAYER "mlp.shared_experts.gate_proj\"",
     ITS("qwen3_moe")},
    {QWEN2_APART, PAIRS(deepseek),
     "2 of 10 adapter tensors match nothing in the model: \"" LAYER "mlp.shared_experts.gate_proj\"",
     ITS("qwen2_moe") "mlp.experts.0.gate_proj.weight\" and \"" LAYER "mlp.shared_expert.gate_proj.weight\""},
    {DEEPSEEK_APART, PAIRS(qwen2),
     "2 of 10 adapter tensors match nothing in the model: \"" LAYER "mlp.shared_expert.gate_proj\"",
     ITS("deepseek_v2")},
    {QWEN3_APART, PAIRS(granite), NONE "block_sparse_moe.input_linear", ITS("qwen3_moe")},
    {QWEN3_FUSED, PAIRS(granite), NONE "block_sparse_moe.input_linear", ITS("qwen3_moe")},
    {MIXTRAL_APART, PAIRS(granite), NONE "block_sparse_moe.input_linear", ITS("mixtral")},
    {MIXTRAL_FUSED, PAIRS(granite), NONE "block_sparse_moe.input_linear", ITS("mixtral")},
    {GRANITE, PAIRS(later), NONE "mlp.experts", ITS("granitemoe")},
};

START_TEST(refuses_foreign_adapters)
{
    const struct foreign *row = &foreign[_i];
    write_model(row->model);
    write_adapter(row->pairs, row->count);
    cm_tiny_refuse_with(&cm_tiny_with_adapter, CM_BAD_FILE, ADAPTER, row->key);
    cm_tiny_refuse_with(&cm_tiny_with_adapter, CM_BAD_FILE, ADAPTER, row->has);
}
END_TEST

// Mixtral's router has a base weight under the other name in Qwen's files.
START_TEST(refuses_a_foreign_router)
{
    cm_writer writer = {0};
    cm_tiny_model(&cm_tiny_families[QWEN3],
                  &(cm_tiny_change){.odd = LAYER "mlp.gate.weight", .dtype = CM_F32, .shape = {E, H}});
    cm_tiny_add_pair(&writer, LAYER "mlp.experts.0.gate_proj", 4, H, I, CM_F32, cm_tiny_pattern, 0);
    cm_tiny_add_pair(&writer, LAYER "block_sparse_moe.gate", 4, H, E, CM_F32, cm_tiny_pattern, 1);
    cm_tiny_save_adapter(&writer, "");
    cm_tiny_refuse_with(&cm_tiny_with_adapter, CM_BAD_FILE, ADAPTER,
                        "2 of 4 adapter tensors match nothing in the model: \"" LAYER
                        "block_sparse_moe.gate\"");
}
END_TEST

static const struct own {
    enum model model;
    const struct pair *pairs;
    int count;
} own[] = {
    {QWEN3_APART, PAIRS(qwen)},     {QWEN3_FUSED, PAIRS(qwen)},      {QWEN3_APART, PAIRS(later)},
    {QWEN3_FUSED, PAIRS(later)},    {MIXTRAL_APART, PAIRS(mixtral)}, {MIXTRAL_FUSED, PAIRS(mixtral)},
    {MIXTRAL_APART, PAIRS(later)},  {MIXTRAL_FUSED, PAIRS(later)},   {DEEPSEEK_APART, PAIRS(deepseek)},
    {DEEPSEEK_APART, PAIRS(later)}, {GRANITE, PAIRS(granite)},
};

START_TEST(takes_its_own)
{
    const struct own *row = &own[_i];
    cm_tensor tensor;
    write_model(row->model);
    write_adapter(row->pairs, row->count);
    cm_source source = cm_tiny_open_with(&cm_tiny_with_adapter);
    cm_tiny_fill(&source, "lora_a_gate", CM_F32, "LErH", &tensor);
    for (int64_t e = 0; e < E; e++)
        for (int64_t j = 0; j < 4; j++)
            for (int64_t h = 0; h < H; h++) {
                double want = row->pairs->fused ? cm_tiny_pattern(0, e * 4 + j, h)
                                                : cm_tiny_pattern(1000 + (int)e, j, h);
                ck_assert(cm_tensor_get(&tensor.dl, (e * 4 + j) * H + h) == want);
            }
    free(tensor.dl.data);
    source.close(&source);
}
END_TEST

// A router's adapter of either release on a file of the other.
START_TEST(takes_mixtral_routers)
{
    for (int n = 0; n < 2; n++) {
        cm_writer writer = {0};
        cm_tiny_model(
            &cm_tiny_families[MIXTRAL],
            &(cm_tiny_change){.odd = n ? LAYER "mlp.gate.weight" : LAYER "block_sparse_moe.gate.weight",
                              .dtype = CM_F32,
                              .shape = {E, H}});
        cm_tiny_add_pair(&writer, LAYER "block_sparse_moe.experts.0.w1", 4, H, I, CM_F32, cm_tiny_pattern, 0);
        cm_tiny_add_pair(&writer, n ? LAYER "block_sparse_moe.gate" : LAYER "mlp.gate", 4, H, E, CM_F32,
                         cm_tiny_pattern, 1);
        cm_tiny_save_adapter(&writer, "");
        cm_source source = cm_tiny_open_with(&cm_tiny_with_adapter);
        ck_assert_ptr_nonnull(strstr(source.summary, "outside moe_forward: "));
        source.close(&source);
    }
}
END_TEST

TCase *cm_unit_foreign(void)
{
    TCase *test = tcase_create("foreign adapters");
    tcase_add_checked_fixture(test, cm_unit_enter_directory, cm_unit_leave_directory);
    tcase_add_loop_test(test, refuses_foreign_adapters, 0, ROWS(foreign));
    tcase_add_test(test, refuses_a_foreign_router);
    tcase_add_loop_test(test, takes_its_own, 0, ROWS(own));
    tcase_add_test(test, takes_mixtral_routers);
    return test;
}
