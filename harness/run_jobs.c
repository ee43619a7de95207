// SPDX-License-Identifier: Apache-2.0
// The cases of a run, spread over processes.
#include "harness/parallel.h"
#include "harness/running.h"

#include <stdlib.h>
#include <string.h>

static cm_status work_item(void *self, size_t item, int descriptor, cm_error *error)
{
    struct cm_running *run = self;
    run->is_worker = true;
    run->writer.descriptor = descriptor;
    cm_status status = cm_running_item(run, &run->plan->items[item], item, run->plan->count);
    *error = run->error;
    return status;
}

static cm_status take_lines(void *self, const char *lines, size_t bytes, cm_error *error)
{
    struct cm_running *run = self;
    return cm_record_write_lines(&run->writer, lines, bytes, error);
}

static void watch_items(void *self, size_t done, size_t begun)
{
    struct cm_running *run = self;
    const cm_item *item = &run->plan->items[begun];
    cm_running_progress(run, done, run->plan->count, item->case_name ? item->case_name : item->model);
}

// What a worker counted: verdicts, records, the known failures that it met, the wanted checks, and, behind
// those, the cases that took each path.
struct counted {
    size_t verdicts[CM_VERDICT_COUNT], written;
    size_t met[];
};

static size_t counted_size(const struct cm_running *run)
{
    const cm_last *last = run->options->selection.last;
    size_t wanted = last ? last->records.count : 0;
    return sizeof(struct counted) + (run->known.count + wanted) * sizeof(size_t) +
           cm_running_paths_size(run) * sizeof *run->met;
}

static void leave_counts(void *self, void *left)
{
    const struct cm_running *run = self;
    const cm_last *last = run->options->selection.last;
    struct counted *counted = left;
    memcpy(counted->verdicts, run->writer.counts, sizeof counted->verdicts);
    counted->written = run->written;
    for (size_t n = 0; n < run->known.count; n++)
        counted->met[n] = run->known.entries[n].met;
    for (size_t n = 0; last && n < last->records.count; n++)
        counted->met[run->known.count + n] = last->met[n];
    memcpy(&counted->met[run->known.count + (last ? last->records.count : 0)], run->met,
           cm_running_paths_size(run) * sizeof *run->met);
}

static void collect_counts(void *self, const void *left)
{
    struct cm_running *run = self;
    cm_last *last = run->options->selection.last;
    const struct counted *counted = left;
    for (int n = 0; n < CM_VERDICT_COUNT; n++)
        run->writer.counts[n] += counted->verdicts[n];
    run->written += counted->written;
    for (size_t n = 0; n < run->known.count; n++)
        run->known.entries[n].met += counted->met[n];
    for (size_t n = 0; last && n < last->records.count; n++)
        last->met[n] = last->met[n] || counted->met[run->known.count + n];
    const size_t *paths = &counted->met[run->known.count + (last ? last->records.count : 0)];
    for (size_t n = 0; n < cm_running_paths_size(run); n++) {
        cm_paths_met met;
        memcpy(&met, paths + n * (sizeof met / sizeof *paths), sizeof met);
        run->met[n].ran += met.ran;
        for (int path = 0; path < CM_MAX_PATHS; path++)
            run->met[n].cases[path] += met.cases[path];
    }
}

// One process does everything for a debugger (CK_FORK=no) and where there is a single case.
cm_status cm_running_items(struct cm_running *run)
{
    const char *forks = getenv("CK_FORK");
    int jobs = run->options->jobs ? run->options->jobs : cm_parallel_processors();
    if ((size_t)jobs > run->plan->count)
        jobs = (int)run->plan->count;
    cm_status status = CM_OK;
    if (jobs > 1 && !(forks && !strcmp(forks, "no")))
        return cm_parallel_run(&(cm_parallel){.self = run,
                                              .processes = jobs,
                                              .items = run->plan->count,
                                              .run = work_item,
                                              .take = take_lines,
                                              .watch = watch_items,
                                              .left_size = counted_size(run),
                                              .leave = leave_counts,
                                              .collect = collect_counts,
                                              .stop = &cm_interrupted},
                               &run->error);
    for (size_t n = 0; n < run->plan->count && status == CM_OK && !cm_interrupted; n++)
        status = cm_running_item(run, &run->plan->items[n], n, run->plan->count);
    return status;
}
