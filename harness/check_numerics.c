// SPDX-License-Identifier: Apache-2.0
// numerics: every element of every output is what the reference wants: to the bit on exact data, else within
// 6 sigma of the roundings that the op allows. Inputs are writable, so that a kernel that edits them shows
// what follows. Cannot see: faults that this case's values don't reach, and a LoRA below the bound (see
// effect).
#include "harness/judge.h"
#include "harness/stage.h"

static cm_verdict run(const cm_trial *trial)
{
    cm_stage_options options = {.place = CM_PLACE_END, .poison = CM_CANARY};
    cm_stage stage;
    cm_verdict verdict;
    cm_stage_open(trial, &options, &stage);
    verdict = cm_stage_run(trial, &options, &stage) ? cm_judge_outputs(trial, stage.arguments)
                                                    : trial->outcome->verdict;
    cm_stage_close(&stage);
    return verdict;
}

const cm_check cm_check_numerics = {
    .name = "numerics",
    .proves = "every output element is right: to the bit on exact data, within 6 sigma otherwise",
    .blind_to = "what the case's values don't reach; a LoRA smaller than the bound",
    .run = run,
};
