// SPDX-License-Identifier: Apache-2.0
#include "harness/last.h"

#include "harness/expect.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *cm_last_path(void)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char *path;
    if (state && state[0] == '/') // a relative one is to be ignored, says the XDG specification
        path = cm_text("%s/checkmoe/last.jsonl", state);
    else if (home && home[0] == '/')
        path = cm_text("%s/.local/state/checkmoe/last.jsonl", home);
    else
        return NULL;
    for (char *slash = path + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = 0;
        mkdir(path, 0700); // mostly there; whether it can be used shows at the end
        *slash = '/';
    }
    char *slash = strrchr(path, '/');
    *slash = 0;
    bool usable = access(path, W_OK | X_OK) == 0;
    *slash = '/';
    if (usable)
        return path;
    free(path);
    return NULL;
}

static bool same(const char *one, const char *other)
{
    return !strcmp(one ? one : "", other ? other : "");
}

// All runs of the check that a surviving fault must be killed by.
static void want_survivors(cm_last *last)
{
    cm_tally tally;
    cm_tally_make(&last->records, &tally);
    for (size_t f = 0; f < tally.fault_count; f++) {
        const cm_fault_result *fault = &tally.faults[f];
        for (size_t n = 0; n < last->records.count && !fault->killed && !fault->skipped; n++) {
            const cm_record *record = &last->records.items[n];
            last->wanted[n] = last->wanted[n] ||
                              (same(record->fault, fault->fault) && same(record->kernel, fault->kernel) &&
                               same(record->check, fault->expected_check));
        }
    }
    cm_tally_close(&tally);
}

static cm_status want_id(cm_last *last, const char *id, cm_error *error)
{
    size_t first = 0, length = strlen(id);
    for (size_t n = 0; n < last->records.count; n++) {
        char whole[CM_RECORD_ID];
        cm_record_id(&last->records.items[n], whole);
        last->wanted[n] = !strncmp(whole, id, length);
        if (!last->wanted[n])
            continue;
        if (last->count == 0)
            first = n;
        char other[CM_RECORD_ID];
        cm_record_id(&last->records.items[first], other);
        if (strcmp(whole, other) != 0)
            return cm_fail(error, CM_BAD_VALUE, "%s: both %s and %s begin with \"%s\"; give more digits",
                           last->path, other, whole, id);
        last->count++;
    }
    if (last->count == 0)
        return cm_fail(error, CM_BAD_VALUE,
                       "%s: no record has the id \"%s\"; name the file of its run with --records", last->path,
                       id);
    return CM_OK;
}

cm_status cm_last_open(const char *path, const char *id, cm_last *last, cm_error *error)
{
    *last = (cm_last){.path = path ? cm_text("%s", path) : cm_last_path()};
    if (!last->path)
        return cm_fail(error, CM_BAD_FILE,
                       "there is no state folder with the records of the last run; set HOME, or name a file "
                       "with --records");
    if (access(last->path, R_OK) != 0)
        return cm_fail(error, CM_BAD_FILE, "%s: there are no records of a last run here; %s", last->path,
                       path ? "name the file that --records wrote" : "name a file with --records");
    cm_status status = cm_records_read(last->path, &last->records, error);
    if (status != CM_OK)
        return status;
    last->wanted = cm_new(last->records.count, sizeof *last->wanted);
    last->met = cm_new(last->records.count, sizeof *last->met);
    if (id)
        return want_id(last, id, error);
    for (size_t n = 0; n < last->records.count; n++) {
        const cm_record *record = &last->records.items[n];
        last->wanted[n] =
            !(record->fault && record->fault[0]) && cm_record_surprise(record) != CM_AS_EXPECTED &&
            strcmp(record->check, CM_CHECK_PATHS) != 0; // no case runs that again, only the whole set
    }
    want_survivors(last);
    for (size_t n = 0; n < last->records.count; n++)
        last->count += last->wanted[n];
    return CM_OK;
}

bool cm_last_wants(cm_last *last, const char *fault, const char *kernel, const char *case_name,
                   const char *check)
{
    bool found = false;
    for (size_t n = 0; n < last->records.count; n++) {
        const cm_record *record = &last->records.items[n];
        if (!last->wanted[n] || !same(record->fault, fault) || !same(record->kernel, kernel) ||
            !same(record->case_name, case_name) || !same(record->check, check))
            continue;
        found = true;
        last->met[n] = true;
    }
    return found;
}

const cm_record *cm_last_missed(const cm_last *last, size_t *count)
{
    const cm_record *first = NULL;
    *count = 0;
    for (size_t n = 0; n < last->records.count; n++) {
        if (!last->wanted[n] || last->met[n])
            continue;
        first = first ? first : &last->records.items[n];
        ++*count;
    }
    return first;
}

void cm_last_close(cm_last *last)
{
    cm_records_close(&last->records);
    free(last->path);
    free(last->wanted);
    free(last->met);
    *last = (cm_last){0};
}
