// SPDX-License-Identifier: Apache-2.0
// sgmv: what the suites of its halves have, in one call: ranks and lengths off every tile, unequal slices,
// accumulating and overwriting, tokens without adapter.
#include "suites/suites.h"

static const cm_row rows[] = {
    {"t7-r8x2-K96-n72-{bf16,f32}-{random,exact}-s1", NULL, CM_SET_SMOKE, "a little of everything"},
    {"t17-r{1,24,64}x3-{K33-n130-bf16,K256-n33-f16,K33-n33-f32}-{random,exact}-s2",
     "numerics effect bounds isolation", CM_SET_CI, "ranks, lengths and widths on both sides of tiles"},
    {"t16-r16x4-K80-n90-{S2-bf16-mixed,S2-bf16-rank0,S4-bf16-full,S4-bf16-last}-{random,exact}-s3",
     "numerics effect mutation bounds isolation", CM_SET_CI, "unequal slices, adapters of rank 0"},
    {"t16-r16x4-K80-n90-S3-bf16-{mixed,last}-{random,exact}-s3",
     "numerics effect mutation bounds isolation state determinism", CM_SET_CI, "three slices"},
    {"t16-r16x4-K80-n90-S3-{bf16-accumulate=0-mixed,bf16-accumulate=0-null,f32-accumulate=0-last}-{random,"
     "exact}-s4",
     "numerics effect mutation bounds isolation", CM_SET_CI, "overwriting: rows without adapter become 0"},
    {"t12-r8x2-K64-n64-bf16-{null,padded}-{random,exact}-s5", "numerics effect mutation bounds isolation",
     CM_SET_CI, "no adapter; rows with gaps"},
    {"t40-{r16x2-K72-n131,r72x2-K203-n72}-S2-{bf16,f16}-full-{random,exact}-s8",
     "numerics effect bounds isolation", CM_SET_CI,
     "segments of 16 tokens and more, which tensor cores take"},
    {"t16-r16x3-K64-n48-bf16-yf32-{mixed,full}-{random,exact}-s8", "numerics effect bounds", CM_SET_CI,
     "the result in fp32"},
    {"t0-r8x2-K64-n64-bf16-{random,exact}-s6", "mutation bounds", CM_SET_CI, "no token"},
    {"t96-r64x2-K288-n288-bf16-full-random-s7", "determinism", CM_SET_CI,
     "products so large that libraries divide them among threads"},
    {"t{@rows}-r24x1-K72-n72-bf16-full-exact-s10", "numerics bounds", CM_SET_CI,
     "both sides of each kernel's switch points"},
    {"t5-r8x2-K3600-n130-{bf16,f32}-{random,exact}-s8", "numerics effect bounds determinism", CM_SET_CI,
     "long rows"},
    {"t3-r8x2-K64-n3600-bf16-{random,exact}-s8", "numerics effect bounds", CM_SET_CI, "wide rows"},
    {"t300-r4x40-K48-n48-{bf16,f32}-{random,exact}-s9", "numerics effect bounds", CM_SET_CI,
     "more tokens than 256, adapters than 32"},
    {"t{1,2,9,40}-r{1,3,8,16,48}x{1,2,6}-K{16,31,100,300}-n{16,31,100,300}-S{1,2,3}-{bf16,f16,f32}-"
     "{,accumulate=0}-{mixed,full,last,rank0}-{packed,padded}-{random,exact}-s*",
     "numerics effect mutation bounds state determinism", CM_SET_FUZZ, "everything with everything"},
    {0},
};

const cm_suite cm_suite_sgmv = {.name = "sgmv", .op = "sgmv", .rows = rows};
