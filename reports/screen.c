// SPDX-License-Identifier: Apache-2.0
#include "reports/screen.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { INDENT = 2, LABEL = 11 };

static bool is_set(const char *name)
{
    const char *value = getenv(name);
    return value && value[0];
}

void cm_screen_open(FILE *out, cm_screen *screen)
{
    const char *force = getenv("CLICOLOR_FORCE"), *term = getenv("TERM");
    bool forced = force && force[0] && strcmp(force, "0") != 0;
    bool terminal = isatty(fileno(out)) && (!term || strcmp(term, "dumb") != 0);
    *screen = (cm_screen){.out = out, .colour = !is_set("NO_COLOR") && (forced || terminal)};
}

// One character of `text` as it is shown; returns the bytes read and sets the columns it takes.
static int show(const char *text, char shown[8], int *columns)
{
    int length = cm_utf8_length(text);
    unsigned char first = (unsigned char)text[0], second = length > 1 ? (unsigned char)text[1] : 0;
    bool control =
        length == 1 ? first < 0x20 || first == 0x7f : length == 2 && first == 0xc2 && second < 0xa0;
    *columns = 1;
    if (length == 0)
        snprintf(shown, 8, "\xef\xbf\xbd"); // U+FFFD
    else if (first == '\n' || first == '\t')
        snprintf(shown, 8, " ");
    else if (control)
        *columns = snprintf(shown, 8, "\\x%02x", length == 1 ? first : second);
    else
        snprintf(shown, 8, "%.*s", length, text);
    return length ? length : 1;
}

int cm_screen_columns(const char *text)
{
    char shown[8];
    int sum = 0, columns;
    while (*text) {
        text += show(text, shown, &columns);
        sum += columns;
    }
    return sum;
}

int cm_screen_put(const cm_screen *screen, int columns, const char *text)
{
    char shown[8];
    int sum = 0, used;
    while (*text) {
        text += show(text, shown, &used);
        fputs(shown, screen->out);
        sum += used;
    }
    for (; sum < columns; sum++)
        fputc(' ', screen->out);
    return sum;
}

int cm_screen_word(const cm_screen *screen, cm_tint tint, int columns, const char *word)
{
    static const char *const codes[] = {
        [CM_PLAIN] = "", [CM_GREEN] = "32", [CM_RED] = "1;31", [CM_YELLOW] = "33", [CM_BOLD] = "1"};
    bool coloured = screen->colour && tint != CM_PLAIN;
    if (coloured)
        fprintf(screen->out, "\033[%sm", codes[tint]);
    int used = cm_screen_put(screen, 0, word);
    if (coloured)
        fputs("\033[0m", screen->out);
    for (; used < columns; used++)
        fputc(' ', screen->out);
    return used;
}

// Breaks at blanks; a word longer than a line is not cut, so that it can be pasted.
static void put_wrapped(const cm_screen *screen, const char *text, int indent)
{
    int column = indent;
    for (const char *word = text; *word;) {
        size_t length = strcspn(word, " \n");
        char *copy = cm_text("%.*s", (int)length, word);
        int columns = cm_screen_columns(copy);
        if (column > indent && column + columns > CM_SCREEN_WIDTH) {
            fprintf(screen->out, "\n%*s", indent, "");
            column = indent;
        }
        column += cm_screen_put(screen, 0, copy);
        free(copy);
        size_t blanks = strspn(word + length, " \n");
        if (word[length + blanks] && column + (int)blanks < CM_SCREEN_WIDTH) {
            fprintf(screen->out, "%*s", (int)blanks, "");
            column += (int)blanks;
        } else {
            column = CM_SCREEN_WIDTH;
        }
        word += length + blanks;
    }
    fputc('\n', screen->out);
}

void cm_screen_line(const cm_screen *screen, const char *label, const char *format, ...)
{
    char *text = NULL;
    va_list list;
    va_start(list, format);
    int length = vasprintf(&text, format, list);
    va_end(list);
    if (length < 0)
        cm_broken("out of memory for a line of a report");
    fprintf(screen->out, "%*s", INDENT, "");
    if (label)
        fprintf(screen->out, "%-*s", LABEL, label);
    put_wrapped(screen, text, label ? INDENT + LABEL : INDENT);
    free(text);
}

void cm_screen_heading(const cm_screen *screen, const char *format, ...)
{
    char *text = NULL;
    va_list list;
    va_start(list, format);
    int length = vasprintf(&text, format, list);
    va_end(list);
    if (length < 0)
        cm_broken("out of memory for a heading of a report");
    fputc('\n', screen->out);
    cm_screen_word(screen, CM_BOLD, 0, text);
    fputc('\n', screen->out);
    free(text);
}

cm_tint cm_screen_tint(cm_verdict verdict)
{
    if (verdict == CM_PASS)
        return CM_GREEN;
    return verdict == CM_SKIP ? CM_YELLOW : CM_RED;
}
