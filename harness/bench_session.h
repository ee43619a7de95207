// SPDX-License-Identifier: Apache-2.0
// A whole bench: every case with every number of tokens and of threads, the ceilings that go with them, and
// the exit status.
#ifndef CM_BENCH_SESSION_H
#define CM_BENCH_SESSION_H

#include "harness/plugin.h"

enum { CM_BENCH_PATHS = 64, CM_BENCH_NUMBERS = 32, CM_BENCH_KERNELS = 32 };

typedef struct cm_bench_request {
    const char *paths[CM_BENCH_PATHS + 1]; // OP/TARGET[,TARGET...]/CASE
    int path_count;
    const char *plugins[CM_MAX_PLUGINS + 1];
    int plugin_count;
    int64_t tokens[CM_BENCH_NUMBERS], threads[CM_BENCH_NUMBERS]; // none: the case's T; all allowed CPUs
    int token_count, thread_count;
    int rounds;
    double seconds, timeout;
    double least;                 // smallest change that counts, as a part of 1
    size_t cold, memory;          // bytes; memory: of everything that lies in copies, 0: only what is free
    const char *layers, *formats; // in place of CASE, see cm_bench_layers; NULL: none
    int64_t rank;                 // with layers
    bool without;                 // each kernel also against itself without adapters
    bool table;                   // all cells once more, as Markdown
    uint64_t seed;
    bool json, quiet, fail_if_slower, strict;
    const char *records_path; // NULL: none
    int argc;                 // for the environment
    char *const *argv;
} cm_bench_request;

// Prints to stdout, or writes records; returns the exit status.
int cm_bench_run(const cm_bench_request *request);

#endif
