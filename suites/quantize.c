// SPDX-License-Identifier: Apache-2.0
// quantize: groups that don't divide the row and that begin inside a byte, groups of zeros, the ends of each
// dtype's range. Half of the quotients of exact data are ties. Doubled values of a denormal scale have other
// codes, so that tiny values leave out effect, which holds relations.
#include "suites/suites.h"

#define EACH        "numerics effect mutation bounds isolation"
#define NO_RELATION "numerics mutation bounds isolation"

static const cm_row rows[] = {
    {"t5-K70-g32-{bf16,f32}-{qi8,qi4}-{random,exact}-s1", NULL, CM_SET_SMOKE, "a little of everything"},
    {"t{3,17}-K{1,2,15,16,17,33,129,255}-{bf16,f16,f32}-{qi8,qi4}-{random,exact}-s2", EACH, CM_SET_CI,
     "whole rows on both sides of vectors and of bytes"},
    {"t9-K{32,127,128,160,300}-g{32,128}-{bf16,f16,f32}-{qi8,qi4}-{random,exact}-s3", EACH, CM_SET_CI,
     "groups of 32 and 128 that divide the row and that don't"},
    {"t4-K{45,64}-g{1,3,17,64,100}-{bf16,f32}-{qi8,qi4}-{random,exact}-s4", EACH, CM_SET_CI,
     "groups of one element, that begin inside a byte, as long as the row, longer"},
    {"t16-K{40,161}-{,g32}-{bf16,f16,f32}-{qi8,qi4}-zeros-{random,exact}-s5", EACH, CM_SET_CI,
     "groups of zeros: scale 0, codes 0"},
    {"t16-K{40,161}-{,g32}-{bf16,f16,f32}-{qi8,qi4}-tiny-{random,exact}-s6", NO_RELATION, CM_SET_CI,
     "denormal values and scales, scales that underflow to 0"},
    {"t16-K{40,161}-{,g32}-{bf16,f16,f32}-{qi8,qi4}-huge-{random,exact}-s7", EACH, CM_SET_CI,
     "the upper end of each dtype"},
    {"t12-K{63,64,97}-{,g32}-{bf16,f32}-{qi8,qi4}-padded-{random,exact}-s8", EACH " state determinism",
     CM_SET_CI, "rows with gaps"},
    {"t1-K{1,64,2048}-{,g128}-bf16-{qi8,qi4}-{random,exact}-s9", "numerics effect mutation bounds", CM_SET_CI,
     "a single row: no other token that isolation could hide"},
    {"t0-K64-g32-bf16-{qi8,qi4}-{random,exact}-s10", "bounds", CM_SET_CI,
     "no row: nothing may be touched, there is no input to change"},
    {"t{1,2,9,33}-K{1,7,16,31,64,100,333}-{,g1,g5,g16,g32,g128}-{bf16,f16,f32}-{qi8,qi4}-{ordinary,zeros,"
     "tiny,"
     "huge}-{packed,padded}-{random,exact}-s*",
     "numerics mutation bounds state determinism", CM_SET_FUZZ, "everything with everything"},
    {0},
};

const cm_suite cm_suite_quantize = {.name = "quantize", .op = "quantize", .rows = rows};
