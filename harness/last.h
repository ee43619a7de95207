// SPDX-License-Identifier: Apache-2.0
// Failures to run again: those of an earlier run, from its records. A run without --records keeps its records
// in the user's state folder for this.
#ifndef CM_LAST_H
#define CM_LAST_H

#include "harness/record.h"

typedef struct cm_last {
    cm_records records;
    char *path;   // that the records came from
    bool *wanted; // by record: to be run again
    bool *met;    // by record: it was
    size_t count; // of the wanted ones
} cm_last;

// Where a run without --records keeps its records: checkmoe/last.jsonl below XDG_STATE_HOME or
// ~/.local/state. Makes the folders; NULL when there is no home or it can't be written. Free with free().
char *cm_last_path(void);

// Reads the records of `path` (NULL: of the last run). Wanted are what went otherwise than expected, or, with
// `id`, the records whose cm_record_id begins with it (at least 4 digits): CM_BAD_VALUE when none or several
// have it. Close it also after an error.
cm_status cm_last_open(const char *path, const char *id, cm_last *last, cm_error *error);
// Whether this check of this kernel on this case is wanted; from then on it counts as met. fault: its id, or
// NULL.
bool cm_last_wants(cm_last *last, const char *fault, const char *kernel, const char *case_name,
                   const char *check);
// The first wanted record that was not met, and how many there are; NULL: all were met.
const cm_record *cm_last_missed(const cm_last *last, size_t *count);
void cm_last_close(cm_last *last); // accepts a zeroed one

#endif
