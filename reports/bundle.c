// SPDX-License-Identifier: Apache-2.0
#include "reports/bundle.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

struct keyed {
    char *key;
    const cm_record *record;
};

static int by_key(const void *a, const void *b)
{
    const struct keyed *left = a, *right = b;
    int order = strcmp(left->key, right->key);
    return order ? order : (left->record > right->record) - (left->record < right->record);
}

static int by_first(const void *a, const void *b)
{
    const cm_bundle *left = a, *right = b;
    return (left->first > right->first) - (left->first < right->first);
}

// Numbers become '#': "12 of 64 elements" and "3 of 64 elements" are one finding.
static void blank_numbers(char *text)
{
    char *to = text, previous = 0;
    for (const char *from = text; *from;) {
        bool starts = isdigit((unsigned char)*from) || (*from == '-' && isdigit((unsigned char)from[1]));
        if (starts && !isalnum((unsigned char)previous) && previous != '_') {
            from += 1;
            from += strspn(from, "0123456789.+-abcdefpxABCDEF");
            previous = *to++ = '#';
        } else {
            previous = *to++ = *from++;
        }
    }
    *to = 0;
}

cm_bundle *cm_bundles_make(const cm_records *records, cm_bundle_key key, size_t *count)
{
    struct keyed *keyed = cm_new(records->count, sizeof *keyed);
    cm_bundle *bundles = cm_new(records->count, sizeof *bundles);
    size_t kept = 0;
    for (size_t n = 0; n < records->count; n++) {
        char *text = key(&records->items[n]);
        if (!text)
            continue;
        blank_numbers(text);
        keyed[kept++] = (struct keyed){text, &records->items[n]};
    }
    qsort(keyed, kept, sizeof *keyed, by_key);
    *count = 0;
    for (size_t n = 0; n < kept; n++) {
        if (n == 0 || strcmp(keyed[n - 1].key, keyed[n].key) != 0)
            bundles[(*count)++] = (cm_bundle){.first = keyed[n].record};
        cm_bundle *bundle = &bundles[*count - 1];
        if (bundle->count++ == 1)
            bundle->second = keyed[n].record;
    }
    qsort(bundles, *count, sizeof *bundles, by_first);
    for (size_t n = 0; n < kept; n++)
        free(keyed[n].key);
    free(keyed);
    return bundles;
}

const char *cm_text_or(const char *text, const char *other)
{
    return text && text[0] ? text : other;
}

bool cm_text_is_fault(const cm_record *record)
{
    return record->fault && record->fault[0];
}

// Kernel and mode are in quotes of control bytes, so that their digits don't count as numbers.
char *cm_card_key(const cm_record *record)
{
    if (cm_text_is_fault(record) || cm_record_surprise(record) == CM_AS_EXPECTED)
        return NULL;
    return cm_text("_%s\1_%s\1_%s\1%d\1%s", record->kernel, cm_text_or(record->mode, ""), record->check,
                   (int)cm_record_surprise(record) * 16 + (int)record->outcome.verdict,
                   record->outcome.reason);
}

char *cm_skip_key(const cm_record *record)
{
    if (cm_text_is_fault(record) || record->outcome.verdict != CM_SKIP)
        return NULL;
    return cm_text("%s", record->outcome.reason);
}

char *cm_known_key(const cm_record *record)
{
    if (cm_text_is_fault(record) || !cm_verdict_is_bad(record->outcome.verdict) ||
        cm_record_surprise(record) != CM_AS_EXPECTED)
        return NULL;
    return cm_text("_%s\1_%s\1%s", record->kernel, record->check, record->known);
}
