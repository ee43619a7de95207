// SPDX-License-Identifier: Apache-2.0
// sgmv_shrink: ranks off every tile, several slices, tokens without adapter.
#include "suites/suites.h"

static const cm_row rows[] = {
    {"t7-r8x2-K96-{bf16,f32}-{random,exact}-s1", NULL, CM_SET_SMOKE, "a little of everything"},
    {"t{3,17,33}-r{1,8,24,32,64}x3-K{33,256}-{bf16,f16,f32}-{random,exact}-s2",
     "numerics effect mutation bounds isolation", CM_SET_CI, "ranks and lengths on both sides of tiles"},
    {"t16-r16x4-K80-S{2,4}-bf16-vf32-{mixed,full,last,rank0}-{random,exact}-s3",
     "numerics effect mutation bounds isolation", CM_SET_CI,
     "slices, fp32 result of bf16 inputs, adapters of rank 0"},
    {"t16-r16x4-K80-S3-bf16-vf32-{mixed,last}-{random,exact}-s3",
     "numerics effect mutation bounds isolation state determinism", CM_SET_CI,
     "slices, fp32 result of bf16 inputs, adapters of rank 0"},
    {"t12-r8x2-K64-bf16-{null,padded}-{random,exact}-s4", "numerics effect mutation bounds isolation",
     CM_SET_CI, "no adapter; rows with gaps"},
    {"t40-r{16,40}x2-K{72,203}-{bf16,f16}-{,vf32}-full-{random,exact}-s7",
     "numerics mutation bounds isolation", CM_SET_CI,
     "segments of 16 tokens and more, which tensor cores take"},
    {"t0-r8x2-K64-bf16-{random,exact}-s5", "mutation bounds", CM_SET_CI, "no token"},
    {"t96-r64x2-K288-S2-{bf16,f32}-full-random-s6", "determinism", CM_SET_CI,
     "products so large that libraries divide them among threads"},
    {"t{@rows}-r24x1-K72-bf16-{,vf32}-full-{random,exact}-s10", "numerics bounds", CM_SET_CI,
     "segments on both sides of each kernel's switch points"},
    {"t{@T}-r24x2-K72-bf16-full-{random,exact}-s10", "numerics bounds", CM_SET_CI, "the same for the batch"},
    {"t5-r8x2-K3600-{bf16,f32}-{random,exact}-s8", "numerics effect bounds", CM_SET_CI, "long rows"},
    {"t300-r4x40-K48-{bf16,f32}-{random,exact}-s9", "numerics effect bounds", CM_SET_CI,
     "more tokens than 256, adapters than 32"},
    {"t{1,2,9,40}-r{1,3,8,16,48}x{1,2,6}-K{16,31,100,300}-S{1,2,3}-{bf16,f16,f32}-{,vf32}-{mixed,full,last,"
     "rank0}-"
     "{packed,padded}-{random,exact}-s*",
     "numerics effect mutation bounds state determinism", CM_SET_FUZZ, "everything with everything"},
    {0},
};

const cm_suite cm_suite_sgmv_shrink = {.name = "sgmv_shrink", .op = "sgmv_shrink", .rows = rows};
