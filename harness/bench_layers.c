// SPDX-License-Identifier: Apache-2.0
#include "harness/bench_layers.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

// The table's name for a word that is a name or a meaning in it; NULL: neither.
static const char *find(const cm_case_alias *alias, const char *word)
{
    for (; alias->name; alias++)
        if (!strcasecmp(alias->name, word) || !strcasecmp(alias->meaning, word))
            return alias->name;
    return NULL;
}

static char *names_of(const cm_case_alias *alias)
{
    char *names = cm_text("%s", "");
    for (; alias->name; alias++) {
        char *longer = cm_text("%s%s%s", names, names[0] ? ", " : "", alias->name);
        free(names);
        names = longer;
    }
    return names;
}

// "ds,Mixtral-8x7B" to "ds,mx". `plain`: a word that stands for nothing.
static cm_status translate(const char *option, const char *words, const char *plain,
                           const cm_case_alias *table, char **names, cm_error *error)
{
    cm_status status = CM_OK;
    char *copy = cm_text("%s", words), *rest = copy;
    *names = NULL;
    for (char *word; status == CM_OK && (word = strsep(&rest, ","));) {
        const char *name = plain && !strcmp(word, plain) ? "" : find(table, word);
        char *known = name ? NULL : names_of(table);
        if (!name) {
            status = cm_fail(error, CM_BAD_VALUE, "%s: there is no \"%s\"; there are %s%s%s", option, word,
                             plain ? plain : "", plain ? ", " : "", known);
            free(known);
            break;
        }
        char *longer = cm_text("%s%s%s", *names ? *names : "", *names ? "," : "", name);
        free(*names);
        *names = longer;
    }
    free(copy);
    return status;
}

cm_status cm_bench_layers(const char *layers, const char *formats, int64_t rank, char **pattern,
                          cm_error *error)
{
    char *names = NULL, *words = NULL, *adapters = NULL;
    cm_status status = CM_OK;
    *pattern = NULL;
    CM_TRY(translate("--layer", layers, NULL, cm_registry_layers(), &names, error));
    CM_TRY(translate("--format", formats ? formats : "bf16", "bf16", cm_registry_formats(), &words, error));
    adapters = rank > 0 ? cm_text("-r%lldx1-full", (long long)rank) : cm_text("%s", "");
    *pattern = cm_text("{%s}-bf16-{%s}%s-random-s1", names, words, adapters);
done:
    free(names);
    free(words);
    free(adapters);
    return status;
}
