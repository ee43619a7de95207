// SPDX-License-Identifier: Apache-2.0
// What was wanted against what was found, and the exit status that follows from what is left over.
#include "harness/expect.h"

#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

// The next word of a line; NULL at its end.
static char *next_word(char **rest)
{
    char *word = *rest + strspn(*rest, " \t");
    char *end = word + strcspn(word, " \t");
    *rest = *end ? end + 1 : end;
    *end = 0;
    return *word ? word : NULL;
}

static cm_status read_entry(cm_known *known, char *text, int line, cm_error *error)
{
    static const char form[] = "write KERNEL/CASE-GLOB CHECK VERDICT reason";
    char *rest = text;
    const char *glob = next_word(&rest), *check = next_word(&rest), *word = next_word(&rest);
    const char *reason = rest + strspn(rest, " \t");
    cm_verdict verdict;
    if (!glob || glob[0] == '#')
        return CM_OK;
    if (!strchr(glob, '/') && strcmp(glob, "*"))
        return cm_fail(error, CM_BAD_FILE, "%s:%d: \"%s\" names no kernel; %s, e.g. OP/TARGET/t17-*",
                       known->path, line, glob, form);
    if (!check || !word)
        return cm_fail(error, CM_BAD_FILE, "%s:%d: too few words; %s", known->path, line, form);
    if (!cm_verdict_parse(word, &verdict) || !cm_verdict_is_bad(verdict))
        return cm_fail(
            error, CM_BAD_FILE,
            "%s:%d: \"%s\" is no verdict that can be listed; write FAIL, ERROR, CRASH, TIMEOUT or VACUOUS",
            known->path, line, word);
    if (!*reason)
        return cm_fail(error, CM_BAD_FILE,
                       "%s:%d: no reason is given; say after %s why this failure is accepted", known->path,
                       line, word);
    known->entries = realloc(known->entries, (known->count + 1) * sizeof *known->entries);
    if (!known->entries)
        cm_broken("out of memory for %zu known failures", known->count + 1);
    known->entries[known->count++] = (cm_known_entry){
        .glob = cm_text("%s", glob),
        .check = cm_text("%s", check),
        .reason = cm_text("%s", reason),
        .verdict = verdict,
        .line = line,
    };
    return CM_OK;
}

cm_status cm_known_read(const char *path, cm_known *known, cm_error *error)
{
    cm_status status = CM_OK;
    char *text = NULL;
    size_t space = 0;
    ssize_t length;
    *known = (cm_known){.path = cm_text("%s", path)};
    FILE *file = fopen(path, "r");
    if (!file) {
        status = cm_fail(error, CM_BAD_FILE, "%s: cannot be opened (%s); give --known a file that exists",
                         path, strerror(errno));
        goto done;
    }
    for (int line = 1; (length = getline(&text, &space, file)) > 0; line++) {
        while (length > 0 && isspace((unsigned char)text[length - 1]))
            text[--length] = 0;
        CM_TRY(read_entry(known, text, line, error));
    }
    if (ferror(file))
        status = cm_fail(error, CM_BAD_FILE, "%s: cannot be read (%s)", path, strerror(errno));

done:
    free(text);
    if (file)
        fclose(file);
    if (status != CM_OK)
        cm_known_close(known);
    return status;
}

void cm_known_close(cm_known *known)
{
    for (size_t n = 0; n < known->count; n++) {
        free(known->entries[n].glob);
        free(known->entries[n].check);
        free(known->entries[n].reason);
    }
    free(known->entries);
    free(known->path);
    *known = (cm_known){0};
}

const char *cm_known_match(cm_known *known, const char *kernel, const char *case_name, const char *check,
                           cm_verdict verdict, bool *agrees)
{
    cm_known_entry *found = NULL;
    bool same = false;
    char *path = cm_text("%s/%s", kernel, case_name);
    for (size_t n = 0; n < known->count && !same; n++) {
        cm_known_entry *entry = &known->entries[n];
        if (fnmatch(entry->glob, path, 0) != 0 || fnmatch(entry->check, check, 0) != 0)
            continue;
        same = entry->verdict == verdict;
        found = same || !found ? entry : found;
    }
    if (same)
        found->met++;
    if (agrees)
        *agrees = same;
    free(path);
    return found ? found->reason : NULL;
}

cm_surprise cm_record_surprise(const cm_record *record)
{
    cm_verdict verdict = record->outcome.verdict;
    if (verdict == CM_SKIP)
        return CM_AS_EXPECTED;
    if (record->known && record->known[0])
        return verdict == CM_PASS || record->known_differs ? CM_UNEXPECTED_PASS : CM_AS_EXPECTED;
    return cm_verdict_is_bad(verdict) ? CM_BAD : CM_AS_EXPECTED;
}

static const char *text_or_empty(const char *text)
{
    return text ? text : "";
}

static cm_fault_result *fault_of(cm_tally *tally, const cm_record *record)
{
    for (size_t n = tally->fault_count; n-- > 0;) // records of a fault follow each other
        if (!strcmp(tally->faults[n].fault, record->fault) &&
            !strcmp(tally->faults[n].kernel, record->kernel))
            return &tally->faults[n];
    tally->faults = realloc(tally->faults, (tally->fault_count + 1) * sizeof *tally->faults);
    if (!tally->faults)
        cm_broken("out of memory for %zu faults", tally->fault_count + 1);
    tally->faults[tally->fault_count] = (cm_fault_result){
        .fault = record->fault,
        .kernel = record->kernel,
        .expected_check = text_or_empty(record->expected_check),
        .expected_finding = text_or_empty(record->expected_finding),
        .skipped = true,
    };
    return &tally->faults[tally->fault_count++];
}

// A VACUOUS kills only where it is the finding: a path that was never taken.
// 3: killed for the right reason; 2: for another; 1: the check ran in vain; 0: it was skipped. A fault that
// names no finding can't be killed: any failure at all would do.
static int kill_rank(const cm_fault_result *result, const cm_record *record)
{
    const cm_outcome *outcome = &record->outcome;
    if (outcome->verdict == CM_SKIP)
        return 0;
    bool powerless = outcome->verdict == CM_VACUOUS && strcmp(result->expected_check, CM_CHECK_PATHS) != 0;
    if (!cm_verdict_is_bad(outcome->verdict) || powerless)
        return 1;
    return result->expected_finding[0] && strstr(outcome->reason, result->expected_finding) ? 3 : 2;
}

static void tally_fault(cm_tally *tally, const cm_record *record)
{
    cm_fault_result *result = fault_of(tally, record);
    if (record->outcome.verdict != CM_SKIP)
        result->skipped = false;
    if (strcmp(text_or_empty(record->check), result->expected_check) != 0)
        return;
    if (!result->by || kill_rank(result, record) > kill_rank(result, result->by))
        result->by = record;
    result->killed = kill_rank(result, result->by) == 3;
}

void cm_tally_make(const cm_records *records, cm_tally *tally)
{
    *tally = (cm_tally){0};
    for (size_t n = 0; n < records->count; n++) {
        const cm_record *record = &records->items[n];
        cm_surprise surprise = cm_record_surprise(record);
        tally->compared += record->outcome.compared;
        if (record->fault && record->fault[0]) {
            tally_fault(tally, record);
        } else if (surprise == CM_AS_EXPECTED && cm_verdict_is_bad(record->outcome.verdict)) {
            tally->known++;
        } else {
            tally->counts[record->outcome.verdict]++;
            tally->unexpected_passes += surprise == CM_UNEXPECTED_PASS;
        }
    }
    for (size_t n = 0; n < tally->fault_count; n++) {
        tally->survivors += !tally->faults[n].killed && !tally->faults[n].skipped;
        tally->faults_skipped += tally->faults[n].skipped;
    }
}

void cm_tally_close(cm_tally *tally)
{
    free(tally->faults);
    *tally = (cm_tally){0};
}

int cm_tally_exit(const cm_tally *tally, bool interrupted)
{
    size_t bad = tally->unexpected_passes + tally->survivors;
    size_t ran = tally->known + tally->fault_count - tally->faults_skipped;
    size_t skipped = tally->counts[CM_SKIP] + tally->faults_skipped;
    for (int n = 0; n < CM_VERDICT_COUNT; n++) {
        bad += cm_verdict_is_bad((cm_verdict)n) ? tally->counts[n] : 0;
        ran += n == CM_SKIP ? 0 : tally->counts[n];
    }
    if (interrupted)
        return CM_EXIT_INTERRUPTED;
    if (bad)
        return CM_EXIT_FAILED;
    if (ran)
        return CM_EXIT_OK;
    return skipped ? CM_EXIT_SKIPPED : CM_EXIT_NOTHING;
}
