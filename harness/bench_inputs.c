// SPDX-License-Identifier: Apache-2.0
#include "harness/bench_inputs.h"

#include <stdlib.h>
#include <string.h>

static const double MOST_OPERATIONS = 4e9; // of a call: seconds of the reference

static int count_inputs(const cm_pristine *pristine, double operations, size_t cold, const cm_copies *copies)
{
    double round = (double)copies->count * (double)copies->touched; // bytes
    if (cold == 0 || operations > MOST_OPERATIONS ||
        strcmp(cm_case_word(&pristine->test_case, CM_AXIS_TIER), "random") != 0)
        return 1;
    double wanted = round > 0 ? 2 * (double)cold / round : 2;
    return wanted > CM_BENCH_INPUTS ? CM_BENCH_INPUTS : wanted < 2 ? 2 : (int)wanted;
}

cm_status cm_bench_inputs_open(cm_pristine *pristine, cm_pristine *unadapted, double operations, size_t cold,
                               cm_copies *copies, cm_bench_inputs **opened, cm_error *error)
{
    cm_bench_inputs *inputs = *opened = cm_new(1, sizeof *inputs);
    int count = count_inputs(pristine, operations, cold, copies);
    cm_status status = CM_OK;
    inputs->pristine = pristine;
    inputs->unadapted = unadapted;
    while (inputs->count + 1 < count) {
        int n = inputs->count;
        CM_TRY(
            cm_pristine_vary(pristine, pristine->test_case.seed + 1 + (uint64_t)n, &inputs->items[n], error));
        inputs->count++;
        if (unadapted)
            CM_TRY(cm_pristine_unadapted(&inputs->items[n], &inputs->bare_items[n], error));
        copies->others[n] = &inputs->items[n];
        copies->other_count = n + 1;
    }
    inputs->bare = *copies; // the same memory; the pristines say what of it there is
    inputs->bare.pristine = unadapted;
    for (int n = 0; n < inputs->count; n++)
        inputs->bare.others[n] = &inputs->bare_items[n];
done:
    return status;
}

cm_status cm_bench_inputs_want(cm_bench_inputs *inputs, cm_accuracy accuracy, cm_error *error)
{
    cm_status status = cm_pristine_want(inputs->pristine, accuracy, error);
    if (status == CM_OK && inputs->unadapted)
        status = cm_pristine_want(inputs->unadapted, accuracy, error);
    for (int n = 0; n < inputs->count && status == CM_OK; n++) {
        status = cm_pristine_want(&inputs->items[n], accuracy, error);
        if (status == CM_OK && inputs->unadapted)
            status = cm_pristine_want(&inputs->bare_items[n], accuracy, error);
    }
    return status;
}

void cm_bench_inputs_close(cm_bench_inputs *inputs)
{
    for (int n = 0; inputs && n < inputs->count; n++) {
        cm_pristine_close(&inputs->bare_items[n]);
        cm_pristine_close(&inputs->items[n]);
    }
    free(inputs);
}
