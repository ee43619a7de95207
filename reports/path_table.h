// SPDX-License-Identifier: Apache-2.0
// Kernel by declared path: how many cases took it. Records of faults are left out.
#ifndef CM_PATH_TABLE_H
#define CM_PATH_TABLE_H

#include "harness/record.h"

typedef struct cm_path_row {
    const cm_record *first;     // of the kernel and mode; its path_names are those of the row
    const char *case_name;      // of the records that are being counted
    uint32_t taken;             // in that case
    size_t ran;                 // cases in which a check was not skipped
    bool runs;                  // that case is one of them
    size_t cases[CM_MAX_PATHS]; // that took each path
} cm_path_row;

typedef struct cm_path_table {
    cm_path_row *rows; // owned
    size_t count;
} cm_path_table;

// Kernels that declare no path, or never ran, have no row.
void cm_path_table_make(const cm_records *records, cm_path_table *table);
void cm_path_table_close(cm_path_table *table);
// The names of a row's paths, one after the other: copies the n-th to `name`; false: there are no more.
bool cm_path_name(const cm_path_row *row, int n, char *name, size_t size);

#endif
