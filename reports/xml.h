// SPDX-License-Identifier: Apache-2.0
// XML 1.0 that is well-formed whatever the text holds: bytes that are no UTF-8 and characters that XML
// forbids are replaced, and a misuse (wrong nesting, an attribute twice or after content) stops the program.
#ifndef CM_XML_H
#define CM_XML_H

#include "harness/status.h"

#include <stdio.h>

enum { CM_XML_DEPTH = 8, CM_XML_ATTRIBUTES = 16 };

typedef struct cm_xml {
    FILE *out;
    const char *open[CM_XML_DEPTH]; // names are literals of the caller
    int depth;
    const char *attributes[CM_XML_ATTRIBUTES]; // of the tag being written
    int attribute_count;
    bool in_tag, has_text;
} cm_xml;

// Text as content, or as the value of an attribute in double quotes: also right for HTML.
void cm_xml_escape(FILE *out, const char *text, bool attribute);

void cm_xml_open(FILE *out, cm_xml *xml);
void cm_xml_begin(cm_xml *xml, const char *name);
void cm_xml_attribute(cm_xml *xml, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void cm_xml_text(cm_xml *xml, const char *text);
void cm_xml_end(cm_xml *xml, const char *name);
// All elements must have ended.
void cm_xml_close(cm_xml *xml);

#endif
