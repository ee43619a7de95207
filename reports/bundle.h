// SPDX-License-Identifier: Apache-2.0
// Records that say the same (numbers aside) are folded into one bundle: what the reports show once.
#ifndef CM_BUNDLE_H
#define CM_BUNDLE_H

#include "harness/expect.h"

typedef struct cm_bundle {
    const cm_record *first;
    const cm_record *second; // NULL: there is only one
    size_t count;
} cm_bundle;

// The key of a record, NULL to leave it out; in new memory.
typedef char *(*cm_bundle_key)(const cm_record *record);

// In the order of their first records; free with free().
cm_bundle *cm_bundles_make(const cm_records *records, cm_bundle_key key, size_t *count);

// What went otherwise than expected, by kernel, mode, check, verdict and reason; faults are left out.
char *cm_card_key(const cm_record *record);
char *cm_skip_key(const cm_record *record);  // by reason
char *cm_known_key(const cm_record *record); // failed as listed, by kernel, check and listed reason

// Never NULL.
const char *cm_text_or(const char *text, const char *other);
bool cm_text_is_fault(const cm_record *record);

#endif
