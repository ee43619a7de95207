// SPDX-License-Identifier: Apache-2.0
#include "harness/case.h"

#include "harness/op.h"
#include "harness/registry.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// How each of CM_DIM_LETTERS is written in a case name, what it is when left out, and its range. L is written
// with r ("r16x2"), or alone where the op has no r.
static const struct written {
    char letter;
    int64_t missing, minimum, maximum; // missing -1: must be written
} written[CM_DIM_COUNT] = {{'t', -1, 0, 1 << 20}, {'k', -1, 1, 64},      {'e', -1, 1, 4096},
                           {'h', -1, 1, 1 << 16}, {'i', -1, 1, 1 << 16}, {'d', 0, 0, 1 << 17},
                           {'l', 0, 0, 4096},     {'r', 0, 0, 1024},     {'K', -1, 1, 1 << 17},
                           {'n', -1, 1, 1 << 18}, {'S', 1, 1, 16},       {'g', 0, 0, 1 << 16}};

int cm_dim_index(char letter)
{
    const char *place = letter ? strchr(CM_DIM_LETTERS, letter) : NULL;
    return place ? (int)(place - CM_DIM_LETTERS) : -1;
}

bool cm_op_has_dim(const cm_op *op, char letter)
{
    for (const cm_argument *argument = op->arguments; argument->name; argument++)
        if (strchr(argument->shape, letter))
            return true;
    return false;
}

bool cm_op_has_dtype(const cm_op *op, char variable)
{
    for (const cm_argument *argument = op->arguments; argument->name; argument++)
        if (argument->dtype_variable == variable)
            return true;
    return false;
}

bool cm_op_has_axis(const cm_op *op, const cm_axis *axis)
{
    if (!axis->kinds)
        return true;
    for (const cm_argument *argument = op->arguments; argument->name; argument++)
        if (argument->fill.kind && cm_has_word(axis->kinds, argument->fill.kind, strlen(argument->fill.kind)))
            return true;
    return false;
}

static bool parse_number(const char *text, int64_t *number)
{
    if (!isdigit((unsigned char)*text))
        return false;
    char *end;
    *number = strtoll(text, &end, 10);
    return *end == 0 && strlen(text) < 16;
}

static bool parse_dim(cm_case *out, const char *token)
{
    char copy[64];
    int r = cm_dim_index('r'), L = cm_dim_index('L');
    snprintf(copy, sizeof copy, "%s", token);
    char *times = strchr(copy, 'x');
    if (copy[0] == 'r' && times && cm_op_has_dim(out->op, 'r')) {
        *times = 0;
        return parse_number(copy + 1, &out->dims[r]) && parse_number(times + 1, &out->dims[L]);
    }
    for (int d = 0; d < CM_DIM_COUNT; d++)
        if (written[d].letter == copy[0] && d != r && cm_op_has_dim(out->op, CM_DIM_LETTERS[d]) &&
            !(d == L && cm_op_has_dim(out->op, 'r')))
            return parse_number(copy + 1, &out->dims[d]);
    return false;
}

static bool parse_dtype(cm_case *out, const char *token)
{
    cm_dtype dtype;
    if (cm_dtype_parse(token, &dtype)) {
        for (int variable = 0; variable < 128; variable++)
            out->dtypes[variable] = dtype;
        return cm_dtype_is_float(dtype);
    }
    if (token[0] && cm_op_has_dtype(out->op, token[0]) && cm_dtype_parse(token + 1, &dtype)) {
        out->dtypes[(int)token[0]] = dtype;
        return true;
    }
    return false;
}

static bool parse_attribute(cm_case *out, const char *token)
{
    const char *equals = strchr(token, '=');
    if (!equals)
        return false;
    for (int n = 0; out->op->attributes[n].name; n++) {
        const cm_attribute *attribute = &out->op->attributes[n];
        if (strlen(attribute->name) != (size_t)(equals - token) ||
            strncmp(attribute->name, token, (size_t)(equals - token)) != 0)
            continue;
        char *end;
        out->attributes[n] = strtod(equals + 1, &end);
        bool number =
            equals[1] && !*end && (!attribute->words || out->attributes[n] == (int)out->attributes[n]);
        for (int word = 0; attribute->words && attribute->words[word]; word++)
            if (!strcmp(attribute->words[word], equals + 1)) {
                out->attributes[n] = word;
                number = true;
            }
        double value = out->attributes[n];
        bool printable = value == 0 || fabs(value) >= 1e-4; // the '-' of an exponent would end the token
        return number && printable && value >= attribute->minimum && value <= attribute->maximum;
    }
    return false;
}

static bool parse_word(cm_case *out, const char *token)
{
    const cm_axis *axes = cm_registry_axes();
    for (int axis = 0; axis < CM_AXIS_COUNT; axis++)
        for (int word = 0; cm_op_has_axis(out->op, &axes[axis]) && axes[axis].words[word].name; word++)
            if (!strcmp(axes[axis].words[word].name, token)) {
                out->words[axis] = word;
                return true;
            }
    return false;
}

static bool parse_seed(cm_case *out, const char *token)
{
    char *end;
    if (token[0] != 's' || !isdigit((unsigned char)token[1]))
        return false;
    errno = 0;
    out->seed = strtoull(token + 1, &end, 10);
    return *end == 0 && errno == 0;
}

static bool parse_token(cm_case *out, const char *token)
{
    return parse_seed(out, token) || parse_dim(out, token) || parse_dtype(out, token) ||
           parse_attribute(out, token) || parse_word(out, token);
}

static bool parse_alias(cm_case *out, const char *token, const cm_case_alias *alias)
{
    char copy[CM_CASE_TEXT], *rest = NULL;
    while (alias->name && strcmp(alias->name, token) != 0)
        alias++;
    if (!alias->name)
        return false;
    snprintf(copy, sizeof copy, "%s", alias->words);
    for (char *word = strtok_r(copy, "-", &rest); word; word = strtok_r(NULL, "-", &rest))
        if (!parse_token(out, word))
            return false;
    return true;
}

// Ranges, and dimensions that the op needs.
static cm_status check_dims(const cm_case *out, const char *text, cm_error *error)
{
    for (int d = 0; d < CM_DIM_COUNT; d++) {
        if (!cm_op_has_dim(out->op, CM_DIM_LETTERS[d]))
            continue;
        if (out->dims[d] == -1)
            return cm_fail(error, CM_BAD_VALUE, "case \"%s\": dimension %c is missing; write it as %cN", text,
                           CM_DIM_LETTERS[d], written[d].letter);
        if (out->dims[d] < written[d].minimum || out->dims[d] > written[d].maximum)
            return cm_fail(error, CM_BAD_VALUE, "case \"%s\": %c = %lld, outside %lld..%lld", text,
                           CM_DIM_LETTERS[d], (long long)out->dims[d], (long long)written[d].minimum,
                           (long long)written[d].maximum);
    }
    return CM_OK;
}

cm_status cm_case_parse(const cm_op *op, const char *text, cm_case *out, cm_error *error)
{
    *out = (cm_case){.op = op};
    for (int d = 0; d < CM_DIM_COUNT; d++)
        out->dims[d] = cm_op_has_dim(op, CM_DIM_LETTERS[d]) ? written[d].missing : 0;
    for (int variable = 0; variable < 128; variable++)
        out->dtypes[variable] = CM_F32;
    for (int n = 0; op->attributes[n].name; n++)
        out->attributes[n] = op->attributes[n].fallback;
    if (strlen(text) >= CM_CASE_TEXT)
        return cm_fail(error, CM_BAD_VALUE, "a case name has at most %d characters", CM_CASE_TEXT - 1);
    char copy[CM_CASE_TEXT], *rest = NULL;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *token = strtok_r(copy, "-", &rest); token; token = strtok_r(NULL, "-", &rest))
        if (!parse_token(out, token) && !parse_alias(out, token, cm_registry_layers()) &&
            !parse_alias(out, token, cm_registry_formats()))
            return cm_fail(error, CM_BAD_VALUE,
                           "case \"%s\": \"%s\" is no dimension, dtype, attribute, word or seed of %s; "
                           "see \"checkmoe list --words\"",
                           text, token, op->name);
    return check_dims(out, text, error);
}

const char *cm_case_word(const cm_case *test_case, cm_axis_kind axis)
{
    return cm_registry_axes()[axis].words[test_case->words[axis]].name;
}

// Appends "-token"; the first one without the dash.
static void put(char text[CM_CASE_TEXT], const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(char text[CM_CASE_TEXT], const char *format, ...)
{
    size_t length = strlen(text);
    if (length && length + 1 < CM_CASE_TEXT) {
        text[length++] = '-';
        text[length] = 0;
    }
    va_list list;
    va_start(list, format);
    vsnprintf(text + length, CM_CASE_TEXT - length, format, list);
    va_end(list);
}

static void print_dtypes(const cm_case *test_case, char text[CM_CASE_TEXT])
{
    static const char order[] = "xwpavyq"; // the first that the op has names the dtype of all
    char first = 0;
    for (const char *variable = order; *variable; variable++) {
        if (!cm_op_has_dtype(test_case->op, *variable))
            continue;
        cm_dtype dtype = test_case->dtypes[(int)*variable];
        if (!first)
            put(text, "%s", cm_dtype_name(dtype));
        else if (dtype != test_case->dtypes[(int)first])
            put(text, "%c%s", *variable, cm_dtype_name(dtype));
        first = first ? first : *variable;
    }
}

void cm_case_print(const cm_case *test_case, char text[CM_CASE_TEXT])
{
    const cm_op *op = test_case->op;
    const cm_axis *axes = cm_registry_axes();
    int r = cm_dim_index('r'), L = cm_dim_index('L');
    text[0] = 0;
    for (int d = 0; d < CM_DIM_COUNT; d++) {
        int64_t value = test_case->dims[d];
        if (!cm_op_has_dim(op, CM_DIM_LETTERS[d]) ||
            (value == written[d].missing && !(d == r && test_case->dims[L])) ||
            (d == L && cm_op_has_dim(op, 'r')))
            continue;
        if (d == r)
            put(text, "r%lldx%lld", (long long)value, (long long)test_case->dims[L]);
        else
            put(text, "%c%lld", written[d].letter, (long long)value);
    }
    print_dtypes(test_case, text);
    for (int n = 0; op->attributes[n].name; n++) {
        const cm_attribute *attribute = &op->attributes[n];
        if (test_case->attributes[n] == attribute->fallback)
            continue;
        if (attribute->words)
            put(text, "%s=%s", attribute->name, attribute->words[(int)test_case->attributes[n]]);
        else
            put(text, "%s=%.17g", attribute->name, test_case->attributes[n]);
    }
    for (int axis = 0; axis < CM_AXIS_COUNT; axis++)
        if (cm_op_has_axis(op, &axes[axis]) && (test_case->words[axis] != 0 || axis == CM_AXIS_TIER))
            put(text, "%s", axes[axis].words[test_case->words[axis]].name);
    put(text, "s%llu", (unsigned long long)test_case->seed);
}
