// SPDX-License-Identifier: Apache-2.0
// Tiny models with fused experts and fused adapters, in the working directory.
#ifndef CM_TINY_FUSED_H
#define CM_TINY_FUSED_H

#include "suites/unit/tiny_layer.h"

#define FUSED   "model.layers.1.mlp.experts."
#define ADAPTER "adapter/adapter_model.safetensors: "

// model/config.json: H 6, the width given, 3 layers; `type` is JSON fields.
void cm_tiny_config(const char *type, int64_t width);
// model/ in f32, layers 0 to 2: gate_up [E, 2 width, H] with seed 10 layer, down [E, H, width] with 10 layer
// + 2.
void cm_tiny_fused(const char *type, const char *gate_up, const char *down, int64_t width);
void cm_tiny_fused_qwen(int64_t width);

void cm_tiny_add_matrix(cm_writer *writer, const char *path, const char *half, int64_t rows, int64_t columns,
                        int seed);
// lora_A [rank E, in] with the pattern of `seed`, lora_B [out, rank E] with that of seed + 1.
void cm_tiny_add_fused(cm_writer *writer, const char *path, int64_t rank, int64_t in, int64_t out, int seed);
void cm_tiny_save(cm_writer *writer, const char *more); // r 4, alpha 8, and `more`

extern const cm_layer_options cm_tiny_with_adapter; // layer 1
cm_source cm_tiny_open_with(const cm_layer_options *options);
void cm_tiny_refuse_with(const cm_layer_options *options, cm_status want, const char *start,
                         const char *part);

#endif
