// SPDX-License-Identifier: Apache-2.0
// Kernel by check: how many of each verdict. Records of faults are left out.
#ifndef CM_MATRIX_H
#define CM_MATRIX_H

#include "harness/expect.h"

enum { CM_MOST_ROWS = 400, CM_MOST_COLUMNS = 60 };

typedef struct cm_cell {
    size_t counts[CM_VERDICT_COUNT]; // that did not fail as listed
    size_t known, total;
} cm_cell;

typedef struct cm_matrix {
    const cm_record **rows; // the first record of each kernel and mode
    const char **checks;    // in the order of appearance
    cm_cell *cells;         // see cm_matrix_cell
    size_t row_count, check_count;
    size_t left_out; // records of more rows and columns than there is room for
} cm_matrix;

void cm_matrix_make(const cm_records *records, cm_matrix *matrix);
void cm_matrix_close(cm_matrix *matrix);
const cm_cell *cm_matrix_cell(const cm_matrix *matrix, size_t row, size_t check);
// The worst verdict leads, "FAIL 3/120"; the others follow. Returns the verdict that gives the colour.
cm_verdict cm_cell_describe(const cm_cell *cell, char *text, size_t size);

#endif
