// SPDX-License-Identifier: Apache-2.0
// Time over tokens with the roofline, for each case and number of threads that was measured with several T,
// and all measurements in numbers.
#include "reports/html.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 420, HEIGHT = 300, MOST_FIGURES = 24, MOST_ROWS = 600, LABEL = 40 };

struct point {
    const cm_record *record;
    int64_t tokens;
    const char *rest;         // the case without its T
    double threads, ns, roof; // roof: ns that the ceilings would take
    double ratio, low, high;  // against the first kernel
    double read, compute;     // shares of the ceilings
};

struct points {
    struct point *items;
    size_t count;
};

static double metric_of(const cm_record *record, const char *name)
{
    for (int n = 0; n < record->outcome.metric_count; n++)
        if (!strcmp(record->outcome.metrics[n].name, name))
            return record->outcome.metrics[n].value;
    return NAN;
}

static void collect(const cm_records *records, struct points *points)
{
    points->items = cm_new(records->count + 1, sizeof *points->items);
    for (size_t n = 0; n < records->count; n++) {
        const cm_record *record = &records->items[n];
        int used = 0;
        struct point point = {.record = record, .rest = record->case_name, .tokens = -1};
        if (strcmp(record->check, "perf") != 0 ||
            !(metric_of(record, "ns") > 0 && metric_of(record, "ns") < 1e18))
            continue;
        if (sscanf(record->case_name, "t%" SCNd64 "-%n", &point.tokens, &used) == 1 && used > 0)
            point.rest += used;
        point.threads = metric_of(record, "threads");
        point.ns = metric_of(record, "ns");
        point.read = metric_of(record, "share_of_bandwidth");
        point.compute = metric_of(record, "share_of_compute");
        point.roof = point.ns * fmax(point.read, point.compute);
        point.ratio = metric_of(record, "ratio");
        point.low = metric_of(record, "low");
        point.high = metric_of(record, "high");
        points->items[points->count++] = point;
    }
}

static bool same_figure(const struct point *a, const struct point *b)
{
    return !strcmp(a->record->op, b->record->op) && !strcmp(a->rest, b->rest) && a->threads == b->threads;
}

// Whether the figure that begins with items[first] has two numbers of tokens, and no item of it came before.
static bool begins_figure(const struct points *points, size_t first)
{
    const struct point *point = &points->items[first];
    bool several = false;
    for (size_t n = 0; n < points->count; n++) {
        if (!same_figure(&points->items[n], point))
            continue;
        if (n < first)
            return false;
        several = several || points->items[n].tokens != point->tokens;
    }
    return several && point->tokens > 0;
}

// The point of the figure, and of the kernel unless that is NULL, with the next larger number of tokens.
static const struct point *next_point(const struct points *points, const struct point *figure,
                                      const char *kernel, int64_t before)
{
    const struct point *next = NULL;
    for (size_t n = 0; n < points->count; n++) {
        const struct point *point = &points->items[n];
        if (same_figure(point, figure) && (!kernel || !strcmp(point->record->kernel, kernel)) &&
            point->tokens > before && (!next || point->tokens < next->tokens))
            next = point;
    }
    return next;
}

static void put_ticks(const struct points *points, const struct point *figure, FILE *script)
{
    const struct point *point = NULL;
    while ((point = next_point(points, figure, NULL, point ? point->tokens : 0)))
        fprintf(script, "%s%" PRId64, next_point(points, figure, NULL, 0) == point ? "" : ", ",
                point->tokens);
}

// The points of one kernel (or of the roof: kernel NULL) as lines "T ms", in the order of T.
static void put_series(const struct points *points, const struct point *figure, const char *kernel,
                       const char *name, FILE *script)
{
    const struct point *point = NULL;
    fprintf(script, "$%s << EOD\n", name);
    while ((point = next_point(points, figure, kernel, point ? point->tokens : 0))) {
        double ns = kernel ? point->ns : point->roof;
        if (isfinite(ns) && ns > 0)
            fprintf(script, "%" PRId64 " %.6g\n", point->tokens, ns * 1e-6);
    }
    fprintf(script, "EOD\n");
}

static char *make_script(const struct points *points, const struct point *figure)
{
    static const char *const colours[] = {"#3b82c4", "#d1242f", "#2da44e", "#bf8700", "#8250df", "#1b7c83"};
    enum { COLOURS = sizeof colours / sizeof *colours };
    char *text = NULL, *plots = cm_text("%s", "");
    size_t size = 0;
    const char *seen[COLOURS];
    double least = INFINITY, most = 0; // ms
    int64_t first = INT64_MAX, last = 0;
    int kernels = 0;
    FILE *script = open_memstream(&text, &size);
    if (!script)
        cm_broken("out of memory for a picture");
    for (size_t n = 0; n < points->count; n++) {
        const struct point *point = &points->items[n];
        if (!same_figure(point, figure))
            continue;
        least = fmin(least, 1e-6 * (point->roof > 0 ? fmin(point->ns, point->roof) : point->ns));
        most = fmax(most, 1e-6 * point->ns);
        first = point->tokens < first ? point->tokens : first;
        last = point->tokens > last ? point->tokens : last;
    }
    least = fmax(least, most * 1e-6); // whatever the records say
    fprintf(script,
            "set lmargin at screen 0.15\nset rmargin at screen 0.97\nset bmargin at screen 0.2\n"
            "set tmargin at screen 0.92\nset logscale x 2\nset logscale y\nset border 3 lc rgb 'black'\n"
            "set grid lc rgb '#8a929c' lw 0.4\nset xlabel 'tokens'\n"
            "set label 'ms' at screen 0.02, screen 0.96\nset key bottom right Left reverse samplen 2\n"
            "set xrange [%g:%g]\nset yrange [%g:%g]\nset ytics out nomirror (",
            (double)first / 1.1, 1.1 * (double)last, least / 2, most * 1.2);
    for (double decade = pow(10, floor(log10(least / 2))); decade < most * 1.2; decade *= 10)
        fprintf(script, "%s%g, %g, %g", decade <= least / 2 ? "" : ", ", decade, 2 * decade, 5 * decade);
    fprintf(script, ")\nset xtics out nomirror (");
    put_ticks(points, figure, script);
    fprintf(script, ")\n");
    put_series(points, figure, NULL, "roof", script);
    for (size_t n = 0; n < points->count && kernels < COLOURS; n++) {
        const struct point *point = &points->items[n];
        bool known = false;
        for (int k = 0; k < kernels; k++)
            known = known || !strcmp(seen[k], point->record->kernel);
        if (known || !same_figure(point, figure))
            continue;
        char name[16];
        snprintf(name, sizeof name, "series%d", kernels);
        put_series(points, figure, point->record->kernel, name, script);
        char *label = cm_plot_label(point->record->kernel, LABEL);
        char *longer = cm_text("%s, $%s using 1:2 with lines lc rgb '%s' lw 2 title %s", plots, name,
                               colours[kernels], label);
        seen[kernels++] = point->record->kernel;
        free(label);
        free(plots);
        plots = longer;
    }
    fprintf(script, "plot $roof using 1:2 with lines lc rgb '#8a929c' lw 2 dt 2 title 'roofline'%s\n", plots);
    fclose(script);
    free(plots);
    return text;
}

static void put_figure(cm_html *page, const struct points *points, const struct point *figure)
{
    char *script = make_script(points, figure);
    char *picture = cm_plot(&page->plotter, WIDTH, HEIGHT, script);
    cm_html_raw(page, "<figure>\n<h3>");
    cm_html_text(page, "%s %s, %g thread%s", figure->record->op, figure->rest, figure->threads,
                 figure->threads == 1 ? "" : "s");
    cm_html_raw(page, "</h3>\n");
    if (picture) {
        cm_html_picture(page, WIDTH, HEIGHT,
                        "Median time of a call over tokens by kernel, and the time that the ceilings would "
                        "take; the same in numbers below",
                        picture);
    } else {
        cm_html_raw(page, "<p class=\"minor\">No picture: ");
        cm_html_text(page, "%s.", page->plotter.why_not);
        cm_html_raw(page, "</p>\n");
    }
    cm_html_raw(page, "</figure>\n");
    free(script);
    free(picture);
}

static void put_table(const cm_html *page, const struct points *points)
{
    cm_html_raw(page,
                "<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">case</th>"
                "<th scope=\"col\" class=\"number\">threads</th><th scope=\"col\" class=\"number\">T</th>"
                "<th scope=\"col\">kernel</th><th scope=\"col\" class=\"number\">ms</th>"
                "<th scope=\"col\" class=\"number\">of the first [99 %]</th>"
                "<th scope=\"col\" class=\"number\">of read</th>"
                "<th scope=\"col\" class=\"number\">of compute</th><th scope=\"col\">said</th></tr></thead>\n"
                "<tbody>\n");
    for (size_t n = 0; n < points->count && n < MOST_ROWS; n++) {
        const struct point *point = &points->items[n];
        cm_html_raw(page, "<tr><td><code>");
        cm_html_text(page, "%s", point->rest);
        fprintf(page->out, "</code></td><td class=\"number\">%g</td><td class=\"number\">", point->threads);
        if (point->tokens >= 0)
            fprintf(page->out, "%" PRId64, point->tokens);
        cm_html_raw(page, "</td><td>");
        cm_html_text(page, "%s", point->record->kernel);
        fprintf(page->out, "</td><td class=\"number\">%.4g</td><td class=\"number\">%.3f [%.3f, %.3f]</td>",
                point->ns * 1e-6, point->ratio, point->low, point->high);
        fprintf(page->out, "<td class=\"number\">%.0f %%</td><td class=\"number\">%.0f %%</td><td>",
                100 * point->read, 100 * point->compute);
        cm_html_text(page, "%s", point->record->outcome.reason);
        cm_html_raw(page, "</td></tr>\n");
    }
    cm_html_raw(page, "</tbody></table></div>\n");
    if (points->count > MOST_ROWS)
        fprintf(page->out, "<p class=\"lead\">%zu more measurements are left out.</p>\n",
                points->count - MOST_ROWS);
}

void cm_html_speed(cm_html *page)
{
    struct points points = {0};
    int figures = 0;
    collect(page->records, &points);
    if (points.count > 0)
        cm_html_raw(page,
                    "<section id=\"speed\" aria-labelledby=\"speed-h\">\n<h2 id=\"speed-h\">Speed</h2>\n"
                    "<p class=\"lead\">Median time of a call, on cold weights; ratios are by pair, with "
                    "their interval. The roofline is the time of the bytes at the read bandwidth or of "
                    "the operations at the peak that this machine showed, whichever is longer.</p>\n"
                    "<div class=\"figures\">\n");
    for (size_t n = 0; n < points.count && figures < MOST_FIGURES; n++)
        if (begins_figure(&points, n)) {
            put_figure(page, &points, &points.items[n]);
            figures++;
        }
    if (points.count > 0) {
        cm_html_raw(page, "</div>\n");
        put_table(page, &points);
        cm_html_raw(page, "</section>\n");
    }
    free(points.items);
}
