// SPDX-License-Identifier: Apache-2.0
// Running the built program (environment CHECKMOE_BINARY) and other commands, with all that they print.
#ifndef CM_UNIT_COMMAND_H
#define CM_UNIT_COMMAND_H

#include <check.h>
#include <sys/types.h>

typedef struct cm_command {
    pid_t process;
    int streams[2]; // memory files: stdout, stderr
    int code;       // exit status; 128 + signal if one ended it
    char *out, *err;
} cm_command;

// Remembers the program's path, before any test changes its directory.
void cm_unit_find_binary(void);

// "checkmoe" as words[0] stands for the program; words end with NULL. Nothing is on stdin.
void cm_unit_start(cm_command *command, const char *const *words);
void cm_unit_finish(cm_command *command);
void cm_unit_forget(cm_command *command); // frees out and err

// Start and finish; words by blank, '...' around one that has blanks. Program names as above. Output to a
// pipe must have no escape sequence: one fails the test.
cm_command cm_unit_command(const char *format, ...) __attribute__((format(printf, 1, 2)));

// Asserts exit status 0 and nothing on stderr; prints all output otherwise, however long.
void cm_unit_expect_good(const cm_command *command);

// The same, and asserts the exit status and a part of what is on each stream (NULL: the stream must be
// empty).
void cm_unit_expect_command(int code, const char *out, const char *err, const char *line);

#endif
