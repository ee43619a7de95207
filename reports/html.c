// SPDX-License-Identifier: Apache-2.0
// The report for a browser: one file that loads nothing and runs nothing. What needs an answer stands first.
#include "reports/html.h"

#include "reports/reports.h"
#include "reports/summary.h"
#include "reports/xml.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void cm_html_raw(const cm_html *page, const char *markup)
{
    fputs(markup, page->out);
}

static void put_formatted(const cm_html *page, bool attribute, const char *format, va_list list)
{
    char *text = NULL;
    if (vasprintf(&text, format, list) < 0)
        cm_broken("out of memory for a page");
    cm_xml_escape(page->out, text, attribute);
    free(text);
}

void cm_html_text(const cm_html *page, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    put_formatted(page, false, format, list);
    va_end(list);
}

void cm_html_attribute(const cm_html *page, const char *name, const char *format, ...)
{
    va_list list;
    fprintf(page->out, " %s=\"", name);
    va_start(list, format);
    put_formatted(page, true, format, list);
    va_end(list);
    fputc('"', page->out);
}

void cm_html_badge(const cm_html *page, const char *class, const char *word)
{
    cm_html_raw(page, "<span");
    cm_html_attribute(page, "class", "badge %s", class);
    cm_html_raw(page, ">");
    cm_html_text(page, "%s", word);
    cm_html_raw(page, "</span>");
}

const char *cm_html_class(cm_verdict verdict)
{
    return verdict == CM_PASS ? "good" : verdict == CM_SKIP ? "skip" : "bad";
}

void cm_html_picture(const cm_html *page, int width, int height, const char *label, const char *picture)
{
    cm_html_raw(page, "<svg role=\"img\"");
    cm_html_attribute(page, "viewBox", "0 0 %d %d", width, height);
    cm_html_attribute(page, "width", "%d", width);
    cm_html_attribute(page, "aria-label", "%s", label);
    cm_html_raw(page, ">");
    cm_html_raw(page, picture);
    cm_html_raw(page, "</svg>\n");
}

static void put_head(const cm_html *page, const char *verdict)
{
    cm_html_raw(page, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
                      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
                      "<meta name=\"color-scheme\" content=\"light dark\"/>\n"
                      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
                      "style-src 'unsafe-inline'; img-src data:\"/>\n<title>");
    cm_html_text(page, "%s - checkmoe", verdict);
    if (cm_json_text(page->environment, "start")[0])
        cm_html_text(page, " %s", cm_json_text(page->environment, "start"));
    cm_html_raw(page, "</title>\n<style>\n");
    cm_html_raw(page, cm_html_style);
    cm_html_raw(page, "</style>\n</head>\n<body>\n");
}

static void put_fact(const cm_html *page, const char *label, const char *text)
{
    if (!text[0])
        return;
    cm_html_raw(page, "<div><dt>");
    cm_html_text(page, "%s", label);
    cm_html_raw(page, "</dt><dd>");
    cm_html_text(page, "%s", text);
    cm_html_raw(page, "</dd></div>");
}

static void put_facts(const cm_html *page)
{
    const json_t *environment = page->environment, *build = json_object_get(environment, "build");
    const json_t *cores = json_object_get(json_object_get(environment, "topology"), "cores");
    char number[32] = "";
    if (!environment) {
        cm_html_raw(page,
                    "<p class=\"lead\">The records do not begin with their environment: when, where and "
                    "from which commit they are is unknown.</p>\n");
        return;
    }
    if (json_is_integer(cores))
        snprintf(number, sizeof number, ", %lld cores", (long long)json_integer_value(cores));
    char *machine = cm_text("%s%s", cm_json_text(json_object_get(environment, "cpu"), "name"), number);
    char *made =
        cm_text("%s%s%s", cm_json_text(build, "compiler"), build ? ", " : "", cm_json_text(build, "type"));
    char *source = cm_text("%s%s", cm_text_or(cm_json_text(environment, "commit"), "unknown"),
                           json_is_true(json_object_get(environment, "dirty")) ? ", changed since" : "");
    cm_html_raw(page, "<dl class=\"facts\">");
    put_fact(page, "started", cm_json_text(environment, "start"));
    put_fact(page, "commit", source);
    put_fact(page, "checkmoe", cm_json_text(environment, "version"));
    put_fact(page, "build", made);
    put_fact(page, "machine", machine);
    put_fact(page, "run", cm_json_text(environment, "run"));
    cm_html_raw(page, "</dl>\n");
    free(machine);
    free(made);
    free(source);
}

static void put_verdict(const cm_html *page)
{
    bool cut_off = !page->records->complete;
    int code = cm_tally_exit(page->tally, cut_off);
    const char *class = code == CM_EXIT_OK ? "good" : code == CM_EXIT_SKIPPED ? "skip" : "bad";
    const char *verdict = cm_summary_verdict(page->records, page->tally);
    char *counts = cm_summary_counts(page->tally), notes[512] = "";
    put_head(page, verdict);
    cm_html_raw(page, "<header>\n<p class=\"name\">checkmoe</p>\n<h1");
    cm_html_attribute(page, "class", "verdict %s", class);
    cm_html_raw(page, " id=\"verdict\"><strong>");
    cm_html_text(page, "%s", verdict);
    cm_html_raw(page, "</strong>: <span>");
    cm_html_text(page, "%s", counts);
    cm_html_raw(page, "</span></h1>\n<p class=\"lead\">");
    cm_html_text(page, "Exit status %d: %s. %zu records.", code, cm_summary_meaning(code),
                 page->records->count);
    cm_html_raw(page, "</p>\n");
    put_facts(page);
    cm_summary_notes(page->environment, page->records, notes, sizeof notes);
    if (notes[0]) {
        cm_html_raw(page, "<p class=\"note\"><strong>Note:</strong> ");
        cm_html_text(page, "%s.", notes);
        cm_html_raw(page, "</p>\n");
    }
    cm_html_raw(page, "</header>\n<main>\n");
    free(counts);
}

static cm_status write_html(const cm_records *records, FILE *out, cm_error *error)
{
    cm_tally tally;
    cm_html page = {.out = out, .records = records, .tally = &tally};
    cm_tally_make(records, &tally);
    page.environment = records->environment ? json_loads(records->environment, 0, NULL) : NULL;
    page.cards = cm_bundles_make(records, cm_card_key, &page.card_count);
    put_verdict(&page);
    cm_html_matrix(&page);
    cm_html_cards(&page);
    cm_html_paths(&page);
    cm_html_kills(&page);
    cm_html_measured(&page);
    cm_html_speed(&page);
    cm_html_reasons(&page, "known", "Known failures",
                    "They fail as the list of known failures says, and do not count against the verdict.",
                    cm_known_key);
    cm_html_reasons(&page, "skipped", "Skipped", "What did not run, and why.", cm_skip_key);
    cm_html_slowest(&page);
    cm_html_environment(&page);
    cm_html_again(&page);
    cm_html_raw(&page, "</main>\n</body>\n</html>\n");
    free(page.cards);
    json_decref(page.environment);
    cm_tally_close(&tally);
    return ferror(out) ? cm_fail(error, CM_BAD_FILE, "the page could not be written") : CM_OK;
}

const cm_report cm_report_html = {
    .name = "html",
    .meaning = "one page for a browser, with pictures if gnuplot is there",
    .write = write_html,
};
