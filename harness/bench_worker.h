// SPDX-License-Identifier: Apache-2.0
// A timed process: one kernel, prepared and verified, that calls when it is asked to. It is stopped while the
// other kernel of a pair has its turn, so that no thread of it waits busily. Whatever the kernel does to its
// process stays there.
#ifndef CM_BENCH_WORKER_H
#define CM_BENCH_WORKER_H

#include "harness/bench_copies.h"
#include "harness/check.h"

#include <signal.h>
#include <sys/types.h>

typedef struct cm_bench_job {
    const cm_kernel *kernel;
    const char *plugin; // that has the kernel's functions; NULL: built in
    const cm_copies *copies;
    int threads;                       // of the call, and CPUs of the process
    double timeout;                    // seconds that an answer may take
    const volatile sig_atomic_t *stop; // not 0: wait no longer; may be NULL
} cm_bench_job;

typedef struct cm_worker {
    cm_bench_job job;
    pid_t process; // 0: none
    int commands, answers;
    struct cm_worker_slot *slot; // shared
    cm_outcome outcome;          // of what was asked for last
    double ns;                   // of what was asked for last
    bool interrupted;            // by job.stop: there is no verdict
} cm_worker;

// Why this kernel can't be timed on this machine, as a SKIP in the outcome: only kernels that really run on
// the processor have a speed. PASS: it can.
cm_verdict cm_bench_timeable(const cm_kernel *kernel, cm_outcome *outcome);

// Each returns the verdict, which is worker->outcome.verdict; after any but PASS the process is gone.
// Starting includes cm_bench_calls_open: worker->ns is a first idea of a call's time.
cm_verdict cm_worker_start(cm_worker *worker, const cm_bench_job *job);
cm_verdict cm_worker_time(cm_worker *worker, int64_t first, int64_t count); // sets worker->ns: of one call
cm_verdict cm_worker_verify(cm_worker *worker);
// Releases the states and ends the process: an ill end is a verdict, too. Accepts one that is gone.
cm_verdict cm_worker_finish(cm_worker *worker);
void cm_worker_kill(cm_worker *worker); // accepts a zeroed one

#endif
