// SPDX-License-Identifier: Apache-2.0
// All cells of a bench in one table that can be pasted into a page of Markdown.
#ifndef CM_BENCH_SUMMARY_H
#define CM_BENCH_SUMMARY_H

#include "harness/bench_table.h"

typedef struct cm_bench_cell {
    char *case_name, *kernel; // the case without its T
    int64_t tokens;
    int threads;
    bool base;
    double ns, read, compute; // shares of the ceilings
    cm_interval ratio, adapted;
    double gate;
} cm_bench_cell;

typedef struct cm_bench_summary {
    cm_bench_cell *cells; // owned
    size_t count, failed; // failed: rows without a time
} cm_bench_summary;

void cm_bench_summary_add(cm_bench_summary *summary, const cm_bench_group *group);
// The table, the geometric means of the ratios by kernel (all, and by T), and the changes that were resolved.
void cm_bench_summary_print(const cm_bench_summary *summary, FILE *out);
void cm_bench_summary_close(cm_bench_summary *summary);

#endif
