// SPDX-License-Identifier: Apache-2.0
// The parts of the text report. Records that say the same (numbers aside) are folded into one bundle.
#ifndef CM_REPORT_TEXT_H
#define CM_REPORT_TEXT_H

#include "harness/expect.h"
#include "reports/screen.h"

typedef struct cm_bundle {
    const cm_record *first;
    const cm_record *second; // NULL: there is only one
    size_t count;
} cm_bundle;

// The key of a record, NULL to leave it out; in new memory.
typedef char *(*cm_bundle_key)(const cm_record *record);

// In the order of their first records; free with free().
cm_bundle *cm_bundles_make(const cm_records *records, cm_bundle_key key, size_t *count);

// Never NULL.
const char *cm_text_or(const char *text, const char *other);
bool cm_text_is_fault(const cm_record *record);

void cm_text_cards(const cm_screen *screen, const cm_records *records, const cm_tally *tally);
void cm_text_matrix(const cm_screen *screen, const cm_records *records);
void cm_text_kills(const cm_screen *screen, const cm_records *records, const cm_tally *tally);

#endif
