// SPDX-License-Identifier: Apache-2.0
// Layers recorded from transformers + PEFT: model, adapter, input, routing and output from disk.
#include "suites/suites.h"

static const cm_row rows[] = {{0}};
static const cm_file_row files[] = {
    {"golden/qwen3_moe/model", "golden/qwen3_moe/adapter", "golden/qwen3_moe/layer_1.safetensors", 1,
     CM_SET_SMOKE | CM_SET_CI},
    {0},
};

const cm_suite cm_suite_golden = {.name = "golden", .op = "moe_forward", .rows = rows, .files = files};
