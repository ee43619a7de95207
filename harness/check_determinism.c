// SPDX-License-Identifier: Apache-2.0
// determinism: repeats on the same input give the same bits, with other poisons, other places in memory and
// other limits on the number of threads. A kernel that declares itself nondeterministic is a SKIP. Cannot
// see: races that this machine's timing never lets happen; threads that a kernel does not start for so little
// work; whether it keeps to the limit.
#include "harness/op.h"
#include "harness/stage.h"

#include <stdio.h>
#include <stdlib.h>

// Thread limits of the runs. The first two differ in nothing but places and poisons.
static const int limits[] = {0, 0, 1, 2, 3, 0, 1, 2, 3};
enum { RUNS = sizeof limits / sizeof *limits, LIMITS = 4 };

static cm_verdict differs(const cm_trial *trial, int n, int run, int64_t flat, const DLTensor *first,
                          const DLTensor *again)
{
    char limit[48] = "no limit on threads";
    if (limits[run] > 0)
        snprintf(limit, sizeof limit, "at most %d thread%s", limits[run], limits[run] > 1 ? "s" : "");
    return cm_conclude(trial->outcome, CM_FAIL,
                       "`%s` differs from the first run%s in run %d (%s), first at element %lld: %a, then %a",
                       trial->pristine->test_case.op->arguments[n].name,
                       trial->kernel->threads_change_bits ? " with this limit" : "", run + 1, limit,
                       (long long)flat, cm_tensor_get(first, flat), cm_tensor_get(again, flat));
}

// The first output that has other bits than before; -1: none.
static int compare(const cm_trial *trial, const cm_stage *before, const cm_stage *now, int64_t *flat)
{
    const cm_op *op = trial->pristine->test_case.op;
    for (int n = 0; op->arguments[n].name; n++) {
        if (op->arguments[n].compare == CM_COMPARE_NONE)
            continue;
        trial->outcome->compared += cm_tensor_count(now->arguments[n]);
        if (!cm_tensor_equal(before->arguments[n], now->arguments[n], flat))
            return n;
    }
    return -1;
}

static cm_verdict run(const cm_trial *trial)
{
    cm_stage *first[LIMITS] = {NULL}; // of each limit
    bool by_limit = trial->kernel->threads_change_bits, varies = false;
    cm_verdict verdict = CM_PASS;
    if (trial->kernel->nondeterministic)
        return cm_conclude(trial->outcome, CM_SKIP, "the kernel declares that repeats may differ");
    for (int n = 0; n < RUNS && verdict == CM_PASS; n++) {
        cm_stage_options options = {.place = n % 2 ? CM_PLACE_START : CM_PLACE_END,
                                    .poison = (unsigned char)(n ? 0x7f >> n % 4 : CM_CANARY),
                                    .threads = limits[n]};
        cm_stage *stage = cm_new(1, sizeof *stage);
        int64_t flat = 0;
        cm_stage_open(trial, &options, stage);
        if (!cm_stage_run(trial, &options, stage))
            verdict = trial->outcome->verdict;
        const cm_stage *reference = first[by_limit ? limits[n] : 0];
        int bad = verdict == CM_PASS && reference ? compare(trial, reference, stage, &flat) : -1;
        if (bad >= 0)
            verdict = differs(trial, bad, n, flat, reference->arguments[bad], stage->arguments[bad]);
        if (verdict == CM_PASS && by_limit && !reference && n > 0)
            varies = compare(trial, first[0], stage, &flat) >= 0 || varies;
        if (!first[limits[n]]) {
            first[limits[n]] = stage;
        } else {
            cm_stage_close(stage);
            free(stage);
        }
    }
    for (int n = 0; n < LIMITS; n++)
        if (first[n]) {
            cm_stage_close(first[n]);
            free(first[n]);
        }
    if (verdict == CM_PASS && by_limit)
        cm_outcome_metric(trial->outcome, "threads_change_bits", varies);
    if (verdict == CM_PASS && trial->outcome->compared == 0)
        return cm_conclude(trial->outcome, CM_VACUOUS, "there is no output element to compare");
    return verdict;
}

const cm_check cm_check_determinism = {
    .name = "determinism",
    .proves = "repeats have the same bits, wherever the arguments lie and however many threads are allowed",
    .blind_to = "races that this machine's timing never lets happen",
    .run = run,
};
