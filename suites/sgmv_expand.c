// SPDX-License-Identifier: Apache-2.0
// sgmv_expand: unequal slices, accumulating and overwriting, tokens without adapter.
#include "suites/suites.h"

static const cm_row rows[] = {
    {"t7-r8x2-n96-{bf16,f32}-{random,exact}-s1", NULL, CM_SET_SMOKE, "a little of everything"},
    {"t{3,17,33}-r{1,8,24,32,64}x3-n{33,257}-{bf16,f16,f32}-{random,exact}-s2",
     "numerics effect mutation bounds isolation", CM_SET_CI, "ranks and widths on both sides of tiles"},
    {"t16-r16x4-n90-S{2,4}-bf16-vf32-{mixed,full,last,rank0}-{random,exact}-s3",
     "numerics effect mutation bounds isolation", CM_SET_CI, "unequal slices, fp32 intermediate"},
    {"t16-r16x4-n90-S3-bf16-vf32-{mixed,last}-{random,exact}-s3",
     "numerics effect mutation bounds isolation state determinism", CM_SET_CI,
     "unequal slices, fp32 intermediate"},
    {"t16-r16x4-n90-S3-{bf16,f32}-accumulate=0-{mixed,last,null}-{random,exact}-s4",
     "numerics effect mutation bounds isolation", CM_SET_CI, "overwriting: rows without adapter become 0"},
    {"t12-r8x2-n64-bf16-{null,padded}-{random,exact}-s5", "numerics effect mutation bounds isolation",
     CM_SET_CI, "no adapter; rows with gaps"},
    {"t40-r{16,72}x2-n{72,131}-S2-{bf16,f16}-{,vf32}-full-{random,exact}-s8",
     "numerics effect mutation bounds isolation", CM_SET_CI,
     "segments of 16 tokens and more, which tensor cores take"},
    {"t0-r8x2-n64-bf16-{random,exact}-s6", "mutation bounds", CM_SET_CI, "no token"},
    {"t96-r64x2-n288-{bf16,f32}-full-random-s7", "determinism", CM_SET_CI,
     "products so large that libraries divide them among threads"},
    {"t{@rows}-r24x1-n72-bf16-{,vf32}-full-{random,exact}-s10", "numerics bounds", CM_SET_CI,
     "segments on both sides of each kernel's switch points"},
    {"t{@T}-r24x2-n72-bf16-full-{random,exact}-s10", "numerics bounds", CM_SET_CI, "the same for the batch"},
    {"t5-r8x2-n3600-{bf16,f32}-{random,exact}-s8", "numerics effect bounds", CM_SET_CI, "wide rows"},
    {"t300-r4x40-n48-{bf16,f32}-{random,exact}-s9", "numerics effect bounds", CM_SET_CI,
     "more tokens than 256, adapters than 32"},
    {"t{1,2,9,40}-r{1,3,8,16,48}x{1,2,6}-n{16,31,100,300}-S{1,2,3}-{bf16,f16,f32}-{,vf32}-{,accumulate=0}-"
     "{mixed,full,last,rank0}-{packed,padded}-{random,exact}-s*",
     "numerics effect mutation bounds state determinism", CM_SET_FUZZ, "everything with everything"},
    {0},
};

const cm_suite cm_suite_sgmv_expand = {.name = "sgmv_expand", .op = "sgmv_expand", .rows = rows};
