// SPDX-License-Identifier: Apache-2.0
// The report for a terminal. What needs an answer stands first, what is only counted later, and the verdict
// with all counts is the last line.
#include "reports/text.h"

#include "reports/reports.h"
#include "reports/summary.h"

#include <stdlib.h>

enum { MOST_REASONS = 30 };

static void put_environment(const cm_screen *screen, const cm_records *records)
{
    char notes[512] = "";
    json_t *environment = records->environment ? json_loads(records->environment, 0, NULL) : NULL;
    const json_t *build = json_object_get(environment, "build"), *cpu = json_object_get(environment, "cpu");
    const json_t *cores = json_object_get(json_object_get(environment, "topology"), "cores");
    cm_summary_notes(environment, records, notes, sizeof notes);
    if (environment) {
        char *line =
            cm_text("checkmoe %s %s  %s %s  %s, %lld cores  %s  run %s",
                    cm_text_or(cm_json_text(environment, "version"), "of unknown version"),
                    cm_json_text(environment, "commit"), cm_json_text(build, "compiler"),
                    cm_json_text(build, "type"), cm_text_or(cm_json_text(cpu, "name"), "unknown CPU"),
                    (long long)json_integer_value(cores), cm_json_text(environment, "start"),
                    cm_text_or(cm_json_text(environment, "run"), "without a name"));
        cm_screen_put(screen, 0, line);
        free(line);
    } else {
        fputs("checkmoe: the record file does not begin with its environment", screen->out);
    }
    fputc('\n', screen->out);
    if (notes[0])
        cm_screen_line(screen, "NOTE", "%s", notes);
    json_decref(environment);
}

static void put_reasons(const cm_screen *screen, const cm_records *records, const char *heading,
                        cm_bundle_key key)
{
    size_t count;
    cm_bundle *bundles = cm_bundles_make(records, key, &count);
    if (count > 0)
        cm_screen_heading(screen, "%s", heading);
    for (size_t n = 0; n < count && n < MOST_REASONS; n++) {
        const cm_record *record = bundles[n].first;
        char number[24];
        snprintf(number, sizeof number, "%8zu", bundles[n].count);
        if (record->known && record->known[0])
            cm_screen_line(screen, number, "%s %s %s: %s", cm_verdict_name(record->outcome.verdict),
                           record->check, record->kernel, record->known);
        else
            cm_screen_line(screen, number, "%s (%s %s)",
                           cm_text_or(record->outcome.reason, "no reason was given"), record->check,
                           bundles[n].count > 1 ? "and others" : record->kernel);
    }
    if (count > MOST_REASONS)
        fprintf(screen->out, "  and %zu more reasons\n", count - MOST_REASONS);
    free(bundles);
}

static void put_verdict(const cm_screen *screen, const cm_records *records, const cm_tally *tally)
{
    int code = cm_tally_exit(tally, false);
    char *counts = cm_summary_counts(tally);
    fputc('\n', screen->out);
    if (!records->complete) { // never PASSED
        cm_screen_word(screen, CM_RED, 0, "CUT OFF");
        if (code == CM_EXIT_FAILED)
            fputs(", ", screen->out);
    }
    if (records->complete || code == CM_EXIT_FAILED)
        cm_screen_word(screen,
                       code == CM_EXIT_OK       ? CM_GREEN
                       : code == CM_EXIT_FAILED ? CM_RED
                                                : CM_YELLOW,
                       0, cm_summary_word(code));
    fprintf(screen->out, ": %s\n", counts);
    free(counts);
}

static cm_status write_text(const cm_records *records, FILE *out, cm_error *error)
{
    cm_screen screen;
    cm_tally tally;
    cm_screen_open(out, &screen);
    cm_tally_make(records, &tally);
    put_environment(&screen, records);
    cm_text_cards(&screen, records, &tally);
    cm_text_matrix(&screen, records);
    cm_text_paths(&screen, records);
    cm_text_kills(&screen, records, &tally);
    put_reasons(&screen, records, "skipped", cm_skip_key);
    put_reasons(&screen, records, "known failures", cm_known_key);
    put_verdict(&screen, records, &tally);
    cm_tally_close(&tally);
    return ferror(out) ? cm_fail(error, CM_BAD_FILE, "the text report could not be written") : CM_OK;
}

const cm_report cm_report_text = {
    .name = "text",
    .meaning = "for a terminal: failures, the matrix of kernels and checks, the verdict",
    .write = write_text,
};
