// SPDX-License-Identifier: Apache-2.0
#include "reports/path_table.h"

#include "reports/bundle.h"

#include <stdlib.h>
#include <string.h>

static cm_path_row *row_of(cm_path_table *table, const cm_record *record)
{
    for (size_t n = 0; n < table->count; n++)
        if (!strcmp(table->rows[n].first->kernel, record->kernel) &&
            !strcmp(cm_text_or(table->rows[n].first->mode, ""), cm_text_or(record->mode, "")) &&
            !strcmp(table->rows[n].first->path_names, record->path_names))
            return &table->rows[n];
    table->rows = realloc(table->rows, (table->count + 1) * sizeof *table->rows);
    if (!table->rows)
        cm_broken("out of memory for %zu rows of paths", table->count + 1);
    table->rows[table->count] = (cm_path_row){.first = record};
    return &table->rows[table->count++];
}

// Adds the case whose records end here.
static void end_case(cm_path_row *row)
{
    for (int path = 0; path < CM_MAX_PATHS; path++)
        row->cases[path] += row->taken >> path & 1;
    row->ran += row->runs;
    row->taken = 0;
    row->runs = false;
}

void cm_path_table_make(const cm_records *records, cm_path_table *table)
{
    size_t kept = 0;
    *table = (cm_path_table){0};
    for (size_t n = 0; n < records->count; n++) {
        const cm_record *record = &records->items[n];
        if (cm_text_is_fault(record) || !record->path_names || !record->path_names[0] ||
            !strcmp(record->check, CM_CHECK_PATHS))
            continue;
        cm_path_row *row = row_of(table, record);
        if (!row->case_name ||
            strcmp(row->case_name, record->case_name) != 0) // a case's records stand together
            end_case(row);
        row->case_name = record->case_name;
        row->taken |= record->outcome.paths;
        row->runs = row->runs || record->outcome.verdict != CM_SKIP;
    }
    for (size_t n = 0; n < table->count; n++) {
        end_case(&table->rows[n]);
        if (table->rows[n].ran > 0)
            table->rows[kept++] = table->rows[n];
    }
    table->count = kept;
}

void cm_path_table_close(cm_path_table *table)
{
    free(table->rows);
    *table = (cm_path_table){0};
}

bool cm_path_name(const cm_path_row *row, int n, char *name, size_t size)
{
    const char *word = row->first->path_names;
    if (n >= CM_MAX_PATHS)
        return false;
    for (; n > 0 && *word; n--) {
        word += strcspn(word, " ");
        word += strspn(word, " ");
    }
    snprintf(name, size, "%.*s", (int)strcspn(word, " "), word);
    return *word != 0;
}
