// SPDX-License-Identifier: Apache-2.0
// Heat map of a bad output by tile. The scale is logarithmic in steps with a name each, so that the legend
// can say in words and numbers what the colours say.
#include "reports/html.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { WIDTH = 360, LEFT = 62, RIGHT = 14, TOP = 8, BOTTOM = 52, MOST_HEIGHT = 230 };

// Steps of |got - want| / bound, each up to and including its limit; the style sheet has the same colours.
static const struct {
    double limit;
    const char *words, *colour;
} steps[] = {
    {0.1, "up to 0.1", "#e3ecf5"},
    {0.5, "up to 0.5", "#a9c6e0"},
    {1, "up to 1, the bound", "#6a9cc9"},
    {3, "up to 3", "#ffe08a"},
    {10, "up to 10", "#ffb347"},
    {100, "up to 100", "#f2762e"},
    {10000, "up to 10 000", "#c9302c"},
    {3e38, "above 10 000", "#7d0f2b"},
    {(double)INFINITY, "not finite, or wrong where the value is certain", "#5b2a86"},
};
enum { STEPS = sizeof steps / sizeof *steps };

static int step_of(float worst)
{
    int step = 0;
    while (step < STEPS - 1 && !((double)worst <= steps[step].limit))
        step++;
    return step;
}

static void put_axis_label(FILE *script, const cm_tiles *tiles, int height, int d, bool folded)
{
    char letter = tiles->letters[d];
    char *words = cm_text("%c%s 0..%lld, %lld a tile", letter, folded ? " and on" : "",
                          (long long)tiles->extents[d] - 1, (long long)tiles->steps[d]);
    char *label = cm_plot_label(words, 40);
    fprintf(script,
            d ? "set label %s at graph 0.5, screen %.4f center\n"
              : "set label %s at screen %.4f, graph 0.5 center rotate by 90\n",
            label,
            11.0 / (d ? height : WIDTH)); // gnuplot's own labels of axes vanish when the margin is narrow
    free(words);
    free(label);
}

static int height_of(const cm_tiles *tiles)
{
    int inside = 14 * tiles->counts[0];
    inside = inside < 130 ? 130 : inside > MOST_HEIGHT ? MOST_HEIGHT : inside; // room for the label of y
    return inside + TOP + BOTTOM;
}

// The script; free with free().
static char *make_script(const cm_tiles *tiles, int height, bool folded)
{
    char *text = NULL;
    size_t size = 0;
    FILE *script = open_memstream(&text, &size);
    if (!script)
        cm_broken("out of memory for a picture");
    fprintf(script, "set lmargin at screen %.4f\nset rmargin at screen %.4f\n", (double)LEFT / WIDTH,
            1 - (double)RIGHT / WIDTH);
    fprintf(script, "set bmargin at screen %.4f\nset tmargin at screen %.4f\n", (double)BOTTOM / height,
            1 - (double)TOP / height);
    fprintf(script, "set palette maxcolors %d defined (", STEPS);
    for (int n = 0; n < STEPS; n++)
        fprintf(script, "%s%d '%s', %d '%s'", n ? ", " : "", n, steps[n].colour, n + 1, steps[n].colour);
    fprintf(script, ")\nset cbrange [0:%d]\nunset colorbox\nset tics out nomirror font ',10'\n", STEPS);
    fprintf(script, "set format '%%.0f'\nset xtics autofreq rangelimited\n");
    fprintf(script, "set xrange [0:%.0f]\nset yrange [%.0f:0]\n",
            (double)tiles->counts[1] * (double)tiles->steps[1],
            (double)tiles->counts[0] * (double)tiles->steps[0]);
    put_axis_label(script, tiles, height, 0, folded);
    put_axis_label(script, tiles, height, 1, false);
    fprintf(script, "$map << EOD\n");
    for (int row = 0; row < tiles->counts[0]; row++)
        for (int n = 0; n < tiles->counts[1]; n++)
            fprintf(script, "%.17g %.17g %d.5\n", ((double)n + 0.5) * (double)tiles->steps[1],
                    ((double)row + 0.5) * (double)tiles->steps[0],
                    step_of(tiles->worst[row * tiles->counts[1] + n]));
    fprintf(script, "EOD\nplot $map using 1:2:3 with image notitle\n");
    fclose(script);
    return text;
}

static void put_legend(const cm_html *page, const cm_tiles *tiles)
{
    int counts[STEPS] = {0}, all = tiles->counts[0] * tiles->counts[1];
    for (int n = 0; n < all; n++)
        counts[step_of(tiles->worst[n])]++;
    cm_html_raw(page, "<figcaption>Worst |got - want| / bound of each tile: <ul class=\"legend\">");
    for (int n = 0; n < STEPS; n++)
        if (counts[n] > 0)
            fprintf(page->out, "<li><span class=\"swatch step-%d\"></span> %s: %d of %d</li>", n,
                    steps[n].words, counts[n], all);
    cm_html_raw(page, "</ul></figcaption>");
}

void cm_html_map(cm_html *page, const cm_outcome *outcome)
{
    const cm_tiles *tiles = outcome->tiles;
    if (!tiles || tiles->extents[0] < 1)
        return;
    cm_html_raw(page, "<figure class=\"map\">\n");
    char *picture = NULL;
    if (page->maps++ < CM_MOST_MAPS) {
        int height = height_of(tiles);
        char *script = make_script(tiles, height, outcome->first_bad.ndim > 2);
        picture = cm_plot(&page->plotter, WIDTH, height, script);
        free(script);
        if (picture) {
            cm_html_picture(page, WIDTH, height,
                            "Heat map of the error by tile; the legend says how many "
                            "tiles are how far off",
                            picture);
        } else {
            cm_html_raw(page, "<p class=\"minor\">No picture: ");
            cm_html_text(page, "%s.", page->plotter.why_not);
            cm_html_raw(page, "</p>\n");
        }
    } else {
        cm_html_text(page, "No picture: only the first %d cards have one.", CM_MOST_MAPS);
    }
    put_legend(page, tiles);
    cm_html_raw(page, "</figure>\n");
    free(picture);
}
