// SPDX-License-Identifier: Apache-2.0
#include "reports/matrix.h"

#include "reports/bundle.h"

#include <stdlib.h>
#include <string.h>

// SIZE_MAX: there is no room.
static size_t find_row(cm_matrix *matrix, const cm_record *record)
{
    for (size_t n = matrix->row_count; n-- > 0;)
        if (!strcmp(matrix->rows[n]->kernel, record->kernel) &&
            !strcmp(cm_text_or(matrix->rows[n]->mode, ""), cm_text_or(record->mode, "")))
            return n;
    if (matrix->row_count == CM_MOST_ROWS)
        return SIZE_MAX;
    matrix->rows[matrix->row_count] = record;
    return matrix->row_count++;
}

static size_t find_check(cm_matrix *matrix, const char *check)
{
    for (size_t n = 0; n < matrix->check_count; n++)
        if (!strcmp(matrix->checks[n], check))
            return n;
    if (matrix->check_count == CM_MOST_COLUMNS)
        return SIZE_MAX;
    matrix->checks[matrix->check_count] = check;
    return matrix->check_count++;
}

void cm_matrix_make(const cm_records *records, cm_matrix *matrix)
{
    *matrix = (cm_matrix){.rows = cm_new(CM_MOST_ROWS, sizeof *matrix->rows),
                          .checks = cm_new(CM_MOST_COLUMNS, sizeof *matrix->checks),
                          .cells = cm_new((size_t)CM_MOST_ROWS * CM_MOST_COLUMNS, sizeof *matrix->cells)};
    for (size_t n = 0; n < records->count; n++) {
        const cm_record *record = &records->items[n];
        if (cm_text_is_fault(record))
            continue;
        size_t row = find_row(matrix, record), check = find_check(matrix, record->check);
        if (row == SIZE_MAX || check == SIZE_MAX) {
            matrix->left_out++;
            continue;
        }
        cm_cell *cell = &matrix->cells[row * CM_MOST_COLUMNS + check];
        cell->total++;
        if (cm_record_surprise(record) == CM_AS_EXPECTED && cm_verdict_is_bad(record->outcome.verdict))
            cell->known++;
        else
            cell->counts[record->outcome.verdict]++;
    }
}

void cm_matrix_close(cm_matrix *matrix)
{
    free(matrix->rows);
    free(matrix->checks);
    free(matrix->cells);
    *matrix = (cm_matrix){0};
}

const cm_cell *cm_matrix_cell(const cm_matrix *matrix, size_t row, size_t check)
{
    return &matrix->cells[row * CM_MOST_COLUMNS + check];
}

cm_verdict cm_cell_describe(const cm_cell *cell, char *text, size_t size)
{
    static const cm_verdict order[] = {CM_CRASH, CM_TIMEOUT, CM_ERROR, CM_FAIL, CM_VACUOUS};
    cm_verdict worst = CM_PASS;
    size_t length = 0;
    text[0] = 0;
    for (size_t n = 0; n < sizeof order / sizeof *order; n++) {
        size_t count = cell->counts[order[n]];
        if (count == 0)
            continue;
        length += (size_t)snprintf(text + length, size - length, length ? " %s %zu" : "%s %zu/%zu",
                                   cm_verdict_name(order[n]), count, cell->total);
        worst = worst == CM_PASS ? order[n] : worst;
    }
    if (worst == CM_PASS && cell->counts[CM_PASS])
        length += (size_t)snprintf(text + length, size - length, "PASS %zu", cell->counts[CM_PASS]);
    if (cell->known)
        length +=
            (size_t)snprintf(text + length, size - length, "%sknown %zu", length ? " " : "", cell->known);
    if (cell->counts[CM_SKIP])
        length += (size_t)snprintf(text + length, size - length, "%sSKIP %zu", length ? " " : "",
                                   cell->counts[CM_SKIP]);
    if (length == 0)
        snprintf(text, size, "-");
    return worst == CM_PASS && !cell->counts[CM_PASS] ? CM_SKIP : worst;
}
