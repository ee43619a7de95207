// SPDX-License-Identifier: Apache-2.0
// A record is everything known about one (kernel, case, check): one JSON object a line. A file of records
// begins with the environment and ends with the counts; without its last line the run was cut off.
#ifndef CM_RECORD_H
#define CM_RECORD_H

#include "harness/outcome.h"
#include "harness/status.h"
#include <stdio.h>

#define CM_CHECK_PATHS   "paths" // of what a run as a whole says about the declared paths of a kernel
#define CM_SCHEMA_RECORD "checkmoe.record/1"
#define CM_SCHEMA_ENV    "checkmoe.env/1"
#define CM_SCHEMA_END    "checkmoe.end/1"

// Texts are owned by the record; NULL or "" means not there. Free with cm_record_close. So are the
// outcome's gains and tiles of a record that was read; NULL: it has none.
typedef struct cm_record {
    char *run, *suite, *check, *op, *kernel, *target, *mode, *case_name;
    uint64_t seed;
    double ms; // wall time of the child
    cm_outcome outcome;
    char *fault;            // id of the deliberate bug in the kernel
    char *expected_check;   // with fault: what must kill it
    char *expected_finding; // with fault: must be part of the reason
    char *known;            // reason why this failure is listed as known
    bool known_differs;     // with known: listed is another verdict than the one found
    char *path_names;       // declared by the kernel, blank between; outcome.paths has those taken
    char *repro;            // the line to paste
    char *source_file;      // of the kernel
    int source_line;
} cm_record;

void cm_record_close(cm_record *record);

enum { CM_RECORD_ID = 9 };
// Eight hex digits from SHA-256 of fault, kernel, case, check and, if it was measured with some, threads: the
// same in every run. "repro" takes them.
void cm_record_id(const cm_record *record, char id[CM_RECORD_ID]);

typedef struct cm_records {
    char *environment; // the first line as JSON text; NULL: missing
    cm_record *items;
    size_t count;
    bool complete; // the last line was there, and counts as many records as were read
} cm_records;

// Appends each line with one write, so that processes can share the file and a crash costs one line.
typedef struct cm_record_writer {
    int descriptor; // 0: not open
    char *path, *temporary;
    char *run; // of the environment
    size_t counts[CM_VERDICT_COUNT];
} cm_record_writer;

// Creates PATH.part-PID next to `path`; close renames it to `path`. `environment` is a JSON object as text.
cm_status cm_record_writer_open(const char *path, const char *environment, cm_record_writer *writer,
                                cm_error *error);
cm_status cm_record_write(cm_record_writer *writer, const cm_record *record, cm_error *error);
// Appends lines that another writer made; its counts come separately.
cm_status cm_record_write_lines(cm_record_writer *writer, const char *lines, size_t bytes, cm_error *error);
// Writes the end line (unless interrupted) and renames. Accepts a zeroed writer.
cm_status cm_record_writer_close(cm_record_writer *writer, bool interrupted, cm_error *error);

// The record as one line of JSON with its newline, always valid UTF-8; free with free().
char *cm_record_line(const cm_record *record);

// Length in bytes (1..4) of the UTF-8 character that `text` begins with; 0 if it is malformed or the end.
int cm_utf8_length(const char *text);

// Gives up what was written; the file that was at `path` before stays. Accepts a zeroed writer.
void cm_record_writer_discard(cm_record_writer *writer);

// Reads a whole file; unknown keys and unknown schemas are ignored, malformed lines are errors that name the
// line. A last line without newline (a cut-off write) is dropped and leaves `complete` false.
cm_status cm_records_read(const char *path, cm_records *records, cm_error *error);
void cm_records_close(cm_records *records);

// What a report writer is: reads records and nothing else.
typedef struct cm_report {
    const char *name;    // also the command-line option: --junit FILE
    const char *meaning; // one line for --help
    cm_status (*write)(const cm_records *records, FILE *out, cm_error *error);
} cm_report;

#endif
