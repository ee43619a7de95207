// SPDX-License-Identifier: Apache-2.0
// The verdict in words, and what makes a run worth less: the same in every report for people.
#ifndef CM_SUMMARY_H
#define CM_SUMMARY_H

#include "harness/expect.h"

#include <jansson.h>

// "PASSED", "FAILED", "ALL SKIPPED" or "NOTHING RAN" for an exit status; of a run that was cut off, see
// cm_summary_verdict.
const char *cm_summary_word(int code);
// "PASSED"; "CUT OFF" or "CUT OFF, FAILED" when the records end without their last line.
const char *cm_summary_verdict(const cm_records *records, const cm_tally *tally);
// All counts, in one line without its end; free with free().
char *cm_summary_counts(const cm_tally *tally);
// What an exit status of cm_tally_exit says, as half a sentence.
const char *cm_summary_meaning(int code);

// Red flags, "; " between them: "" if there is none. `environment` may be NULL.
void cm_summary_notes(const json_t *environment, const cm_records *records, char *notes, size_t size);
// The text of a key, "" if it is no text.
const char *cm_json_text(const json_t *object, const char *key);

#endif
