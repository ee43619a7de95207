// SPDX-License-Identifier: Apache-2.0
// Where the run was, all of it, and how to make the page again.
#include "reports/html.h"

#include "reports/summary.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_DEPTH = 8 };

static void put_scalar(const cm_html *page, const json_t *value)
{
    if (json_is_string(value))
        cm_html_text(page, "%s", json_string_value(value)[0] ? json_string_value(value) : "none");
    else if (json_is_integer(value))
        cm_html_text(page, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        cm_html_text(page, "%.9g", json_real_value(value));
    else
        cm_html_raw(page, json_is_true(value) ? "yes" : json_is_false(value) ? "no" : "unknown");
}

static const char *absent_reason(const json_t *value)
{
    return json_object_size(value) == 1 ? json_string_value(json_object_get(value, "absent")) : NULL;
}

static void put_value(const cm_html *page, const json_t *value)
{
    const char *absent = absent_reason(value);
    if (absent) {
        cm_html_raw(page, "<span class=\"minor\">not known: ");
        cm_html_text(page, "%s", absent);
        cm_html_raw(page, "</span>");
    } else if (json_is_array(value)) {
        for (size_t n = 0; n < json_array_size(value); n++) {
            cm_html_raw(page, n ? ", " : "");
            put_value(page, json_array_get(value, n));
        }
    } else if (json_is_object(value)) {
        char *text = json_dumps(value, JSON_COMPACT);
        cm_html_text(page, "%s", text ? text : "");
        free(text);
    } else {
        put_scalar(page, value);
    }
}

// One row for each leaf, "cpu name"; objects open up to MOST_DEPTH.
static void put_rows(const cm_html *page, const char *path, json_t *object, int depth)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        char *name = cm_text("%s%s%s", path, path[0] ? " " : "", key);
        if (json_is_object(value) && json_object_size(value) > 0 && !absent_reason(value) &&
            depth < MOST_DEPTH) {
            put_rows(page, name, value, depth + 1);
        } else {
            cm_html_raw(page, "<tr><th scope=\"row\">");
            cm_html_text(page, "%s", name);
            cm_html_raw(page, "</th><td>");
            put_value(page, value);
            cm_html_raw(page, "</td></tr>\n");
        }
        free(name);
    }
}

void cm_html_environment(const cm_html *page)
{
    cm_html_raw(page, "<section id=\"environment\" aria-labelledby=\"environment-h\">\n"
                      "<h2 id=\"environment-h\">Environment</h2>\n");
    if (json_is_object(page->environment)) {
        cm_html_raw(page, "<div class=\"scroll\"><table class=\"environment\">\n<thead><tr>"
                          "<th scope=\"col\">what</th><th scope=\"col\">is</th></tr></thead>\n<tbody>\n");
        put_rows(page, "", page->environment, 0);
        cm_html_raw(page, "</tbody></table></div>\n");
    } else {
        cm_html_raw(page, "<p class=\"lead\">The records do not begin with it.</p>\n");
    }
    cm_html_raw(page, "</section>\n");
}

// A word as a shell takes it.
static void put_word(const cm_html *page, const char *word)
{
    if (word[0] && strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./=:,+-@%") ==
                       strlen(word)) {
        cm_html_text(page, "%s", word);
        return;
    }
    cm_html_raw(page, "'");
    for (; *word; word += strcspn(word, "'")) {
        if (*word == '\'') {
            cm_html_raw(page, "'\\''");
            word++;
        }
        cm_html_text(page, "%.*s", (int)strcspn(word, "'"), word);
    }
    cm_html_raw(page, "'");
}

// Where the run was told to keep its records; NULL if its command line does not say.
static const char *records_path(const json_t *words)
{
    for (size_t n = 0; n < json_array_size(words); n++) {
        const char *word = json_string_value(json_array_get(words, n));
        if (word && !strncmp(word, "--records=", 10))
            return word + 10;
        if (word && !strcmp(word, "--records"))
            return json_string_value(json_array_get(words, n + 1));
    }
    return NULL;
}

void cm_html_again(const cm_html *page)
{
    const json_t *words = json_object_get(page->environment, "argv");
    const char *path = records_path(words);
    cm_html_raw(page, "<section id=\"again\" aria-labelledby=\"again-h\">\n"
                      "<h2 id=\"again-h\">Again</h2>\n");
    if (json_array_size(words) > 0) {
        cm_html_raw(page, "<p class=\"minor\">The run:</p>\n<pre><code>");
        for (size_t n = 0; n < json_array_size(words); n++) {
            const char *word = json_string_value(json_array_get(words, n));
            cm_html_raw(page, n ? " " : "");
            if (word && n == 0) // "checkmoe run"
                cm_html_text(page, "%s", word);
            else
                put_word(page, word ? word : "?");
        }
        cm_html_raw(page, "</code></pre>\n");
    }
    cm_html_raw(page, "<p class=\"minor\">This page from the records that <code>--records</code> keeps, "
                      "without running anything:</p>\n<pre><code>checkmoe report --html index.html ");
    put_word(page, path ? path : "records.jsonl");
    cm_html_raw(page, "</code></pre>\n</section>\n");
}
