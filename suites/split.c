// SPDX-License-Identifier: Apache-2.0
// moe_forward in two halves: how many experts are where, partitions of I, and where a map puts the experts.
#include "suites/suites.h"

#define EACH "numerics effect mutation bounds isolation"
#define MORE EACH " state determinism"

static const cm_row rows[] = {
    {"t5-k2-e4-h48-i40-r8x2-bf16-num_gpu_experts=2-cpu_partitions=2-map_shuffled-{random,exact}-s1", NULL,
     CM_SET_SMOKE | CM_SET_CI, "a little of everything"},
    {"t9-k2-e4-h48-i40-r8x3-bf16-{,num_gpu_experts=0,num_gpu_experts=1,num_gpu_experts=4}-{random,exact}-s2",
     EACH, CM_SET_CI, "none, one or all of the experts on the device, and nobody says how many"},
    {"t9-k2-e4-h48-i40-r8x3-bf16-{,num_gpu_experts=4}-random-s2", "state determinism", CM_SET_CI,
     "the same, called again and again"},
    {"t9-k2-e4-h48-i37-r8x3-{bf16,f32}-num_gpu_experts=1-cpu_partitions={2,4}-holes-{random,exact}-s3", EACH,
     CM_SET_CI, "partitions of unequal width, adapters and none, slots of -1"},
    {"t9-k2-e4-h48-i40-r8x3-bf16-num_gpu_experts=2-{map_identity,map_reversed,map_replicated}-{random,exact}-"
     "s4",
     EACH, CM_SET_CI, "a map puts the experts of both sides in their places"},
    {"t9-k2-e4-h48-i37-d20-r8x2-bf16-{num_gpu_experts=0,num_gpu_experts=2}-cpu_partitions=4-biased_gated-"
     "{padded,shared_outer}-map_shuffled-holes-{random,exact}-s5",
     EACH, CM_SET_CI, "biases, a shared expert and its router are added once"},
    {"t9-k2-e4-h64-i{80,17}-r8x2-bf16-{g32-wi4,g32-wi8,wi4}-num_gpu_experts=2-cpu_partitions=2-{random,exact}"
     "-"
     "s6",
     EACH, CM_SET_CI, "partitions end where groups and bytes do"},
    {"t9-k2-e4-h64-i40-r8x2-bf16-yf32-wi8-act_quant=int8_row-num_gpu_experts=2-{random,exact}-s7", EACH,
     CM_SET_CI, "rows of x and h are quantised on both sides"},
    {"t7-k2-e3-h32-i2-r4x2-bf16-none-num_gpu_experts=1-cpu_partitions=4-{random,exact}-s8", EACH, CM_SET_CI,
     "more partitions than units, and nothing for either side"},
    {"t0-k2-e3-h32-i16-d8-r4x2-bf16-num_gpu_experts=1-cpu_partitions=2-{random,exact}-s9", "mutation bounds",
     CM_SET_CI, "no token"},
    {"t{1,2,5}-k{1,2}-e4-h{31,48,64}-i{17,33,80}-{,d20}-r{1,5,8}x{1,3}-{bf16,f16,f32}-num_gpu_experts={0,2,4}"
     "-"
     "cpu_partitions={1,3}-{uniform,hot,holes}-{mixed,full}-{unmapped,map_shuffled}-{random,exact}-s*",
     "numerics mutation bounds isolation state determinism", CM_SET_FUZZ,
     "few tokens: a gain of so few values is too uncertain to judge"},
    {"t17-k{1,2}-e4-h{31,48,64}-i{17,33,80}-{,d20}-r{1,5,8}x{1,3}-{bf16,f16,f32}-num_gpu_experts={0,"
     "1,"
     "2,4}-cpu_partitions={1,2,3,4}-{uniform,hot,holes}-{mixed,full}-{packed,padded,shared_outer}-{unmapped,"
     "map_shuffled,map_replicated}-{random,exact}-s*",
     MORE, CM_SET_FUZZ, "everything with everything"},
    {0},
};

const cm_suite cm_suite_split = {
    .name = "split", .op = "moe_forward", .rows = rows, .kernels = "moe_forward/split*"};
