// SPDX-License-Identifier: Apache-2.0
#include "harness/bench_worker.h"

#include "harness/bench_call.h"
#include "harness/bench_cpus.h"
#include "harness/plugin.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct cm_worker_slot {
    cm_outcome outcome;
    double ns;
    volatile bool broken; // a fault of the harness, in outcome.reason
};

enum kind { TIME, VERIFY, FINISH };

struct command {
    enum kind kind;
    int64_t first, count;
};

cm_verdict cm_bench_timeable(const cm_kernel *kernel, cm_outcome *outcome)
{
    const char *preloaded = getenv("LD_PRELOAD");
    if (kernel->side && kernel->side->emulated)
        return cm_conclude(outcome, CM_SKIP, "its device is emulated here: an emulated run has no speed");
    if (kernel->device != 0 && kernel->device != kDLCPU)
        return cm_conclude(outcome, CM_SKIP,
                           "it is a kernel of another device: bench measures kernels of host memory only");
    if (preloaded && strstr(preloaded, "checkmoe-amx"))
        return cm_conclude(outcome, CM_SKIP,
                           "an emulator is preloaded (LD_PRELOAD): an emulated run has no speed");
    return CM_PASS;
}

static struct cm_worker_slot *child_slot;

static void on_broken(const char *message)
{
    snprintf(child_slot->outcome.reason, sizeof child_slot->outcome.reason, "%s", message);
    child_slot->broken = true;
    _exit(3);
}

// The child's side: what the runner had around it is gone, and a kernel's words go nowhere.
static void fence(const cm_bench_job *job)
{
    cpu_set_t cpus;
    static const int numbers[] = {SIGINT, SIGTERM, SIGALRM, SIGPIPE, SIGSEGV,
                                  SIGBUS, SIGILL,  SIGFPE,  SIGABRT};
    int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (size_t n = 0; n < sizeof numbers / sizeof *numbers; n++)
        signal(numbers[n], SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpgid(0, 0); // an interrupt on the terminal is the parent's
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    for (int stream = STDIN_FILENO; stream <= STDERR_FILENO && nowhere >= 0; stream++)
        dup2(nowhere, stream);
    cm_cpus_choose(job->threads, &cpus);
    sched_setaffinity(0, sizeof cpus, &cpus);
    cm_copies_protect(job->copies);
}

static bool answer(int answers)
{
    char done = 1;
    return write(answers, &done, 1) == 1;
}

static _Noreturn void run_child(const cm_bench_job *job, int commands, int answers,
                                struct cm_worker_slot *slot)
{
    cm_kernel loaded;
    const cm_kernel *kernel = job->kernel;
    cm_error error = {{0}};
    cm_bench_calls *calls = NULL;
    cm_verdict verdict = CM_PASS;
    struct command command;
    child_slot = slot;
    cm_broken_hook(on_broken);
    fence(job);
    if (job->plugin) {
        if (cm_plugin_load(job->plugin, kernel->name, &loaded, &error) != CM_OK)
            verdict = cm_conclude(&slot->outcome, CM_ERROR, "%s", error.message);
        kernel = &loaded;
    }
    if (verdict == CM_PASS)
        verdict = cm_bench_calls_open(kernel, job->copies, job->threads, &slot->outcome, &slot->ns, &calls);
    slot->outcome.verdict = verdict;
    while (answer(answers) && verdict == CM_PASS &&
           read(commands, &command, sizeof command) == sizeof command) {
        if (command.kind == TIME)
            verdict = cm_bench_calls_time(calls, command.first, command.count, &slot->ns);
        else if (command.kind == VERIFY)
            verdict = cm_bench_calls_verify(calls);
        else
            cm_bench_calls_close(calls);
        slot->outcome.verdict = verdict;
        if (command.kind == FINISH) {
            answer(answers);
            break;
        }
    }
    _exit(0); // destructors of libraries are not what is measured
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

// Whether the worker answered in time: 1, 0 (too late, or stopped), -1 (it is gone).
static int wait_for_answer(cm_worker *worker)
{
    double end = now() + worker->job.timeout;
    char done;
    for (;;) {
        struct pollfd file = {worker->answers, POLLIN, 0};
        worker->interrupted = worker->job.stop && *worker->job.stop;
        if (now() >= end || worker->interrupted)
            return 0;
        int ready = poll(&file, 1, 100);
        if (ready < 0 && errno != EINTR)
            return -1;
        if (ready > 0)
            return read(worker->answers, &done, 1) == 1 ? 1 : -1;
    }
}

void cm_worker_kill(cm_worker *worker)
{
    if (worker->process > 0) {
        kill(worker->process, SIGKILL);
        while (waitpid(worker->process, NULL, 0) < 0 && errno == EINTR)
            continue;
    }
    if (worker->commands > 0)
        close(worker->commands);
    if (worker->answers > 0)
        close(worker->answers);
    if (worker->slot)
        munmap(worker->slot, sizeof *worker->slot);
    worker->process = 0;
    worker->commands = worker->answers = 0;
    worker->slot = NULL;
}

// Takes what the process left in the slot, and how it ended if it is gone.
static cm_verdict conclude(cm_worker *worker, int answered, const char *doing)
{
    cm_outcome *outcome = &worker->outcome;
    *outcome = worker->slot->outcome;
    outcome->gains = NULL;
    outcome->tiles = NULL;
    worker->ns = worker->slot->ns;
    if (answered > 0)
        return outcome->verdict;
    if (worker->interrupted)
        return cm_conclude(outcome, CM_TIMEOUT, "interrupted %s", doing);
    if (answered == 0)
        return cm_conclude(outcome, CM_TIMEOUT, "no answer within %g s %s", worker->job.timeout, doing);
    int status = 0;
    while (waitpid(worker->process, &status, 0) < 0 && errno == EINTR)
        continue;
    worker->process = 0;
    if (worker->slot->broken)
        cm_broken("%s", worker->slot->outcome.reason);
    if (WIFSIGNALED(status))
        return cm_conclude(outcome, CM_CRASH, "SIG%s (%s) %s", sigabbrev_np(WTERMSIG(status)),
                           sigdescr_np(WTERMSIG(status)), doing);
    return cm_conclude(outcome, CM_CRASH, "the kernel ended its process with exit status %d %s",
                       WEXITSTATUS(status), doing);
}

// The process goes to sleep until it is asked again, with all of its threads.
static int halt(cm_worker *worker)
{
    int status;
    pid_t seen;
    if (kill(worker->process, SIGSTOP))
        return -1;
    while ((seen = waitpid(worker->process, &status, WUNTRACED)) < 0 && errno == EINTR)
        continue;
    if (seen == worker->process && WIFSTOPPED(status))
        return 1;
    worker->process = 0; // it ended in between, and was reaped here
    return -1;
}

static cm_verdict ask(cm_worker *worker, const struct command *command, const char *doing)
{
    if (worker->process == 0)
        return worker->outcome.verdict;
    int answered = -1;
    kill(worker->process, SIGCONT);
    if (write(worker->commands, command, sizeof *command) == sizeof *command)
        answered = wait_for_answer(worker);
    cm_verdict verdict = conclude(worker, answered, doing);
    if (verdict == CM_PASS && command->kind != FINISH && halt(worker) < 0)
        verdict = cm_conclude(&worker->outcome, CM_CRASH, "its process ended between two calls %s", doing);
    if (verdict != CM_PASS)
        cm_worker_kill(worker);
    return verdict;
}

cm_verdict cm_worker_start(cm_worker *worker, const cm_bench_job *job)
{
    int commands[2], answers[2];
    *worker = (cm_worker){.job = *job};
    if (cm_bench_timeable(job->kernel, &worker->outcome) != CM_PASS)
        return worker->outcome.verdict;
    worker->slot =
        mmap(NULL, sizeof *worker->slot, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (worker->slot == MAP_FAILED || pipe2(commands, O_CLOEXEC) || pipe2(answers, O_CLOEXEC))
        cm_broken("no memory or pipes for a timed process");
    signal(SIGPIPE, SIG_IGN); // a command to a process that is gone
    fflush(NULL);
    worker->process = fork();
    if (worker->process < 0)
        cm_broken("no process for %s: %s", job->kernel->name, strerror(errno));
    if (worker->process == 0) {
        close(commands[1]);
        close(answers[0]);
        run_child(job, commands[0], answers[1], worker->slot);
    }
    close(commands[0]);
    close(answers[1]);
    worker->commands = commands[1];
    worker->answers = answers[0];
    cm_verdict verdict = conclude(worker, wait_for_answer(worker), "while it was prepared and verified");
    if (verdict == CM_PASS && halt(worker) < 0)
        verdict = cm_conclude(&worker->outcome, CM_CRASH, "its process ended after its first calls");
    if (verdict != CM_PASS)
        cm_worker_kill(worker);
    return verdict;
}

cm_verdict cm_worker_time(cm_worker *worker, int64_t first, int64_t count)
{
    struct command command = {TIME, first, count};
    return ask(worker, &command, "in a timed call");
}

cm_verdict cm_worker_verify(cm_worker *worker)
{
    struct command command = {.kind = VERIFY};
    return ask(worker, &command, "when it was verified after the timed calls");
}

cm_verdict cm_worker_finish(cm_worker *worker)
{
    struct command command = {.kind = FINISH};
    cm_verdict verdict = ask(worker, &command, "in release");
    cm_worker_kill(worker);
    return verdict;
}
