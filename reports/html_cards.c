// SPDX-License-Identifier: Apache-2.0
// A card for each thing that went otherwise than expected. Survivors come first: a check that misses its
// fault puts every PASS in doubt.
#include "reports/finding.h"
#include "reports/html.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_GAINS = 16 };

static void put_row(const cm_html *page, const char *label, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// A term and its description.
static void put_row(const cm_html *page, const char *label, const char *format, ...)
{
    char *text = NULL;
    va_list list;
    va_start(list, format);
    if (vasprintf(&text, format, list) < 0)
        cm_broken("out of memory for a page");
    va_end(list);
    cm_html_raw(page, "<dt>");
    cm_html_text(page, "%s", label);
    cm_html_raw(page, "</dt><dd>");
    cm_html_text(page, "%s", text);
    cm_html_raw(page, "</dd>\n");
    free(text);
}

static void put_value(const cm_html *page, const char *label, double value)
{
    cm_html_raw(page, "<tr><th scope=\"row\">");
    cm_html_text(page, "%s", label);
    cm_html_raw(page, "</th><td><code>");
    if (isfinite(value)) {
        cm_html_text(page, "%a", value);
        cm_html_raw(page, "</code></td><td class=\"number\">");
        cm_html_text(page, "%.9g", value);
    } else {
        cm_html_text(page, "%s", isnan(value) ? "NaN" : value > 0 ? "Inf" : "-Inf");
        cm_html_raw(page, "</code></td><td class=\"number\">");
    }
    cm_html_raw(page, "</td></tr>");
}

static void put_first_bad(const cm_html *page, const cm_outcome *outcome)
{
    const cm_first_bad *bad = &outcome->first_bad;
    char place[160];
    if (!cm_finding_has_values(outcome))
        return;
    cm_finding_place(bad, place, sizeof place);
    cm_html_raw(page, "<dt>first bad</dt><dd><code>");
    cm_html_text(page, "%s", place);
    cm_html_raw(page, "</code><div class=\"scroll\"><table class=\"values\">"
                      "<thead><tr><th scope=\"col\"></th><th scope=\"col\">hex</th>"
                      "<th scope=\"col\" class=\"number\">decimal</th></tr></thead><tbody>");
    put_value(page, "want", bad->want);
    put_value(page, "got", bad->got);
    if (isfinite(bad->got) && isfinite(bad->want)) {
        put_value(page, "|got - want|", fabs(bad->got - bad->want));
        put_value(page, "bound", bad->bound);
    }
    cm_html_raw(page, "</tbody></table></div></dd>\n");
}

static void put_gain(const cm_html *page, const cm_gain *gain)
{
    cm_html_raw(page, gain->off ? "<tr class=\"off\"><td>" : "<tr><td>");
    cm_html_text(page, "%s", gain->term);
    cm_html_raw(page, "</td><td>");
    cm_html_text(page, "%s", gain->part[0] ? gain->part : "all");
    cm_html_raw(page, "</td><td class=\"number\">");
    cm_html_text(page, "%.3g", gain->gain);
    cm_html_raw(page, "</td><td class=\"number\">");
    cm_html_text(page, "\302\261 %.2g", gain->error);
    cm_html_raw(page, "</td><td>");
    cm_html_raw(page, gain->off ? "<strong>off</strong>" : "right");
    cm_html_raw(page, "</td></tr>");
}

// The rows that are off, or those that are not; at most `most`. Returns how many were left out.
static int put_gain_table(const cm_html *page, const cm_outcome *outcome, bool off, int most)
{
    int put = 0, left = 0;
    cm_html_raw(page, "<div class=\"scroll\"><table class=\"gains\"><thead><tr><th scope=\"col\">term</th>"
                      "<th scope=\"col\">part</th><th scope=\"col\" class=\"number\">gain</th>"
                      "<th scope=\"col\" class=\"number\">error</th><th scope=\"col\">is</th></tr></thead>"
                      "<tbody>");
    for (int n = 0; n < outcome->gain_count; n++) {
        if (outcome->gains[n].off != off)
            continue;
        if (put < most)
            put_gain(page, &outcome->gains[n]);
        left += put++ >= most;
    }
    cm_html_raw(page, "</tbody></table></div>");
    return left;
}

static void put_gains(const cm_html *page, const cm_outcome *outcome, bool whole)
{
    int off = 0, left = 0;
    for (int n = 0; n < outcome->gain_count; n++)
        off += outcome->gains[n].off;
    int right = outcome->gain_count - off;
    if (outcome->gain_count == 0)
        return;
    cm_html_raw(page, "<dt>gains</dt><dd><span class=\"minor\">how much of each term is in the output: 1 is "
                      "right, 0 dropped, 2 doubled</span>");
    if (off > 0)
        left = put_gain_table(page, outcome, true, MOST_GAINS);
    if (left > 0)
        fprintf(page->out, "<p class=\"minor\">and %d more that are off</p>", left);
    if (right > 0 && whole) {
        fprintf(page->out, "<details%s><summary>%d that %s right</summary>", off ? "" : " open=\"open\"",
                right, right == 1 ? "is" : "are");
        put_gain_table(page, outcome, false, CM_MAX_GAIN_ROWS);
        cm_html_raw(page, "</details>");
    }
    cm_html_raw(page, "</dd>\n");
}

static void put_measured(const cm_html *page, const cm_outcome *outcome)
{
    if (outcome->metric_count == 0)
        return;
    cm_html_raw(page, "<dt>measured</dt><dd class=\"metrics\">");
    for (int n = 0; n < outcome->metric_count; n++) {
        cm_html_raw(page, "<span>");
        cm_html_text(page, "%s ", outcome->metrics[n].name);
        cm_html_raw(page, "<b>");
        cm_html_text(page, "%.4g", outcome->metrics[n].value);
        cm_html_raw(page, "</b></span> ");
    }
    cm_html_raw(page, "</dd>\n");
}

static void put_finding(const cm_html *page, const cm_record *record)
{
    const char *reason = cm_text_or(record->outcome.reason, "no reason was given");
    cm_html_raw(page, "<p class=\"finding\">");
    if (cm_record_surprise(record) != CM_UNEXPECTED_PASS)
        cm_html_text(page, "%s", reason);
    else if (record->outcome.verdict == CM_PASS)
        cm_html_text(page, "passes, but is listed as known (%s); take it off the list", record->known);
    else
        cm_html_text(page, "%s; listed as known (%s), but with another verdict", reason, record->known);
    cm_html_raw(page, "</p>\n");
}

static void put_tail(const cm_html *page, const cm_record *record)
{
    if (record->source_file && record->source_file[0])
        put_row(page, "source", "%s:%d", record->source_file, record->source_line);
    char id[CM_RECORD_ID];
    cm_record_id(record, id);
    put_row(page, "id", "%s", id);
    cm_html_raw(page, "</dl>\n");
    if (record->repro && record->repro[0]) {
        cm_html_raw(page, "<p class=\"minor\">Run it again:</p>\n<pre><code>");
        cm_html_text(page, "%s", record->repro);
        cm_html_raw(page, "</code></pre>\n");
    }
}

static void begin_card(const cm_html *page, size_t number, const char *word, const char *what,
                       const char *kernel, const char *mode)
{
    fprintf(page->out, "<article class=\"card\" id=\"card-%zu\" aria-labelledby=\"card-%zu-h\">\n<h3 ",
            number, number);
    fprintf(page->out, "id=\"card-%zu-h\">", number);
    cm_html_badge(page, "bad", word);
    cm_html_raw(page, " <span>");
    cm_html_text(page, "%s", what);
    cm_html_raw(page, "</span> <span class=\"kernel\">");
    cm_html_text(page, "%s%s%s%s", kernel, mode[0] ? " [" : "", mode, mode[0] ? "]" : "");
    cm_html_raw(page, "</span></h3>\n");
}

static void put_card(cm_html *page, size_t number, const cm_bundle *bundle)
{
    const cm_record *record = bundle->first;
    const cm_outcome *outcome = &record->outcome;
    bool unexpected = cm_record_surprise(record) == CM_UNEXPECTED_PASS;
    begin_card(page, number,
               !unexpected                   ? cm_verdict_name(outcome->verdict)
               : outcome->verdict == CM_PASS ? "UNEXPECTED PASS"
                                             : "UNEXPECTED",
               record->check, record->kernel, cm_text_or(record->mode, "?"));
    cm_html_raw(page, "<p class=\"case\"><code>");
    cm_html_text(page, "%s", record->case_name);
    cm_html_raw(page, "</code></p>\n");
    put_finding(page, record);
    cm_html_raw(page, outcome->tiles ? "<div class=\"columns\">\n<div>\n<dl>\n" : "<div>\n<div>\n<dl>\n");
    put_first_bad(page, outcome);
    if (outcome->bad_count > 0)
        put_row(page, "bad", "%lld of %lld elements%s%s", (long long)outcome->bad_count,
                (long long)outcome->compared, outcome->bad_pattern[0] ? "; " : "", outcome->bad_pattern);
    put_gains(page, outcome, number <= CM_MOST_MAPS);
    put_measured(page, outcome);
    if (bundle->count > 1)
        put_row(page, "also on", "%zu more case%s, e.g. %s", bundle->count - 1, bundle->count > 2 ? "s" : "",
                bundle->second->case_name);
    put_tail(page, record);
    cm_html_raw(page, "</div>\n");
    cm_html_map(page, outcome);
    cm_html_raw(page, "</div>\n</article>\n");
}

static void put_survivor(const cm_html *page, size_t number, const cm_fault_result *fault)
{
    const cm_record *by = fault->by;
    begin_card(page, number, "SURVIVED", fault->fault, fault->kernel, "");
    cm_html_raw(page, "<dl>\n");
    if (fault->expected_finding[0])
        put_row(page, "expected", "%s finds \"%s\"", cm_text_or(fault->expected_check, "no check"),
                fault->expected_finding);
    else
        put_row(page, "expected", "%s; but the fault names no finding: any failure would do",
                cm_text_or(fault->expected_check, "no check"));
    if (by) {
        put_row(page, "nearest", "%s on %s%s%s", cm_verdict_name(by->outcome.verdict), by->case_name,
                by->outcome.reason[0] ? ": " : "", by->outcome.reason);
        put_tail(page, by);
    } else {
        put_row(page, "nearest", "the check never ran on it");
        cm_html_raw(page, "</dl>\n");
    }
    cm_html_raw(page, "</article>\n");
}

void cm_html_cards(cm_html *page)
{
    const cm_tally *tally = page->tally;
    size_t survivors = 0, shown = page->card_count < CM_MOST_CARDS ? page->card_count : CM_MOST_CARDS;
    size_t total = page->card_count + tally->survivors;
    if (total == 0)
        return;
    cm_html_raw(page, "<section id=\"failures\" aria-labelledby=\"failures-h\">\n"
                      "<h2 id=\"failures-h\">Failures</h2>\n<p class=\"lead\">");
    fprintf(page->out, "%zu kind%s of failure; cases that differ only in their numbers share a card.", total,
            total > 1 ? "s" : "");
    cm_html_raw(page, "</p>\n");
    for (size_t n = 0; n < tally->fault_count && survivors < CM_MOST_SURVIVORS; n++)
        if (!tally->faults[n].killed && !tally->faults[n].skipped)
            put_survivor(page, CM_MOST_CARDS + ++survivors, &tally->faults[n]);
    for (size_t n = 0; n < shown; n++)
        put_card(page, n + 1, &page->cards[n]);
    if (total > shown + survivors)
        fprintf(page->out,
                "<p class=\"lead\">%zu more kinds are left out here; all of them are in the "
                "records.</p>\n",
                total - shown - survivors);
    cm_html_raw(page, "</section>\n");
}
