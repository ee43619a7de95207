// SPDX-License-Identifier: Apache-2.0
// device: each argument in turn lies on the wrong side: tagged as memory of a GPU, of a kind of device that
// nobody knows, or of a second device, and fenced, so that the host can't touch it. For a kernel whose home
// is a device all arguments are fenced, and the one in turn is host memory; a real device's runtime is asked
// whether they lie there. The kernel must refuse by a status before it looks. Cannot see: pointers whose tag
// lies; what a device does to host memory.
#include "harness/attempt.h"
#include "harness/op.h"

#include <stdio.h>

static const struct side {
    DLDevice device;
    const char *words;
} sides[] = {
    {{kDLCPU, 0}, "in host memory"},
    {{kDLCUDA, 0}, "in CUDA memory"},
    {{kDLMetal, 0}, "on device type 8 (Metal)"},
    {{(DLDeviceType)99, 0}, "on device type 99, which does not exist"},
    {{kDLCPU, 1}, "on the second device"},
};
enum { SIDES = sizeof sides / sizeof *sides };

// A real device has no fence: its runtime says where the arguments lie. What its tag does not say is no
// attempt.
static cm_verdict hold_places(cm_attempt *attempt, int *located)
{
    const cm_side *side = cm_kernel_side(attempt->trial->kernel);
    const cm_argument *arguments = attempt->trial->pristine->test_case.op->arguments;
    cm_stage_send(&attempt->stage);
    for (int n = 0; side && side->locate && arguments[n].name; n++) {
        const DLTensor *tensor = attempt->stage.arguments[n];
        char reason[200] = "";
        DLDevice found;
        if (!tensor || (tensor->device.device_type != kDLCPU &&
                        (int)tensor->device.device_type != attempt->trial->kernel->device))
            continue; // of a kind that is made up
        if (side->locate(tensor->data, &found, reason, sizeof reason) != CM_OK)
            return cm_conclude(attempt->trial->outcome, CM_VACUOUS, "nobody knows where `%s` lies: %s",
                               arguments[n].name, reason);
        if (found.device_type != tensor->device.device_type)
            return cm_conclude(
                attempt->trial->outcome, CM_VACUOUS,
                "`%s` has the tag of device type %d, but its device's runtime says that it lies "
                "on %d",
                arguments[n].name, (int)tensor->device.device_type, (int)found.device_type);
        ++*located;
    }
    return CM_PASS;
}

static cm_verdict try_side(cm_attempt *attempt, int n, const struct side *side, int *located)
{
    const cm_kernel *kernel = attempt->trial->kernel;
    DLDeviceType home = kernel->device > kDLCPU ? (DLDeviceType)kernel->device : kDLCPU;
    DLDevice device = side->device;
    char what[128];
    if (device.device_id > 0)
        device.device_type = home;
    else if (device.device_type == home)
        return CM_PASS;
    cm_attempt_begin(attempt);
    attempt->stage.tensors[n].dl.device = device;
    cm_verdict verdict = hold_places(attempt, located);
    if (verdict != CM_PASS) {
        cm_stage_close(&attempt->stage);
        return verdict;
    }
    snprintf(what, sizeof what, "`%s` %s", attempt->trial->pristine->test_case.op->arguments[n].name,
             side->words);
    return cm_attempt_refused(attempt, what);
}

static cm_verdict run(const cm_trial *trial)
{
    cm_attempt attempt = {.trial = trial, .options = {.place = CM_PLACE_END, .poison = CM_CANARY}};
    const cm_op *op = trial->pristine->test_case.op;
    cm_verdict verdict = CM_PASS;
    int located = 0;
    if (!cm_attempt_sensible(&attempt))
        return trial->outcome->verdict;
    for (int n = 0; op->arguments[n].name; n++)
        for (int side = 0; side < SIDES && trial->pristine->arguments[n] && verdict == CM_PASS; side++)
            verdict = try_side(&attempt, n, &sides[side], &located);
    if (verdict == CM_PASS)
        trial->outcome->bad_pattern[0] = 0;
    if (located > 0)
        cm_outcome_metric(trial->outcome, "located_by_runtime", located);
    return verdict;
}

const cm_check cm_check_device = {
    .name = "device",
    .proves = "an argument on the wrong side is refused by a status before it is touched",
    .blind_to = "pointers whose tag lies",
    .run = run,
    .claims = {[CM_TOUCH_DEVICE] = true},
};
