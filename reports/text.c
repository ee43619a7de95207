// SPDX-License-Identifier: Apache-2.0
// The report for a terminal. What needs an answer stands first, what is only counted later, and the verdict
// with all counts is the last line.
#include "reports/text.h"

#include "reports/reports.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_REASONS = 30 };

static const char *text_at(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static void add_note(char *notes, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void add_note(char *notes, size_t size, const char *format, ...)
{
    size_t length = strlen(notes);
    va_list list;
    length += (size_t)snprintf(notes + length, size - length, "%s", length ? "; " : "");
    va_start(list, format);
    vsnprintf(notes + length, size - length, format, list);
    va_end(list);
}

// Red flags: what makes results or times of this run worth less.
static void collect_notes(const json_t *environment, const cm_records *records, char *notes, size_t size)
{
    const json_t *build = json_object_get(environment, "build"), *cpu = json_object_get(environment, "cpu");
    const json_t *numerics = json_object_get(environment, "numerics");
    const char *governor = text_at(cpu, "governor");
    if (json_is_true(json_object_get(environment, "dirty")))
        add_note(notes, size, "dirty tree: the commit does not say what ran");
    if (!strcmp(text_at(build, "type"), "Debug") || json_is_false(json_object_get(build, "optimized")))
        add_note(notes, size, "debug build: times mean nothing");
    if (text_at(build, "sanitizer")[0])
        add_note(notes, size, "sanitizer %s: times mean nothing", text_at(build, "sanitizer"));
    if (json_is_true(json_object_get(numerics, "flush_to_zero")) ||
        json_is_true(json_object_get(numerics, "denormals_are_zero")))
        add_note(notes, size, "subnormals are flushed to zero");
    if (governor[0] && strcmp(governor, "performance") != 0)
        add_note(notes, size, "governor %s: times wander", governor);
    for (size_t n = 0; n < records->count; n++) {
        const char *mode = records->items[n].mode;
        if (mode && mode[0] && strcmp(mode, "native") != 0) {
            add_note(notes, size, "some kernels ran %s: no timing", mode);
            break;
        }
    }
    if (!records->complete)
        add_note(notes, size, "cut off: the records end without their last line, %zu of them were read",
                 records->count);
}

static void put_environment(const cm_screen *screen, const cm_records *records)
{
    char notes[512] = "";
    json_t *environment = records->environment ? json_loads(records->environment, 0, NULL) : NULL;
    const json_t *build = json_object_get(environment, "build"), *cpu = json_object_get(environment, "cpu");
    const json_t *cores = json_object_get(json_object_get(environment, "topology"), "cores");
    collect_notes(environment, records, notes, sizeof notes);
    if (environment) {
        char *line =
            cm_text("checkmoe %s %s  %s %s  %s, %lld cores  %s  run %s",
                    cm_text_or(text_at(environment, "version"), "of unknown version"),
                    text_at(environment, "commit"), text_at(build, "compiler"), text_at(build, "type"),
                    cm_text_or(text_at(cpu, "name"), "unknown CPU"), (long long)json_integer_value(cores),
                    text_at(environment, "start"), cm_text_or(text_at(environment, "run"), "without a name"));
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

static char *skip_key(const cm_record *record)
{
    if (cm_text_is_fault(record) || record->outcome.verdict != CM_SKIP)
        return NULL;
    return cm_text("%s", record->outcome.reason);
}

static char *known_key(const cm_record *record)
{
    if (cm_text_is_fault(record) || !cm_verdict_is_bad(record->outcome.verdict) ||
        cm_record_surprise(record) != CM_AS_EXPECTED)
        return NULL;
    return cm_text("_%s\1_%s\1%s", record->kernel, record->check, record->known);
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
    const size_t *counts = tally->counts;
    int code = cm_tally_exit(tally, false);
    const char *word = code == CM_EXIT_OK        ? "PASSED"
                       : code == CM_EXIT_FAILED  ? "FAILED"
                       : code == CM_EXIT_SKIPPED ? "ALL SKIPPED"
                                                 : "NOTHING RAN";
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
                       0, word);
    fprintf(screen->out,
            ": %zu FAIL, %zu ERROR, %zu CRASH, %zu TIMEOUT, %zu VACUOUS, %zu PASS, %zu SKIP, %zu known, "
            "%zu unexpected; ",
            counts[CM_FAIL], counts[CM_ERROR], counts[CM_CRASH], counts[CM_TIMEOUT], counts[CM_VACUOUS],
            counts[CM_PASS], counts[CM_SKIP], tally->known, tally->unexpected_passes);
    if (tally->fault_count > 0)
        fprintf(screen->out, "faults: %zu killed, %zu survived, %zu skipped; ",
                tally->fault_count - tally->survivors - tally->faults_skipped, tally->survivors,
                tally->faults_skipped);
    fprintf(screen->out, "%lld elements compared\n", (long long)tally->compared);
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
    cm_text_kills(&screen, records, &tally);
    put_reasons(&screen, records, "skipped", skip_key);
    put_reasons(&screen, records, "known failures", known_key);
    put_verdict(&screen, records, &tally);
    cm_tally_close(&tally);
    return ferror(out) ? cm_fail(error, CM_BAD_FILE, "the text report could not be written") : CM_OK;
}

const cm_report cm_report_text = {
    .name = "text",
    .meaning = "for a terminal: failures, the matrix of kernels and checks, the verdict",
    .write = write_text,
};
