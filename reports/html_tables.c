// SPDX-License-Identifier: Apache-2.0
// The tables of a page: kernel by check, reasons with counts, and the slowest checks. The roles repeat what
// the elements are, because narrow screens lay rows out as blocks.
#include "reports/html.h"

#include "reports/matrix.h"
#include "reports/path_table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Number of the card that a cell leads to; 0: there is none.
static size_t card_of(const cm_html *page, const cm_record *row, const char *check)
{
    for (size_t n = 0; n < page->card_count && n < CM_MOST_CARDS; n++) {
        const cm_record *first = page->cards[n].first;
        if (!strcmp(first->kernel, row->kernel) && !strcmp(first->check, check) &&
            !strcmp(cm_text_or(first->mode, ""), cm_text_or(row->mode, "")))
            return n + 1;
    }
    return 0;
}

static void put_cell(const cm_html *page, const cm_matrix *matrix, size_t row, size_t check)
{
    char text[160];
    const cm_cell *cell = cm_matrix_cell(matrix, row, check);
    cm_verdict verdict = cm_cell_describe(cell, text, sizeof text);
    const char *class = cell->total == 0             ? "none"
                        : cm_verdict_is_bad(verdict) ? "bad"
                        : cell->counts[CM_PASS]      ? "good"
                        : cell->known                ? "known"
                                                     : "skip";
    size_t card = card_of(page, matrix->rows[row], matrix->checks[check]);
    // The pieces "FAIL 3/120", "SKIP 4" each stay on one line.
    char *rest = text;
    cm_html_raw(page, "<td role=\"cell\"");
    cm_html_attribute(page, "class", "%s", class);
    cm_html_attribute(page, "data-check", "%s", matrix->checks[check]);
    cm_html_raw(page, ">");
    if (card > 0)
        fprintf(page->out, "<a href=\"#card-%zu\">", card);
    for (int piece = 0; *rest; piece++) {
        size_t length = strcspn(rest, " ");
        if (rest[length])
            length += 1 + strcspn(rest + length + 1, " ");
        cm_html_raw(page, piece ? " <span class=\"minor\">" : "<span>");
        cm_html_text(page, "%.*s", (int)length, rest);
        cm_html_raw(page, "</span>");
        if (piece == 0 && card > 0)
            cm_html_raw(page, "</a>");
        rest += length + strspn(rest + length, " ");
    }
    cm_html_raw(page, "</td>");
}

void cm_html_matrix(const cm_html *page)
{
    cm_matrix matrix;
    cm_matrix_make(page->records, &matrix);
    cm_html_raw(page, "<section id=\"matrix\" aria-labelledby=\"matrix-h\">\n"
                      "<h2 id=\"matrix-h\">Kernels and checks</h2>\n");
    if (matrix.row_count == 0) {
        cm_html_raw(page, "<p class=\"lead\">No kernel was checked");
        cm_html_raw(page, page->tally->fault_count > 0
                              ? ": these records are of faults, kernels that must fail.</p>\n"
                              : ".</p>\n");
    } else {
        cm_html_raw(page,
                    "<p class=\"lead\">Results by kernel and check, the worst first; a failure leads to its "
                    "card.</p>\n<div class=\"scroll\"><table class=\"matrix\" role=\"table\">\n"
                    "<thead role=\"rowgroup\"><tr role=\"row\">"
                    "<th scope=\"col\" role=\"columnheader\">kernel</th>");
        for (size_t check = 0; check < matrix.check_count; check++) {
            cm_html_raw(page, "<th scope=\"col\" role=\"columnheader\">");
            cm_html_text(page, "%s", matrix.checks[check]);
            cm_html_raw(page, "</th>");
        }
        cm_html_raw(page, "</tr></thead>\n<tbody role=\"rowgroup\">\n");
        for (size_t row = 0; row < matrix.row_count; row++) {
            cm_html_raw(page, "<tr role=\"row\"><th scope=\"row\" role=\"rowheader\">");
            cm_html_text(page, "%s", matrix.rows[row]->kernel);
            cm_html_raw(page, " <span class=\"minor\">[");
            cm_html_text(page, "%s", cm_text_or(matrix.rows[row]->mode, "?"));
            cm_html_raw(page, "]</span></th>");
            for (size_t check = 0; check < matrix.check_count; check++)
                put_cell(page, &matrix, row, check);
            cm_html_raw(page, "</tr>\n");
        }
        cm_html_raw(page, "</tbody></table></div>\n");
    }
    if (matrix.left_out > 0) {
        cm_html_raw(page, "<p class=\"lead\">");
        cm_html_text(page, "%zu records of more kernels or checks have no place in the table.",
                     matrix.left_out);
        cm_html_raw(page, "</p>\n");
    }
    cm_html_raw(page, "</section>\n");
    cm_matrix_close(&matrix);
}

void cm_html_paths(const cm_html *page)
{
    cm_path_table table;
    char path[64];
    cm_path_table_make(page->records, &table);
    if (table.count > 0)
        cm_html_raw(page, "<section id=\"paths\" aria-labelledby=\"paths-h\">\n"
                          "<h2 id=\"paths-h\">Declared paths</h2>\n<p class=\"lead\">Kernels that choose "
                          "between several ways by the size of their work, and how many cases took "
                          "each.</p>\n<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">kernel</th>"
                          "<th scope=\"col\">path</th><th scope=\"col\" class=\"number\">cases</th>"
                          "<th scope=\"col\" class=\"number\">of</th></tr></thead>\n<tbody>\n");
    for (size_t n = 0; n < table.count; n++)
        for (int p = 0; cm_path_name(&table.rows[n], p, path, sizeof path); p++) {
            const cm_path_row *row = &table.rows[n];
            cm_html_raw(page, "<tr><td>");
            cm_html_text(page, "%s [%s]", row->first->kernel, cm_text_or(row->first->mode, "?"));
            cm_html_raw(page, "</td><td>");
            cm_html_text(page, "%s", path);
            cm_html_raw(page, "</td><td class=\"number\">");
            if (row->cases[p] == 0)
                cm_html_badge(page, "bad", "0");
            else
                cm_html_text(page, "%zu", row->cases[p]);
            cm_html_raw(page, "</td><td class=\"number\">");
            cm_html_text(page, "%zu", row->ran);
            cm_html_raw(page, "</td></tr>\n");
        }
    if (table.count > 0)
        cm_html_raw(page, "</tbody></table></div>\n</section>\n");
    cm_path_table_close(&table);
}

void cm_html_reasons(const cm_html *page, const char *id, const char *heading, const char *lead,
                     cm_bundle_key key)
{
    size_t count;
    cm_bundle *bundles = cm_bundles_make(page->records, key, &count);
    if (count > 0) {
        fprintf(page->out,
                "<section id=\"%s\" aria-labelledby=\"%s-h\">\n<h2 id=\"%s-h\">%s</h2>\n"
                "<p class=\"lead\">%s</p>\n<div class=\"scroll\"><table>\n<thead><tr>"
                "<th scope=\"col\" class=\"number\">cases</th><th scope=\"col\">reason</th>"
                "<th scope=\"col\">check and kernel</th></tr></thead>\n<tbody>\n",
                id, id, id, heading, lead);
        for (size_t n = 0; n < count && n < CM_MOST_REASONS; n++) {
            const cm_record *record = bundles[n].first;
            bool known = record->known && record->known[0], others = bundles[n].count > 1 && !known;
            fprintf(page->out, "<tr><td class=\"number\">%zu</td><td>", bundles[n].count);
            if (known) {
                cm_html_badge(page, "known", cm_verdict_name(record->outcome.verdict));
                cm_html_raw(page, " ");
            }
            cm_html_text(page, "%s",
                         known ? record->known : cm_text_or(record->outcome.reason, "no reason was given"));
            cm_html_raw(page, "</td><td>");
            cm_html_text(page, "%s %s%s", record->check, record->kernel, others ? " and others" : "");
            cm_html_raw(page, "</td></tr>\n");
        }
        cm_html_raw(page, "</tbody></table></div>\n");
        if (count > CM_MOST_REASONS)
            fprintf(page->out, "<p class=\"lead\">%zu more reasons are left out.</p>\n",
                    count - CM_MOST_REASONS);
        cm_html_raw(page, "</section>\n");
    }
    free(bundles);
}

void cm_html_slowest(const cm_html *page)
{
    const cm_record *slowest[CM_SLOWEST];
    size_t count = 0;
    for (size_t n = 0; n < page->records->count; n++) {
        const cm_record *record = &page->records->items[n];
        if (!isfinite(record->ms) || record->ms <= 0)
            continue;
        size_t place = count;
        while (place > 0 && slowest[place - 1]->ms < record->ms)
            place--;
        if (place == CM_SLOWEST)
            continue;
        count += count < CM_SLOWEST;
        memmove(slowest + place + 1, slowest + place, (count - place - 1) * sizeof *slowest);
        slowest[place] = record;
    }
    if (count == 0)
        return;
    cm_html_raw(page, "<section id=\"slowest\" aria-labelledby=\"slowest-h\">\n"
                      "<h2 id=\"slowest-h\">Slowest checks</h2>\n"
                      "<p class=\"lead\">Wall time of a check with all its runs of the kernel: where a run "
                      "spends its time, not how fast a kernel is.</p>\n"
                      "<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\" class=\"number\">ms</th>"
                      "<th scope=\"col\">check</th><th scope=\"col\">kernel</th><th scope=\"col\">case</th>"
                      "</tr></thead>\n<tbody>\n");
    for (size_t n = 0; n < count; n++) {
        cm_html_raw(page, "<tr><td class=\"number\">");
        cm_html_text(page, "%.1f", slowest[n]->ms);
        cm_html_raw(page, "</td><td>");
        cm_html_text(page, "%s", slowest[n]->check);
        cm_html_raw(page, "</td><td>");
        cm_html_text(page, "%s", slowest[n]->kernel);
        cm_html_raw(page, "</td><td><code>");
        cm_html_text(page, "%s", slowest[n]->case_name);
        cm_html_raw(page, "</code></td></tr>\n");
    }
    cm_html_raw(page, "</tbody></table></div>\n</section>\n");
}
