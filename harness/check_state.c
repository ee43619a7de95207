// SPDX-License-Identifier: Apache-2.0
// state: what a kernel keeps between calls never shows. One state is used for several calls, two states in
// turn and from two threads, other values lie at the same addresses, and each result has the bits of a fresh
// state's in a fresh process; calls out of order and after a refusal are refused or right; a state whose
// prepare saw fewer adapters refuses more or is right (a metric of the record says so); release takes NULL. A
// run that is captured in a graph of its device is replayed on other values at the same addresses.
// Cannot see: wrong results that fresh states share (see numerics); races that this machine's timing never
// lets happen.
#include "harness/state.h"

#include <stdlib.h>

static cm_verdict run(const cm_trial *trial)
{
    static cm_verdict (*const parts[])(const cm_scenes *) = {
        cm_state_sequence, cm_state_order, cm_state_capacity, cm_state_place,
        cm_state_handles,  cm_state_graph, cm_state_threads};
    cm_scenes *scenes = cm_new(1, sizeof *scenes);
    cm_verdict verdict = cm_scenes_open(trial, scenes);
    for (size_t n = 0; n < sizeof parts / sizeof *parts && verdict == CM_PASS; n++)
        verdict = parts[n](scenes);
    cm_scenes_close(scenes);
    free(scenes);
    if (verdict == CM_PASS)
        trial->outcome->bad_pattern[0] = 0;
    if (verdict == CM_PASS && trial->outcome->compared == 0)
        return cm_conclude(trial->outcome, CM_VACUOUS, "there is no output element to compare");
    return verdict;
}

const cm_check cm_check_state = {
    .name = "state",
    .proves = "nothing that a kernel keeps between calls shows in a later result",
    .blind_to = "wrong results that a fresh state has, too",
    .run = run,
};
