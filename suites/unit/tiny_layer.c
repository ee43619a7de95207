// SPDX-License-Identifier: Apache-2.0
#include "suites/unit/tiny_layer.h"

#include "suites/unit/loaders.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { LAYERS = 3, SLACK = 3 };

double cm_tiny_pattern(int seed, int64_t row, int64_t column)
{
    return (double)((seed * 31 + row * 7 + column * 3) % 127 - 63);
}

double cm_tiny_zero(int seed, int64_t row, int64_t column)
{
    (void)seed, (void)row, (void)column;
    return 0;
}

const cm_tiny_family cm_tiny_families[] = {
    {"\"model_type\":\"qwen3_moe\",\"num_experts\":4",
     "mlp.experts",
     NULL,
     {"gate_proj", "up_proj", "down_proj"},
     false,
     0},
    {"\"model_type\":\"mixtral\",\"num_local_experts\":4",
     "block_sparse_moe.experts",
     NULL,
     {"w1", "w3", "w2"},
     false,
     0},
    {"\"model_type\":\"deepseek_v2\",\"n_routed_experts\":4,\"n_shared_experts\":1,\"first_k_dense_replace\":"
     "1",
     "mlp.experts",
     "mlp.shared_experts",
     {"gate_proj", "up_proj", "down_proj"},
     false,
     1},
    {"\"model_type\":\"qwen2_moe\",\"num_experts\":4,\"shared_expert_intermediate_size\":7",
     "mlp.experts",
     "mlp.shared_expert",
     {"gate_proj", "up_proj", "down_proj"},
     true,
     0},
};
int64_t cm_tiny_shared_width(const cm_tiny_family *family)
{
    return family == &cm_tiny_families[DEEPSEEK] ? I : D;
}

static void add_weight(cm_writer *writer, const cm_tiny_change *change, char *name, int64_t rows,
                       int64_t columns, int seed, bool *used)
{
    bool odd = change->odd && !strcmp(name, change->odd);
    int64_t shape[2] = {rows, columns};
    *used |= odd;
    if (!change->skip || strcmp(name, change->skip))
        cm_writer_add(writer, name, odd ? change->dtype : CM_F32, 2, odd ? change->shape : shape,
                      cm_tiny_pattern, seed);
    free(name);
}

void cm_tiny_model(const cm_tiny_family *family, const cm_tiny_change *change)
{
    cm_writer writer = {0};
    bool used = false;
    mkdir("model", 0700);
    char *config = cm_text(
        "{%s,\"hidden_size\":6,\"%s\":5,\"num_hidden_layers\":3,\"num_experts_per_tok\":2,"
        "\"hidden_act\":\"silu\"}",
        family->config, family == &cm_tiny_families[MIXTRAL] ? "intermediate_size" : "moe_intermediate_size");
    cm_write_text("model/config.json", config);
    free(config);
    for (int layer = 0; layer < LAYERS; layer++)
        for (int p = GATE; p <= DOWN; p++) {
            for (int e = 0; e < E && layer >= family->first_moe; e++)
                add_weight(&writer, change,
                           cm_text("model.layers.%d.%s.%d.%s.weight", layer, family->experts, e,
                                   family->projections[p]),
                           p == DOWN ? H : I, p == DOWN ? I : H, 100 * layer + 10 * p + e, &used);
            int64_t width = cm_tiny_shared_width(family);
            if (family->shared && layer >= family->first_moe)
                add_weight(
                    &writer, change,
                    cm_text("model.layers.%d.%s.%s.weight", layer, family->shared, family->projections[p]),
                    p == DOWN ? H : width, p == DOWN ? width : H, 100 * layer + 10 * p + 8, &used);
            if (p == GATE)
                add_weight(&writer, change, cm_text("model.layers.%d.self_attn.q_proj.weight", layer), H, H,
                           layer, &used);
            if (p == GATE && family->gated)
                add_weight(&writer, change, cm_text("model.layers.%d.mlp.shared_expert_gate.weight", layer),
                           1, H, 100 * layer + 50, &used);
        }
    if (change->odd && !used)
        cm_writer_add(&writer, change->odd, change->dtype, 2, change->shape, cm_tiny_pattern, 0);
    cm_writer_save(&writer, "model/model.safetensors");
}

const cm_tiny_change cm_tiny_no_change = {0};

void cm_tiny_add_pair(cm_writer *writer, const char *path, int64_t rank, int64_t in, int64_t out,
                      cm_dtype dtype, cm_writer_value b_value, int seed)
{
    char *a = cm_text("base_model.model.%s.lora_A.weight", path),
         *b = cm_text("base_model.model.%s.lora_B.weight", path);
    cm_writer_add(writer, a, dtype, 2, (int64_t[]){rank, in}, cm_tiny_pattern, 1000 + seed);
    cm_writer_add(writer, b, dtype, 2, (int64_t[]){out, rank}, b_value, 2000 + seed);
    free(a);
    free(b);
}

void cm_tiny_save_adapter(cm_writer *writer, const char *more)
{
    mkdir("adapter", 0700);
    char *config = cm_text("{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8%s}", more);
    cm_write_text("adapter/adapter_config.json", config);
    free(config);
    cm_writer_save(writer, "adapter/adapter_model.safetensors");
}

void cm_tiny_adapter(const char *more, cm_dtype dtype, cm_writer_value b_value)
{
    cm_writer writer = {0};
    for (int p = GATE; p <= UP; p++)
        for (int e = 0; e < E; e++) {
            if (e == 2)
                continue;
            char *path =
                cm_text("model.layers.1.mlp.experts.%d.%s", e, cm_tiny_families[QWEN3].projections[p]);
            cm_tiny_add_pair(&writer, path, p == GATE && e == 0 ? 2 : 4, H, I, dtype, b_value, 10 * p + e);
            free(path);
        }
    char *config = cm_text(",\"rank_pattern\":{\"experts.0.gate_proj\":2}%s", more);
    cm_tiny_save_adapter(&writer, config);
    free(config);
}

cm_source cm_tiny_open(int layer, const char *adapter, const char *recorded)
{
    cm_source source;
    cm_error error = {0};
    cm_layer_options options = {.model = "model", .adapter = adapter, .layer = layer, .recorded = recorded};
    cm_unit_expect(cm_layer_open(&options, &source, &error), &error, CM_OK, NULL, NULL);
    ck_assert_str_eq(source.op, "moe_forward");
    return source;
}

void cm_tiny_expect_refusal(int layer, const char *adapter, const char *recorded, cm_status want,
                            const char *start, const char *part)
{
    cm_source source;
    cm_error error = {0};
    cm_layer_options options = {.model = "model", .adapter = adapter, .layer = layer, .recorded = recorded};
    cm_unit_expect(cm_layer_open(&options, &source, &error), &error, want, start, part);
    ck_assert_ptr_null(source.self);
    source.close(&source);
}

int64_t cm_tiny_dim(const cm_source *source, char letter)
{
    return source->dims[strchr(CM_DIM_LETTERS, letter) - CM_DIM_LETTERS];
}

void cm_tiny_fill(const cm_source *source, const char *name, cm_dtype dtype, const char *letters,
                  cm_tensor *tensor)
{
    cm_error error = {0};
    int64_t shape[CM_MAX_RANK] = {0}, stride = 1;
    int ndim = (int)strlen(letters);
    for (int d = 0; d < ndim; d++)
        shape[d] = letters[d] == '1' ? 1 : cm_tiny_dim(source, letters[d]);
    cm_tensor_init(tensor, dtype, ndim, shape, NULL);
    for (int d = ndim - 1; d >= 0; d--) {
        tensor->strides[d] = stride;
        stride *= shape[d] + (d == ndim - 1 ? SLACK : 0);
    }
    size_t bytes = (size_t)stride * (size_t)cm_dtype_bits(dtype) / 8;
    char *data = cm_new(bytes, 1);
    memset(data, 0x5a, bytes);
    tensor->dl.data = data;
    ck_assert_msg(source->has(source, name), "%s is absent", name);
    cm_unit_expect(source->fill(source, name, &tensor->dl, &error), &error, CM_OK, NULL, NULL);

    int64_t columns = shape[ndim - 1];
    size_t element = (size_t)cm_dtype_bits(dtype) / 8;
    for (int64_t row = 0; row < cm_tensor_count(&tensor->dl) / columns; row++) {
        const char *slack = data + (size_t)(cm_tensor_offset(&tensor->dl, row * columns) + columns) * element;
        for (size_t n = 0; n < SLACK * element; n++)
            ck_assert_msg(slack[n] == 0x5a, "%s: written behind row %lld", name, (long long)row);
    }
}

void cm_tiny_expect_matrix(const cm_tensor *tensor, int64_t matrix, int64_t rows, int64_t columns, int seed,
                           double factor)
{
    int64_t height = tensor->shape[tensor->dl.ndim - 2], width = tensor->shape[tensor->dl.ndim - 1];
    for (int64_t row = 0; row < height; row++)
        for (int64_t column = 0; column < width; column++) {
            double want = row < rows && column < columns ? factor * cm_tiny_pattern(seed, row, column) : 0;
            double got = cm_tensor_get(&tensor->dl, (matrix * height + row) * width + column);
            ck_assert_msg(got == want, "matrix %lld [%lld,%lld]: %g, expected %g", (long long)matrix,
                          (long long)row, (long long)column, got, want);
        }
}
