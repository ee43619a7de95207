// SPDX-License-Identifier: Apache-2.0
#include "harness/parallel.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { POLL = 20000 }; // microseconds between two looks at the workers

struct item {
    int worker;
    atomic_bool done;
    size_t bytes;
};

// In a mapping that all processes share; behind it the items and what the workers leave.
struct share {
    atomic_size_t next, done, begun;
    atomic_int failed; // a cm_status; the message goes with the first
    char message[sizeof((cm_error *)0)->message];
    struct item items[];
};

struct team {
    const cm_parallel *parallel;
    struct share *share;
    size_t mapped;
    int *outputs; // memory file of each worker
    off_t *taken; // bytes of it
    pid_t *processes;
    size_t next; // item to be taken
};

int cm_parallel_processors(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    return CPU_COUNT(&set) > 0 ? CPU_COUNT(&set) : 1;
}

static void *left_of(const struct team *team, int worker)
{
    char *end = (char *)&team->share->items[team->parallel->items];
    return end + (size_t)worker * team->parallel->left_size;
}

static void work(struct team *team, int worker)
{
    const cm_parallel *parallel = team->parallel;
    struct share *share = team->share;
    off_t written = 0;
    prctl(PR_SET_PDEATHSIG, SIGTERM); // it ends with its item
    while (!*parallel->stop && !atomic_load(&share->failed)) {
        size_t n = atomic_fetch_add(&share->next, 1);
        cm_error error = {{0}};
        if (n >= parallel->items)
            break;
        atomic_store(&share->begun, n);
        cm_status status = parallel->run(parallel->self, n, team->outputs[worker], &error);
        off_t end = lseek(team->outputs[worker], 0, SEEK_END);
        share->items[n].worker = worker;
        share->items[n].bytes = (size_t)(end - written);
        written = end;
        atomic_store(&share->items[n].done, true);
        atomic_fetch_add(&share->done, 1);
        int none = CM_OK;
        if (status != CM_OK && atomic_compare_exchange_strong(&share->failed, &none, (int)status))
            memcpy(share->message, error.message, sizeof share->message);
    }
    if (parallel->leave)
        parallel->leave(parallel->self, left_of(team, worker));
    fflush(NULL);
    _exit(0);
}

// Hands over the items that are done, up to the first that isn't.
static cm_status take_done(struct team *team, cm_error *error)
{
    const cm_parallel *parallel = team->parallel;
    cm_status status = CM_OK;
    for (; team->next < parallel->items && status == CM_OK; team->next++) {
        const struct item *item = &team->share->items[team->next];
        if (!atomic_load(&item->done))
            break;
        char *bytes = cm_new(item->bytes + 1, 1);
        ssize_t got = pread(team->outputs[item->worker], bytes, item->bytes, team->taken[item->worker]);
        team->taken[item->worker] += (off_t)item->bytes;
        if (got != (ssize_t)item->bytes)
            status = cm_fail(error, CM_BAD_STATE, "what a worker wrote can't be read: %s", strerror(errno));
        else if (item->bytes)
            status = parallel->take(parallel->self, bytes, item->bytes, error);
        free(bytes);
    }
    return status;
}

static cm_status start(struct team *team, cm_error *error)
{
    const cm_parallel *parallel = team->parallel;
    fflush(NULL);
    for (int w = 0; w < parallel->processes; w++) {
        team->outputs[w] = memfd_create("checkmoe-worker", MFD_CLOEXEC);
        team->processes[w] = team->outputs[w] < 0 ? -1 : fork();
        if (team->processes[w] == 0)
            work(team, w);
        if (team->processes[w] < 0)
            return cm_fail(error, CM_NO_MEMORY, "no worker process: %s", strerror(errno));
    }
    return CM_OK;
}

// Waits for the workers, and takes what they have done meanwhile.
static cm_status attend(struct team *team, cm_error *error)
{
    const cm_parallel *parallel = team->parallel;
    struct share *share = team->share;
    cm_status status = CM_OK;
    int alive = 0;
    bool told = false;
    for (int w = 0; w < parallel->processes; w++)
        alive += team->processes[w] > 0;
    while (alive > 0) {
        for (int w = 0; w < parallel->processes; w++) {
            int how;
            if (team->processes[w] <= 0 || waitpid(team->processes[w], &how, WNOHANG) != team->processes[w])
                continue;
            team->processes[w] = 0;
            alive--;
            if (!WIFEXITED(how) || WEXITSTATUS(how) != 0) {
                int none = CM_OK;
                if (atomic_compare_exchange_strong(&share->failed, &none, CM_BAD_STATE))
                    snprintf(share->message, sizeof share->message, "a worker process ended with %s %d",
                             WIFEXITED(how) ? "status" : "signal",
                             WIFEXITED(how) ? WEXITSTATUS(how) : WTERMSIG(how));
            }
        }
        for (int w = 0; w < parallel->processes && *parallel->stop && !told; w++)
            if (team->processes[w] > 0) // the signal may have been for this process alone
                kill(team->processes[w], SIGTERM);
        told = told || *parallel->stop;
        if (status == CM_OK)
            status = take_done(team, error);
        if (status != CM_OK)
            atomic_store(&share->failed, (int)status);
        parallel->watch(parallel->self, atomic_load(&share->done), atomic_load(&share->begun));
        if (alive > 0)
            usleep(POLL);
    }
    return status == CM_OK ? take_done(team, error) : status;
}

cm_status cm_parallel_run(const cm_parallel *parallel, cm_error *error)
{
    size_t count = (size_t)parallel->processes;
    struct team team = {.parallel = parallel,
                        .mapped = sizeof(struct share) + parallel->items * sizeof(struct item) +
                                  count * parallel->left_size};
    team.share = mmap(NULL, team.mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (team.share == MAP_FAILED)
        return cm_fail(error, CM_NO_MEMORY, "no memory to share with %d workers", parallel->processes);
    team.outputs = cm_new(count, sizeof *team.outputs);
    team.taken = cm_new(count, sizeof *team.taken);
    team.processes = cm_new(count, sizeof *team.processes);
    memset(team.outputs, -1, count * sizeof *team.outputs);
    cm_status status = start(&team, error);
    if (status != CM_OK)
        atomic_store(&team.share->failed, (int)status);
    cm_status attended = attend(&team, status == CM_OK ? error : &(cm_error){{0}});
    status = status == CM_OK ? attended : status;
    for (int w = 0; w < parallel->processes; w++) {
        if (parallel->collect)
            parallel->collect(parallel->self, left_of(&team, w));
        if (team.outputs[w] >= 0)
            close(team.outputs[w]);
    }
    if (status == CM_OK && atomic_load(&team.share->failed))
        status = cm_fail(error, (cm_status)atomic_load(&team.share->failed), "%s", team.share->message);
    free(team.outputs);
    free(team.taken);
    free(team.processes);
    munmap(team.share, team.mapped);
    return status;
}
