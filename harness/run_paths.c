// SPDX-License-Identifier: Apache-2.0
// Which of its declared paths each kernel took over the cases of a run, and the records that say so.
#include "harness/running.h"
#include "harness/site.h"

#include <stdlib.h>
#include <string.h>

static size_t kernel_count(const struct cm_running *run)
{
    size_t count = 0;
    while (run->plugins.kernels[count])
        count++;
    return count;
}

size_t cm_running_paths_size(const struct cm_running *run)
{
    size_t faults = 0;
    while (cm_registry_faults()[faults])
        faults++;
    return kernel_count(run) + faults;
}

// The kernels of the run, then the faults.
static cm_paths_met *met_of(const struct cm_running *run, const cm_kernel *kernel, const cm_fault *fault)
{
    size_t n = 0;
    if (fault) {
        while (cm_registry_faults()[n] != fault)
            n++;
        return &run->met[kernel_count(run) + n];
    }
    while (run->plugins.kernels[n] != kernel)
        n++;
    return &run->met[n];
}

void cm_running_count_paths(struct cm_running *run, const cm_item *item, const cm_group *group)
{
    for (size_t n = 0, next; n < group->count; n = next) {
        const cm_kernel *kernel = group->tests[n].kernel;
        uint32_t taken = 0;
        bool ran = false;
        for (next = n; next < group->count && group->tests[next].kernel == kernel; next++) {
            const cm_test *test = &group->tests[next];
            ran = ran || (!test->left_out && test->slot->outcome.verdict != CM_SKIP);
            taken |= test->left_out ? 0 : test->slot->outcome.paths;
        }
        cm_paths_met *met = met_of(run, kernel, item->fault);
        met->ran += ran;
        for (int path = 0; path < CM_MAX_PATHS; path++)
            met->cases[path] += taken >> path & 1;
    }
}

static cm_status write_path(struct cm_running *run, const cm_kernel *kernel, const cm_fault *fault, int path,
                            const cm_paths_met *met)
{
    const char *plugin = cm_plugins_path(&run->plugins, kernel), *slash = strchr(kernel->name, '/');
    bool agrees = true;
    cm_record record = {
        .run = cm_text("%s", run->id),
        .suite = cm_text(CM_CHECK_PATHS),
        .check = cm_text(CM_CHECK_PATHS),
        .op = cm_text("%.*s", (int)strcspn(kernel->name, "/"), kernel->name),
        .kernel = cm_text("%s", kernel->name),
        .target = cm_text("%s", slash ? slash + 1 : ""),
        .mode = cm_text("%s", cm_kernel_mode(kernel)),
        .case_name = cm_text("%s", kernel->paths[path].name),
        .path_names = cm_paths_names(kernel),
        .source_file = cm_text("%s", kernel->file),
        .source_line = kernel->line,
    };
    cm_paths_judge(kernel, path, met, &record.outcome);
    const char *known = cm_known_match(&run->known, kernel->name, record.case_name, CM_CHECK_PATHS,
                                       record.outcome.verdict, &agrees);
    if (known && !fault) {
        record.known = cm_text("%s", known);
        record.known_differs = !agrees;
    }
    if (fault) {
        record.fault = cm_text("%s", fault->id);
        record.expected_check = cm_text("%s", fault->check);
        record.expected_finding = cm_text("%s", fault->finding);
        record.repro = cm_text("checkmoe run --faults --fault %s", fault->id);
    } else {
        record.repro = cm_text("checkmoe run %s%s%s%s%s", plugin ? "--plugin '" : "", plugin ? plugin : "",
                               plugin ? "' " : "",
                               run->options->selection.sets & CM_SET_FULL ? "--set full " : "", kernel->name);
    }
    cm_status status = cm_record_write(&run->writer, &record, &run->error);
    cm_record_close(&record);
    run->written++;
    return status;
}

static cm_status judge(struct cm_running *run, const cm_kernel *kernel, const cm_fault *fault)
{
    const cm_paths_met *met = met_of(run, kernel, fault);
    cm_status status = CM_OK;
    if (met->ran == 0 || !cm_paths_covered(&run->options->selection, kernel, fault))
        return CM_OK;
    for (int path = 0; path < cm_paths_count(kernel) && status == CM_OK; path++)
        status = write_path(run, kernel, fault, path, met);
    return status;
}

cm_status cm_running_judge_paths(struct cm_running *run)
{
    cm_status status = CM_OK;
    for (const cm_kernel *const *kernel = run->plugins.kernels; *kernel && status == CM_OK; kernel++)
        status = judge(run, *kernel, NULL);
    for (const cm_fault *const *fault = cm_registry_faults(); *fault && status == CM_OK; fault++)
        status = judge(run, (*fault)->kernel, *fault);
    return status;
}
