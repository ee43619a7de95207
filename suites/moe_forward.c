// SPDX-License-Identifier: Apache-2.0
// moe_forward: shapes off every power of two, routings and adapters that single out each way of mixing them
// up.
#include "suites/suites.h"

#define EACH "numerics effect mutation bounds isolation"
#define MORE EACH " state determinism"

static const cm_row rows[] = {
    {"t5-k2-e4-h48-i40-r8x2-{bf16,f32}-{random,exact}-s1", NULL, CM_SET_SMOKE, "a little of everything"},
    {"t17-k2-e8-{h64-i72,h96-i40}-r{4,16}x3-{bf16,f16,f32}-{uniform,skewed}-{random,exact}-s1", EACH,
     CM_SET_CI, "the three dtypes on shapes with odd tails, ranks mixed"},
    {"t33-k{1,4}-e16-h80-i56-r8x4-bf16-{hot,idle,duplicate,holes}-{random,exact}-s2", EACH, CM_SET_CI,
     "one hot expert, idle experts, repeated experts, slots of -1"},
    {"t17-k3-e8-h48-i24-r4x3-bf16-{hot,holes}-{random,exact}-s2", "state determinism", CM_SET_CI,
     "the same, called again and again"},
    {"t{2,3,16}-k2-e5-h33-i17-r{1,3,32,33}x2-{bf16,f32}-{random,exact}-s3", EACH, CM_SET_CI,
     "odd sizes in every dimension, rank 1 and a rank above I"},
    {"t16-k2-e4-h64-i48-r8x3-bf16-{full,null,last,rank0}-{random,exact}-s4",
     "numerics mutation bounds isolation", CM_SET_CI,
     "adapters: all tokens, none, first token without, rank 0"},
    {"t9-k2-e4-h64-i48-d{24,96}-r8x2-{bf16,f32}-{random,exact}-s5", NULL, CM_SET_CI,
     "a shared expert with LoRA"},
    {"t12-k2-e4-h48-i32-d24-r8x2-bf16-{padded,shared_outer}-{random,exact}-s6", MORE, CM_SET_CI,
     "rows with gaps; one A and one B for all experts"},
    {"t16-k2-e8-h64-i48-{bf16,f32}-{random,exact}-s7", "numerics mutation bounds isolation state", CM_SET_CI,
     "no adapter at all"},
    {"t1-k1-e1-h32-i32-r8x1-bf16-full-{random,exact}-s8", "numerics mutation bounds", CM_SET_CI,
     "the smallest batch: nothing that isolation could hide"},
    {"t7-k2-e3-h32-i16-r4x2-bf16-none-{random,exact}-s9", EACH, CM_SET_CI,
     "all slots are -1: the output is 0"},
    {"t0-k2-e3-h32-i16-d8-r4x2-{bf16,f32}-{random,exact}-s10", "mutation bounds", CM_SET_CI,
     "no token: nothing may be touched, nothing is compared"},
    {"t33-k8-e64-h256-i96-r16x4-bf16-skewed-{random,exact}-s11", EACH, CM_SET_CI,
     "eight experts a token, two blocks of 128 in H"},
    {"t17-k2-e4-h288-i320-r16x2-bf16-{random,exact}-s12", EACH, CM_SET_CI,
     "past blocks of 256 in both directions"},
    {"t16-k2-e4-h96-i64-r8x2-{f32-yf16,f16-yf32,bf16-af32,f32-abf16}-{random,exact}-s13", EACH, CM_SET_CI,
     "weights, adapters and output in different dtypes"},
    {"t72-k2-e2-h256-i192-r16x2-{bf16,f32}-random-s14", "determinism", CM_SET_CI,
     "products so large that libraries divide them among threads"},
    {"t9-k2-e4-h{48,33}-i{40,17}-d20-r8x2-{bf16,f32}-{biased,biased_gated}-random-s19", EACH, CM_SET_CI,
     "biases, and a router of the shared expert"},
    {"t9-k2-e4-h48-i40-d20-r8x2-{bf16,f32}-{biased,biased_gated}-exact-s19", EACH, CM_SET_CI, "the same"},
    {"t9-k2-e4-h{64,33}-i48-d24-r8x2-{bf16,f32}-gated-{random,exact}-s24", MORE, CM_SET_CI,
     "a router of the shared expert alone: 1/2 and 1 on exact data"},
    {"t28-k2-e4-h64-i40-d20-r8x2-bf16-yf32-wi8-act_quant=int8_row-gated-{random,exact}-s25", EACH, CM_SET_CI,
     "the same, reading x as it was before it was quantised"},
    {"t9-k2-e4-h{64,33}-i17-d20-r8x2-{bf16,f32}-{wi8,wi4}-{packed,padded}-{random,exact}-s20", EACH,
     CM_SET_CI, "int8 and int4 weights, a scale per row, odd lengths"},
    {"t5-k2-e4-h192-i136-r8x2-bf16-g{32,128}-{wi8,wi4}-{random,exact}-s21", MORE, CM_SET_CI,
     "a scale per row and group of 32 or 128, with shorter last groups"},
    {"t28-k2-e4-h{64,33}-i40-d20-r8x2-{bf16-yf32,f32}-wi8-act_quant=int8_row-{random,exact}-s22", EACH,
     CM_SET_CI, "x and h quantised by their row"},
    {"t9-k2-e4-h64-i40-r8x2-bf16-yf32-{,wi4-g32}-act_quant=int8_row-act_quant_source={f32,model}-{random,"
     "exact}-"
     "s23",
     EACH, CM_SET_CI, "the same with other weights, and with h rounded before"},
    {"t70-k12-e260-h32-i16-r2x17-bf16-yf32-{random,exact}-s26", "numerics bounds", CM_SET_CI,
     "more tokens than 64, experts than 256, adapters than 16, experts of a token than 8"},
    {"t{@rows}-k1-e1-h72-i40-r8x1-bf16-{,wi8,wi4,wi4-g32}-full-{random,exact}-s28", "numerics bounds",
     CM_SET_CI, "experts of as many rows as lie on both sides of each kernel's switch points"},
    {"t{@rows}-k1-e1-h72-i40-r8x1-bf16-yf32-{,wi8,wi4-g32}-act_quant=int8_row-full-{random,exact}-s28",
     "numerics bounds", CM_SET_CI, "the same with x and h quantised by their row"},
    {"t7-k1-e1-h{@H}-i40-r8x1-bf16-{,wi8,wi4,wi4-g32}-full-{random,exact}-s31", "numerics bounds", CM_SET_CI,
     "both sides of where weights are taken in pieces"},
    {"t7-k1-e1-h{@H}-i40-r8x1-bf16-yf32-{wi8,wi4,wi4-g32}-act_quant=int8_row-full-exact-s31",
     "numerics bounds", CM_SET_CI, "the same with quantised rows"},
    {"t50-k1-e1-h136-i264-r33x3-bf16-yf32-{,wi8,wi4,wi4-g128}-act_quant=int8_row-random-s32",
     "numerics effect state determinism", CM_SET_CI, "quantised rows, again and again, on all threads"},
    {"t50-k1-e1-h136-i264-r33x3-bf16-{,wi8,wi4,wi4-g128}-random-s32", "numerics effect state determinism",
     CM_SET_CI, "the same without"},
    {"t{@T}-k2-e4-h72-i40-r8x2-bf16-{,wi8,wi4-g32}-{random,exact}-s28", "numerics bounds", CM_SET_CI,
     "as many tokens as lie on both sides of them"},
    {"t100-k2-e3-h72-i40-d20-r72x3-{bf16,f16}-skewed-{random,exact}-s29",
     "numerics effect mutation bounds isolation", CM_SET_CI,
     "experts of more than 64 rows with several adapters each, ranks on both sides of 64"},
    {"t64-k1-e2-h40-i24-r8x2-bf16-mixed-random-s29", "state determinism", CM_SET_CI,
     "the same, again and again"},
    {"t3-k1-e2-h{3600-i64,64-i3600}-r8x2-bf16-{random,exact}-s27", "numerics bounds", CM_SET_CI,
     "rows of more than 3584"},
    {"t{6,7,33}-k1-e1-h192-i136-r8x1-bf16-g{32,128}-{wi8,wi4}-full-random-s28", "numerics", CM_SET_CI,
     "few rows of an expert, and many: scale groups of several steps"},
    {"t{6,7,33}-k1-e1-h192-i136-r33x1-bf16-yf32-{,g32}-{wi8,wi4}-act_quant=int8_row-full-random-s28",
     "numerics", CM_SET_CI, "the same with quantised rows and a rank above a tile"},
    {"t17-k2-e6-h48-i40-r8x3-{bf16,f32}-{map_identity,map_reversed,map_shuffled,map_replicated}-{random,"
     "exact}-"
     "s28",
     EACH, CM_SET_CI, "ids are slots that hold the experts in any order, with base and LoRA alike"},
    {"t9-k2-e4-h64-i40-r8x2-bf16-g32-{random,exact}-s33", EACH, CM_SET_CI, "floats have no groups"},
    {"t9-k2-e5-h33-i40-d20-r4x2-bf16-wi8-biased-{padded,shared_outer}-map_shuffled-holes-{random,exact}-s30",
     MORE, CM_SET_CI, "the same with scales, biases, a shared expert and slots of -1"},
    {"t{17,24}-k{1,2,3}-e{4,5,9}-h{31,48,64,100}-i{17,24,33}-{,d20}-r{1,5,8,16}x{1,2,5}-{bf16,f16,f32}-"
     "{uniform,skewed,hot,duplicate,holes}-{mixed,full,last}-{packed,padded,shared_outer}-{random,exact}-s*",
     MORE, CM_SET_FUZZ, "everything with everything"},
    {"t{1,2,5}-k{1,2,3}-e{4,5,9}-h{31,48,64,100}-i{17,24,33}-{,d20}-r{1,5,8,16}x{1,2,5}-{bf16,f16,f32}-"
     "{uniform,hot,holes}-{mixed,full,last}-{packed,padded,shared_outer}-{random,exact}-s*",
     "numerics mutation bounds isolation state determinism", CM_SET_FUZZ,
     "few tokens: a gain of so few values may be too uncertain to judge"},
    {"t{1,2,5,17}-k{1,2,3}-e{4,5}-h{31,64,100}-i{17,33,48}-{,d20}-{,g16,g32}-r{1,5,8}x{1,3}-{bf16,f16,f32}-"
     "yf32-{wi8,wi4}-{uniform,hot,holes}-{mixed,full}-{packed,padded}-{random,exact}-s*",
     "numerics mutation bounds isolation state", CM_SET_FUZZ, "integer weights"},
    {"t{1,2,5,17}-k{1,2,3}-e{4,5}-h{31,64,100}-i{17,33,48}-{,d20}-{,g16,g32}-r{1,5,8}x{1,3}-{bf16,f16,f32}-"
     "yf32-{wi8,wi4}-act_quant=int8_row-{uniform,hot,holes}-{mixed,full}-{packed,padded}-exact-s*",
     "numerics mutation bounds isolation state", CM_SET_FUZZ, "quantised rows"},
    {"t17-k{1,2,3}-e{4,5}-h{31,64,100}-i{17,33,48}-{,d20}-{,g16,g32}-r{1,5,8}x{1,3}-{bf16,f16,f32}-"
     "yf32-{wi8,wi4}-act_quant=int8_row-{uniform,hot}-{mixed,full}-{packed,padded}-random-s*",
     "numerics mutation bounds isolation state", CM_SET_FUZZ,
     "quantised rows; of few tokens the bound may be too wide"},
    {0},
};

// The wrapper of two halves has a suite of its own.
const cm_suite cm_suite_moe_forward = {
    .name = "moe_forward", .op = "moe_forward", .rows = rows, .kernels = "!moe_forward/split*"};
