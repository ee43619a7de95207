// SPDX-License-Identifier: Apache-2.0
// Pictures by gnuplot, which is looked for in PATH when the first one is made. It runs as a child without a
// shell, reads one script and is killed when it takes too long; a script holds numbers, and texts that went
// through cm_plot_label.
#ifndef CM_PLOT_H
#define CM_PLOT_H

#include <stdbool.h>
#include <stddef.h>

typedef struct cm_plotter {
    double seconds;    // that a picture may take; 0: 10
    char why_not[240]; // why the last picture is not there; "": it is
    bool gone;         // nothing more is tried
} cm_plotter;

// What goes between <svg> and </svg>, well-formed and without ids, links or fonts, black turned into
// currentColor; free with free(). NULL: there is no picture, and the plotter says why. The script plots once,
// without point symbols, and sets no terminal; `width` and `height` are of the view box.
char *cm_plot(cm_plotter *plotter, int width, int height, const char *script);

// `text` in single quotes for a script, at most `most` characters; what is not plain ASCII becomes '?'. Free
// with free().
char *cm_plot_label(const char *text, size_t most);

#endif
