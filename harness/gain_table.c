// SPDX-License-Identifier: Apache-2.0
#include "harness/gain_table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEAST_COLUMNS = 32, MOST_BLOCKS = 16 };

struct maker {
    const cm_pristine *values;
    cm_accuracy accuracy;
    int output;
    const DLTensor *got;
    cm_gain_table *table;
};

static void solve(const struct maker *maker, const cm_parts *parts, int64_t begin, int64_t end,
                  cm_gains *gains)
{
    const cm_effect **effects = cm_new((size_t)parts->count, sizeof *effects);
    for (int n = 0; n < parts->count; n++)
        effects[n] = &parts->items[n].effect;
    cm_gains_solve(maker->got, maker->values->tensors[maker->output].dtype,
                   &maker->values->want[maker->accuracy][maker->output], effects, parts->count, begin, end,
                   gains);
    free(effects);
}

static void add(const struct maker *maker, int term, const char *part, const cm_gains *gains, int n)
{
    cm_gain_table *table = maker->table;
    if (table->count == table->space) {
        table->space = table->space ? 2 * table->space : 32;
        table->rows = realloc(table->rows, (size_t)table->space * sizeof *table->rows);
        table->strict = realloc(table->strict, (size_t)table->space * sizeof *table->strict);
        if (!table->rows || !table->strict)
            cm_broken("out of memory for %d gains", table->space);
    }
    table->strict[table->count] = (cm_gain){.gain = gains->strict_gain[n], .error = gains->strict_error[n]};
    cm_gain *row = &table->rows[table->count++];
    *row = (cm_gain){.gain = gains->gain[n], .error = gains->error[n]};
    snprintf(row->term, sizeof row->term, "%s", maker->values->test_case.op->terms[term].name);
    snprintf(row->part, sizeof row->part, "%s", part);
}

static bool can_judge(const cm_gains *gains, int n)
{
    return gains->determined[n] && gains->strict_error[n] <= CM_GAIN_ERROR;
}

static void name_range(char letter, int64_t begin, int64_t end, char part[24])
{
    if (end == begin + 1)
        snprintf(part, 24, "%c=%d", letter, (int)begin);
    else
        snprintf(part, 24, "%c=%d..%d", letter, (int)begin, (int)end - 1);
}

static void add_wholes(const struct maker *maker, const cm_parts *terms)
{
    cm_gains gains;
    solve(maker, terms, 0, INT64_MAX, &gains);
    maker->table->solvable = terms->count > 0;
    for (int n = 0; n < terms->count; n++) {
        maker->table->solvable = maker->table->solvable && gains.determined[n];
        add(maker, terms->items[n].term, "", &gains, n);
    }
    maker->table->wholes = maker->table->count;
    cm_gains_close(&gains);
}

// One regression for all slices: an error in one of them does not spill over into its neighbours.
static void add_slices(const struct maker *maker, char letter, double operations)
{
    cm_parts parts;
    cm_gains gains;
    if (cm_parts_cut(maker->values, maker->accuracy, maker->output, letter, operations, &parts)) {
        solve(maker, &parts, 0, INT64_MAX, &gains);
        for (int n = 0; n < parts.count; n++) {
            char name[24];
            if (!parts.items[n].letter)
                continue;
            name_range(letter, parts.items[n].begin, parts.items[n].end, name);
            if (can_judge(&gains, n))
                add(maker, parts.items[n].term, name, &gains, n);
            else
                maker->table->unjudged++;
        }
        cm_gains_close(&gains);
    } else if (maker->values->test_case.dims[cm_dim_index(letter)] > 1) {
        maker->table->uncut++;
    }
    cm_parts_close(&parts);
}

// Blocks of columns, as narrow as the standard error allows.
static void add_columns(const struct maker *maker, const cm_parts *terms)
{
    int64_t columns = maker->got->shape[maker->got->ndim - 1], step = LEAST_COLUMNS;
    while (step * MOST_BLOCKS < columns)
        step *= 2;
    for (; step < columns; step *= 2) {
        int count = (int)((columns + step - 1) / step);
        cm_gains *gains = cm_new((size_t)count, sizeof *gains);
        int unjudged = 0;
        for (int block = 0; block < count; block++) {
            solve(maker, terms, block * step, (block + 1) * step, &gains[block]);
            for (int n = 0; n < terms->count; n++)
                unjudged += !can_judge(&gains[block], n);
        }
        bool last = unjudged == 0 || 2 * step >= columns;
        for (int block = 0; block < count; block++) {
            char name[24];
            int64_t end = (block + 1) * step < columns ? (block + 1) * step : columns;
            name_range('H', block * step, end, name);
            name[0] = maker->values->test_case.op->arguments[maker->output]
                          .shape[strlen(maker->values->test_case.op->arguments[maker->output].shape) - 1];
            for (int n = 0; n < terms->count && last; n++)
                if (can_judge(&gains[block], n))
                    add(maker, terms->items[n].term, name, &gains[block], n);
            cm_gains_close(&gains[block]);
        }
        free(gains);
        if (last) {
            maker->table->unjudged += unjudged;
            return;
        }
    }
}

static bool is_indexed(const cm_pristine *values, char letter)
{
    const cm_argument *arguments = values->test_case.op->arguments;
    for (int n = 0; arguments[n].name; n++)
        if (values->arguments[n] && arguments[n].index_into == letter)
            return true;
    return false;
}

static bool is_off(const cm_gain *row, int tests)
{
    return !(fabs(row->gain - 1) <= cm_gain_limit(row->error, tests));
}

void cm_gain_table_make(const cm_pristine *values, cm_accuracy accuracy, int output, const cm_parts *terms,
                        const DLTensor *got, double operations, cm_gain_table *table)
{
    struct maker maker = {values, accuracy, output, got, table};
    *table = (cm_gain_table){0};
    add_wholes(&maker, terms);
    for (const char *letter = CM_DIM_LETTERS; *letter; letter++)
        if (is_indexed(values, *letter))
            add_slices(&maker, *letter, operations);
    add_columns(&maker, terms);
    for (int n = 0; n < table->count; n++) {
        int tests = n < table->wholes ? 1 : table->count - table->wholes;
        table->rows[n].off = is_off(&table->rows[n], tests);
        table->strict[n].off = is_off(&table->strict[n], tests);
        table->wholes_off += n < table->wholes && table->strict[n].off;
    }
}

void cm_gain_table_close(cm_gain_table *table)
{
    free(table->rows);
    free(table->strict);
    *table = (cm_gain_table){0};
}

static double distance(const cm_gain *row)
{
    double off = fabs(row->gain - 1);
    return isfinite(off) ? off : (double)INFINITY;
}

const cm_gain *cm_gain_table_worst(const cm_gain_table *table)
{
    int worst = -1;
    for (int n = table->wholes; n < table->count; n++)
        if (table->strict[n].off && (worst < 0 || table->rows[n].off > table->rows[worst].off ||
                                     (table->rows[n].off == table->rows[worst].off &&
                                      distance(&table->rows[n]) > distance(&table->rows[worst]))))
            worst = n;
    return worst < 0 ? NULL : &table->rows[worst];
}

static int by_distance(const void *left, const void *right)
{
    double a = distance(*(const cm_gain *const *)left), b = distance(*(const cm_gain *const *)right);
    return (a < b) - (a > b);
}

void cm_gain_table_record(const cm_gain_table *table, cm_outcome *outcome)
{
    int parts = table->count - table->wholes;
    const cm_gain **order = cm_new((size_t)parts, sizeof *order);
    for (int n = 0; n < parts; n++)
        order[n] = &table->rows[table->wholes + n];
    if (table->count > CM_MAX_GAIN_ROWS)
        qsort(order, (size_t)parts, sizeof(cm_gain *), by_distance);
    for (int n = 0; n < table->count && n < CM_MAX_GAIN_ROWS; n++)
        outcome->gains[outcome->gain_count++] =
            n < table->wholes ? table->rows[n] : *order[n - table->wholes];
    free(order);
}
