// SPDX-License-Identifier: Apache-2.0
// Text for people, about 110 columns wide. Colour only repeats what a word says; bytes that could steer a
// terminal are shown as \xNN.
#ifndef CM_SCREEN_H
#define CM_SCREEN_H

#include "harness/record.h"

enum { CM_SCREEN_WIDTH = 110 };

typedef enum cm_tint { CM_PLAIN, CM_GREEN, CM_RED, CM_YELLOW, CM_BOLD } cm_tint;

typedef struct cm_screen {
    FILE *out;
    bool colour;
} cm_screen;

// Colour: `out` is a terminal, NO_COLOR is unset or empty and TERM is not dumb; CLICOLOR_FORCE asks for it.
void cm_screen_open(FILE *out, cm_screen *screen);

// Printed to `columns` at least; both return the columns that were used.
int cm_screen_word(const cm_screen *screen, cm_tint tint, int columns, const char *word);
int cm_screen_put(const cm_screen *screen, int columns, const char *text);
// A line "  label      text", the text wrapped with a hanging indent; label NULL: the text alone.
void cm_screen_line(const cm_screen *screen, const char *label, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
// A heading behind an empty line.
void cm_screen_heading(const cm_screen *screen, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

cm_tint cm_screen_tint(cm_verdict verdict);
int cm_screen_columns(const char *text);

#endif
