// SPDX-License-Identifier: Apache-2.0
// Kernel by check, with words and counts in each cell, and the kill matrix of the faults.
#include "reports/text.h"

#include <stdlib.h>
#include <string.h>

struct cell {
    size_t counts[CM_VERDICT_COUNT], known, total;
};

struct table {
    const cm_record **rows; // the first record of each kernel and mode
    const char **checks;    // in the order of appearance
    struct cell *cells;     // [row][check]
    size_t row_count, check_count;
};

static size_t find_row(struct table *table, const cm_record *record)
{
    for (size_t n = table->row_count; n-- > 0;)
        if (!strcmp(table->rows[n]->kernel, record->kernel) &&
            !strcmp(cm_text_or(table->rows[n]->mode, ""), cm_text_or(record->mode, "")))
            return n;
    table->rows[table->row_count] = record;
    return table->row_count++;
}

static size_t find_check(struct table *table, const char *check)
{
    for (size_t n = 0; n < table->check_count; n++)
        if (!strcmp(table->checks[n], check))
            return n;
    table->checks[table->check_count] = check;
    return table->check_count++;
}

static void make_table(const cm_records *records, struct table *table)
{
    *table = (struct table){.rows = cm_new(records->count, sizeof *table->rows),
                            .checks = cm_new(records->count, sizeof *table->checks)};
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1)
            table->cells = cm_new(table->row_count * table->check_count, sizeof *table->cells);
        for (size_t n = 0; n < records->count; n++) {
            const cm_record *record = &records->items[n];
            if (cm_text_is_fault(record))
                continue;
            size_t row = find_row(table, record), check = find_check(table, record->check);
            if (pass == 0)
                continue;
            struct cell *cell = &table->cells[row * table->check_count + check];
            cell->total++;
            if (cm_record_surprise(record) == CM_AS_EXPECTED && cm_verdict_is_bad(record->outcome.verdict))
                cell->known++;
            else
                cell->counts[record->outcome.verdict]++;
        }
    }
}

// The worst verdict leads, "FAIL 3/120"; the others follow. Returns the verdict that gives the colour.
static cm_verdict describe(const struct cell *cell, char *text, size_t size)
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

static int column_width(const struct table *table, size_t check)
{
    char text[160];
    int width = cm_screen_columns(table->checks[check]);
    for (size_t row = 0; row < table->row_count; row++) {
        describe(&table->cells[row * table->check_count + check], text, sizeof text);
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
static void put_block(const cm_screen *screen, const struct table *table, int name_width, size_t first,
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
            const struct cell *cell = &table->cells[row * table->check_count + check];
            cm_verdict verdict = describe(cell, text, sizeof text);
            cm_screen_word(screen, cell->total ? cm_screen_tint(verdict) : CM_PLAIN,
                           check + 1 < end ? column_width(table, check) : 0, text);
        }
        fputc('\n', screen->out);
    }
}

void cm_text_matrix(const cm_screen *screen, const cm_records *records)
{
    struct table table;
    char text[160];
    int name_width = 0;
    make_table(records, &table);
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
    free(table.rows);
    free(table.checks);
    free(table.cells);
}

// Other checks that also failed on the fault: "numerics FAIL, bounds CRASH".
static void list_others(const cm_records *records, const cm_fault_result *fault, char *text, size_t size)
{
    size_t length = 0;
    const char *listed = NULL;
    text[0] = 0;
    for (size_t n = 0; n < records->count && length + 1 < size; n++) {
        const cm_record *record = &records->items[n];
        if (!cm_text_is_fault(record) || strcmp(record->fault, fault->fault) != 0 ||
            strcmp(record->kernel, fault->kernel) != 0 || !strcmp(record->check, fault->expected_check) ||
            !cm_verdict_is_bad(record->outcome.verdict) || (listed && !strcmp(listed, record->check)))
            continue;
        char *word = cm_text("%s %s", record->check, cm_verdict_name(record->outcome.verdict));
        if (!strstr(text, word))
            length += (size_t)snprintf(text + length, size - length, "%s%s", length ? ", " : "", word);
        free(word);
        listed = record->check;
    }
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
        list_others(records, fault, others, sizeof others);
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
