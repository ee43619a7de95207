// SPDX-License-Identifier: Apache-2.0
#include "suites/unit/tiny_fused.h"

#include "suites/unit/loaders.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void cm_tiny_config(const char *type, int64_t width)
{
    char *config = cm_text(
        "{%s,\"hidden_size\":6,\"%s\":%lld,\"num_hidden_layers\":3,\"num_experts_per_tok\":2,"
        "\"hidden_act\":\"silu\"}",
        type, strstr(type, "qwen3") ? "moe_intermediate_size" : "intermediate_size", (long long)width);
    mkdir("model", 0700);
    cm_write_text("model/config.json", config);
    free(config);
}

// Layers 0 to 2, seeds 10 layer + 0 for gate_up and + 2 for down.
void cm_tiny_fused(const char *type, const char *gate_up, const char *down, int64_t width)
{
    cm_writer writer = {0};
    cm_tiny_config(type, width);
    for (int layer = 0; layer < 3; layer++) {
        char *first = cm_text("model.layers.%d.%s", layer, gate_up),
             *second = cm_text("model.layers.%d.%s", layer, down);
        cm_writer_add(&writer, first, CM_F32, 3, (int64_t[]){E, 2 * width, H}, cm_tiny_pattern, 10 * layer);
        cm_writer_add(&writer, second, CM_F32, 3, (int64_t[]){E, H, width}, cm_tiny_pattern, 10 * layer + 2);
        free(first);
        free(second);
    }
    cm_writer_save(&writer, "model/model.safetensors");
}

void cm_tiny_fused_qwen(int64_t width)
{
    cm_tiny_fused("\"model_type\":\"qwen3_moe\",\"num_experts\":4", "mlp.experts.gate_up_proj",
                  "mlp.experts.down_proj", width);
}

void cm_tiny_add_matrix(cm_writer *writer, const char *path, const char *half, int64_t rows, int64_t columns,
                        int seed)
{
    char *name = cm_text("base_model.model.%s.lora_%s.weight", path, half);
    cm_writer_add(writer, name, CM_F32, 2, (int64_t[]){rows, columns}, cm_tiny_pattern, seed);
    free(name);
}

// lora_A [rank E, in] with the pattern of `seed`, lora_B [out, rank E] with that of seed + 1.
void cm_tiny_add_fused(cm_writer *writer, const char *path, int64_t rank, int64_t in, int64_t out, int seed)
{
    cm_tiny_add_matrix(writer, path, "A", rank * E, in, seed);
    cm_tiny_add_matrix(writer, path, "B", out, rank * E, seed + 1);
}

void cm_tiny_save(cm_writer *writer, const char *more)
{
    char *config = cm_text(",%s", more);
    cm_tiny_save_adapter(writer, config);
    free(config);
}

cm_source cm_tiny_open_with(const cm_layer_options *options)
{
    cm_source source;
    cm_error error = {0};
    cm_unit_expect(cm_layer_open(options, &source, &error), &error, CM_OK, NULL, NULL);
    return source;
}

void cm_tiny_refuse_with(const cm_layer_options *options, cm_status want, const char *start, const char *part)
{
    cm_source source;
    cm_error error = {0};
    cm_unit_expect(cm_layer_open(options, &source, &error), &error, want, start, part);
    ck_assert_ptr_null(source.self);
}

const cm_layer_options cm_tiny_with_adapter = {.model = "model", .adapter = "adapter", .layer = 1};
