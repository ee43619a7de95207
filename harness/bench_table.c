// SPDX-License-Identifier: Apache-2.0
#include "harness/bench_table.h"

#include <math.h>
#include <string.h>

double cm_bench_share_of_bandwidth(const cm_bench_group *group, const cm_bench_row *row)
{
    return group->counts.bytes_read / (row->ns * 1e-9) / group->ceilings->read;
}

double cm_bench_share_of_compute(const cm_bench_group *group, const cm_bench_row *row)
{
    cm_operand operand = group->operand;
    return group->counts.operations / (row->ns * 1e-9) / cm_ceilings_multiply(group->ceilings, &operand);
}

static double percent(double logarithm)
{
    return 100 * expm1(logarithm);
}

static void print_case(const cm_bench_group *group, FILE *out)
{
    const cm_copies *copies = group->copies;
    double mib = 1.0 / (1 << 20), touched = (double)copies->touched * mib;
    cm_operand operand = group->operand;
    double multiply = cm_ceilings_multiply(group->ceilings, &operand);
    fprintf(out, "%s, %d thread%s, order from seed %llu\n", group->pristine->name, group->threads,
            group->threads == 1 ? "" : "s", (unsigned long long)group->seed);
    fprintf(out, "  a call: %.4g million operations, %.4g MiB read, %.4g MiB written at least\n",
            group->counts.operations * 1e-6, group->counts.bytes_read * mib,
            group->counts.bytes_written * mib);
    if (copies->stride == 0)
        fprintf(out, "  it has no weights that could be cold\n");
    else
        fprintf(out,
                "  %d cop%s of the weights and %d input%s in turn: %.4g MiB are read before a copy has "
                "its turn again%s\n",
                copies->count, copies->count == 1 ? "y" : "ies", copies->other_count + 1,
                copies->other_count ? "s" : "", copies->count * touched,
                copies->short_of_memory ? " (fewer than asked for: memory is short)" : "");
    fprintf(out, "  ceilings: %.3g GB/s read (buffer of %zu MiB), %.4g G operations/s in %s (%s)\n",
            group->ceilings->read * 1e-9, group->ceilings->buffer >> 20, multiply * 1e-9,
            cm_operand_name(operand), cm_operand_instruction(operand));
}

static void print_row(const cm_bench_group *group, const cm_bench_row *row, int width, FILE *out)
{
    int64_t tokens = group->pristine->test_case.dims[cm_dim_index('T')];
    fprintf(out, "  %-*s %5lld %7d ", width, row->kernel->name, (long long)tokens, group->threads);
    if (!row->timed) {
        fprintf(out, "%s: %s\n", cm_verdict_name(row->outcome.verdict), row->outcome.reason);
        return;
    }
    char ratio[64] = "1";
    if (row != group->rows && isfinite(row->ratio.low))
        snprintf(ratio, sizeof ratio, "%.3f [%.3f, %.3f]", exp(row->ratio.median), exp(row->ratio.low),
                 exp(row->ratio.high));
    else if (row != group->rows)
        snprintf(ratio, sizeof ratio, "%.3f [too few pairs]", exp(row->ratio.median));
    fprintf(out, "%11.1f  %-22s %-9s %6.1f %% %7.1f %%\n", row->ns * 1e-3, ratio,
            row == group->rows ? "baseline" : cm_speed_name(row->speed),
            100 * cm_bench_share_of_bandwidth(group, row), 100 * cm_bench_share_of_compute(group, row));
    if (isfinite(row->adapted.median))
        fprintf(out, "  %*s with / without adapters: %.3f [%.3f, %.3f]\n", width + 13, "",
                exp(row->adapted.median), exp(row->adapted.low), exp(row->adapted.high));
}

// A ceiling is the best of many short passes, but another process can be beside all of them.
static void print_doubt(const cm_bench_group *group, FILE *out)
{
    bool above = false;
    for (int n = 0; n < group->count; n++)
        above =
            above || (group->rows[n].timed && (cm_bench_share_of_bandwidth(group, &group->rows[n]) > 1.1 ||
                                               cm_bench_share_of_compute(group, &group->rows[n]) > 1.1));
    if (above)
        fprintf(out, "  a share above 100 %%: the machine was busy when its ceilings were measured, or the "
                     "weights were not cold\n");
}

static void print_resolution(const cm_bench_group *group, FILE *out)
{
    const cm_bench_row *base = &group->rows[0];
    if (!base->timed)
        return;
    if (!isfinite(group->gate)) {
        fprintf(out,
                "  %d pairs of the baseline with itself are too few for an interval: nothing is judged; give "
                "more --rounds or --seconds\n",
                base->pairs);
        return;
    }
    fprintf(out,
            "  the baseline against itself: %.3f [%.3f, %.3f] in %d pairs; a change below %.2f %% is not "
            "judged\n",
            exp(base->ratio.median), exp(base->ratio.low), exp(base->ratio.high), base->pairs,
            percent(group->gate));
}

void cm_bench_print(const cm_bench_group *group, FILE *out)
{
    int width = (int)strlen("kernel");
    for (int n = 0; n < group->count; n++)
        width = (int)strlen(group->rows[n].kernel->name) > width ? (int)strlen(group->rows[n].kernel->name)
                                                                 : width;
    print_case(group, out);
    fprintf(out, "  %-*s %5s %7s %11s  %-22s %-9s %8s %9s\n", width, "kernel", "T", "threads", "median us",
            "ratio [99 % interval]", "", "of read", "of compute");
    for (int n = 0; n < group->count; n++)
        print_row(group, &group->rows[n], width, out);
    print_resolution(group, out);
    print_doubt(group, out);
    fprintf(out, "\n");
    fflush(out);
}

void cm_bench_record(const cm_bench_group *group, const cm_bench_row *row, const char *run, cm_record *record)
{
    const cm_pristine *pristine = group->pristine;
    const char *slash = strchr(row->kernel->name, '/');
    const char *target = slash ? slash + 1 : "";
    const char *baseline = strchr(group->rows[0].kernel->name, '/');
    bool base = row == group->rows;
    *record = (cm_record){
        .run = cm_text("%s", run),
        .suite = cm_text("bench"),
        .check = cm_text("perf"),
        .op = cm_text("%s", pristine->test_case.op->name),
        .kernel = cm_text("%s", row->kernel->name),
        .target = cm_text("%s", target),
        .mode = cm_text("native"),
        .case_name = cm_text("%s", pristine->name),
        .seed = pristine->test_case.seed,
        .outcome = row->outcome,
        .repro = cm_text("checkmoe bench %s%s%s/%s%s%s/%s --threads %d", row->plugin ? "--plugin " : "",
                         row->plugin ? row->plugin : "", row->plugin ? " " : "", group->rows[0].kernel->name,
                         base ? "" : ",", base ? "" : target, pristine->name, group->threads),
        .source_file = cm_text("%s", row->kernel->file),
        .source_line = row->kernel->line,
    };
    if (!row->timed)
        return;
    cm_outcome *outcome = &record->outcome;
    outcome->metric_count = 0;
    snprintf(outcome->reason, sizeof outcome->reason, "%s against %s",
             base ? "baseline" : cm_speed_name(row->speed), base || !baseline ? "itself" : baseline + 1);
    const struct {
        const char *name;
        double value;
    } metrics[] = {{"ratio", exp(row->ratio.median)},
                   {"low", exp(row->ratio.low)},
                   {"high", exp(row->ratio.high)},
                   {"resolved", exp(group->gate)},
                   {"share_of_bandwidth", cm_bench_share_of_bandwidth(group, row)},
                   {"share_of_compute", cm_bench_share_of_compute(group, row)},
                   {"ns", row->ns},
                   {"pairs", row->pairs},
                   {"calls", (double)row->calls},
                   {"threads", group->threads},
                   {"copies", group->copies->count},
                   {"inputs", 1 + group->copies->other_count},
                   {"cold_bytes", (double)group->copies->count * (double)group->copies->touched},
                   {"bytes_read", group->counts.bytes_read},
                   {"operations", group->counts.operations}};
    for (size_t n = 0; n < sizeof metrics / sizeof *metrics; n++)
        cm_outcome_metric(outcome, metrics[n].name, metrics[n].value);
    if (!isfinite(row->adapted.median))
        return;
    cm_outcome_metric(outcome, "adapted", exp(row->adapted.median));
    cm_outcome_metric(outcome, "adapted_low", exp(row->adapted.low));
    cm_outcome_metric(outcome, "adapted_high", exp(row->adapted.high));
}
