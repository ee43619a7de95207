// SPDX-License-Identifier: Apache-2.0
// Writes a layer of generated values as the files that a released model and its adapter have.
#ifndef CM_WRITE_LAYER_H
#define CM_WRITE_LAYER_H

#include "harness/pristine.h"

typedef struct cm_model_names {
    const char *model_type, *base_model;
    const char *experts_key; // of config.json: number of routed experts
    int64_t shared_experts;  // 0: none
    int64_t layers, layer;   // of the model, and which of them is written
    int shards;              // files that the experts are spread over
} cm_model_names;

// `pristine` is a bf16 case of moe_forward with one adapter, rows without gaps. Writes DIR/config.json, index
// and shards, and ADAPTER/adapter_config.json and adapter_model.safetensors; makes both directories.
void cm_write_layer(const cm_pristine *pristine, const cm_model_names *names, const char *directory,
                    const char *adapter);

#endif
