// SPDX-License-Identifier: Apache-2.0
// The parts of the page. Markup is well-formed as XML, too; whatever comes from a record goes through
// cm_html_text or cm_html_attribute.
#ifndef CM_HTML_H
#define CM_HTML_H

#include "harness/expect.h"
#include "reports/bundle.h"
#include "reports/plot.h"

#include <jansson.h>

// Limits that keep a page of any run below some two megabytes; what they leave out is said on the page.
enum {
    CM_MOST_CARDS = 200,
    CM_MOST_SURVIVORS = 100,
    CM_MOST_MAPS = 24,
    CM_MOST_REASONS = 200,
    CM_MOST_FAULTS = 1000,
    CM_MOST_STRIPS = 60,
    CM_SLOWEST = 15,
};

typedef struct cm_html {
    FILE *out;
    const cm_records *records;
    const cm_tally *tally;
    json_t *environment; // NULL: the records have none
    cm_bundle *cards;    // see cm_card_key
    size_t card_count;
    cm_plotter plotter;
    int maps; // pictures of tiles that were made
} cm_html;

void cm_html_raw(const cm_html *page, const char *markup);
void cm_html_text(const cm_html *page, const char *format, ...) __attribute__((format(printf, 2, 3)));
// ' name="text"', inside a tag.
void cm_html_attribute(const cm_html *page, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
// A span in the colour of the verdict with its word; other colours by class name.
void cm_html_badge(const cm_html *page, const char *class, const char *word);
const char *cm_html_class(cm_verdict verdict);
// <svg> around a picture of cm_plot; `label` says what it shows.
void cm_html_picture(const cm_html *page, int width, int height, const char *label, const char *picture);

// Sections; each writes nothing when it has nothing to say, unless its absence means something.
void cm_html_matrix(const cm_html *page);
void cm_html_paths(const cm_html *page);
void cm_html_cards(cm_html *page);
void cm_html_map(cm_html *page, const cm_outcome *outcome);
void cm_html_reasons(const cm_html *page, const char *id, const char *heading, const char *lead,
                     cm_bundle_key key);
void cm_html_kills(const cm_html *page);
void cm_html_measured(cm_html *page);
void cm_html_speed(cm_html *page);
void cm_html_slowest(const cm_html *page);
void cm_html_environment(const cm_html *page);
void cm_html_again(const cm_html *page);

extern const char cm_html_style[];

#endif
