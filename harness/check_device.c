// SPDX-License-Identifier: Apache-2.0
// device: every argument in turn lies on the wrong side: it is tagged as device memory and fenced, so that
// the host can't touch it. The kernel must refuse by a status before it looks. Cannot see: pointers whose tag
// lies; what a device does to host memory.
#include "harness/attempt.h"
#include "harness/op.h"

#include <stdio.h>

static cm_verdict run(const cm_trial *trial)
{
    cm_attempt attempt = {.trial = trial, .options = {.place = CM_PLACE_END, .poison = CM_CANARY}};
    const cm_op *op = trial->pristine->test_case.op;
    cm_verdict verdict = CM_PASS;
    if (!cm_attempt_sensible(&attempt))
        return trial->outcome->verdict;
    for (int n = 0; op->arguments[n].name && verdict == CM_PASS; n++) {
        char what[128];
        if (!trial->pristine->arguments[n])
            continue;
        cm_attempt_begin(&attempt);
        attempt.stage.tensors[n].dl.device.device_type = trial->kernel->device > kDLCPU ? kDLCPU : kDLCUDA;
        cm_arena_fence(&attempt.stage.arena, attempt.stage.tensors[n].dl.data);
        snprintf(what, sizeof what, "`%s` on the wrong device", op->arguments[n].name);
        verdict = cm_attempt_refused(&attempt, what);
    }
    if (verdict == CM_PASS)
        trial->outcome->bad_pattern[0] = 0;
    return verdict;
}

const cm_check cm_check_device = {
    .name = "device",
    .proves = "an argument on the wrong side is refused by a status before it is touched",
    .blind_to = "pointers whose tag lies",
    .run = run,
    .claims = {[CM_TOUCH_DEVICE] = true},
};
