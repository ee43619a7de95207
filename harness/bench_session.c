// SPDX-License-Identifier: Apache-2.0
#include "harness/bench_session.h"

#include "harness/bench_cpus.h"
#include "harness/bench_inputs.h"
#include "harness/bench_layers.h"
#include "harness/bench_summary.h"
#include "harness/env.h"
#include "harness/expect.h"
#include "harness/host.h"
#include "harness/op.h"
#include "harness/registry.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const double CEILING_SECONDS = 0.4; // for each figure

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

struct session {
    const cm_bench_request *request;
    cm_plugins plugins;
    cm_record_writer writer;
    char id[32];
    cm_ceilings ceilings[CM_BENCH_NUMBERS]; // by number of threads; threads 0: not measured yet
    cm_tally tally;
    size_t speeds[CM_SPEED_COUNT];
    cm_error error;
    // The path at hand.
    const cm_op *op;
    const cm_kernel *kernels[CM_BENCH_KERNELS];
    int kernel_count;
    bool dry; // only look whether everything that is asked for exists, and count it
    int cell_count, cell;
    cm_bench_summary summary;
};

static const struct session *shown; // by show_progress

// Without a terminal a sign of life every 30 s.
static void show_progress(const char *kernel, int done, int count)
{
    static time_t last;
    time_t now = time(NULL);
    if (isatty(STDERR_FILENO)) {
        fprintf(stderr, "\r\033[K[%d/%d] %s: pair %d of %d", shown->cell, shown->cell_count, kernel, done,
                count);
    } else if (now - last >= 30) {
        if (last)
            fprintf(stderr, "[%d/%d] %s: pair %d of %d\n", shown->cell, shown->cell_count, kernel, done,
                    count);
        last = now;
    }
}

static void clear_progress(const struct session *session)
{
    if (!session->request->quiet && isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K");
}

static cm_status get_ceilings(struct session *session, int threads, const cm_ceilings **ceilings)
{
    for (int n = 0; n < CM_BENCH_NUMBERS; n++) {
        cm_ceilings *known = &session->ceilings[n];
        *ceilings = known;
        if (known->threads == threads)
            return CM_OK;
        if (known->threads != 0)
            continue;
        if (!session->request->quiet && isatty(STDERR_FILENO))
            fprintf(stderr, "\r\033[Kmeasuring what this machine can do with %d threads", threads);
        cm_status status = cm_ceilings_measure(threads, CEILING_SECONDS, known, &session->error);
        known->threads = status == CM_OK ? threads : 0;
        return status;
    }
    return cm_fail(&session->error, CM_BAD_VALUE, "more than %d numbers of threads", CM_BENCH_NUMBERS);
}

// The kind of operand in which most of a call's weights are. Integers count as if they were multiplied as
// integers, whether the op allows to quantise the other operand or not: the share is then a lower one.
static cm_operand operand_of(const cm_pristine *pristine)
{
    size_t most = 0;
    cm_dtype widest = CM_F32;
    for (int n = 0; pristine->test_case.op->arguments[n].name; n++)
        if (cm_copies_hold(pristine, n) && cm_tensor_extent(pristine->arguments[n]) > most) {
            most = cm_tensor_extent(pristine->arguments[n]);
            widest = pristine->tensors[n].dtype;
        }
    return widest == CM_I8 || widest == CM_I4 ? CM_OPERAND_I8
           : widest == CM_BF16                ? CM_OPERAND_BF16
                                              : CM_OPERAND_F32;
}

static cm_bench_job job_of(struct session *session, const cm_bench_group *group, const cm_kernel *kernel,
                           const cm_copies *copies)
{
    return (cm_bench_job){kernel,
                          cm_plugins_path(&session->plugins, kernel),
                          copies,
                          group->threads,
                          session->request->timeout,
                          &interrupted};
}

static void take_result(const cm_bench_result *result, int which, cm_bench_row *row)
{
    row->outcome = result->outcomes[which];
    row->ratio = result->ratio;
    row->ns = result->ns[which];
    row->pairs = result->pairs;
    row->calls = result->calls;
}

static cm_bench_options options_of(const struct session *session)
{
    const cm_bench_request *request = session->request;
    return (cm_bench_options){request->rounds, request->seconds, request->seed,
                              request->quiet ? NULL : show_progress};
}

// A slower kernel is measured again in fresh processes: layout and clocks differ, and both must agree. False:
// interrupted.
static bool confirm(struct session *session, const cm_bench_group *group, const cm_bench_job jobs[2],
                    cm_bench_row *row)
{
    cm_bench_options options = options_of(session);
    cm_bench_result again;
    options.seed++;
    bool timed = cm_bench_pair(jobs, &options, &again);
    if (!timed || cm_speed_judge(&again.ratio, group->gate, log1p(session->request->least)) != CM_SLOWER)
        row->speed = CM_AMBIGUOUS;
    return !again.interrupted;
}

// The kernel with adapters against itself without them, on the same weights. False: interrupted.
static bool measure_adapters(struct session *session, const cm_bench_group *group, const cm_copies *bare,
                             cm_bench_row *row)
{
    cm_bench_options options = options_of(session);
    cm_bench_result result;
    cm_bench_job jobs[2] = {job_of(session, group, row->kernel, bare),
                            job_of(session, group, row->kernel, group->copies)};
    if (cm_bench_pair(jobs, &options, &result)) {
        row->adapted = result.ratio;
        return true;
    }
    if (result.interrupted)
        return false;
    int which = result.outcomes[0].verdict != CM_PASS ? 0 : 1;
    row->timed = false;
    cm_conclude(&row->outcome, result.outcomes[which].verdict, "%s adapters: %.400s",
                which ? "beside itself without" : "without", result.outcomes[which].reason);
    return true;
}

// The baseline against itself, then each other kernel against it, each also against itself without adapters
// where `bare` is not NULL. False: interrupted.
static bool measure_group(struct session *session, cm_bench_group *group, const cm_copies *bare)
{
    const cm_bench_request *request = session->request;
    cm_bench_options options = options_of(session);
    cm_bench_row *base = &group->rows[0];
    group->gate = INFINITY;
    for (int n = 0; n < group->count; n++) {
        cm_bench_row *row = &group->rows[n];
        cm_bench_result result;
        row->plugin = cm_plugins_path(&session->plugins, row->kernel);
        row->speed = CM_AMBIGUOUS;
        row->adapted = (cm_interval){NAN, NAN, NAN};
        cm_bench_job jobs[2] = {job_of(session, group, base->kernel, group->copies),
                                job_of(session, group, row->kernel, group->copies)};
        if (n > 0 && !base->timed) {
            cm_conclude(&row->outcome, CM_SKIP, "not timed, for its baseline %s was not", base->kernel->name);
            continue;
        }
        row->timed = cm_bench_pair(jobs, &options, &result);
        if (result.interrupted)
            return false;
        bool of_base = result.outcomes[0].verdict != CM_PASS;
        take_result(&result, of_base && n == 0 ? 0 : 1, row);
        if (of_base && n > 0) // it went well before
            cm_conclude(&row->outcome, result.outcomes[0].verdict, "its baseline %s failed beside it: %.300s",
                        base->kernel->name, result.outcomes[0].reason);
        if (n == 0 && row->timed)
            group->gate = cm_speed_gate(&row->ratio, log1p(request->least));
        else if (row->timed)
            row->speed = cm_speed_judge(&row->ratio, group->gate, log1p(request->least));
        if (row->speed == CM_SLOWER && request->fail_if_slower && !confirm(session, group, jobs, row))
            return false;
        if (row->timed && bare && !measure_adapters(session, group, bare, row))
            return false;
    }
    return true;
}

static cm_status report_group(struct session *session, const cm_bench_group *group)
{
    cm_status status = CM_OK;
    if (!session->request->json)
        cm_bench_print(group, stdout);
    if (session->request->table)
        cm_bench_summary_add(&session->summary, group);
    for (int n = 0; n < group->count && status == CM_OK; n++) {
        const cm_bench_row *row = &group->rows[n];
        cm_record record;
        session->tally.counts[row->outcome.verdict]++;
        if (n > 0 && row->timed)
            session->speeds[row->speed]++;
        if (n == 0 && row->timed && !isfinite(group->gate))
            session->speeds[CM_AMBIGUOUS]++;
        cm_bench_record(group, row, session->id, &record);
        if (session->request->json) {
            char *line = cm_record_line(&record);
            fputs(line, stdout);
            free(line);
        }
        if (session->request->records_path)
            status = cm_record_write(&session->writer, &record, &session->error);
        cm_record_close(&record);
    }
    fflush(stdout);
    return status;
}

// `bare`: the case without adapters; NULL: it is not asked for.
static cm_status run_group(struct session *session, cm_pristine *pristine, cm_pristine *bare, int threads)
{
    cm_bench_row rows[CM_BENCH_KERNELS] = {0};
    cm_copies copies = {0};
    cm_bench_inputs *inputs = NULL;
    cm_bench_group group = {.pristine = pristine,
                            .copies = &copies,
                            .operand = operand_of(pristine),
                            .threads = threads,
                            .seed = session->request->seed,
                            .rows = rows,
                            .count = session->kernel_count};
    cm_hosted hosted = {.call = {.size = sizeof(cm_call),
                                 .op = session->op,
                                 .host = &cm_host_services,
                                 .arguments = pristine->arguments,
                                 .attributes = pristine->test_case.attributes,
                                 .dims = pristine->test_case.dims,
                                 .device = kDLCPU}};
    size_t alignment = 256;
    cm_status status = CM_OK;
    for (int n = 0; n < group.count; n++) {
        rows[n].kernel = session->kernels[n];
        while (alignment < (size_t)rows[n].kernel->alignment)
            alignment *= 2;
    }
    session->op->counts(&hosted.call, &group.counts);
    CM_TRY(get_ceilings(session, threads, &group.ceilings));
    CM_TRY(cm_copies_open(pristine, (size_t)group.counts.bytes_read, session->request->cold,
                          session->request->memory, alignment, &copies, &session->error));
    CM_TRY(cm_bench_inputs_open(pristine, bare, group.counts.operations, session->request->cold, &copies,
                                &inputs, &session->error));
    for (int n = 0; n < group.count; n++)
        CM_TRY(cm_bench_inputs_want(inputs, rows[n].kernel->accuracy, &session->error));
    bool whole = measure_group(session, &group, bare ? &inputs->bare : NULL);
    clear_progress(session);
    if (whole)
        CM_TRY(report_group(session, &group));
done:
    cm_bench_inputs_close(inputs);
    cm_copies_close(&copies);
    return status;
}

static cm_status run_case(struct session *session, const cm_case *test_case)
{
    const cm_bench_request *request = session->request;
    cm_pristine *pristine = cm_new(2, sizeof *pristine), *bare = request->without ? pristine + 1 : NULL;
    cm_status status = CM_OK;
    int64_t all = cm_cpus_allowed();
    CM_TRY(cm_pristine_open(test_case, NULL, pristine, &session->error));
    if (bare)
        CM_TRY(cm_pristine_unadapted(pristine, bare, &session->error));
    for (int n = 0; n < (request->thread_count ? request->thread_count : 1) && !interrupted; n++) {
        session->cell++;
        CM_TRY(run_group(session, pristine, bare, (int)(request->thread_count ? request->threads[n] : all)));
    }
done:
    cm_pristine_close(pristine + 1);
    cm_pristine_close(pristine);
    free(pristine);
    return status;
}

static cm_status each_case(const char *text, void *self)
{
    struct session *session = self;
    const cm_bench_request *request = session->request;
    cm_case test_case;
    char *whole = cm_text("%s%s", request->token_count ? "t1-" : "", text); // one T is as good as another
    cm_status status = cm_case_parse(session->op, whole, &test_case, &session->error);
    free(whole);
    if (status == CM_OK && request->without && session->dry) {
        cm_case bare;
        status = cm_op_unadapted(&test_case, &bare, &session->error);
    }
    if (status == CM_OK && request->token_count && !cm_op_has_dim(session->op, 'T'))
        status = cm_fail(&session->error, CM_BAD_VALUE, "--tokens: %s has no dimension T", session->op->name);
    for (int n = 0; n < (request->token_count ? request->token_count : 1) && status == CM_OK; n++) {
        if (request->token_count)
            test_case.dims[cm_dim_index('T')] = request->tokens[n];
        if (session->dry)
            session->cell_count += request->thread_count ? request->thread_count : 1;
        else if (!interrupted)
            status = run_case(session, &test_case);
    }
    return status;
}

// Reads OP/TARGET[,TARGET...]/CASE and goes over its cases.
static cm_status each_path(struct session *session, const char *path)
{
    const char *targets = strchr(path, '/'), *cases = targets ? strchr(targets + 1, '/') : NULL;
    const char *layers = session->request->layers;
    session->kernel_count = 0;
    if (layers && targets && targets[1] && !cases)
        cases = path + strlen(path);
    else if (layers)
        return cm_fail(&session->error, CM_BAD_VALUE,
                       "\"%s\" is not OP/TARGET[,TARGET...]: with --layer it has no case", path);
    else if (!cases || !cases[1])
        return cm_fail(&session->error, CM_BAD_VALUE, "\"%s\" is not OP/TARGET[,TARGET...]/CASE", path);
    session->op = cm_registry_find_op(path, (size_t)(targets - path));
    if (!session->op)
        return cm_fail(&session->error, CM_BAD_VALUE,
                       "there is no op \"%.*s\"; \"checkmoe list --ops\" shows them", (int)(targets - path),
                       path);
    for (const char *at = targets + 1; at <= cases; at += strcspn(at, ",/") + 1) {
        char *name = cm_text("%s/%.*s", session->op->name, (int)strcspn(at, ",/"), at);
        cm_status status = cm_plugins_require(&session->plugins, name, &session->error);
        if (status == CM_OK && session->kernel_count == CM_BENCH_KERNELS)
            status = cm_fail(&session->error, CM_BAD_VALUE, "more than %d kernels", CM_BENCH_KERNELS);
        for (const cm_kernel *const *kernel = session->plugins.kernels; *kernel && status == CM_OK; kernel++)
            if (!strcmp((*kernel)->name, name)) {
                session->kernels[session->kernel_count++] = *kernel;
                break;
            }
        free(name);
        if (status != CM_OK)
            return status;
    }
    if (!layers)
        return cm_case_expand(cases + 1, each_case, session, &session->error);
    char *pattern;
    cm_status status =
        cm_bench_layers(layers, session->request->formats, session->request->rank, &pattern, &session->error);
    if (status == CM_OK)
        status = cm_case_expand(pattern, each_case, session, &session->error);
    free(pattern);
    return status;
}

static cm_status each_of_all(struct session *session, bool dry)
{
    cm_status status = CM_OK;
    session->dry = dry;
    for (int n = 0; n < session->request->path_count && status == CM_OK; n++)
        status = each_path(session, session->request->paths[n]);
    return status;
}

static int exit_code(const struct session *session)
{
    int code = cm_tally_exit(&session->tally, interrupted);
    if (code == CM_EXIT_OK && session->request->fail_if_slower && session->speeds[CM_SLOWER])
        return CM_EXIT_SLOWER;
    if (code == CM_EXIT_OK && session->request->strict && session->speeds[CM_AMBIGUOUS])
        return CM_EXIT_INCONCLUSIVE;
    return code;
}

int cm_bench_run(const cm_bench_request *request)
{
    struct session *session = cm_new(1, sizeof *session);
    char *environment = NULL;
    cm_status status = CM_OK;
    int code = CM_EXIT_USAGE;
    session->request = request;
    shown = session;
    snprintf(session->id, sizeof session->id, "%llx-%x", (unsigned long long)time(NULL), (unsigned)getpid());
    for (int n = 0; n < request->thread_count; n++)
        if (request->threads[n] > cm_cpus_allowed())
            CM_TRY(cm_fail(&session->error, CM_BAD_VALUE, "--threads %lld: this process may use %d CPUs",
                           (long long)request->threads[n], cm_cpus_allowed()));
    CM_TRY(cm_plugins_open(request->plugins, false, &session->plugins, &session->error));
    CM_TRY(each_of_all(session, true));
    environment = cm_environment_json(session->id, request->argc, request->argv);
    if (request->records_path)
        CM_TRY(cm_record_writer_open(request->records_path, environment, &session->writer, &session->error));
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    code = CM_EXIT_BROKEN;
    status = each_of_all(session, false);
    if (status == CM_OK && request->records_path)
        status = cm_record_writer_close(&session->writer, interrupted, &session->error);
    if (status == CM_OK)
        code = exit_code(session);
    if (request->table)
        cm_bench_summary_print(&session->summary, request->json ? stderr : stdout);
done:
    if (status != CM_OK) {
        clear_progress(session);
        fprintf(stderr, "checkmoe: %s\n", session->error.message);
        cm_record_writer_discard(&session->writer);
        code = interrupted ? CM_EXIT_INTERRUPTED : code;
    }
    cm_plugins_close(&session->plugins);
    cm_bench_summary_close(&session->summary);
    free(environment);
    free(session);
    return code;
}
