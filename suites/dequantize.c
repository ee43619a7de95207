// SPDX-License-Identifier: Apache-2.0
// dequantize: every code of each dtype, groups that don't divide the row, scales of 0 and at the ends of the
// range.
#include "suites/suites.h"

#define EACH "numerics effect mutation bounds isolation"

static const cm_row rows[] = {
    {"t5-K70-g32-{bf16,f32}-{qi8,qi4}-{random,exact}-s1", NULL, CM_SET_SMOKE, "a little of everything"},
    {"t{3,17}-K{1,15,17,33,255}-{bf16,f16,f32}-{qi8,qi4}-{random,exact}-s2", EACH, CM_SET_CI,
     "whole rows on both sides of vectors and of bytes"},
    {"t9-K{127,128,300}-g{32,128}-{bf16,f16,f32}-{qi8,qi4}-{random,exact}-s3", EACH, CM_SET_CI,
     "groups of 32 and 128 that divide the row and that don't"},
    {"t4-K45-g{1,3,17,100}-{bf16,f32}-{qi8,qi4}-{random,exact}-s4", EACH, CM_SET_CI,
     "groups of one element, that begin inside a byte, longer than the row"},
    {"t16-K{40,161}-g32-{bf16,f16,f32}-{qi8,qi4}-{zeros,tiny,huge}-{random,exact}-s5", EACH, CM_SET_CI,
     "scales of 0 and at both ends of the range"},
    {"t12-K{63,64}-g32-{bf16,f32}-{qi8,qi4}-padded-{random,exact}-s6", EACH " state determinism", CM_SET_CI,
     "rows with gaps"},
    {"t0-K64-bf16-{qi8,qi4}-{random,exact}-s7", "bounds", CM_SET_CI,
     "no row: nothing may be touched, there is no input to change"},
    {"t{1,2,9,33}-K{1,7,16,31,64,100,333}-{,g1,g5,g32,g128}-{bf16,f16,f32}-{qi8,qi4}-{ordinary,zeros,tiny,"
     "huge}-"
     "{packed,padded}-{random,exact}-s*",
     "numerics mutation bounds state determinism", CM_SET_FUZZ, "everything with everything"},
    {0},
};

const cm_suite cm_suite_dequantize = {.name = "dequantize", .op = "dequantize", .rows = rows};
