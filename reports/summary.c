// SPDX-License-Identifier: Apache-2.0
#include "reports/summary.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *cm_summary_word(int code)
{
    return code == CM_EXIT_OK        ? "PASSED"
           : code == CM_EXIT_FAILED  ? "FAILED"
           : code == CM_EXIT_SKIPPED ? "ALL SKIPPED"
                                     : "NOTHING RAN";
}

const char *cm_summary_verdict(const cm_records *records, const cm_tally *tally)
{
    int code = cm_tally_exit(tally, false);
    if (records->complete)
        return cm_summary_word(code);
    return code == CM_EXIT_FAILED ? "CUT OFF, FAILED" : "CUT OFF"; // never PASSED
}

char *cm_summary_counts(const cm_tally *tally)
{
    const size_t *counts = tally->counts;
    char faults[96] = "";
    if (tally->fault_count > 0)
        snprintf(faults, sizeof faults, "faults: %zu killed, %zu survived, %zu skipped; ",
                 tally->fault_count - tally->survivors - tally->faults_skipped, tally->survivors,
                 tally->faults_skipped);
    return cm_text("%zu FAIL, %zu ERROR, %zu CRASH, %zu TIMEOUT, %zu VACUOUS, %zu PASS, %zu SKIP, %zu known, "
                   "%zu unexpected; %s%lld elements compared",
                   counts[CM_FAIL], counts[CM_ERROR], counts[CM_CRASH], counts[CM_TIMEOUT],
                   counts[CM_VACUOUS], counts[CM_PASS], counts[CM_SKIP], tally->known,
                   tally->unexpected_passes, faults, (long long)tally->compared);
}

const char *cm_summary_meaning(int code)
{
    switch (code) {
    case CM_EXIT_OK:
        return "something ran and all of it passed";
    case CM_EXIT_FAILED:
        return "something failed, or did not fail as listed";
    case CM_EXIT_INTERRUPTED:
        return "interrupted or cut off";
    case CM_EXIT_SKIPPED:
        return "everything was skipped";
    default:
        return "nothing was selected";
    }
}

const char *cm_json_text(const json_t *object, const char *key)
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

void cm_summary_notes(const json_t *environment, const cm_records *records, char *notes, size_t size)
{
    const json_t *build = json_object_get(environment, "build"), *cpu = json_object_get(environment, "cpu");
    const json_t *numerics = json_object_get(environment, "numerics");
    const char *governor = cm_json_text(cpu, "governor");
    if (json_is_true(json_object_get(environment, "dirty")))
        add_note(notes, size, "dirty tree: the commit does not say what ran");
    if (!strcmp(cm_json_text(build, "type"), "Debug") || json_is_false(json_object_get(build, "optimized")))
        add_note(notes, size, "debug build: times mean nothing");
    if (cm_json_text(build, "sanitizer")[0])
        add_note(notes, size, "sanitizer %s: times mean nothing", cm_json_text(build, "sanitizer"));
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
