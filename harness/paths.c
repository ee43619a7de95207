// SPDX-License-Identifier: Apache-2.0
#include "harness/paths.h"

#include "harness/check.h"
#include "harness/op.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_VALUES = 64 };

int cm_paths_count(const cm_kernel *kernel)
{
    int count = 0;
    while (kernel->paths && count < CM_MAX_PATHS && kernel->paths[count].name)
        count++;
    return count;
}

char *cm_paths_names(const cm_kernel *kernel)
{
    char *names = NULL;
    for (int n = 0; n < cm_paths_count(kernel); n++) {
        char *longer = cm_text("%s%s%s", names ? names : "", names ? " " : "", kernel->paths[n].name);
        free(names);
        names = longer;
    }
    return names;
}

static bool is_word(const char *text)
{
    bool word = text[0] != 0 && strlen(text) < 32;
    for (const char *c = text; *c; c++)
        word = word && (isalnum((unsigned char)*c) || strchr("_.+", *c));
    return word;
}

bool cm_paths_wrong(const cm_kernel *kernel, const cm_op *op, char *reason, size_t size)
{
    int count = cm_paths_count(kernel);
    if (count == CM_MAX_PATHS && kernel->paths[count].name) {
        snprintf(reason, size, "more than %d paths, or no NULL behind the last one", CM_MAX_PATHS);
        return true;
    }
    for (int n = 0; n < count; n++) {
        bool twice = false;
        for (int other = 0; other < n; other++)
            twice = twice || !strcmp(kernel->paths[other].name, kernel->paths[n].name);
        if (twice || !is_word(kernel->paths[n].name)) {
            snprintf(reason, size,
                     twice ? "two paths are called \"%.40s\""
                           : "path \"%.40s\": a name is up to 31 letters, digits, \"_\", \".\" and \"+\"",
                     kernel->paths[n].name);
            return true;
        }
    }
    for (const cm_switch_point *point = kernel->switch_points; point && point->quantity; point++) {
        if (point - kernel->switch_points >= 2 * CM_MAX_PATHS) {
            snprintf(reason, size, "more than %d switch points, or no NULL behind the last one",
                     2 * CM_MAX_PATHS);
            return true;
        }
        bool known = is_word(point->quantity) && (point->quantity[1] || cm_op_has_dim(op, *point->quantity));
        if (!known || point->first < 1) {
            snprintf(reason, size,
                     known ? "switch point of \"%.40s\" at less than 1"
                           : "switch point of \"%.40s\": that is no dimension letter of %s and no word",
                     point->quantity, op->name);
            return true;
        }
    }
    return false;
}

static int ascending(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return a < b ? -1 : a > b;
}

// The values on both sides of every switch point of the quantity, as text; NULL: there is none.
static char *values_of(const char *quantity, size_t length, const cm_op *op, const cm_kernel *const *kernels)
{
    int64_t values[MOST_VALUES];
    size_t count = 0, op_length = strlen(op->name);
    for (; *kernels; kernels++) {
        if (strncmp((*kernels)->name, op->name, op_length) != 0 || (*kernels)->name[op_length] != '/')
            continue;
        const cm_switch_point *point = (*kernels)->switch_points;
        for (; point && point->quantity && count + 2 <= MOST_VALUES; point++) {
            if (strlen(point->quantity) != length || strncmp(point->quantity, quantity, length) != 0)
                continue;
            if (point->first > 1)
                values[count++] = point->first - 1;
            values[count++] = point->first;
        }
    }
    qsort(values, count, sizeof *values, ascending);
    char *text = NULL;
    for (size_t n = 0; n < count; n++) {
        if (n > 0 && values[n] == values[n - 1])
            continue;
        char *longer = cm_text("%s%s%lld", text ? text : "", text ? "," : "", (long long)values[n]);
        free(text);
        text = longer;
    }
    return text;
}

char *cm_paths_pattern(const char *pattern, const cm_op *op, const cm_kernel *const *kernels)
{
    char *text = cm_text("%s", pattern);
    for (char *at; (at = strstr(text, "{@")) && strchr(at, '}');) {
        const char *quantity = at + 2, *close = strchr(at, '}');
        char *values = values_of(quantity, (size_t)(close - quantity), op, kernels), *longer = NULL;
        if (values)
            longer = cm_text("%.*s{%s}%s", (int)(at - text), text, values, close + 1);
        free(values);
        free(text);
        if (!longer)
            return NULL;
        text = longer;
    }
    return text;
}

cm_status cm_paths_expand(const char *pattern, const cm_op *op, const cm_kernel *const *kernels,
                          cm_status (*each)(const char *text, void *self), void *self, cm_error *error)
{
    char *text = cm_paths_pattern(pattern, op, kernels);
    cm_status status = text ? cm_case_expand(text, each, self, error) : CM_OK;
    free(text);
    return status;
}

// A glob of which each part but op and target is '*', or is not there.
static bool leaves_out_no_case(const char *glob)
{
    const char *slash = strchr(glob, '/');
    slash = slash ? strchr(slash + 1, '/') : NULL;
    return !slash || !strcmp(slash, "/*");
}

bool cm_paths_covered(const cm_selection *selection, const cm_kernel *kernel, const cm_fault *fault)
{
    bool any = false, whole = false;
    for (const char *const *glob = selection->globs; glob && *glob; glob++) {
        const char *one[] = {*glob, NULL};
        cm_selection alone = {.globs = one};
        any = true;
        whole = whole || (leaves_out_no_case(*glob) && cm_selection_matches(&alone, kernel->name, "any"));
    }
    if (selection->checks || (selection->shards > 1 && !fault) || selection->model ||
        selection->repro_kernel || selection->last || (any && !whole))
        return false;
    return fault ? !strcmp(fault->check, CM_CHECK_PATHS)
                 : !selection->faults && (selection->sets & (CM_SET_CI | CM_SET_FULL)) != 0;
}

void cm_paths_judge(const cm_kernel *kernel, int path, const cm_paths_met *met, cm_outcome *outcome)
{
    *outcome = (cm_outcome){.compared = (int64_t)met->cases[path],
                            .paths = met->cases[path] ? UINT32_C(1) << path : 0};
    if (met->cases[path] == 0)
        cm_conclude(outcome, CM_VACUOUS,
                    "none of %zu cases took the declared path `%s` (%s): add cases that do, or mend its "
                    "switch point",
                    met->ran, kernel->paths[path].name,
                    kernel->paths[path].meaning ? kernel->paths[path].meaning : "");
}
