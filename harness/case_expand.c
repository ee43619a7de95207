// SPDX-License-Identifier: Apache-2.0
// Patterns of case names: {a,b} and {1..3} stand for alternatives.
#include "harness/case.h"

#include "harness/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The alternatives between `open` ('{') and `close`.
static int64_t alternatives(const char *open, const char *close)
{
    long long first, last;
    int used = 0;
    if (sscanf(open, "{%lld..%lld}%n", &first, &last, &used) == 2 && open + used == close + 1)
        return last - first + 1;
    int64_t count = 1;
    for (const char *c = open; c < close; c++)
        count += *c == ',';
    return count;
}

static void alternative(const char *open, const char *close, int64_t choice, char *out, size_t size)
{
    long long first, last;
    int used = 0;
    if (sscanf(open, "{%lld..%lld}%n", &first, &last, &used) == 2 && open + used == close + 1) {
        snprintf(out, size, "%lld", first + (long long)choice);
        return;
    }
    const char *begin = open + 1;
    for (; choice > 0; choice--)
        begin = strchr(begin, ',') + 1;
    size_t length = strcspn(begin, ",}");
    snprintf(out, size, "%.*s", (int)length, begin);
}

// Replaces the first pair of braces by one alternative. An alternative that is empty drops the dash before
// it.
static cm_status replace(const char *text, int64_t choice, char out[CM_CASE_TEXT], cm_error *error)
{
    const char *open = strchr(text, '{'), *close = strchr(open, '}');
    char word[CM_CASE_TEXT];
    alternative(open, close, choice, word, sizeof word);
    int before = (int)(open - text);
    bool alone = (before == 0 || text[before - 1] == '-') && (close[1] == '-' || close[1] == 0);
    if (!word[0] && alone && before > 0)
        before--;
    if (snprintf(out, CM_CASE_TEXT, "%.*s%s%s", before, text, word, close + 1) >= CM_CASE_TEXT)
        return cm_fail(error, CM_BAD_VALUE, "case pattern \"%s\" is too long", text);
    return CM_OK;
}

static cm_status find_braces(const char *text, const char **open, const char **close, cm_error *error)
{
    *open = strchr(text, '{');
    *close = *open ? strchr(*open, '}') : NULL;
    if (*open && !*close)
        return cm_fail(error, CM_BAD_VALUE, "case pattern \"%s\": { without }", text);
    if (*open && alternatives(*open, *close) < 1)
        return cm_fail(error, CM_BAD_VALUE, "case pattern \"%s\": a range that is empty", text);
    return CM_OK;
}

cm_status cm_case_expand(const char *pattern, cm_status (*each)(const char *text, void *self), void *self,
                         cm_error *error)
{
    const char *open, *close;
    cm_status status = find_braces(pattern, &open, &close, error);
    if (status != CM_OK || !open)
        return status != CM_OK ? status : each(pattern, self);
    int64_t count = alternatives(open, close);
    for (int64_t choice = 0; choice < count && status == CM_OK; choice++) {
        char text[CM_CASE_TEXT];
        status = replace(pattern, choice, text, error);
        if (status == CM_OK)
            status = cm_case_expand(text, each, self, error);
    }
    return status;
}

cm_status cm_case_draw(const char *pattern, uint64_t seed, char text[CM_CASE_TEXT], cm_error *error)
{
    char current[CM_CASE_TEXT];
    cm_rng rng = {seed, 0x70617474}; // a stream of its own
    if (strlen(pattern) >= sizeof current)
        return cm_fail(error, CM_BAD_VALUE, "case pattern \"%s\" is too long", pattern);
    strcpy(current, pattern);
    for (uint64_t brace = 0;; brace++) {
        const char *open, *close;
        cm_status status = find_braces(current, &open, &close, error);
        if (status != CM_OK)
            return status;
        if (!open)
            break;
        status = replace(current, cm_rng_below(rng, brace, alternatives(open, close)), text, error);
        if (status != CM_OK)
            return status;
        memcpy(current, text, CM_CASE_TEXT);
    }
    char *star = strstr(current, "-s*");
    if (star)
        *star = 0;
    int length = snprintf(text, CM_CASE_TEXT, "%s%s", current, "");
    if (star)
        snprintf(text + length, CM_CASE_TEXT - (size_t)length, "-s%llu", (unsigned long long)seed);
    return CM_OK;
}
