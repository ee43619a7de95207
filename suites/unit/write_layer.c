// SPDX-License-Identifier: Apache-2.0
// The data goes from where it lies to the file: a layer has more than a GiB.
#include "suites/unit/write_layer.h"

#include "suites/unit/cases.h"
#include "suites/unit/write_safetensors.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *const projections[] = {"gate", "up", "down"};

static int64_t dim(const cm_pristine *pristine, char letter)
{
    return pristine->test_case.dims[cm_dim_index(letter)];
}

struct pieces {
    cm_piece *items;
    size_t count;
};

// Matrix `matrix` of an argument whose last two dimensions are a matrix; takes the name.
static void add(struct pieces *pieces, const cm_pristine *pristine, char *argument, int64_t matrix,
                char *name)
{
    const DLTensor *tensor = cm_unit_argument(pristine, argument);
    ck_assert_msg(tensor != NULL, "no %s", argument);
    int64_t rows = tensor->shape[tensor->ndim - 2], columns = tensor->shape[tensor->ndim - 1];
    cm_dtype dtype;
    ck_assert(cm_dtype_from_dl(tensor->dtype, &dtype) && dtype == CM_BF16);
    pieces->items = realloc(pieces->items, (pieces->count + 1) * sizeof *pieces->items);
    ck_assert_ptr_nonnull(pieces->items);
    pieces->items[pieces->count++] =
        (cm_piece){name, dtype, rows, columns,
                   (const char *)tensor->data + matrix * rows * columns * tensor->dtype.bits / 8};
    free(argument);
}

static void save(struct pieces *pieces, char *path)
{
    cm_write_pieces(path, pieces->items, pieces->count);
    for (size_t n = 0; n < pieces->count; n++)
        free(pieces->items[n].name);
    free(pieces->items);
    free(path);
    *pieces = (struct pieces){0};
}

static void write_weights(const cm_pristine *pristine, const cm_model_names *names, const char *directory)
{
    int64_t E = dim(pristine, 'E');
    long long layer = names->layer;
    char *path = cm_text("%s/model.safetensors.index.json", directory);
    FILE *index = fopen(path, "w");
    ck_assert_msg(index != NULL, "%s: %s", path, strerror(errno));
    fprintf(index, "{\"metadata\": {\"format\": \"pt\"}, \"weight_map\": {");
    for (int shard = 0, written = 0; shard < names->shards; shard++) {
        char *file = cm_text("model-%05d-of-%05d.safetensors", shard + 1, names->shards);
        struct pieces pieces = {0};
        for (int64_t e = E * shard / names->shards; e < E * (shard + 1) / names->shards; e++)
            for (int p = 0; p < 3; p++)
                add(&pieces, pristine, cm_text("w_%s", projections[p]), e,
                    cm_text("model.layers.%lld.mlp.experts.%lld.%s_proj.weight", layer, (long long)e,
                            projections[p]));
        for (int p = 0; p < 3 && names->shared_experts && shard + 1 == names->shards; p++)
            add(&pieces, pristine, cm_text("shared_%s", projections[p]), 0,
                cm_text("model.layers.%lld.mlp.shared_experts.%s_proj.weight", layer, projections[p]));
        for (size_t n = 0; n < pieces.count; n++)
            fprintf(index, "%s\"%s\": \"%s\"", written++ ? ", " : "", pieces.items[n].name, file);
        save(&pieces, cm_text("%s/%s", directory, file));
        free(file);
    }
    fprintf(index, "}}\n");
    ck_assert_int_eq(fclose(index), 0);
    free(path);
}

static void write_model_config(const cm_pristine *pristine, const cm_model_names *names,
                               const char *directory)
{
    char *path = cm_text("%s/config.json", directory);
    char *shared = names->shared_experts
                       ? cm_text(" \"n_shared_experts\": %lld, \"first_k_dense_replace\": 1,",
                                 (long long)names->shared_experts)
                       : cm_text("%s", "");
    char *text = cm_text(
        "{\"model_type\": \"%s\", \"hidden_act\": \"silu\", \"hidden_size\": %lld, \"%s\": %lld,%s\n"
        " \"moe_intermediate_size\": %lld, \"intermediate_size\": 10944, \"num_experts_per_tok\": "
        "%lld,\n \"num_hidden_layers\": %lld, \"torch_dtype\": \"bfloat16\"}\n",
        names->model_type, (long long)dim(pristine, 'H'), names->experts_key, (long long)dim(pristine, 'E'),
        shared, (long long)dim(pristine, 'I'), (long long)dim(pristine, 'k'), (long long)names->layers);
    cm_write_text(path, text);
    free(text);
    free(shared);
    free(path);
}

static void write_adapter(const cm_pristine *pristine, const cm_model_names *names, const char *directory)
{
    double rank = cm_tensor_get(cm_unit_argument(pristine, "lora_rank"), 0);
    double scaling = cm_tensor_get(cm_unit_argument(pristine, "lora_scaling"), 0);
    struct pieces pieces = {0};
    char *path = cm_text("%s/adapter_config.json", directory);
    char *text = cm_text(
        "{\"peft_type\": \"LORA\", \"task_type\": \"CAUSAL_LM\", \"base_model_name_or_path\": \"%s\",\n"
        " \"r\": %g, \"lora_alpha\": %.17g, \"target_modules\": [\"gate_proj\", \"up_proj\", "
        "\"down_proj\"]}\n",
        names->base_model, rank, scaling * rank);
    ck_assert_int_eq(dim(pristine, 'L'), 1);
    ck_assert_int_eq((int)rank, dim(pristine, 'r')); // no padding
    cm_write_text(path, text);
    for (int64_t e = 0; e < dim(pristine, 'E') + (names->shared_experts > 0); e++)
        for (int p = 0; p < 3; p++)
            for (int half = 0; half < 2; half++) {
                bool shared = e == dim(pristine, 'E');
                char *module =
                    shared ? cm_text("%s", "shared_experts") : cm_text("experts.%lld", (long long)e);
                add(&pieces, pristine,
                    cm_text("%slora_%c_%s", shared ? "shared_" : "", "ab"[half], projections[p]),
                    shared ? 0 : e,
                    cm_text("base_model.model.model.layers.%lld.mlp.%s.%s_proj.lora_%c.weight",
                            (long long)names->layer, module, projections[p], "AB"[half]));
                free(module);
            }
    save(&pieces, cm_text("%s/adapter_model.safetensors", directory));
    free(text);
    free(path);
}

void cm_write_layer(const cm_pristine *pristine, const cm_model_names *names, const char *directory,
                    const char *adapter)
{
    ck_assert(mkdir(directory, 0700) == 0 && mkdir(adapter, 0700) == 0);
    write_model_config(pristine, names, directory);
    write_weights(pristine, names, directory);
    write_adapter(pristine, names, adapter);
}
