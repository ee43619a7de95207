// SPDX-License-Identifier: Apache-2.0
// Layers recorded from transformers + PEFT: model, adapter, input, routing and output from disk.
#include "suites/suites.h"

static const cm_row rows[] = {{0}};
#define GOLDEN(name, sets)                                                                                   \
    {                                                                                                        \
        "golden/" name "/model", "golden/" name "/adapter", "golden/" name "/layer_1.safetensors", 1, sets   \
    }

static const cm_file_row files[] = {
    GOLDEN("qwen3_moe", CM_SET_SMOKE | CM_SET_CI),
    GOLDEN("mixtral", CM_SET_CI),
    GOLDEN("deepseek_v2", CM_SET_CI),
    GOLDEN("granitemoe", CM_SET_CI),
    GOLDEN("qwen3_moe_fused", CM_SET_SMOKE | CM_SET_CI),
    GOLDEN("mixtral_fused", CM_SET_CI),
    GOLDEN("deepseek_v2_fused", CM_SET_CI),
    {0},
};

const cm_suite cm_suite_golden = {.name = "golden", .op = "moe_forward", .rows = rows, .files = files};
