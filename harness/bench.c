// SPDX-License-Identifier: Apache-2.0
#include "harness/bench.h"

#include "harness/rng.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

enum { SAMPLE_NS = 200000, MOST_CALLS = 10000, ORDER_STREAM = 0x42 };

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int64_t calls_of_sample(double ns)
{
    double calls = ceil(SAMPLE_NS / fmax(ns, 1));
    return calls < 1 ? 1 : calls > MOST_CALLS ? MOST_CALLS : (int64_t)calls;
}

// One pair, in the order that chance gives it; both kernels go over the same copies.
static bool run_pair(cm_worker workers[2], cm_rng order, int pair, int64_t calls, double ns[2])
{
    int first = (int)(cm_rng_bits(order, (uint64_t)pair) & 1);
    for (int turn = 0; turn < 2; turn++) {
        cm_worker *worker = &workers[turn ? 1 - first : first];
        if (cm_worker_time(worker, pair * calls, calls) != CM_PASS)
            return false;
        ns[worker - workers] = worker->ns;
    }
    return true;
}

static bool run_pairs(cm_worker workers[2], const cm_bench_options *options, cm_bench_result *result,
                      double *samples[3])
{
    cm_rng order = {options->seed, ORDER_STREAM};
    const char *name = workers[1].job.kernel->name;
    double begin = now(), ns[2];
    bool fine = true;
    for (int pair = -1; pair < options->rounds && fine; pair++) { // the first only warms up
        if (pair > 0 && now() - begin > options->seconds)
            break;
        if (options->progress)
            options->progress(name, pair < 0 ? 0 : pair, options->rounds);
        fine = run_pair(workers, order, pair < 0 ? options->rounds : pair, result->calls, ns);
        if (pair < 0 || !fine)
            continue;
        samples[0][pair] = ns[0];
        samples[1][pair] = ns[1];
        samples[2][pair] = log(fmax(ns[1], 1) / fmax(ns[0], 1));
        result->pairs = pair + 1;
    }
    return fine;
}

bool cm_bench_pair(const cm_bench_job jobs[2], const cm_bench_options *options, cm_bench_result *result)
{
    cm_worker workers[2] = {0};
    double *samples[3];
    bool fine = true;
    *result = (cm_bench_result){0};
    for (int n = 0; n < 3; n++)
        samples[n] = cm_new((size_t)options->rounds, sizeof *samples[n]);
    for (int n = 0; n < 2 && fine; n++)
        fine = cm_worker_start(&workers[n], &jobs[n]) == CM_PASS;
    result->calls = fine ? calls_of_sample(fmin(workers[0].ns, workers[1].ns)) : 0;
    fine = fine && run_pairs(workers, options, result, samples);
    for (int n = 0; n < 2 && fine; n++)
        fine = cm_worker_verify(&workers[n]) == CM_PASS;
    for (int n = 0; n < 2 && fine; n++)
        fine = cm_worker_finish(&workers[n]) == CM_PASS;
    for (int n = 0; n < 2; n++) {
        cm_worker_kill(&workers[n]);
        result->outcomes[n] = workers[n].outcome;
        result->interrupted = result->interrupted || workers[n].interrupted;
        if (fine)
            result->ns[n] = cm_median(samples[n], (size_t)result->pairs);
    }
    if (fine)
        result->ratio = cm_median_interval(samples[2], (size_t)result->pairs, CM_BENCH_LEVEL);
    for (int n = 0; n < 3; n++)
        free(samples[n]);
    return fine;
}
