// SPDX-License-Identifier: Apache-2.0
// Expectation: which failures are wanted (a fault must be killed by its check, a known failure must still
// fail), what is left over, and the exit status that follows. The only place that computes an exit status.
#ifndef CM_EXPECT_H
#define CM_EXPECT_H

#include "harness/record.h"

enum cm_exit {
    CM_EXIT_OK = 0,
    CM_EXIT_FAILED = 1,
    CM_EXIT_INTERRUPTED = 2,
    CM_EXIT_BROKEN = 3,
    CM_EXIT_USAGE = 4,
    CM_EXIT_NOTHING = 5,
    CM_EXIT_SLOWER = 6,
    CM_EXIT_INCONCLUSIVE = 7,
    CM_EXIT_SKIPPED = 77,
};

// A known-failures file: "KERNEL/CASE-GLOB  CHECK  VERDICT  reason to the end of the line"; '#' comments. The
// glob is fnmatch's and '*' crosses '/'; CHECK may be '*'; VERDICT is a bad one.
typedef struct cm_known_entry {
    char *glob, *check, *reason;
    cm_verdict verdict;
    int line;
    size_t met; // records that it applied to
} cm_known_entry;

typedef struct cm_known {
    char *path;
    cm_known_entry *entries;
    size_t count;
} cm_known;

cm_status cm_known_read(const char *path, cm_known *known, cm_error *error);
void cm_known_close(cm_known *known);
// Reason of the entry that covers this kernel/case and check, or NULL; one with the verdict that was found
// goes first, sets `agrees` (which may be NULL) and counts as met.
const char *cm_known_match(cm_known *known, const char *kernel, const char *case_name, const char *check,
                           cm_verdict verdict, bool *agrees);

typedef enum cm_surprise {
    CM_AS_EXPECTED,
    CM_BAD,             // an unlisted bad verdict
    CM_UNEXPECTED_PASS, // listed as known, but it did not fail as listed
    CM_SURVIVED,        // a fault that its check did not kill, or killed for another reason
} cm_surprise;

typedef struct cm_fault_result {
    const char *fault, *kernel, *expected_check, *expected_finding; // owned by the records
    bool killed;         // by the expected check with the expected finding
    bool skipped;        // every record of it is SKIP: the kernel can't run here; neither killed nor survived
    const cm_record *by; // the record that killed it, or the nearest miss; NULL: the check never ran
} cm_fault_result;

typedef struct cm_tally {
    size_t counts[CM_VERDICT_COUNT]; // of records without a fault that did not fail as listed
    size_t known;                    // failed as listed
    size_t unexpected_passes;        // also in `counts`
    cm_fault_result *faults;
    size_t fault_count, survivors, faults_skipped;
    int64_t compared; // elements, over all records
} cm_tally;

void cm_tally_make(const cm_records *records, cm_tally *tally);
void cm_tally_close(cm_tally *tally);
// Judges one record without a fault.
cm_surprise cm_record_surprise(const cm_record *record);
// `interrupted`: the run was stopped by a signal.
int cm_tally_exit(const cm_tally *tally, bool interrupted);

#endif
