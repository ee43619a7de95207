// SPDX-License-Identifier: Apache-2.0
// The kill matrix: fault by check, with what was to kill it and what did.
#include "reports/html.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_CHECKS = 30 };

struct kills {
    const char *checks[MOST_CHECKS];
    size_t check_count;
    cm_verdict *worst; // [fault][check]; CM_VERDICT_COUNT: no record
};

static size_t find_check(struct kills *kills, const char *check)
{
    for (size_t n = 0; n < kills->check_count; n++)
        if (!strcmp(kills->checks[n], check))
            return n;
    if (kills->check_count == MOST_CHECKS)
        return MOST_CHECKS;
    kills->checks[kills->check_count] = check;
    return kills->check_count++;
}

// Row of the record's fault; `near` is that of the record before, which mostly has the same.
static size_t find_fault(const cm_tally *tally, const cm_record *record, size_t near)
{
    for (size_t n = 0; n < tally->fault_count; n++) {
        size_t row = (near + n) % tally->fault_count;
        if (!strcmp(tally->faults[row].fault, record->fault) &&
            !strcmp(tally->faults[row].kernel, record->kernel))
            return row;
    }
    return SIZE_MAX;
}

// FAIL and the like over PASS over SKIP over nothing.
static int rank(cm_verdict verdict)
{
    return verdict == CM_VERDICT_COUNT  ? 0
           : verdict == CM_SKIP         ? 1
           : verdict == CM_PASS         ? 2
           : cm_verdict_is_bad(verdict) ? 3
                                        : 0;
}

static void collect(const cm_html *page, struct kills *kills)
{
    const cm_tally *tally = page->tally;
    size_t near = 0;
    kills->worst = cm_new(tally->fault_count * MOST_CHECKS, sizeof *kills->worst);
    for (size_t n = 0; n < tally->fault_count * MOST_CHECKS; n++)
        kills->worst[n] = CM_VERDICT_COUNT;
    for (size_t n = 0; n < page->records->count; n++) {
        const cm_record *record = &page->records->items[n];
        if (!cm_text_is_fault(record))
            continue;
        size_t row = find_fault(tally, record, near), check = find_check(kills, record->check);
        if (row == SIZE_MAX || check == MOST_CHECKS)
            continue;
        near = row;
        cm_verdict *worst = &kills->worst[row * MOST_CHECKS + check];
        if (rank(record->outcome.verdict) > rank(*worst))
            *worst = record->outcome.verdict;
    }
}

static void put_cell(const cm_html *page, const struct kills *kills, size_t row, size_t check)
{
    const cm_fault_result *fault = &page->tally->faults[row];
    cm_verdict worst = kills->worst[row * MOST_CHECKS + check];
    bool expected = !strcmp(kills->checks[check], fault->expected_check);
    const char *class = "none", *word = "-";
    if (expected && fault->killed) {
        class = "good";
        word = "killed";
    } else if (expected && !fault->skipped) {
        class = "bad";
        word = "SURVIVED";
    } else if (worst != CM_VERDICT_COUNT) {
        class = cm_verdict_is_bad(worst) ? "also" : "none";
        word = cm_verdict_is_bad(worst) ? cm_verdict_name(worst) : worst == CM_PASS ? "pass" : "skip";
    }
    cm_html_raw(page, "<td role=\"cell\"");
    cm_html_attribute(page, "class", "%s", class);
    cm_html_attribute(page, "data-check", "%s", kills->checks[check]);
    cm_html_raw(page, "><span>");
    cm_html_raw(page, word);
    cm_html_raw(page, "</span></td>");
}

static void put_fault(const cm_html *page, const struct kills *kills, size_t row)
{
    const cm_fault_result *fault = &page->tally->faults[row];
    cm_html_raw(page, "<tr role=\"row\"><th scope=\"row\" role=\"rowheader\">");
    cm_html_text(page, "%s", fault->fault);
    cm_html_raw(page, " <span class=\"minor\">");
    cm_html_text(page, "%s", fault->kernel);
    cm_html_raw(page, "</span></th>");
    for (size_t check = 0; check < kills->check_count; check++)
        put_cell(page, kills, row, check);
    cm_html_raw(page, "<td role=\"cell\" class=\"wide\" data-check=\"was to find\">");
    if (fault->skipped)
        cm_html_text(page, "skipped: %s", fault->by ? fault->by->outcome.reason : "no reason was given");
    else
        cm_html_text(page, "%s: \"%s\"", fault->expected_check, fault->expected_finding);
    cm_html_raw(page, "</td></tr>\n");
}

void cm_html_kills(const cm_html *page)
{
    struct kills kills = {0};
    size_t count = page->tally->fault_count;
    if (count == 0)
        return;
    collect(page, &kills);
    cm_html_raw(page, "<section id=\"faults\" aria-labelledby=\"faults-h\">\n"
                      "<h2 id=\"faults-h\">Faults and what killed them</h2>\n<p class=\"lead\">Each row is a "
                      "kernel with a deliberate bug. One check must kill it, with the finding in the last "
                      "column; other checks may fail on it, too.</p>\n"
                      "<div class=\"scroll\"><table class=\"matrix\" role=\"table\">\n"
                      "<thead role=\"rowgroup\"><tr role=\"row\">"
                      "<th scope=\"col\" role=\"columnheader\">fault</th>");
    for (size_t check = 0; check < kills.check_count; check++) {
        cm_html_raw(page, "<th scope=\"col\" role=\"columnheader\">");
        cm_html_text(page, "%s", kills.checks[check]);
        cm_html_raw(page, "</th>");
    }
    cm_html_raw(page, "<th scope=\"col\" role=\"columnheader\">was to find</th></tr></thead>\n"
                      "<tbody role=\"rowgroup\">\n");
    for (size_t row = 0; row < count && row < CM_MOST_FAULTS; row++)
        put_fault(page, &kills, row);
    cm_html_raw(page, "</tbody></table></div>\n");
    if (count > CM_MOST_FAULTS)
        fprintf(page->out, "<p class=\"lead\">%zu more faults are left out.</p>\n", count - CM_MOST_FAULTS);
    cm_html_raw(page, "</section>\n");
    free(kills.worst);
}
