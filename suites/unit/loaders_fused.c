// SPDX-License-Identifier: Apache-2.0
// Fused experts and fused adapters, on tiny files whose every element is predictable: the delta of each
// expert is computed from the definition on the stored layout, in both orientations and both orders of
// lora_B.
#include "suites/unit/loaders.h"
#include "suites/unit/tiny_fused.h"

#include <stdlib.h>
#include <string.h>

#define ROWS(table) (int)(sizeof(table) / sizeof *(table))
#define BOTH        "\"target_parameters\":[\"mlp.experts.down_proj\",\"mlp.experts.gate_up_proj\"]"

static const struct family {
    const char *type, *gate_up, *down, *word;
} families[] = {
    {"\"model_type\":\"qwen3_moe\",\"num_experts\":4", "mlp.experts.gate_up_proj", "mlp.experts.down_proj",
     "qwen3_moe"},
    {"\"model_type\":\"mixtral\",\"num_local_experts\":4", "mlp.experts.gate_up_proj",
     "mlp.experts.down_proj", "mixtral"},
    {"\"model_type\":\"granitemoe\",\"num_local_experts\":4", "block_sparse_moe.input_linear.weight",
     "block_sparse_moe.output_linear.weight", "granitemoe"},
};

START_TEST(reads_fused_base)
{
    const struct family *family = &families[_i];
    cm_tensor gate, up, down;
    cm_tiny_fused(family->type, family->gate_up, family->down, I);
    cm_source source = cm_tiny_open(1, NULL, NULL);
    cm_tiny_fill(&source, "w_gate", CM_F32, "EIH", &gate);
    cm_tiny_fill(&source, "w_up", CM_F32, "EIH", &up);
    cm_tiny_fill(&source, "w_down", CM_F32, "EHI", &down);
    for (int64_t e = 0; e < E; e++)
        for (int64_t i = 0; i < I; i++)
            for (int64_t h = 0; h < H; h++) {
                ck_assert(cm_tensor_get(&gate.dl, (e * I + i) * H + h) ==
                          cm_tiny_pattern(10, 2 * e * I + i, h));
                ck_assert(cm_tensor_get(&up.dl, (e * I + i) * H + h) ==
                          cm_tiny_pattern(10, (2 * e + 1) * I + i, h));
                ck_assert(cm_tensor_get(&down.dl, (e * H + h) * I + i) == cm_tiny_pattern(12, e * H + h, i));
            }
    ck_assert_ptr_nonnull(strstr(source.summary, "experts fused as [E, out, in]"));
    ck_assert_ptr_nonnull(strstr(source.summary, family->word));
    free(gate.dl.data);
    free(up.dl.data);
    free(down.dl.data);
    source.close(&source);
}
END_TEST

// Element [out][in] of what the layer adds for one expert and projection, without the scale.
static double filled_delta(const cm_tensor *a, const cm_tensor *b, int64_t e, int64_t out, int64_t in)
{
    int64_t r = a->shape[2], inputs = a->shape[3], outputs = b->shape[2];
    double sum = 0;
    for (int64_t j = 0; j < r; j++)
        sum += cm_tensor_get(&b->dl, (e * outputs + out) * r + j) *
               cm_tensor_get(&a->dl, (e * r + j) * inputs + in);
    return sum;
}

// Element [p][q] of the delta in the stored layout, by the definition.
static double stored_delta(bool in_first, bool expert_major, int64_t rank, int seed, int64_t e, int64_t p,
                           int64_t q)
{
    double sum = 0;
    for (int64_t j = 0; j < rank; j++) {
        int64_t column = expert_major ? e * rank + j : j * E + e;
        sum += in_first ? cm_tiny_pattern(seed, e * rank + j, p) * cm_tiny_pattern(seed + 1, q, column)
                        : cm_tiny_pattern(seed + 1, p, column) * cm_tiny_pattern(seed, e * rank + j, q);
    }
    return sum;
}

static void expect_deltas(const cm_source *source, bool in_first, bool expert_major, int64_t width,
                          int64_t rank, int64_t down_rank)
{
    static const char *const names[] = {"gate", "up", "down"};
    for (int p = GATE; p <= DOWN; p++) {
        cm_tensor a, b;
        char *a_name = cm_text("lora_a_%s", names[p]), *b_name = cm_text("lora_b_%s", names[p]);
        cm_tiny_fill(source, a_name, CM_F32, p == DOWN ? "LErI" : "LErH", &a);
        cm_tiny_fill(source, b_name, CM_F32, p == DOWN ? "LEHr" : "LEIr", &b);
        int64_t outputs = p == DOWN ? H : width, inputs = p == DOWN ? width : H;
        for (int64_t e = 0; e < E; e++)
            for (int64_t o = 0; o < outputs; o++)
                for (int64_t i = 0; i < inputs; i++) {
                    double want = stored_delta(in_first, expert_major, p == DOWN ? down_rank : rank,
                                               p == DOWN ? 70 : 60, e, o + (p == UP ? width : 0), i);
                    double got = filled_delta(&a, &b, e, o, i);
                    ck_assert_msg(got == want, "%s, expert %lld [%lld,%lld]: %g, expected %g", names[p],
                                  (long long)e, (long long)o, (long long)i, got, want);
                }
        free(a.dl.data);
        free(b.dl.data);
        free(a_name);
        free(b_name);
    }
}

// gate_up is the inner wrapper. Rank 4 and 2 with alpha 8 and 4: one scale.
static void write_pair(bool in_first, int64_t width)
{
    cm_writer writer = {0};
    cm_tiny_add_fused(&writer, "model.layers.1.mlp.experts.base_layer", 4, in_first ? 2 * width : H,
                      in_first ? H : 2 * width, 60);
    cm_tiny_add_fused(&writer, "model.layers.1.mlp.experts", 2, in_first ? H : width, in_first ? width : H,
                      70);
    cm_tiny_save(
        &writer,
        BOTH ",\"rank_pattern\":{\"mlp.experts.down_proj\":2},\"alpha_pattern\":{\".*\\\\.down_proj\":4}");
}

static const struct order {
    bool in_first, expert_major;
    int64_t width; // 3: gate_up is square
} orders[] = {{false, false, 5}, {true, false, 5}, {false, true, 5}, {true, true, 5},
              {false, false, 3}, {true, false, 3}, {false, true, 3}};

START_TEST(reads_fused_adapter)
{
    const struct order *order = &orders[_i];
    cm_layer_options options = cm_tiny_with_adapter;
    cm_tiny_fused_qwen(order->width);
    write_pair(order->in_first, order->width);
    options.lora_b_order = order->expert_major ? "expert_major" : NULL;
    cm_source source = cm_tiny_open_with(&options);
    ck_assert_int_eq(cm_tiny_dim(&source, 'r'), 4);
    expect_deltas(&source, order->in_first, order->expert_major, order->width, 4, 2);
    ck_assert_ptr_nonnull(strstr(source.summary, order->in_first ? "(in_first)" : "(out_first)"));
    ck_assert_ptr_nonnull(strstr(source.summary, order->expert_major ? "(expert_major)" : "(peft)"));
    ck_assert_ptr_nonnull(
        strstr(source.summary, "adapter r 4 (2 to 4), alpha 8, scale 2, f32: gate 4/4 experts, up 4/4"));
    ck_assert_str_eq(source.arguments,
                     order->expert_major
                         ? "--model model --adapter adapter --layer 1 --lora-b-order expert_major"
                         : "--model model --adapter adapter --layer 1");
    source.close(&source);
}
END_TEST

// The files may be of another generation than the adapter: apart where it is fused, and the other way round.
START_TEST(reads_mixed_generations)
{
    cm_tensor tensor;
    for (int family = QWEN3; family <= MIXTRAL; family++) { // Mixtral's block has another name in each
        cm_tiny_model(&cm_tiny_families[family], &cm_tiny_no_change);
        write_pair(false, I);
        cm_source source = cm_tiny_open_with(&cm_tiny_with_adapter);
        expect_deltas(&source, false, false, I, 4, 2);
        cm_tiny_fill(&source, "w_up", CM_F32, "EIH", &tensor);
        cm_tiny_expect_matrix(&tensor, 3, I, H, 113, 1);
        free(tensor.dl.data);
        source.close(&source);
    }
    cm_tiny_fused_qwen(I);
    cm_tiny_adapter(SAME_SCALE, CM_F32, cm_tiny_pattern);
    cm_source source = cm_tiny_open_with(&cm_tiny_with_adapter);
    cm_tiny_fill(&source, "lora_b_up", CM_F32, "LEIr", &tensor);
    cm_tiny_expect_matrix(&tensor, 3, I, 4, 2013, 1);
    free(tensor.dl.data);
    source.close(&source);
}
END_TEST

// Weights that are one matrix may be adapted as parameters, too: of shared experts, of a router, of an
// expert.
START_TEST(reads_single_parameters)
{
    cm_writer writer = {0};
    cm_tensor tensor;
    cm_tiny_model(
        &cm_tiny_families[QWEN2],
        &(cm_tiny_change){.odd = "model.layers.1.mlp.gate.weight", .dtype = CM_F32, .shape = {E, H}});
    cm_tiny_add_pair(&writer, "model.layers.1.mlp.shared_expert.down_proj", 4, D, H, CM_F32, cm_tiny_pattern,
                     2);
    cm_tiny_add_pair(&writer, "model.layers.1.mlp.experts.2.up_proj", 4, H, I, CM_F32, cm_tiny_pattern, 3);
    cm_tiny_add_pair(&writer, "model.layers.1.mlp.gate", 4, H, E, CM_F32, cm_tiny_pattern, 4);
    cm_tiny_save(
        &writer,
        "\"target_parameters\":[\"shared_expert.down_proj.weight\",\"mlp.gate.weight\",\"up_proj.weight\"]");
    cm_source source = cm_tiny_open_with(&cm_tiny_with_adapter);
    cm_tiny_fill(&source, "shared_lora_a_down", CM_F32, "LrD", &tensor);
    cm_tiny_expect_matrix(&tensor, 0, 4, D, 1002, 1);
    free(tensor.dl.data);
    cm_tiny_fill(&source, "lora_b_up", CM_F32, "LEIr", &tensor);
    cm_tiny_expect_matrix(&tensor, 2, I, 4, 2003, 1);
    free(tensor.dl.data);
    ck_assert_ptr_nonnull(strstr(source.summary, "outside moe_forward: mlp.gate.weight"));
    ck_assert_ptr_null(strstr(source.summary, "adapter is fused"));
    source.close(&source);
    cm_tiny_add_pair(&writer, "model.layers.1.mlp.experts.2.up_proj", 4, H, I, CM_F32, cm_tiny_pattern, 3);
    cm_tiny_add_pair(&writer, "model.layers.1.mlp.gate", 2, H, E, CM_F32, cm_tiny_pattern, 4);
    cm_tiny_save(&writer, "\"target_parameters\":[\"mlp.gate.weight\"]");
    cm_tiny_refuse_with(
        &cm_tiny_with_adapter, CM_BAD_SHAPE, ADAPTER,
        "\"model.layers.1.mlp.gate.weight\": lora_A has rank 2, adapter/adapter_config.json says r = 4");
}
END_TEST

START_TEST(asks_for_square_orientation)
{
    cm_writer writer = {0};
    cm_layer_options options = cm_tiny_with_adapter;
    cm_tiny_fused_qwen(3);
    cm_tiny_add_fused(&writer, "model.layers.1.mlp.experts", 4, 6, 6, 60);
    cm_tiny_save(&writer, "\"target_parameters\":[\"mlp.experts.gate_up_proj\"]");
    cm_tiny_refuse_with(
        &options, CM_UNSUPPORTED, ADAPTER,
        "\"" FUSED "gate_up_proj\": 6x6, orientation cannot be told from shapes; pass --lora-orientation "
        "in_first (PEFT 0.17 and 0.18) or out_first (PEFT 0.19 and later)");
    for (int in_first = 0; in_first < 2; in_first++) {
        cm_tensor a, b;
        options.lora_orientation = in_first ? "in_first" : "out_first";
        cm_source source = cm_tiny_open_with(&options);
        cm_tiny_fill(&source, "lora_a_up", CM_F32, "LErH", &a);
        cm_tiny_fill(&source, "lora_b_up", CM_F32, "LEIr", &b);
        for (int64_t n = 0; n < E * 3 * H; n++)
            ck_assert(filled_delta(&a, &b, n / (3 * H), n / H % 3, n % H) ==
                      stored_delta(in_first, false, 4, 60, n / (3 * H), 3 + n / H % 3, n % H));
        ck_assert_ptr_nonnull(
            strstr(source.arguments, in_first ? "--lora-orientation in_first" : "out_first"));
        free(a.dl.data);
        free(b.dl.data);
        source.close(&source);
    }
    options.lora_orientation = "last";
    cm_tiny_refuse_with(&options, CM_BAD_VALUE,
                        "--lora-orientation \"last\": ", "give in_first or out_first");
    options = cm_tiny_with_adapter;
    options.lora_b_order = "rank";
    cm_tiny_refuse_with(&options, CM_BAD_VALUE, "--lora-b-order \"rank\": ", "give peft or expert_major");
    write_pair(false, 3);
    options = cm_tiny_with_adapter;
    options.lora_orientation = "in_first";
    cm_tiny_refuse_with(&options, CM_BAD_SHAPE, ADAPTER,
                        "\"" FUSED "down_proj\" can only be out_first by its shapes");
}
END_TEST

START_TEST(warns_of_zero)
{
    cm_writer writer = {0};
    cm_tiny_fused_qwen(I);
    for (int in_first = 0; in_first < 2;
         in_first++) { // the half that is called lora_B counts, wherever it stands
        cm_tiny_add_matrix(&writer, "model.layers.1.mlp.experts", "A", 16, in_first ? H : I, 1);
        cm_writer_add(&writer, "base_model.model.model.layers.1.mlp.experts.lora_B.weight", CM_F32, 2,
                      (int64_t[]){in_first ? I : H, 16}, cm_tiny_zero, 0);
        cm_tiny_save(&writer, "\"target_parameters\":[\"experts.down_proj\"]");
        cm_source source = cm_tiny_open_with(&cm_tiny_with_adapter);
        ck_assert_ptr_nonnull(strstr(source.summary, "warning: every lora_B is zero"));
        source.close(&source);
    }
}
END_TEST

TCase *cm_unit_fused(void)
{
    TCase *test = tcase_create("fused");
    tcase_add_checked_fixture(test, cm_unit_enter_directory, cm_unit_leave_directory);
    tcase_add_loop_test(test, reads_fused_base, 0, ROWS(families));
    tcase_add_loop_test(test, reads_fused_adapter, 0, ROWS(orders));
    tcase_add_test(test, reads_mixed_generations);
    tcase_add_test(test, reads_single_parameters);
    tcase_add_test(test, asks_for_square_orientation);
    tcase_add_test(test, warns_of_zero);
    return test;
}
