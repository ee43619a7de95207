// SPDX-License-Identifier: Apache-2.0
// One card for each thing that went otherwise than expected: what, how far, where, how many, and one line to
// paste. Survivors come first: a check that misses its fault puts every PASS in doubt.
#include "reports/text.h"

#include "reports/finding.h"

#include <math.h>
#include <stdlib.h>

enum { MOST_CARDS = 20 };

static void put_first_bad(const cm_screen *screen, const cm_outcome *outcome)
{
    const cm_first_bad *bad = &outcome->first_bad;
    char place[160], want[64], got[64], error[96] = "";
    if (!cm_finding_has_values(outcome))
        return;
    cm_finding_place(bad, place, sizeof place);
    cm_finding_value(bad->want, want, sizeof want);
    cm_finding_value(bad->got, got, sizeof got);
    if (isfinite(bad->got) && isfinite(bad->want))
        snprintf(error, sizeof error, "   |err| %.3g > bound %.3g", fabs(bad->got - bad->want), bad->bound);
    cm_screen_line(screen, "first bad", "%s   want %s   got %s%s", place, want, got, error);
}

static void put_measured(const cm_screen *screen, const cm_outcome *outcome)
{
    char text[CM_MAX_METRICS * 64] = "";
    size_t length = 0;
    for (int n = 0; n < outcome->metric_count; n++)
        length += (size_t)snprintf(text + length, sizeof text - length, "%s%s %.4g", n ? "   " : "",
                                   outcome->metrics[n].name, outcome->metrics[n].value);
    if (length > 0)
        cm_screen_line(screen, "measured", "%s", text);
}

static void put_finding(const cm_screen *screen, const cm_record *record)
{
    const char *reason = cm_text_or(record->outcome.reason, "no reason was given");
    if (cm_record_surprise(record) != CM_UNEXPECTED_PASS)
        cm_screen_line(screen, NULL, "%s", reason);
    else if (record->outcome.verdict == CM_PASS)
        cm_screen_line(screen, NULL, "passes, but is listed as known (%s); take it off the list",
                       record->known);
    else
        cm_screen_line(screen, NULL, "%s; listed as known (%s), but with another verdict", reason,
                       record->known);
}

static void put_tail(const cm_screen *screen, const cm_record *record)
{
    if (record->source_file && record->source_file[0])
        cm_screen_line(screen, "source", "%s:%d", record->source_file, record->source_line);
    char id[CM_RECORD_ID];
    cm_record_id(record, id);
    cm_screen_line(screen, "id", "%s", id);
    if (record->repro && record->repro[0]) { // one line, whatever its length
        fprintf(screen->out, "  %-11s", "rerun");
        cm_screen_put(screen, 0, record->repro);
        fputc('\n', screen->out);
    }
}

static void put_card(const cm_screen *screen, const cm_bundle *bundle)
{
    const cm_record *record = bundle->first;
    const cm_outcome *outcome = &record->outcome;
    bool unexpected = cm_record_surprise(record) == CM_UNEXPECTED_PASS;
    const char *word = cm_verdict_name(outcome->verdict);
    char *head = cm_text("%s  %s [%s]", record->check, record->kernel, cm_text_or(record->mode, "?"));
    fputc('\n', screen->out);
    int column = cm_screen_word(screen, CM_RED, 0,
                                !unexpected                   ? word
                                : outcome->verdict == CM_PASS ? "UNEXPECTED PASS"
                                                              : "UNEXPECTED");
    column += 2 + cm_screen_columns(head) + 2 + cm_screen_columns(record->case_name);
    fputs("  ", screen->out);
    cm_screen_put(screen, 0, head);
    free(head);
    fputs(column > CM_SCREEN_WIDTH ? "\n             " : "  ", screen->out);
    cm_screen_put(screen, 0, record->case_name);
    fputc('\n', screen->out);
    put_finding(screen, record);
    put_first_bad(screen, outcome);
    if (outcome->bad_count > 0)
        cm_screen_line(screen, "bad", "%lld of %lld elements%s%s", (long long)outcome->bad_count,
                       (long long)outcome->compared, outcome->bad_pattern[0] ? "; " : "",
                       outcome->bad_pattern);
    put_measured(screen, outcome);
    if (bundle->count > 1)
        cm_screen_line(screen, "also on", "%zu more case%s, e.g. %s", bundle->count - 1,
                       bundle->count > 2 ? "s" : "", bundle->second->case_name);
    put_tail(screen, record);
}

static void put_survivor(const cm_screen *screen, const cm_fault_result *fault)
{
    const cm_record *by = fault->by;
    fputc('\n', screen->out);
    cm_screen_word(screen, CM_RED, 0, "SURVIVED");
    fputs("  ", screen->out);
    cm_screen_put(screen, 0, fault->fault);
    fputs("  ", screen->out);
    cm_screen_put(screen, 0, fault->kernel);
    fputc('\n', screen->out);
    if (fault->expected_finding[0])
        cm_screen_line(screen, "expected", "%s finds \"%s\"", cm_text_or(fault->expected_check, "no check"),
                       fault->expected_finding);
    else
        cm_screen_line(screen, "expected", "%s; but the fault names no finding: any failure would do",
                       cm_text_or(fault->expected_check, "no check"));
    if (!by) {
        cm_screen_line(screen, "nearest", "the check never ran on it");
        return;
    }
    cm_screen_line(screen, "nearest", "%s on %s%s%s", cm_verdict_name(by->outcome.verdict), by->case_name,
                   by->outcome.reason[0] ? ": " : "", by->outcome.reason);
    put_tail(screen, by);
}

void cm_text_cards(const cm_screen *screen, const cm_records *records, const cm_tally *tally)
{
    size_t count, shown = 0, total = tally->survivors;
    cm_bundle *bundles = cm_bundles_make(records, cm_card_key, &count);
    total += count;
    for (size_t n = 0; n < tally->fault_count && shown < MOST_CARDS; n++) {
        if (!tally->faults[n].killed && !tally->faults[n].skipped) {
            put_survivor(screen, &tally->faults[n]);
            shown++;
        }
    }
    for (size_t n = 0; n < count && shown < MOST_CARDS; n++, shown++)
        put_card(screen, &bundles[n]);
    if (total > shown)
        fprintf(screen->out, "\nand %zu more like these; all of them are in the records\n", total - shown);
    free(bundles);
}
