// SPDX-License-Identifier: Apache-2.0
#include "harness/child.h"

#include "harness/host.h"
#include "harness/paths.h"
#include "harness/plugin.h"
#include "harness/site.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#endif

#ifdef SANITIZED
// Leaks of a kernel's child are not a finding, and a kernel that asks for too much gets NULL.
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0:allocator_may_return_null=1";
}
#endif

static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS};
enum { FATAL_COUNT = sizeof fatal / sizeof *fatal, OUTPUT_LIMIT = 1 << 20, STACK = 1 << 16 };

static const cm_check *current_check;
static cm_slot *current_slot;
static bool forked; // false with CK_FORK=no
static int output_file = -1, own_streams[2] = {-1, -1};
static char handler_stack[STACK];

static void append(char *text, size_t size, const char *more)
{
    size_t length = strnlen(text, size - 1);
    while (*more && length + 1 < size)
        text[length++] = *more++;
    text[length] = 0;
}

static const char *signal_word(int number)
{
    switch (number) {
    case SIGSEGV:
        return "SIGSEGV";
    case SIGBUS:
        return "SIGBUS";
    case SIGILL:
        return "SIGILL (an instruction that this machine doesn't have?)";
    case SIGFPE:
        return "SIGFPE (integer division by zero?)";
    case SIGABRT:
        return "SIGABRT";
    default:
        return "a fatal signal";
    }
}

// Appends the last line that the kernel printed, e.g. the text of an assertion.
static void append_output(char *text, size_t size)
{
    char tail[256];
    struct stat file;
    if (output_file < 0 || fstat(output_file, &file) || file.st_size == 0)
        return;
    off_t begin = file.st_size > (off_t)sizeof tail - 1 ? file.st_size - (off_t)sizeof tail + 1 : 0;
    ssize_t length = pread(output_file, tail, sizeof tail - 1, begin);
    if (length <= 0)
        return;
    tail[length] = 0;
    while (length > 0 && tail[length - 1] == '\n')
        tail[--length] = 0;
    char *line = strrchr(tail, '\n');
    append(text, size, "; it printed: ");
    append(text, size, line ? line + 1 : tail);
}

// Only async-signal-safe calls from here on.
static void on_signal(int number, siginfo_t *info, void *context)
{
    cm_outcome *outcome = &current_slot->outcome;
    outcome->verdict = CM_CRASH;
    outcome->reason[0] = 0;
    append(outcome->reason, sizeof outcome->reason, signal_word(number));
    if (number == SIGSEGV || number == SIGBUS) {
        bool write = false;
#if defined(__x86_64__)
        write = ((ucontext_t *)context)->uc_mcontext.gregs[REG_ERR] & 2;
#endif
        const cm_block *block;
        char where[256];
        cm_touch touch = cm_arena_explain(info->si_addr, write, where, sizeof where, &block);
        if (current_check->claims[touch]) {
            outcome->verdict = CM_FAIL;
            outcome->reason[0] = 0;
        } else {
            append(outcome->reason, sizeof outcome->reason, ": ");
        }
        append(outcome->reason, sizeof outcome->reason, where);
        if (block)
            strncpy(outcome->first_bad.argument, block->name, sizeof outcome->first_bad.argument - 1);
    } else {
        (void)context;
        append_output(outcome->reason, sizeof outcome->reason);
    }
    outcome->paths = cm_host_paths();
    current_slot->stage = CM_CHILD_DIED;
    signal(number, SIG_DFL);
    raise(number);
}

static void fence_signals(void)
{
    stack_t stack = {.ss_sp = handler_stack, .ss_size = sizeof handler_stack};
    sigaltstack(&stack, NULL);
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    sigemptyset(&action.sa_mask);
    for (int n = 0; n < FATAL_COUNT; n++)
        sigaction(fatal[n], &action, NULL);
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
}

static double seconds_of(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double time_allowed; // seconds

static void set_alarm(void)
{
    double whole = floor(time_allowed);
    struct itimerval timer = {.it_value = {(time_t)whole, (suseconds_t)(1e6 * (time_allowed - whole))}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

// Of a loaded machine a process may have got too little: then it goes on, until Check ends it.
static void on_alarm(int number)
{
    (void)number;
    if (current_slot->stage == CM_CHILD_DONE || seconds_of(CLOCK_PROCESS_CPUTIME_ID) < time_allowed / 2) {
        set_alarm();
        return;
    }
    cm_outcome *outcome = &current_slot->outcome;
    outcome->verdict = CM_TIMEOUT;
    outcome->reason[0] = 0;
    append(outcome->reason, sizeof outcome->reason, CM_TIMEOUT_REASON);
    current_slot->stage = CM_CHILD_DIED;
    _exit(EXIT_FAILURE);
}

static void fence_time(double timeout)
{
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_ONSTACK | SA_RESTART};
    sigemptyset(&action.sa_mask);
    time_allowed = timeout;
    if (!forked)
        return;
    sigaction(SIGALRM, &action, NULL);
    set_alarm();
}

// A real device's runtime reserves addresses by the terabyte.
static void fence_resources(size_t case_bytes, const cm_kernel *kernel)
{
    cm_arena_elsewhere(kernel->side ? kernel->side->owns : NULL);
    if (!forked)
        return; // the limits would stay on the runner
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){OUTPUT_LIMIT, OUTPUT_LIMIT});
    long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    if (statm) {
        if (fscanf(statm, "%ld", &pages) != 1)
            pages = 0;
        fclose(statm);
    }
    if (kernel->side && !kernel->side->emulated)
        return;
    rlim_t limit = (rlim_t)pages * 4096 + ((rlim_t)1 << 30) + 32 * (rlim_t)case_bytes;
    setrlimit(RLIMIT_AS, &(struct rlimit){limit, limit});
}

static void fence_output(void)
{
    fflush(NULL);
    output_file = memfd_create("kernel output", MFD_CLOEXEC);
    if (output_file >= 0) {
        own_streams[0] = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
        own_streams[1] = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
        dup2(output_file, STDOUT_FILENO);
        dup2(output_file, STDERR_FILENO);
    }
}

// Without a fork (CK_FORK=no) the report still has to be printed from this process.
static void restore_output(void)
{
    for (int stream = 0; stream < 2 && output_file >= 0; stream++)
        if (own_streams[stream] >= 0) {
            dup2(own_streams[stream], stream ? STDERR_FILENO : STDOUT_FILENO);
            close(own_streams[stream]);
            own_streams[stream] = -1;
        }
    close(output_file);
    output_file = -1;
}

// A kernel never prints, never touches file descriptors, and takes no path that it doesn't declare.
static cm_verdict check_manners(cm_verdict verdict, const cm_kernel *kernel, cm_outcome *outcome)
{
    struct stat file;
    int declared = cm_paths_count(kernel);
    fflush(stdout);
    fflush(stderr);
    if (verdict == CM_PASS && outcome->paths >> declared)
        return cm_conclude(
            outcome, CM_FAIL,
            "the kernel said that it takes a path of a number that it does not declare: it has "
            "%d path%s, counted from 0",
            declared, declared == 1 ? "" : "s");
    if (verdict != CM_PASS || output_file < 0)
        return verdict;
    if (fstat(output_file, &file))
        return cm_conclude(outcome, CM_FAIL, "the kernel closed file descriptors of its process (%s)",
                           strerror(errno));
    if (file.st_size > 0) {
        cm_conclude(outcome, CM_FAIL, "the kernel printed %s%lld bytes; a kernel never prints",
                    file.st_size >= OUTPUT_LIMIT ? "at least " : "", (long long)file.st_size);
        append_output(outcome->reason, sizeof outcome->reason);
        return CM_FAIL;
    }
    return verdict;
}

// The check on a kernel whose functions are still to be loaded.
static cm_verdict run_plugin(const cm_check *check, const cm_trial *trial, const char *path)
{
    cm_kernel kernel;
    cm_error error = {{0}};
    if (cm_plugin_load(path, trial->kernel->name, &kernel, &error) != CM_OK)
        return cm_conclude(trial->outcome, CM_ERROR, "%s", error.message);
    fence_resources(trial->pristine->bytes, &kernel);
    return check->run(&(cm_trial){&kernel, trial->pristine, trial->outcome});
}

// A fault of the harness in the child is no verdict on the kernel.
static void on_broken(const char *message)
{
    cm_conclude(&current_slot->outcome, CM_CRASH, "%s", message);
    current_slot->stage = CM_CHILD_BROKEN;
    _exit(3);
}

void cm_child_run(const cm_check *check, const cm_trial *trial, const char *plugin, double timeout,
                  cm_slot *slot)
{
    cm_verdict verdict;
    current_check = check;
    current_slot = slot;
    const char *forks = getenv("CK_FORK");
    forked = !forks || strcmp(forks, "no") != 0;
    fence_output();
    fence_signals();
    if (forked)
        cm_broken_hook(on_broken);
    cm_host_forget_paths();
    slot->stage = CM_CHILD_BEGUN;
    double begin = seconds_of(CLOCK_MONOTONIC);
    fence_time(timeout);
    if (plugin) {
        verdict = run_plugin(check, trial, plugin);
    } else {
        fence_resources(trial->pristine->bytes, trial->kernel);
        verdict = check->run(trial);
    }
    trial->outcome->paths = cm_host_paths();
    verdict = check_manners(verdict, trial->kernel, trial->outcome);
    trial->outcome->verdict = verdict;
    slot->ms = 1e3 * (seconds_of(CLOCK_MONOTONIC) - begin);
    slot->stage = CM_CHILD_DONE;
    if (!forked)
        restore_output();
}
