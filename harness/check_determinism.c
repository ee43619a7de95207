// SPDX-License-Identifier: Apache-2.0
// determinism: repeats on the same input give the same bits, with other poisons and other places in memory. A
// kernel that declares itself nondeterministic is a SKIP. Cannot see: races that this machine's timing never
// lets happen; other thread counts.
#include "harness/op.h"
#include "harness/stage.h"

enum { REPEATS = 4 };

static cm_verdict run(const cm_trial *trial)
{
    const cm_op *op = trial->pristine->test_case.op;
    cm_stage_options options = {.place = CM_PLACE_END, .poison = CM_CANARY};
    cm_stage first, again;
    cm_verdict verdict = CM_PASS;
    if (trial->kernel->nondeterministic)
        return cm_conclude(trial->outcome, CM_SKIP, "the kernel declares that repeats may differ");
    cm_stage_open(trial, &options, &first);
    if (!cm_stage_run(trial, &options, &first))
        verdict = trial->outcome->verdict;
    for (int repeat = 1; repeat < REPEATS && verdict == CM_PASS; repeat++) {
        options.place = repeat % 2 ? CM_PLACE_START : CM_PLACE_END;
        options.poison = (unsigned char)(0x7f >> repeat);
        cm_stage_open(trial, &options, &again);
        if (!cm_stage_run(trial, &options, &again))
            verdict = trial->outcome->verdict;
        for (int n = 0; op->arguments[n].name && verdict == CM_PASS; n++) {
            int64_t flat;
            if (op->arguments[n].compare == CM_COMPARE_NONE)
                continue;
            trial->outcome->compared += cm_tensor_count(again.arguments[n]);
            if (!cm_tensor_equal(first.arguments[n], again.arguments[n], &flat))
                verdict = cm_conclude(
                    trial->outcome, CM_FAIL,
                    "`%s` differs from the first run in run %d, first at element %lld: %a, then %a",
                    op->arguments[n].name, repeat + 1, (long long)flat,
                    cm_tensor_get(first.arguments[n], flat), cm_tensor_get(again.arguments[n], flat));
        }
        cm_stage_close(&again);
    }
    cm_stage_close(&first);
    if (verdict == CM_PASS && trial->outcome->compared == 0)
        return cm_conclude(trial->outcome, CM_VACUOUS, "there is no output element to compare");
    return verdict;
}

const cm_check cm_check_determinism = {
    .name = "determinism",
    .proves = "repeats on the same input have the same bits, wherever the arguments lie",
    .blind_to = "races that this machine's timing never lets happen; other thread counts",
    .run = run,
};
