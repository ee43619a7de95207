// SPDX-License-Identifier: Apache-2.0
#include "harness/bench_ceilings.h"

#include "harness/bench_cpus.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    MOST_THREADS = 1024,
    LIMIT = 120, // seconds for everything
    PASSES = 200 // about: each so short that some fall between the turns of other processes
};

static const size_t LEAST_BUFFER = (size_t)256 << 20, PIECE = (size_t)32 << 20; // bytes

// What all threads of one measurement share. A pass begins and ends at the barrier.
struct task {
    pthread_barrier_t barrier;
    int threads;
    bool done;
    double seconds; // about, for all passes
    char *buffer;   // NULL: multiply
    size_t bytes;   // of the buffer that each thread reads, a piece in each pass
    cm_operand operand;
    int64_t rounds; // of the loop, in a pass
    double best;    // per second, of all threads together
};

static struct worker {
    struct task *task;
    int index;
    pthread_t thread;
    double started, ended, did; // in the last pass
} workers[MOST_THREADS];

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

// One pass of one thread: how many bytes or operations it did.
static double do_part(const struct task *task, int index, int64_t pass)
{
    volatile uint64_t sink; // the reads must happen
    if (!task->buffer)
        return cm_peak_multiply(task->operand, task->rounds);
    size_t begin = (size_t)pass * PIECE % task->bytes;
    size_t bytes = task->bytes - begin < PIECE ? task->bytes - begin : PIECE;
    sink = cm_peak_read(task->buffer + (size_t)index * task->bytes + begin, bytes);
    (void)sink;
    return (double)bytes;
}

// From the first thread's start to the last one's end.
static double rate_of_pass(const struct task *task)
{
    double started = workers[0].started, ended = workers[0].ended, did = 0;
    for (int n = 0; n < task->threads; n++) {
        started = fmin(started, workers[n].started);
        ended = fmax(ended, workers[n].ended);
        did += workers[n].did;
    }
    return ended > started ? did / (ended - started) : 0;
}

static void *run_thread(void *argument)
{
    struct worker *worker = argument;
    struct task *task = worker->task;
    if (task->buffer) // the thread that reads the pages has them near
        memset(task->buffer + (size_t)worker->index * task->bytes, worker->index + 1, task->bytes);
    double begin = now();
    for (int64_t pass = 0; !task->done; pass++) {
        pthread_barrier_wait(&task->barrier);
        worker->started = now();
        worker->did = do_part(task, worker->index, pass);
        worker->ended = now();
        pthread_barrier_wait(&task->barrier);
        if (worker->index == 0) {
            task->best = fmax(task->best, rate_of_pass(task));
            task->done = now() - begin > task->seconds && pass >= 2;
        }
        pthread_barrier_wait(&task->barrier);
    }
    return NULL;
}

// False when a thread could not be started.
static bool run_task(struct task *task, const cpu_set_t *cpus)
{
    if (pthread_barrier_init(&task->barrier, NULL, (unsigned)task->threads))
        return false;
    for (int n = 0, cpu = 0; n < task->threads; n++, cpu++) {
        pthread_attr_t attributes;
        cpu_set_t one;
        while (!CPU_ISSET(cpu, cpus))
            cpu++;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        workers[n] = (struct worker){.task = task, .index = n};
        pthread_attr_init(&attributes);
        pthread_attr_setaffinity_np(&attributes, sizeof one, &one);
        if (pthread_create(&workers[n].thread, &attributes, run_thread, &workers[n]))
            return false; // the process ends now
        pthread_attr_destroy(&attributes);
    }
    for (int n = 0; n < task->threads; n++)
        pthread_join(workers[n].thread, NULL);
    pthread_barrier_destroy(&task->barrier);
    return true;
}

static char *take_buffer(int threads, size_t *bytes)
{
    size_t memory = cm_memory_available(), part = (size_t)threads * 4096;
    *bytes = 4 * cm_cache_size();
    *bytes = *bytes > LEAST_BUFFER ? *bytes : LEAST_BUFFER;
    if (memory && *bytes > memory / 4)
        *bytes = memory / 4;
    *bytes -= *bytes % part;
    void *buffer = mmap(NULL, *bytes ? *bytes : part, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (buffer == MAP_FAILED || *bytes == 0)
        return NULL;
    madvise(buffer, *bytes, MADV_HUGEPAGE);
    return buffer;
}

static bool measure(int threads, double seconds, cm_ceilings *ceilings)
{
    cpu_set_t cpus;
    cm_cpus_choose(threads, &cpus);
    for (cm_operand operand = 0; operand < CM_OPERAND_COUNT; operand++) {
        struct task task = {.threads = threads, .seconds = seconds, .operand = operand};
        if (!cm_operand_instruction(operand))
            continue;
        task.rounds = 1 << 16;
        double begin = now();
        cm_peak_multiply(operand, task.rounds);
        double took = now() - begin;
        task.rounds = (int64_t)((double)task.rounds * seconds / PASSES / (took > 1e-6 ? took : 1e-6)) + 1;
        if (!run_task(&task, &cpus))
            return false;
        ceilings->multiply[operand] = task.best;
    }
    struct task task = {.threads = threads, .seconds = seconds};
    task.buffer = take_buffer(threads, &ceilings->buffer);
    task.bytes = ceilings->buffer / (size_t)threads;
    if (!task.buffer || !run_task(&task, &cpus))
        return false;
    ceilings->read = task.best;
    return true;
}

cm_status cm_ceilings_measure(int threads, double seconds, cm_ceilings *ceilings, cm_error *error)
{
    *ceilings = (cm_ceilings){.threads = threads};
    if (threads < 1 || threads > cm_cpus_allowed() || threads > MOST_THREADS)
        return cm_fail(error, CM_BAD_VALUE, "%d threads: this process may use 1 to %d CPUs", threads,
                       cm_cpus_allowed());
    cm_ceilings *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return cm_fail(error, CM_NO_MEMORY, "no memory for the ceilings of this machine");
    *shared = *ceilings;
    fflush(NULL);
    pid_t process = fork();
    if (process == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        signal(SIGALRM, SIG_DFL);
        alarm(LIMIT);
        _exit(measure(threads, seconds, shared) ? 0 : 1);
    }
    int result = -1;
    while (process > 0 && waitpid(process, &result, 0) < 0)
        continue; // interrupted: the child gets the signal, too
    *ceilings = *shared;
    munmap(shared, sizeof *shared);
    if (result != 0 || !(ceilings->read > 0))
        return cm_fail(error, CM_NO_MEMORY,
                       "the ceilings of this machine could not be measured with %d threads: no memory, no "
                       "threads, no time, or interrupted",
                       threads);
    return CM_OK;
}

double cm_ceilings_multiply(const cm_ceilings *ceilings, cm_operand *operand)
{
    while (*operand > CM_OPERAND_F32 && !(ceilings->multiply[*operand] > 0))
        --*operand;
    return ceilings->multiply[*operand];
}
