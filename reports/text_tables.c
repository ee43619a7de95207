// SPDX-License-Identifier: Apache-2.0
// Kernel by check, with words and counts in each cell, and the kill matrix of the faults.
#include "reports/finding.h"
#include "reports/matrix.h"
#include "reports/path_table.h"
#include "reports/text.h"

#include <stdlib.h>
#include <string.h>

static int column_width(const cm_matrix *table, size_t check)
{
    char text[160];
    int width = cm_screen_columns(table->checks[check]);
    for (size_t row = 0; row < table->row_count; row++) {
        cm_cell_describe(cm_matrix_cell(table, row, check), text, sizeof text);
        width = (int)strlen(text) > width ? (int)strlen(text) : width;
    }
    return width + 2;
}

static int row_name(const cm_record *record, char *text, size_t size)
{
    snprintf(text, size, "%s [%s]", record->kernel, cm_text_or(record->mode, "?"));
    return cm_screen_columns(text);
}

// The checks first..end-1 of all rows, side by side.
static void put_block(const cm_screen *screen, const cm_matrix *table, int name_width, size_t first,
                      size_t end)
{
    char text[160];
    fputs("  ", screen->out);
    cm_screen_put(screen, name_width, "");
    for (size_t check = first; check < end; check++)
        cm_screen_put(screen, check + 1 < end ? column_width(table, check) : 0, table->checks[check]);
    fputc('\n', screen->out);
    for (size_t row = 0; row < table->row_count; row++) {
        row_name(table->rows[row], text, sizeof text);
        fputs("  ", screen->out);
        cm_screen_put(screen, name_width, text);
        for (size_t check = first; check < end; check++) {
            const cm_cell *cell = cm_matrix_cell(table, row, check);
            cm_verdict verdict = cm_cell_describe(cell, text, sizeof text);
            cm_screen_word(screen, cell->total ? cm_screen_tint(verdict) : CM_PLAIN,
                           check + 1 < end ? column_width(table, check) : 0, text);
        }
        fputc('\n', screen->out);
    }
}

void cm_text_matrix(const cm_screen *screen, const cm_records *records)
{
    cm_matrix table;
    char text[160];
    int name_width = 0;
    cm_matrix_make(records, &table);
    for (size_t row = 0; row < table.row_count; row++) {
        int width = row_name(table.rows[row], text, sizeof text) + 2;
        name_width = width > name_width ? width : name_width;
    }
    if (table.row_count > 0)
        cm_screen_heading(screen, "kernels and checks");
    for (size_t first = 0; first < table.check_count;) {
        size_t end = first;
        int width = 2 + name_width;
        do
            width += column_width(&table, end++);
        while (end < table.check_count && width + column_width(&table, end) - 2 <= CM_SCREEN_WIDTH);
        if (first > 0)
            fputc('\n', screen->out);
        put_block(screen, &table, name_width, first, end);
        first = end;
    }
    if (table.left_out > 0)
        fprintf(screen->out, "  and %zu records of more kernels or checks\n", table.left_out);
    cm_matrix_close(&table);
}

void cm_text_paths(const cm_screen *screen, const cm_records *records)
{
    cm_path_table table;
    char text[160], path[64];
    int name_width = 0;
    cm_path_table_make(records, &table);
    if (table.count > 0)
        cm_screen_heading(screen, "declared paths, by cases that took them");
    for (size_t n = 0; n < table.count; n++) {
        int width = row_name(table.rows[n].first, text, sizeof text) + 2;
        name_width = width > name_width ? width : name_width;
    }
    for (size_t n = 0; n < table.count; n++) {
        const cm_path_row *row = &table.rows[n];
        row_name(row->first, text, sizeof text);
        fputs("  ", screen->out);
        cm_screen_put(screen, name_width, text);
        for (int p = 0; cm_path_name(row, p, path, sizeof path); p++) {
            snprintf(text, sizeof text, "%s %zu", path, row->cases[p]);
            cm_screen_word(screen, row->cases[p] ? CM_PLAIN : CM_RED, 0, text);
            fputs("  ", screen->out);
        }
        fprintf(screen->out, "of %zu cases\n", row->ran);
    }
    cm_path_table_close(&table);
}

static int widest(const cm_tally *tally, bool kernels)
{
    int width = 0;
    for (size_t n = 0; n < tally->fault_count; n++) {
        int columns = cm_screen_columns(kernels ? tally->faults[n].kernel : tally->faults[n].fault);
        width = columns > width ? columns : width;
    }
    return width + 2;
}

void cm_text_kills(const cm_screen *screen, const cm_records *records, const cm_tally *tally)
{
    int fault_width = widest(tally, false), kernel_width = widest(tally, true), word_width = 22;
    if (tally->fault_count == 0)
        return;
    cm_screen_heading(screen, "faults and what killed them");
    for (size_t n = 0; n < tally->fault_count; n++) {
        const cm_fault_result *fault = &tally->faults[n];
        char others[256];
        char *word = fault->killed    ? cm_text("killed by %s", fault->expected_check)
                     : fault->skipped ? cm_text("SKIP")
                                      : cm_text("SURVIVED (%s)", fault->expected_check);
        cm_finding_others(records, fault, others, sizeof others);
        fputs("  ", screen->out);
        cm_screen_put(screen, fault_width, fault->fault);
        cm_screen_put(screen, kernel_width, fault->kernel);
        cm_screen_word(screen,
                       fault->killed    ? CM_GREEN
                       : fault->skipped ? CM_YELLOW
                                        : CM_RED,
                       word_width, word);
        char *finding = fault->skipped ? cm_text("%s", fault->by ? fault->by->outcome.reason : "")
                                       : cm_text("\"%s\"%s%s", fault->expected_finding,
                                                 others[0] ? "  also " : "", others);
        if (2 + fault_width + kernel_width + word_width + cm_screen_columns(finding) > CM_SCREEN_WIDTH)
            fprintf(screen->out, "\n%*s", 6, "");
        cm_screen_put(screen, 0, finding);
        fputc('\n', screen->out);
        free(finding);
        free(word);
    }
}
