// SPDX-License-Identifier: Apache-2.0
// JUnit XML for forges, in the rich form (file, line, properties): one testsuite per suite, one testcase per
// record, one per fault. Names carry no dots, every problem repeats its message in the body, with the line
// that runs it again; a run that was cut off or ran nothing is an error of its own.
#include "harness/expect.h"
#include "reports/reports.h"
#include "reports/xml.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct counts {
    size_t tests, failures, errors, skipped;
    double seconds;
};

static const char *text_or(const char *text, const char *other)
{
    return text && text[0] ? text : other;
}

static bool is_fault(const cm_record *record)
{
    return record->fault && record->fault[0];
}

static bool is_error(cm_verdict verdict)
{
    return verdict == CM_ERROR || verdict == CM_CRASH || verdict == CM_TIMEOUT;
}

static double seconds_of(const cm_record *record)
{
    return isfinite(record->ms) && record->ms > 0 ? record->ms / 1e3 : 0;
}

static void count_record(const cm_record *record, struct counts *counts)
{
    cm_surprise surprise = cm_record_surprise(record);
    bool error = surprise == CM_BAD && is_error(record->outcome.verdict);
    counts->tests++;
    counts->errors += error;
    counts->failures += surprise != CM_AS_EXPECTED && !error;
    counts->skipped += surprise == CM_AS_EXPECTED && record->outcome.verdict != CM_PASS;
    counts->seconds += seconds_of(record);
}

static struct counts count_faults(const cm_tally *tally, const cm_records *records)
{
    struct counts counts = {
        .tests = tally->fault_count, .failures = tally->survivors, .skipped = tally->faults_skipped};
    for (size_t n = 0; n < records->count; n++)
        counts.seconds += is_fault(&records->items[n]) ? seconds_of(&records->items[n]) : 0;
    return counts;
}

static void add(struct counts *sum, const struct counts *more)
{
    sum->tests += more->tests;
    sum->failures += more->failures;
    sum->errors += more->errors;
    sum->skipped += more->skipped;
    sum->seconds += more->seconds;
}

static void put_counts(cm_xml *xml, const char *name, const struct counts *counts)
{
    cm_xml_attribute(xml, "name", "%s", name);
    cm_xml_attribute(xml, "tests", "%zu", counts->tests);
    cm_xml_attribute(xml, "failures", "%zu", counts->failures);
    cm_xml_attribute(xml, "errors", "%zu", counts->errors);
    cm_xml_attribute(xml, "skipped", "%zu", counts->skipped);
    cm_xml_attribute(xml, "time", "%.3f", counts->seconds);
}

// Dots and slashes separate class names; readers split at them.
static char *without(const char *text, const char *characters)
{
    char *copy = cm_text("%s", text_or(text, "unnamed"));
    for (char *at = copy; (at = strpbrk(at, characters)) != NULL;)
        *at = '_';
    return copy;
}

static void put_property(cm_xml *xml, const char *name, const char *value)
{
    cm_xml_begin(xml, "property");
    cm_xml_attribute(xml, "name", "%s", name);
    cm_xml_attribute(xml, "value", "%s", value);
    cm_xml_end(xml, "property");
}

static void put_properties(cm_xml *xml, const cm_record *record)
{
    const cm_outcome *outcome = &record->outcome;
    char text[64];
    cm_xml_begin(xml, "properties");
    put_property(xml, "mode", text_or(record->mode, "unknown"));
    snprintf(text, sizeof text, "0x%llx", (unsigned long long)record->seed);
    put_property(xml, "seed", text);
    snprintf(text, sizeof text, "%lld", (long long)outcome->compared);
    put_property(xml, "compared", text);
    for (int n = 0; n < outcome->metric_count && cm_verdict_is_bad(outcome->verdict); n++) {
        snprintf(text, sizeof text, "%.9g", outcome->metrics[n].value);
        put_property(xml, outcome->metrics[n].name, text);
    }
    cm_xml_end(xml, "properties");
}

static void begin_case(cm_xml *xml, const cm_record *record, const char *check, const char *name,
                       double seconds)
{
    const char *slash = strchr(text_or(record->kernel, ""), '/');
    bool native = !strcmp(text_or(record->mode, "native"), "native");
    char *op = without(slash ? text_or(record->op, "") : record->kernel, "./");
    char *target = without(slash ? slash + 1 : record->target, "./"), *plain = without(name, ".");
    char *plain_check = without(check, "./");
    cm_xml_begin(xml, "testcase");
    cm_xml_attribute(xml, "classname", "%s.%s%s%s.%s", op, target, native ? "" : "-",
                     native ? "" : record->mode, plain_check);
    cm_xml_attribute(xml, "name", "%s", plain);
    cm_xml_attribute(xml, "time", "%.3f", seconds);
    if (text_or(record->source_file, NULL)) {
        cm_xml_attribute(xml, "file", "%s", record->source_file);
        if (record->source_line > 0)
            cm_xml_attribute(xml, "line", "%d", record->source_line);
    }
    free(op);
    free(target);
    free(plain);
    free(plain_check);
}

// failure, error or skipped; `repro` may be NULL.
static void put_problem(cm_xml *xml, const char *element, const char *type, const char *message,
                        const char *repro)
{
    cm_xml_begin(xml, element);
    cm_xml_attribute(xml, "type", "%s", type);
    cm_xml_attribute(xml, "message", "%s", message);
    if (strcmp(element, "skipped") != 0) {
        cm_xml_text(xml, message);
        if (text_or(repro, NULL)) {
            cm_xml_text(xml, "\nrerun: ");
            cm_xml_text(xml, repro);
        }
    }
    cm_xml_end(xml, element);
}

static void put_record(cm_xml *xml, const cm_record *record)
{
    cm_verdict verdict = record->outcome.verdict;
    cm_surprise surprise = cm_record_surprise(record);
    const char *reason = text_or(record->outcome.reason, "no reason was given");
    begin_case(xml, record, record->check, record->case_name, seconds_of(record));
    put_properties(xml, record);
    if (surprise == CM_UNEXPECTED_PASS) {
        char *message =
            cm_text("listed as a known failure (%s), but it %s%s; correct the list", record->known,
                    verdict == CM_PASS ? "passes" : "ended otherwise: ", verdict == CM_PASS ? "" : reason);
        put_problem(xml, "failure", "UNEXPECTED_PASS", message, record->repro);
        free(message);
    } else if (surprise == CM_BAD) {
        put_problem(xml, is_error(verdict) ? "error" : "failure", cm_verdict_name(verdict), reason,
                    record->repro);
    } else if (verdict == CM_SKIP) {
        put_problem(xml, "skipped", "SKIP", reason, NULL);
    } else if (cm_verdict_is_bad(verdict)) {
        char *message = cm_text("known: %s (%s: %s)", record->known, cm_verdict_name(verdict), reason);
        put_problem(xml, "skipped", "known", message, NULL);
        free(message);
    }
    cm_xml_end(xml, "testcase");
}

static void put_fault(cm_xml *xml, const cm_records *records, const cm_fault_result *fault)
{
    const cm_record *by = fault->by, *any = by;
    for (size_t n = 0; n < records->count && !any;
         n++) // the check never ran: any record of it names the kernel
        if (is_fault(&records->items[n]) && !strcmp(records->items[n].fault, fault->fault))
            any = &records->items[n];
    begin_case(xml, any, "fault", fault->fault, by ? seconds_of(by) : 0);
    if (fault->killed) {
        char *message = cm_text("killed by %s: %s", fault->expected_check, by->outcome.reason);
        cm_xml_begin(xml, "system-out");
        cm_xml_text(xml, message);
        cm_xml_end(xml, "system-out");
        free(message);
    } else if (fault->skipped) {
        put_problem(xml, "skipped", "SKIP", text_or(any->outcome.reason, "no reason was given"), NULL);
    } else {
        char *message = cm_text("survived: %s was to find \"%s\", but %s %s", fault->expected_check,
                                fault->expected_finding, by ? "at most it said" : "it never ran",
                                !by ? "" : text_or(by->outcome.reason, cm_verdict_name(by->outcome.verdict)));
        put_problem(xml, "failure", "SURVIVED", message, any->repro);
        free(message);
    }
    cm_xml_end(xml, "testcase");
}

// Whether no earlier record belongs to the same suite.
static bool opens_suite(const cm_records *records, size_t n)
{
    if (is_fault(&records->items[n]))
        return false;
    for (size_t i = n; i-- > 0;) // backwards: records of a suite mostly follow each other
        if (!is_fault(&records->items[i]) &&
            !strcmp(text_or(records->items[i].suite, ""), text_or(records->items[n].suite, "")))
            return false;
    return true;
}

static void put_suite(cm_xml *xml, const cm_records *records, size_t first, const char *start)
{
    const char *suite = text_or(records->items[first].suite, "");
    struct counts counts = {0};
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1) {
            cm_xml_begin(xml, "testsuite");
            put_counts(xml, text_or(suite, "unnamed"), &counts);
            if (start)
                cm_xml_attribute(xml, "timestamp", "%s", start);
        }
        for (size_t n = first; n < records->count; n++) {
            const cm_record *record = &records->items[n];
            if (is_fault(record) || strcmp(text_or(record->suite, ""), suite) != 0)
                continue;
            if (pass == 0)
                count_record(record, &counts);
            else
                put_record(xml, record);
        }
    }
    cm_xml_end(xml, "testsuite");
}

// The run itself: without this, a file that lost its records would look green.
static void put_run_error(cm_xml *xml, const char *type, const char *message)
{
    cm_xml_begin(xml, "testsuite");
    put_counts(xml, "run", &(struct counts){.tests = 1, .errors = 1});
    cm_xml_begin(xml, "testcase");
    cm_xml_attribute(xml, "classname", "checkmoe.run");
    cm_xml_attribute(xml, "name", "complete");
    cm_xml_attribute(xml, "time", "0.000");
    put_problem(xml, "error", type, message, NULL);
    cm_xml_end(xml, "testcase");
    cm_xml_end(xml, "testsuite");
}

static cm_status write_junit(const cm_records *records, FILE *out, cm_error *error)
{
    cm_tally tally;
    cm_xml xml;
    cm_tally_make(records, &tally);
    json_t *environment = json_loads(records->environment ? records->environment : "{}", 0, NULL);
    const char *start = json_string_value(json_object_get(environment, "start"));
    struct counts sum = {0}, faults = count_faults(&tally, records);
    for (size_t n = 0; n < records->count; n++)
        if (!is_fault(&records->items[n]))
            count_record(&records->items[n], &sum);
    add(&sum, &faults);
    if (!records->complete || records->count == 0)
        add(&sum, &(struct counts){.tests = 1, .errors = 1});

    cm_xml_open(out, &xml);
    cm_xml_begin(&xml, "testsuites");
    put_counts(&xml, "checkmoe", &sum);
    if (!records->complete)
        put_run_error(&xml, "CUT_OFF", "the run was cut off: its file of records lacks the end");
    else if (records->count == 0)
        put_run_error(&xml, "NOTHING", "nothing was selected: the file has no records");
    for (size_t n = 0; n < records->count; n++)
        if (opens_suite(records, n))
            put_suite(&xml, records, n, start);
    if (tally.fault_count > 0) {
        cm_xml_begin(&xml, "testsuite");
        put_counts(&xml, "faults", &faults);
        for (size_t n = 0; n < tally.fault_count; n++)
            put_fault(&xml, records, &tally.faults[n]);
        cm_xml_end(&xml, "testsuite");
    }
    cm_xml_end(&xml, "testsuites");
    cm_xml_close(&xml);
    json_decref(environment);
    cm_tally_close(&tally);
    return ferror(out) ? cm_fail(error, CM_BAD_FILE, "the JUnit report could not be written") : CM_OK;
}

const cm_report cm_report_junit = {
    .name = "junit",
    .meaning = "JUnit XML for the test pages of forges",
    .write = write_junit,
};
