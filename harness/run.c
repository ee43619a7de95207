// SPDX-License-Identifier: Apache-2.0
#include "harness/run.h"

#include "harness/compare.h"
#include "harness/env.h"
#include "harness/judge.h"
#include "harness/output.h"
#include "harness/plugin.h"
#include "harness/running.h"
#include "harness/site.h"
#include "harness/terms.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

volatile sig_atomic_t cm_interrupted;

static void on_interrupt(int number)
{
    (void)number;
    cm_interrupted = 1;
}

enum { BYTES_PER_TIMEOUT = 256 << 20 }; // a check may take one more time-out for each so many of arguments

// A bar on a terminal, a line every 30 s elsewhere.
void cm_running_progress(struct cm_running *run, size_t done, size_t count, const char *name)
{
    time_t now = time(NULL);
    if (run->options->quiet || run->is_worker)
        return;
    if (isatty(STDERR_FILENO)) {
        fprintf(stderr, "\r\033[K[%zu/%zu] %.90s", done, count, name);
    } else if (now - run->last_sign >= 30) {
        fprintf(stderr, "[%zu/%zu] %s\n", done, count, name);
        run->last_sign = now;
    }
}

static void clear_progress(const struct cm_running *run)
{
    if (!run->options->quiet && isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K");
}

static char *repro_line(const struct cm_running *run, const cm_item *item, const cm_pristine *pristine,
                        const cm_kernel *kernel)
{
    char option[512] = "";
    const char *plugin = cm_plugins_path(&run->plugins, kernel);
    if (plugin) { // in quotes if a shell would take it apart
        const char *quote = strpbrk(plugin, " \t\"$&();<>|*?[]`#~\\") ? "'" : "";
        snprintf(option, sizeof option, "--plugin %s%s%s ", quote, plugin, quote);
    }
    if (item->fault)
        return cm_text("checkmoe repro --fault %s %s/%s", item->fault->id, kernel->name, pristine->name);
    if (pristine->source)
        return cm_text("checkmoe run %s%s %s", option, pristine->source->arguments, kernel->name);
    return cm_text("checkmoe repro %s%s/%s", option, kernel->name, pristine->name);
}

static cm_status write_record(struct cm_running *run, const cm_item *item, const cm_pristine *pristine,
                              const cm_kernel *kernel, const char *check, const cm_outcome *outcome,
                              double ms)
{
    const char *slash = strchr(kernel->name, '/');
    cm_record record = {
        .run = cm_text("%s", run->id),
        .suite = cm_text("%s", item->suite),
        .check = cm_text("%s", check),
        .op = cm_text("%s", pristine->test_case.op->name),
        .kernel = cm_text("%s", kernel->name),
        .target = cm_text("%s", slash ? slash + 1 : ""),
        .mode = cm_text("%s", cm_kernel_mode(kernel)),
        .case_name = cm_text("%s", pristine->name),
        .seed = pristine->test_case.seed,
        .ms = ms,
        .outcome = *outcome,
        .path_names = cm_paths_names(kernel),
        .repro = repro_line(run, item, pristine, kernel),
        .source_file = cm_text("%s", kernel->file),
        .source_line = kernel->line,
    };
    bool agrees = true;
    const char *known =
        cm_known_match(&run->known, kernel->name, pristine->name, check, outcome->verdict, &agrees);
    if (known && !item->fault)
        record.known = cm_text("%s", known);
    record.known_differs = record.known && !agrees;
    if (item->fault) {
        record.fault = cm_text("%s", item->fault->id);
        record.expected_check = cm_text("%s", item->fault->check);
        record.expected_finding = cm_text("%s", item->fault->finding);
    }
    cm_status status = cm_record_write(&run->writer, &record, &run->error);
    record.outcome.gains = NULL; // the slot's
    record.outcome.tiles = NULL;
    cm_record_close(&record);
    run->written++;
    return status;
}

// What the model's own code computed is judged like the output of a kernel: "OP/recorded".
static cm_status judge_recorded(struct cm_running *run, const cm_item *item, cm_pristine *pristine)
{
    const cm_op *op = pristine->test_case.op;
    bool any = false;
    cm_status status = CM_OK;
    for (int n = 0; op->arguments[n].name && status == CM_OK; n++) {
        cm_tensor recorded;
        if (op->arguments[n].compare == CM_COMPARE_NONE ||
            !pristine->source->recorded(pristine->source, op->arguments[n].name, &recorded))
            continue;
        char *name = cm_text("%s/recorded", op->name);
        cm_kernel kernel = {.name = name, .file = item->recorded, .line = 0};
        cm_outcome outcome = {0};
        cm_details *details = cm_new(1, sizeof *details);
        cm_outcome_use(&outcome, details);
        cm_measure measure;
        // A model in bf16 or f16 rounds its intermediates, too.
        cm_accuracy accuracy = recorded.dtype == CM_F32 ? CM_ACCURACY_SINGLE : CM_ACCURACY_MODEL;
        status = cm_pristine_want(pristine, accuracy, &run->error);
        const cm_want *want = &pristine->want[accuracy][n];
        any = true;
        if (status == CM_OK &&
            (recorded.dtype != pristine->tensors[n].dtype || cm_tensor_count(&recorded.dl) != want->count))
            status = cm_fail(&run->error, CM_BAD_SHAPE,
                             "%s: recorded \"%s\" has %lld elements of %s, the layer %lld of %s",
                             item->recorded, op->arguments[n].name, (long long)cm_tensor_count(&recorded.dl),
                             cm_dtype_name(recorded.dtype), (long long)want->count,
                             cm_dtype_name(pristine->tensors[n].dtype));
        if (status == CM_OK) {
            cm_compare_bounded(&recorded.dl, recorded.dtype, want, false, &measure);
            outcome.verdict = cm_judge_bounded(&measure, false, op->arguments[n].name, &outcome);
            if (outcome.verdict == CM_FAIL)
                cm_compare_locate(pristine, n, &recorded.dl, want, false, &measure, &outcome);
            status = write_record(run, item, pristine, &kernel, "numerics", &outcome, 0);
        }
        free(details);
        free(name);
    }
    if (!any && status == CM_OK && !run->options->quiet)
        fprintf(stderr, "%s has no recorded output to compare with\n", item->recorded);
    return status;
}

static bool is_kernel_of(const cm_kernel *kernel, const cm_op *op)
{
    size_t length = strlen(op->name);
    return !strncmp(kernel->name, op->name, length) && kernel->name[length] == '/';
}

static void add_kernel(const struct cm_running *run, const cm_item *item, cm_pristine *pristine,
                       const cm_kernel *kernel, cm_group *group)
{
    if (!is_kernel_of(kernel, pristine->test_case.op) ||
        (!item->fault && item->op && !cm_item_is_for(item, kernel->name)) ||
        !cm_selection_takes(&run->options->selection, kernel, pristine->name))
        return;
    cm_last *last = run->options->selection.last;
    for (const cm_check *const *check = cm_registry_checks(); *check; check++)
        if (cm_selection_has_check(&run->options->selection, item, (*check)->name) &&
            (!last || cm_last_wants(last, item->fault ? item->fault->id : NULL, kernel->name, pristine->name,
                                    (*check)->name)))
            cm_group_add(group, *check, kernel, cm_plugins_path(&run->plugins, kernel));
}

static cm_status run_case(struct cm_running *run, const cm_item *item, cm_pristine *pristine)
{
    cm_group group = {.pristine = pristine, .stop = &cm_interrupted};
    cm_status status = CM_OK;
    if (item->fault)
        add_kernel(run, item, pristine, item->fault->kernel, &group);
    for (const cm_kernel *const *kernel = run->plugins.kernels; !item->fault && *kernel; kernel++)
        add_kernel(run, item, pristine, *kernel, &group);
    for (size_t n = 0; n < group.count && status == CM_OK; n++)
        status = cm_pristine_want(pristine, group.tests[n].kernel->accuracy, &run->error);
    if (status == CM_OK)
        cm_group_run(&group, run->options->timeout * (1 + (double)(pristine->bytes / BYTES_PER_TIMEOUT)));
    for (size_t n = 0; n < group.count && status == CM_OK; n++) {
        const cm_test *test = &group.tests[n];
        if (test->left_out)
            continue;
        status = write_record(run, item, pristine, test->kernel, test->check->name, &test->slot->outcome,
                              test->slot->ms);
    }
    if (status == CM_OK)
        cm_running_count_paths(run, item, &group);
    cm_group_close(&group);
    return status;
}

// Whether anything of the item can be selected, before values are made for it.
static bool item_selected(const struct cm_running *run, const cm_item *item, const char *case_name)
{
    if (item->fault)
        return cm_selection_takes(&run->options->selection, item->fault->kernel, case_name);
    for (const cm_kernel *const *kernel = run->plugins.kernels; *kernel; kernel++)
        if (cm_item_is_for(item, (*kernel)->name) &&
            cm_selection_takes(&run->options->selection, *kernel, case_name))
            return true;
    return false;
}

// Without globs a run with plug-ins is about their kernels alone.
static bool is_about_plugins(const cm_run_options *options)
{
    return options->plugins && options->plugins[0] &&
           !(options->selection.globs && options->selection.globs[0]) && !options->selection.repro_kernel;
}

static bool has_kernel_of(const struct cm_running *run, const cm_op *op)
{
    for (const cm_kernel *const *kernel = run->plugins.kernels; *kernel; kernel++)
        if (is_kernel_of(*kernel, op))
            return true;
    return false;
}

// What a suite has recorded is selected like a kernel; what --recorded names always.
static bool recorded_selected(const struct cm_running *run, const cm_item *item, const cm_pristine *pristine)
{
    char name[96];
    if (!item->op)
        return true;
    snprintf(name, sizeof name, "%s/recorded", item->op->name);
    const char *mode = run->options->selection.mode;
    if (mode && strcmp(mode, "native") != 0)
        return false;
    if (run->options->selection.last &&
        !cm_last_wants(run->options->selection.last, NULL, name, pristine->name, "numerics"))
        return false;
    return !is_about_plugins(run->options) &&
           cm_selection_matches(&run->options->selection, name, pristine->name);
}

cm_status cm_running_item(struct cm_running *run, const cm_item *item, size_t number, size_t count)
{
    cm_pristine *pristine = cm_new(1, sizeof *pristine);
    cm_source source = {0};
    cm_case test_case;
    cm_status status = CM_OK;
    if (item->case_name) {
        char text[CM_CASE_TEXT];
        CM_TRY(cm_case_parse(item->op, item->case_name, &test_case, &run->error));
        cm_case_print(&test_case, text);
        if (!item_selected(run, item, text))
            goto done;
    } else if (item->op && !has_kernel_of(run, item->op)) {
        goto done;
    } else {
        cm_source_options files = {item->model,    item->adapter,          item->layer,
                                   item->recorded, item->lora_orientation, item->lora_b_order};
        CM_TRY(cm_registry_open_source(&files, &source, &run->error));
        CM_TRY(cm_item_source_case(item, &source, &test_case, &run->error));
        clear_progress(run);
        if (run->options->selection.model && source.summary && !run->options->quiet)
            fprintf(stderr, "%s\n", source.summary);
    }
    cm_running_progress(run, number, count, item->case_name ? item->case_name : item->model);
    CM_TRY(cm_pristine_open(&test_case, item->case_name ? NULL : &source, pristine, &run->error));
    if (run->options->selection.model && !run->options->quiet)
        CM_TRY(cm_terms_print(pristine, stderr, &run->error));
    if (item->recorded && recorded_selected(run, item, pristine))
        CM_TRY(judge_recorded(run, item, pristine));
    status = run_case(run, item, pristine);
done:
    cm_pristine_close(pristine);
    free(pristine);
    if (source.close)
        source.close(&source);
    return status;
}

// Targets of --require that left no record but SKIP.
static bool lacks_required(const cm_records *records, const char *require)
{
    bool lacking = false;
    char words[256];
    snprintf(words, sizeof words, "%s", require ? require : "");
    char *rest = NULL;
    for (char *target = strtok_r(words, ",", &rest); target; target = strtok_r(NULL, ",", &rest)) {
        bool ran = false;
        for (size_t n = 0; n < records->count && !ran; n++)
            ran = !strcmp(records->items[n].target, target) && records->items[n].outcome.verdict != CM_SKIP;
        if (!ran)
            fprintf(stderr, "checkmoe: required target \"%s\" did not run any check\n", target);
        lacking = lacking || !ran;
    }
    return lacking;
}

// Nothing narrows the run: a known failure of the ci set had its chance.
static bool is_whole(const cm_run_options *options)
{
    const cm_selection *selection = &options->selection;
    return !(selection->globs && selection->globs[0]) && !selection->checks && !selection->mode &&
           selection->shards < 2 && selection->sets & CM_SET_CI && !selection->faults && !selection->model &&
           !selection->repro_case && !selection->last;
}

static int finish(struct cm_running *run, const char *path)
{
    cm_records records = {0};
    cm_tally tally = {0};
    int code = CM_EXIT_BROKEN;
    cm_status status = cm_record_writer_close(&run->writer, cm_interrupted, &run->error);
    if (status == CM_OK)
        status = cm_records_read(path, &records, &run->error);
    const cm_report *const *reports = cm_registry_reports();
    for (int n = 0; reports[n] && status == CM_OK; n++)
        if (run->options->report_paths && run->options->report_paths[n]) {
            status = cm_report_write(reports[n], &records, run->options->report_paths[n], &run->error);
            code = status == CM_OK ? code : CM_EXIT_USAGE; // of the path; the records are there
        }
    if (status != CM_OK) {
        fprintf(stderr, "checkmoe: %s\n", run->error.message);
    } else {
        cm_tally_make(&records, &tally);
        code = cm_tally_exit(&tally, cm_interrupted);
        if ((code == CM_EXIT_OK || code == CM_EXIT_SKIPPED) &&
            lacks_required(&records, run->options->require))
            code = CM_EXIT_FAILED;
    }
    bool whole = is_whole(run->options) && !cm_interrupted && code != CM_EXIT_BROKEN && code != CM_EXIT_USAGE;
    for (size_t n = 0; n < run->known.count && whole; n++)
        if (run->known.entries[n].met == 0) {
            fprintf(stderr, "checkmoe: %s:%d: \"%s\" met no failure; remove the line\n", run->known.path,
                    run->known.entries[n].line, run->known.entries[n].glob);
            code = code == CM_EXIT_OK ? CM_EXIT_FAILED : code;
        }
    const cm_last *last = run->options->selection.last;
    size_t missed = 0;
    const cm_record *first = last && !cm_interrupted ? cm_last_missed(last, &missed) : NULL;
    if (first)
        fprintf(
            stderr,
            "checkmoe: %zu of %zu wanted checks did not run again, e.g. %s of %s/%s: give the --plugin or "
            "--model of that run, and no narrower selection\n",
            missed, last->count, first->check, first->kernel, first->case_name);
    if (first && code == CM_EXIT_OK)
        code = CM_EXIT_FAILED;
    if (code == CM_EXIT_NOTHING && last && last->count == 0)
        fprintf(stderr, "checkmoe: %s has no failure to run again\n", last->path);
    else if (code == CM_EXIT_NOTHING)
        fprintf(stderr, "checkmoe: nothing was selected; \"checkmoe list\" shows what there is\n");
    cm_tally_close(&tally);
    cm_records_close(&records);
    return code;
}

// A new file for the records of a run without --records: next to `last`, which it will become, or in the
// folder for temporary files.
static char *temporary_path(const char *last)
{
    const char *folder = getenv("TMPDIR");
    char *path = last ? cm_text("%s-XXXXXX", last)
                      : cm_text("%s/checkmoe-records-XXXXXX", folder && folder[0] ? folder : "/tmp");
    int descriptor = mkstemp(path);
    if (descriptor < 0)
        cm_broken("no temporary file %s", path);
    close(descriptor);
    return path;
}

int cm_run(const cm_run_options *options)
{
    struct cm_running run = {.options = options, .last_sign = time(NULL)};
    cm_selection selection = options->selection;
    cm_plan plan = {0};
    int code = CM_EXIT_USAGE;
    char *last = options->records_path || !options->keep_last ? NULL : cm_last_path();
    char *temporary = options->records_path ? NULL : temporary_path(last);
    const char *path = temporary ? temporary : options->records_path;
    char *environment = NULL;
    bool opened = false;
    cm_status status;
    snprintf(run.id, sizeof run.id, "%llx-%x", (unsigned long long)time(NULL), (unsigned)getpid());
    if (options->known_path)
        CM_TRY(cm_known_read(options->known_path, &run.known, &run.error));
    CM_TRY(cm_plugins_open(options->plugins, is_about_plugins(options), &run.plugins, &run.error));
    if (!options->selection.faults)
        CM_TRY(cm_plugins_require(&run.plugins, options->selection.repro_kernel, &run.error));
    selection.kernels = run.plugins.kernels;
    CM_TRY(cm_plan_make(&selection, &plan, &run.error));
    environment = cm_environment_json(run.id, options->argc, options->argv);
    CM_TRY(cm_record_writer_open(path, environment, &run.writer, &run.error));
    opened = true;
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    run.plan = &plan;
    run.met = cm_new(cm_running_paths_size(&run), sizeof *run.met);
    status = cm_running_items(&run);
    if (status == CM_OK && !cm_interrupted)
        status = cm_running_judge_paths(&run);
    clear_progress(&run);
    if (status == CM_OK)
        code = finish(&run, path);
done:
    if (status != CM_OK) {
        cm_error ignored = {{0}};
        clear_progress(&run);
        fprintf(stderr, "checkmoe: %s\n", run.error.message);
        if (opened && (status == CM_NO_MEMORY || run.written > 0))
            code = CM_EXIT_BROKEN; // not for what the command line asked
        if (run.written == 0)
            cm_record_writer_discard(&run.writer); // what was there before stays
        else
            cm_record_writer_close(&run.writer, true, &ignored);
    }
    if (temporary && !(last && run.written > 0 && rename(temporary, last) == 0))
        unlink(temporary);
    free(temporary);
    free(last);
    cm_known_close(&run.known);
    cm_plugins_close(&run.plugins);
    cm_plan_close(&plan);
    free(run.met);
    free(environment);
    return code;
}
