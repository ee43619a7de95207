// SPDX-License-Identifier: Apache-2.0
// sgmv_plan: batches of every mixture, more adapters than tokens and the reverse.
#include "suites/suites.h"

static const cm_row rows[] = {
    {"t9-l3-random-s1", NULL, CM_SET_SMOKE, "a mixed batch"},
    {"t{1,2,31,257}-l{1,2,7,64}-{mixed,full,null,last}-random-s{1..2}", "numerics mutation bounds", CM_SET_CI,
     "one token, more adapters than tokens, all of one, none"},
    {"t{@T}-l3-mixed-random-s5", "numerics bounds", CM_SET_CI, "both sides of each kernel's switch points"},
    {"t5-l0-null-random-s3", "numerics mutation bounds state determinism", CM_SET_CI, "no adapter is loaded"},
    {"t0-l{0,3}-random-s4", "numerics bounds", CM_SET_CI,
     "no token: offsets and adapters are still written; there is no input to change"},
    {"t{1,7,64,300}-l{1,3,16,100}-{mixed,full,null,last}-random-s*",
     "numerics mutation bounds state determinism", CM_SET_FUZZ, "any size"},
    {0},
};

const cm_suite cm_suite_sgmv_plan = {.name = "sgmv_plan", .op = "sgmv_plan", .rows = rows};
