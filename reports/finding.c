// SPDX-License-Identifier: Apache-2.0
#include "reports/finding.h"

#include "reports/bundle.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cm_finding_place(const cm_first_bad *bad, char *text, size_t size)
{
    size_t length = (size_t)snprintf(text, size, "%s", bad->argument);
    for (int d = 0; d < bad->ndim && length + 32 < size; d++) {
        length += (size_t)snprintf(text + length, size - length, "%s", d ? ", " : "[");
        if (bad->letters[d] && bad->letters[d] != '#')
            length += (size_t)snprintf(text + length, size - length, "%c=", bad->letters[d]);
        length += (size_t)snprintf(text + length, size - length, "%lld", (long long)bad->index[d]);
    }
    if (bad->ndim > 0)
        snprintf(text + length, size - length, "]");
}

void cm_finding_value(double value, char *text, size_t size)
{
    if (isnan(value))
        snprintf(text, size, "NaN");
    else if (isinf(value))
        snprintf(text, size, value > 0 ? "Inf" : "-Inf");
    else
        snprintf(text, size, "%a (%.6g)", value, value);
}

bool cm_finding_has_values(const cm_outcome *outcome)
{
    const cm_first_bad *bad = &outcome->first_bad;
    bool same = bad->got == bad->want || (isnan(bad->got) && isnan(bad->want));
    return bad->argument[0] && !(same && outcome->bad_count == 0);
}

void cm_finding_others(const cm_records *records, const cm_fault_result *fault, char *text, size_t size)
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
