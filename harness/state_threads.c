// SPDX-License-Identifier: Apache-2.0
// Two threads, each with a state and arguments of its own, make their calls at the same time. Whatever they
// share by mistake (a static buffer, a workspace found by the kernel's name) shows as other bits. The host's
// services give way to the other thread, and a timer puts the running one to sleep for a moment, so that
// calls mix even on one core.
#include "harness/state.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

enum { THREADS = 2, ROUNDS = 16, YIELDS = 16, PERIOD = 100 }; // microseconds

struct worker {
    const cm_scenes *scenes;
    const cm_scene *scene;
    pthread_barrier_t *barrier; // all begin a round together
    cm_outcome outcome;
    cm_verdict verdict;
};

static void nap(int number)
{
    int kept = errno;
    (void)number;
    nanosleep(&(struct timespec){.tv_nsec = 1000}, NULL); // the other thread has the core
    errno = kept;
}

// Interrupts this process's other threads every PERIOD; zero: no longer.
static void interrupt(long period_us, struct sigaction *before)
{
    struct sigaction action = {.sa_handler = nap, .sa_flags = SA_RESTART};
    struct itimerval timer = {{0, period_us}, {0, period_us}};
    sigset_t alarm;
    sigemptyset(&action.sa_mask);
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    if (period_us > 0) {
        sigaction(SIGALRM, &action, before);
        pthread_sigmask(SIG_BLOCK, &alarm, NULL); // the calling thread only waits
    }
    setitimer(ITIMER_REAL, &timer, NULL);
    if (period_us == 0) {
        while (sigtimedwait(&alarm, NULL, &(struct timespec){0}) == SIGALRM)
            ; // one that was on its way
        pthread_sigmask(SIG_UNBLOCK, &alarm, NULL);
        sigaction(SIGALRM, before, NULL);
    }
}

static void *work(void *self)
{
    struct worker *worker = self;
    cm_trial trial = {worker->scenes->trial->kernel, worker->scenes->trial->pristine, &worker->outcome};
    cm_handle handle = {.yields = YIELDS};
    pthread_barrier_wait(worker->barrier);
    if (cm_handle_open(&trial, worker->scene, CM_NOT_SPOILED, &handle) != CM_OK)
        worker->verdict =
            cm_conclude(&worker->outcome, CM_ERROR, "prepare failed: %s", cm_handle_sentence(&handle));
    for (int round = 0; round < ROUNDS; round++) {
        pthread_barrier_wait(worker->barrier);
        if (worker->verdict == CM_PASS)
            worker->verdict = cm_handle_step(&handle, worker->scene, round % 4 == 0,
                                             "while another thread used another state");
    }
    cm_handle_close(&handle);
    cm_arena_forget();
    return NULL;
}

cm_verdict cm_state_threads(const cm_scenes *scenes)
{
    static const cm_scene_kind kinds[THREADS] = {CM_SCENE_FIRST, CM_SCENE_ADAPTERS};
    struct worker *workers = cm_new(THREADS, sizeof *workers);
    pthread_barrier_t barrier;
    pthread_t threads[THREADS];
    struct sigaction before;
    cm_verdict verdict = CM_PASS;
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (int n = 0; n < THREADS; n++) {
        workers[n] = (struct worker){scenes, &scenes->list[kinds[n]], &barrier, {0}, CM_PASS};
        if (pthread_create(&threads[n], NULL, work, &workers[n]))
            cm_broken("a thread could not be started");
    }
    interrupt(PERIOD, &before);
    for (int n = 0; n < THREADS; n++)
        pthread_join(threads[n], NULL);
    interrupt(0, &before);
    for (int n = 0; n < THREADS; n++) {
        scenes->trial->outcome->compared += workers[n].outcome.compared;
        if (verdict == CM_PASS && workers[n].verdict != CM_PASS)
            verdict =
                cm_conclude(scenes->trial->outcome, workers[n].verdict, "%s", workers[n].outcome.reason);
    }
    pthread_barrier_destroy(&barrier);
    free(workers);
    return verdict;
}
