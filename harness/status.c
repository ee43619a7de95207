// SPDX-License-Identifier: Apache-2.0
#include "harness/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

cm_status cm_fail(cm_error *error, cm_status status, const char *format, ...)
{
    if (error && !error->message[0]) {
        va_list list;
        va_start(list, format);
        vsnprintf(error->message, sizeof error->message, format, list);
        va_end(list);
    }
    return status;
}

const char *cm_status_name(cm_status status)
{
    switch (status) {
    case CM_OK:
        return "ok";
    case CM_BAD_SHAPE:
        return "bad shape";
    case CM_BAD_DTYPE:
        return "bad dtype";
    case CM_BAD_DEVICE:
        return "bad device";
    case CM_BAD_ID:
        return "bad id";
    case CM_BAD_VALUE:
        return "bad value";
    case CM_BAD_STATE:
        return "bad state";
    case CM_UNSUPPORTED:
        return "unsupported";
    case CM_NO_MEMORY:
        return "no memory";
    case CM_DEVICE_FAULT:
        return "device fault";
    case CM_BAD_FILE:
        return "bad file";
    }
    return "unknown status";
}

static void (*broken_hook)(const char *message);

void cm_broken_hook(void (*hook)(const char *message))
{
    broken_hook = hook;
}

void cm_broken(const char *format, ...)
{
    char message[512];
    va_list list;
    va_start(list, format);
    vsnprintf(message, sizeof message, format, list);
    va_end(list);
    if (broken_hook)
        broken_hook(message);
    fprintf(stderr, "checkmoe: fault of the harness: %s\n", message);
    exit(3);
}

void *cm_new(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size ? size : 1);
    if (!memory)
        cm_broken("out of memory for %zu items of %zu bytes", count, size);
    return memory;
}

char *cm_text(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    char *text = NULL;
    int length = vasprintf(&text, format, list);
    va_end(list);
    if (length < 0)
        cm_broken("out of memory for a text");
    return text;
}
