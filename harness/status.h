// SPDX-License-Identifier: Apache-2.0
// A status for the program, a sentence for the person.
#ifndef CM_STATUS_H
#define CM_STATUS_H

#include "harness/checkmoe.h"

typedef struct cm_error {
    char message[1024];
} cm_error;

// Writes the sentence (what is wrong, where, what to do) unless `error` is NULL or already has one; returns
// `status`.
cm_status cm_fail(cm_error *error, cm_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

const char *cm_status_name(cm_status status);

// Stops at once: a broken invariant of the harness itself, exit status 3. Never for a verdict or bad input.
_Noreturn void cm_broken(const char *format, ...) __attribute__((format(printf, 1, 2)));

// Called with the sentence before cm_broken ends the process; NULL: none. A child passes it on to its parent.
void cm_broken_hook(void (*hook)(const char *message));

// calloc that cannot fail: out of memory in the harness itself is cm_broken. Free with free().
void *cm_new(size_t count, size_t size);
// snprintf into new memory; free with free().
char *cm_text(const char *format, ...) __attribute__((format(printf, 1, 2)));

// Leaves the function through its `done` label when `expression` is not CM_OK; needs a local `status`.
#define CM_TRY(expression)                                                                                   \
    do {                                                                                                     \
        status = (expression);                                                                               \
        if (status != CM_OK)                                                                                 \
            goto done;                                                                                       \
    } while (0)

#endif
