// SPDX-License-Identifier: Apache-2.0
// models: one layer of a real model at full size, with generated values: over a GiB of weights. Other checks
// ask about refusals, the order of calls, repeats and what is hidden: they see nothing here that they don't
// see on small cases, and each of their runs packs a GiB again.
#include "suites/suites.h"

static const cm_row rows[] = {
    {"t2-k6-e64-h2048-i1408-d2816-r8x1-bf16-random-s1", "numerics effect bounds", CM_SET_CI,
     "DeepSeek-V2-Lite: 64 experts, top 6, two shared experts stored as one of 2816; 1408 is 11 times 128"},
    {"t2-k8-e128-h2048-i768-r8x1-bf16-random-s1", "numerics mutation", CM_SET_CI,
     "Qwen3-30B-A3B: 128 experts, top 8"},
    {0},
};

const cm_suite cm_suite_models = {
    .name = "models", .op = "moe_forward", .rows = rows, .kernels = "!moe_forward/split*"};
