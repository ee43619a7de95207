// SPDX-License-Identifier: Apache-2.0
#include "reports/xml.h"

#include "harness/record.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

// U+FFFE and U+FFFF are UTF-8, but no characters of XML.
static bool is_forbidden(const char *text, int length)
{
    unsigned char c = (unsigned char)text[0];
    if (length == 1)
        return (c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7f;
    return length == 3 && !memcmp(text, "\xef\xbf", 2) && (unsigned char)text[2] >= 0xbe;
}

void cm_xml_escape(FILE *out, const char *text, bool attribute)
{
    while (*text) {
        int length = cm_utf8_length(text);
        if (length == 0 || is_forbidden(text, length))
            fputs("\xef\xbf\xbd", out); // U+FFFD
        else if (*text == '&')
            fputs("&amp;", out);
        else if (*text == '<')
            fputs("&lt;", out);
        else if (*text == '>')
            fputs("&gt;", out);
        else if (*text == '"' && attribute)
            fputs("&quot;", out);
        else if (*text == '\r' ||
                 ((*text == '\n' || *text == '\t') && attribute)) // a parser would turn it into ' '
            fprintf(out, "&#%d;", *text);
        else
            fwrite(text, 1, (size_t)length, out);
        text += length ? length : 1;
    }
}

static void end_tag(cm_xml *xml)
{
    if (xml->in_tag)
        fputc('>', xml->out);
    xml->in_tag = false;
}

static void indent(const cm_xml *xml)
{
    fprintf(xml->out, "\n%*s", 2 * xml->depth, "");
}

void cm_xml_open(FILE *out, cm_xml *xml)
{
    *xml = (cm_xml){.out = out};
    fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>", out);
}

void cm_xml_begin(cm_xml *xml, const char *name)
{
    if (xml->depth == CM_XML_DEPTH || xml->has_text)
        cm_broken("XML: <%s> is nested too deep or follows text", name);
    end_tag(xml);
    indent(xml);
    fprintf(xml->out, "<%s", name);
    xml->open[xml->depth++] = name;
    xml->attribute_count = 0;
    xml->in_tag = true;
}

void cm_xml_attribute(cm_xml *xml, const char *name, const char *format, ...)
{
    if (!xml->in_tag || xml->attribute_count == CM_XML_ATTRIBUTES)
        cm_broken("XML: the attribute %s stands outside a tag, or is one too many", name);
    for (int n = 0; n < xml->attribute_count; n++)
        if (!strcmp(xml->attributes[n], name))
            cm_broken("XML: the attribute %s stands twice in one tag", name);
    xml->attributes[xml->attribute_count++] = name;
    char *text = NULL;
    va_list list;
    va_start(list, format);
    int length = vasprintf(&text, format, list);
    va_end(list);
    if (length < 0)
        cm_broken("out of memory for the attribute %s", name);
    fprintf(xml->out, " %s=\"", name);
    cm_xml_escape(xml->out, text, true);
    fputc('"', xml->out);
    free(text);
}

void cm_xml_text(cm_xml *xml, const char *text)
{
    if (xml->depth == 0)
        cm_broken("XML: text outside the root element");
    end_tag(xml);
    cm_xml_escape(xml->out, text, false);
    xml->has_text = true;
}

void cm_xml_end(cm_xml *xml, const char *name)
{
    if (xml->depth == 0 || strcmp(xml->open[xml->depth - 1], name) != 0)
        cm_broken("XML: </%s> ends what is not open", name);
    xml->depth--;
    if (xml->in_tag) {
        fputs("/>", xml->out);
    } else {
        if (!xml->has_text)
            indent(xml);
        fprintf(xml->out, "</%s>", name);
    }
    xml->in_tag = xml->has_text = false;
}

void cm_xml_close(cm_xml *xml)
{
    if (xml->depth != 0)
        cm_broken("XML: <%s> is still open", xml->open[xml->depth - 1]);
    fputc('\n', xml->out);
}
