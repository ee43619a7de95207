// SPDX-License-Identifier: Apache-2.0
// How near its limits each kernel comes, over all cases that were measured: a strip for each kernel from the
// least to the largest value, its middle half thick, beside the limit.
#include "reports/html.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 420, ROW = 34, TOP = 24, BOTTOM = 40, LABEL = 44 };
static const double LEAST = 0.01, MOST = 100; // of the axis

struct strip {
    const cm_record *first; // of the kernel and mode
    double *values;         // sorted after collection
    size_t count, space;
};

struct strips {
    struct strip items[CM_MOST_STRIPS];
    size_t count, left_out; // left out: measured cases of more kernels
    double limit;           // the least that was recorded
};

// One picture: a metric, its limit as another metric or 1, and how to say it.
struct measure {
    const char *metric, *limit, *heading, *caption;
};

static const struct measure measures[] = {
    {"error_over_bound", NULL, "Largest |error| / bound of each case",
     "1 is the bound of an element, 6 \317\203 and half a unit in the last place."},
    {"rms_z", "rms_z_limit", "rms(error / \317\203) of each case",
     "\317\203 is what the roundings that the op allows add up to. A clean kernel stays near or below 1; "
     "cases "
     "with few elements have a higher limit than the line."},
};

static const cm_metric *find_metric(const cm_outcome *outcome, const char *name)
{
    for (int n = 0; name && n < outcome->metric_count; n++)
        if (!strcmp(outcome->metrics[n].name, name))
            return &outcome->metrics[n];
    return NULL;
}

static struct strip *find_strip(struct strips *strips, const cm_record *record)
{
    for (size_t n = strips->count; n-- > 0;)
        if (!strcmp(strips->items[n].first->kernel, record->kernel) &&
            !strcmp(strips->items[n].first->mode, record->mode))
            return &strips->items[n];
    if (strips->count == CM_MOST_STRIPS)
        return NULL;
    strips->items[strips->count].first = record;
    return &strips->items[strips->count++];
}

static int ascending(const void *a, const void *b)
{
    const double *left = a, *right = b;
    return (*left > *right) - (*left < *right);
}

static void collect(const cm_records *records, const struct measure *measure, struct strips *strips)
{
    *strips = (struct strips){.limit = measure->limit ? (double)INFINITY : 1};
    for (size_t n = 0; n < records->count; n++) {
        const cm_record *record = &records->items[n];
        const cm_metric *metric = find_metric(&record->outcome, measure->metric);
        const cm_metric *limit = find_metric(&record->outcome, measure->limit);
        if (cm_text_is_fault(record) || !metric || isnan(metric->value))
            continue;
        struct strip *strip = find_strip(strips, record);
        if (!strip) {
            strips->left_out++;
            continue;
        }
        if (strip->count == strip->space) {
            strip->space = strip->space ? 2 * strip->space : 64;
            strip->values = realloc(strip->values, strip->space * sizeof *strip->values);
            if (!strip->values)
                cm_broken("out of memory for %zu values", strip->space);
        }
        strip->values[strip->count++] = metric->value;
        if (limit && limit->value < strips->limit)
            strips->limit = limit->value;
    }
    for (size_t n = 0; n < strips->count; n++)
        qsort(strips->items[n].values, strips->items[n].count, sizeof(double), ascending);
}

static double quantile(const struct strip *strip, double share)
{
    return strip->values[(size_t)(share * (double)(strip->count - 1) + 0.5)];
}

static double inside(double value)
{
    return value > MOST ? MOST : value < LEAST ? LEAST : value;
}

// One box of a strip, around the middle of its row.
static void put_box(FILE *script, size_t row, double from, double to, double half)
{
    double y = (double)row + 0.72;
    fprintf(script, "%.6g %.3f %.6g %.6g %.3f %.3f\n", sqrt(from * to), y, from, to, y - half, y + half);
}

static void put_boxes(FILE *script, const struct strips *strips)
{
    fprintf(script, "$range << EOD\n");
    for (size_t n = 0; n < strips->count; n++)
        put_box(script, n, inside(quantile(&strips->items[n], 0)) / 1.01,
                inside(quantile(&strips->items[n], 1)) * 1.01, 0.04);
    fprintf(script, "EOD\n$middle << EOD\n");
    for (size_t n = 0; n < strips->count; n++)
        put_box(script, n, inside(quantile(&strips->items[n], 0.25)) / 1.01,
                inside(quantile(&strips->items[n], 0.75)) * 1.01, 0.15);
    fprintf(script, "EOD\n$median << EOD\n");
    for (size_t n = 0; n < strips->count; n++) {
        double median = inside(quantile(&strips->items[n], 0.5));
        put_box(script, n, median / 1.015, median * 1.015, 0.21);
    }
    fprintf(script, "EOD\n");
}

static char *make_script(const struct strips *strips, int height)
{
    char *text = NULL;
    size_t size = 0;
    FILE *script = open_memstream(&text, &size);
    if (!script)
        cm_broken("out of memory for a picture");
    fprintf(script,
            "set lmargin at screen 0.03\nset rmargin at screen 0.97\nset bmargin at screen %.4f\n"
            "set tmargin at screen %.4f\nset logscale x\nset xrange [%g:%g]\nset yrange [%zu:0]\n",
            (double)BOTTOM / height, 1 - (double)TOP / height, LEAST, MOST, strips->count);
    fprintf(script,
            "set border 1 lc rgb 'black'\nunset ytics\nset xtics out nomirror ('0.01' 0.01, '0.1' 0.1, "
            "'1' 1, '10' 10, '100' 100)\nset grid xtics lc rgb '#8a929c' lw 0.4\nunset key\n"
            "set style fill solid 1 noborder\n");
    for (size_t n = 0; n < strips->count; n++) {
        const struct strip *strip = &strips->items[n];
        bool native = !strcmp(strip->first->mode, "native");
        char *name = cm_text("%s%s%s%s", strip->first->kernel, native ? "" : " [",
                             native ? "" : strip->first->mode, native ? "" : "]");
        char *most = cm_text("max %.4g", quantile(strip, 1));
        char *left = cm_plot_label(name, LABEL), *right = cm_plot_label(most, LABEL);
        fprintf(script,
                "set label %s at graph 0, first %.2f left\nset label %s at graph 1, first %.2f right\n", left,
                (double)n + 0.33, right, (double)n + 0.33);
        free(name);
        free(most);
        free(left);
        free(right);
    }
    if (isfinite(strips->limit) && strips->limit > LEAST && strips->limit < MOST)
        fprintf(script,
                "set arrow from %.6g, graph 0 to %.6g, graph 1 nohead lc rgb '#d1242f' lw 1.5 dt 2 front\n"
                "set label 'limit %.3g' at %.6g, graph 1 center offset 0, 0.7\n",
                strips->limit, strips->limit, strips->limit, strips->limit);
    put_boxes(script, strips);
    fprintf(script, "plot $range using 1:2:3:4:5:6 with boxxyerror fc rgb '#8a929c', "
                    "$middle using 1:2:3:4:5:6 with boxxyerror fc rgb '#3b82c4', "
                    "$median using 1:2:3:4:5:6 with boxxyerror fc rgb 'black'\n");
    fclose(script);
    return text;
}

static void put_table(const cm_html *page, const struct strips *strips)
{
    cm_html_raw(page, "<details><summary>The same in numbers</summary>\n<div class=\"scroll\"><table><thead>"
                      "<tr><th scope=\"col\">kernel</th><th scope=\"col\" class=\"number\">cases</th>"
                      "<th scope=\"col\" class=\"number\">least</th><th scope=\"col\" class=\"number\">median"
                      "</th><th scope=\"col\" class=\"number\">largest</th></tr></thead>\n<tbody>\n");
    for (size_t n = 0; n < strips->count; n++) {
        const struct strip *strip = &strips->items[n];
        cm_html_raw(page, "<tr><th scope=\"row\">");
        cm_html_text(page, "%s [%s]", strip->first->kernel, cm_text_or(strip->first->mode, "?"));
        fprintf(page->out, "</th><td class=\"number\">%zu</td>", strip->count);
        for (int share = 0; share < 3; share++)
            fprintf(page->out, "<td class=\"number\">%.3g</td>", quantile(strip, share / 2.0));
        cm_html_raw(page, "</tr>\n");
    }
    cm_html_raw(page, "</tbody></table></div></details>\n");
}

static void put_measure(cm_html *page, const struct measure *measure, const struct strips *strips)
{
    int height = (int)strips->count * ROW + TOP + BOTTOM;
    char *script = make_script(strips, height);
    char *picture = cm_plot(&page->plotter, WIDTH, height, script);
    cm_html_raw(page, "<figure>\n<h3>");
    cm_html_raw(page, measure->heading);
    cm_html_raw(page, "</h3>\n");
    if (picture) {
        cm_html_picture(page, WIDTH, height,
                        "Strips of the values by kernel beside their limit; the same in "
                        "numbers below",
                        picture);
    } else {
        cm_html_raw(page, "<p class=\"minor\">No picture: ");
        cm_html_text(page, "%s.", page->plotter.why_not);
        cm_html_raw(page, "</p>\n");
    }
    cm_html_raw(page, "<figcaption>");
    cm_html_raw(page, measure->caption);
    if (strips->left_out > 0)
        fprintf(page->out, " %zu cases of more kernels are left out.", strips->left_out);
    cm_html_raw(page, "</figcaption>\n");
    put_table(page, strips);
    cm_html_raw(page, "</figure>\n");
    free(script);
    free(picture);
}

void cm_html_measured(cm_html *page)
{
    struct strips strips[sizeof measures / sizeof *measures];
    size_t count = 0;
    for (size_t n = 0; n < sizeof measures / sizeof *measures; n++) {
        collect(page->records, &measures[n], &strips[n]);
        count += strips[n].count;
    }
    if (count > 0)
        cm_html_raw(page,
                    "<section id=\"measured\" aria-labelledby=\"measured-h\">\n<h2 id=\"measured-h\">"
                    "Measured errors</h2>\n<p class=\"lead\">Every case on random data, by kernel: thin "
                    "from the least to the largest, thick the middle half, a tick the median. What is "
                    "beyond the axis stands at its end.</p>\n<div class=\"figures\">\n");
    for (size_t n = 0; n < sizeof measures / sizeof *measures; n++) {
        if (strips[n].count > 0)
            put_measure(page, &measures[n], &strips[n]);
        for (size_t i = 0; i < strips[n].count; i++)
            free(strips[n].items[i].values);
    }
    if (count > 0)
        cm_html_raw(page, "</div>\n</section>\n");
}
