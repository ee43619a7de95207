// SPDX-License-Identifier: Apache-2.0
// What the tests of records and reports share: a directory of their own, and records made of literals.
#ifndef CM_UNIT_RECORDS_H
#define CM_UNIT_RECORDS_H

#include "harness/expect.h"

#include <check.h>

Suite *cm_unit_records(void);
// These need the directory around each test.
TCase *cm_unit_expectations(void);
TCase *cm_unit_reports(void);
TCase *cm_unit_reports_html(void);

void cm_unit_records_leave(void); // removes the directory

// A record that is never closed: its texts are literals.
cm_record cm_unit_record(const char *check, const char *case_name, cm_verdict verdict, const char *reason);
// The same of a fault that effect must kill with "gain 0.00".
cm_record cm_unit_fault_record(const char *fault, const char *check, cm_verdict verdict, const char *reason);

// To and from r.jsonl.
void cm_unit_write_records(const cm_record *items, size_t count, bool interrupted);
cm_records cm_unit_read_records(void);

// What a report says of these records, which are in r.jsonl meanwhile; free with free().
char *cm_unit_render(const cm_report *report, const cm_record *items, size_t count, bool interrupted);
// One of each kind of result, 11 records.
size_t cm_unit_mixture(cm_record *items);

void cm_unit_write_text(const char *path, const char *text);
char *cm_unit_read_text(const char *path); // free with free()
void cm_unit_expect_part(const char *text, const char *part);
// Refused as CM_BAD_FILE, with `part` in the message.
void cm_unit_expect_bad_file(cm_status status, const cm_error *error, const char *part);

#endif
