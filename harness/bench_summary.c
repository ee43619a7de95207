// SPDX-License-Identifier: Apache-2.0
#include "harness/bench_summary.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void cm_bench_summary_add(cm_bench_summary *summary, const cm_bench_group *group)
{
    const cm_case *test_case = &group->pristine->test_case;
    const char *name = group->pristine->name, *dash = strchr(name, '-');
    bool has_tokens = name[0] == 't' && dash && cm_op_has_dim(test_case->op, 'T');
    for (int n = 0; n < group->count; n++) {
        const cm_bench_row *row = &group->rows[n];
        if (!row->timed) {
            summary->failed++;
            continue;
        }
        summary->cells = realloc(summary->cells, (summary->count + 1) * sizeof *summary->cells);
        if (!summary->cells)
            cm_broken("out of memory for %zu measurements", summary->count + 1);
        summary->cells[summary->count++] = (cm_bench_cell){
            .case_name = cm_text("%s", has_tokens ? dash + 1 : name),
            .kernel = cm_text("%s", row->kernel->name),
            .tokens = test_case->dims[cm_dim_index('T')],
            .threads = group->threads,
            .base = n == 0,
            .ns = row->ns,
            .read = cm_bench_share_of_bandwidth(group, row),
            .compute = cm_bench_share_of_compute(group, row),
            .ratio = row->ratio,
            .adapted = row->adapted,
            .gate = group->gate,
        };
    }
}

static void put_ratio(const cm_interval *ratio, bool there, FILE *out)
{
    if (!there || !isfinite(ratio->median))
        fprintf(out, " - |");
    else if (!isfinite(ratio->low))
        fprintf(out, " %.3f |", exp(ratio->median));
    else
        fprintf(out, " %.3f [%.3f, %.3f] |", exp(ratio->median), exp(ratio->low), exp(ratio->high));
}

static void print_table(const cm_bench_summary *summary, FILE *out)
{
    bool adapted = false;
    for (size_t n = 0; n < summary->count; n++)
        adapted = adapted || isfinite(summary->cells[n].adapted.median);
    fprintf(out,
            "| case | threads | T | kernel | ms | of the first | of read | of compute | over the roof |%s\n",
            adapted ? " with / without adapters |" : "");
    fprintf(out, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |%s\n", adapted ? " --- |" : "");
    for (size_t n = 0; n < summary->count; n++) {
        const cm_bench_cell *cell = &summary->cells[n];
        fprintf(out, "| %s | %d | %" PRId64 " | %s | %.4g |", cell->case_name, cell->threads, cell->tokens,
                cell->kernel, cell->ns * 1e-6);
        put_ratio(&cell->ratio, !cell->base, out);
        fprintf(out, " %.0f %% | %.0f %% | %.2f |", 100 * cell->read, 100 * cell->compute,
                1 / fmax(cell->read, cell->compute));
        if (adapted)
            put_ratio(&cell->adapted, true, out);
        fprintf(out, "\n");
    }
}

static bool counts(const cm_bench_cell *cell, const char *kernel, int64_t tokens)
{
    return !cell->base && !strcmp(cell->kernel, kernel) && (tokens < 0 || cell->tokens == tokens);
}

// Of the medians of a kernel's cells with that many tokens (-1: any).
static double geometric_mean(const cm_bench_summary *summary, const char *kernel, int64_t tokens, int *count)
{
    double sum = 0;
    *count = 0;
    for (size_t n = 0; n < summary->count; n++)
        if (counts(&summary->cells[n], kernel, tokens)) {
            sum += summary->cells[n].ratio.median;
            ++*count;
        }
    return *count ? exp(sum / *count) : NAN;
}

static bool came_before(const cm_bench_summary *summary, size_t cell, int64_t tokens)
{
    for (size_t n = 0; n < cell; n++)
        if (counts(&summary->cells[n], summary->cells[cell].kernel, tokens))
            return true;
    return false;
}

static void print_means(const cm_bench_summary *summary, FILE *out)
{
    for (size_t n = 0; n < summary->count; n++) {
        const cm_bench_cell *cell = &summary->cells[n];
        int count;
        if (cell->base || came_before(summary, n, -1))
            continue;
        double mean = geometric_mean(summary, cell->kernel, -1, &count);
        fprintf(out, "\n%s: geometric mean of %d ratio%s %.3f", cell->kernel, count, count == 1 ? "" : "s",
                mean);
        for (size_t other = n; other < summary->count; other++) {
            const cm_bench_cell *with = &summary->cells[other];
            if (!counts(with, cell->kernel, -1) || came_before(summary, other, with->tokens))
                continue;
            mean = geometric_mean(summary, cell->kernel, with->tokens, &count);
            fprintf(out, "; T = %" PRId64 ": %.3f of %d", with->tokens, mean, count);
        }
        fprintf(out, "\n");
    }
}

void cm_bench_summary_print(const cm_bench_summary *summary, FILE *out)
{
    double least = INFINITY, most = 0;
    if (summary->count > 0)
        print_table(summary, out);
    print_means(summary, out);
    for (size_t n = 0; n < summary->count; n++)
        if (summary->cells[n].base) {
            least = fmin(least, summary->cells[n].gate);
            most = fmax(most, summary->cells[n].gate);
        }
    if (isfinite(most) && most > 0)
        fprintf(out,
                "\nResolved in this run, by the first kernel of each case against itself: changes from "
                "%.2f %% up in the quietest case, from %.2f %% up in the most restless.\n",
                100 * expm1(least), 100 * expm1(most));
    else if (summary->count > 0)
        fprintf(out, "\nIn at least one case there were too few pairs for an interval: nothing is judged "
                     "there.\n");
    if (summary->failed > 0)
        fprintf(out, "\n%zu kernel%s of a case got no time; the tables above say why.\n", summary->failed,
                summary->failed == 1 ? "" : "s");
}

void cm_bench_summary_close(cm_bench_summary *summary)
{
    for (size_t n = 0; n < summary->count; n++) {
        free(summary->cells[n].case_name);
        free(summary->cells[n].kernel);
    }
    free(summary->cells);
    *summary = (cm_bench_summary){0};
}
