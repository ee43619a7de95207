// SPDX-License-Identifier: Apache-2.0
// The parts of the text report.
#ifndef CM_REPORT_TEXT_H
#define CM_REPORT_TEXT_H

#include "reports/bundle.h"
#include "reports/screen.h"

void cm_text_cards(const cm_screen *screen, const cm_records *records, const cm_tally *tally);
void cm_text_matrix(const cm_screen *screen, const cm_records *records);
void cm_text_paths(const cm_screen *screen, const cm_records *records);
void cm_text_kills(const cm_screen *screen, const cm_records *records, const cm_tally *tally);

#endif
