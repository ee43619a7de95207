// SPDX-License-Identifier: Apache-2.0
#include "suites/unit/command.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_WORDS = 64 };

static char binary[PATH_MAX];

void cm_unit_find_binary(void)
{
    setenv("XDG_STATE_HOME", "/dev/null", 1); // no test leaves its last run in the user's folder
    const char *path = getenv("CHECKMOE_BINARY");
    if (!path || !realpath(path, binary))
        binary[0] = 0;
}

// What would change the program's behaviour from outside.
static void clear_environment(void)
{
    static const char *const names[] = {"CK_FORK",
                                        "CK_RUN_SUITE",
                                        "CK_RUN_CASE",
                                        "CK_VERBOSITY",
                                        "CK_XML_LOG_FILE_NAME",
                                        "CLICOLOR_FORCE",
                                        "CK_DEFAULT_TIMEOUT",
                                        "CK_TIMEOUT_MULTIPLIER"};
    for (size_t n = 0; n < sizeof names / sizeof *names; n++)
        unsetenv(names[n]);
}

void cm_unit_start(cm_command *command, const char *const *words)
{
    const char *arguments[MOST_WORDS + 1] = {NULL};
    int count = 0;
    *command = (cm_command){.code = -1};
    for (; words[count]; count++) {
        ck_assert_int_lt(count, MOST_WORDS);
        arguments[count] = words[count];
    }
    if (!strcmp(words[0], "checkmoe")) {
        ck_assert_msg(binary[0] != 0, "set CHECKMOE_BINARY to the path of the built program");
        arguments[0] = binary;
    }
    for (int stream = 0; stream < 2; stream++)
        command->streams[stream] = memfd_create("stream", MFD_CLOEXEC);
    ck_assert(command->streams[0] >= 0 && command->streams[1] >= 0);
    command->process = fork();
    ck_assert_int_ge(command->process, 0);
    if (command->process > 0)
        setpgid(command->process, command->process); // here, too: the parent may be first
    if (command->process == 0) {
        setpgid(0, 0); // what the program does to its group stays there
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int nothing = open("/dev/null", O_RDONLY);
        dup2(nothing, STDIN_FILENO);
        dup2(command->streams[0], STDOUT_FILENO);
        dup2(command->streams[1], STDERR_FILENO);
        clear_environment();
        execvp(arguments[0], (char *const *)(uintptr_t)arguments);
        _exit(127);
    }
}

static char *read_stream(int stream)
{
    struct stat file;
    ck_assert_int_eq(fstat(stream, &file), 0);
    char *text = calloc((size_t)file.st_size + 1, 1);
    ck_assert(text && pread(stream, text, (size_t)file.st_size, 0) == file.st_size);
    close(stream);
    return text;
}

void cm_unit_finish(cm_command *command)
{
    int status;
    ck_assert_int_eq(waitpid(command->process, &status, 0), command->process);
    command->code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    command->out = read_stream(command->streams[0]);
    command->err = read_stream(command->streams[1]);
    ck_assert_msg(!strchr(command->out, '\033') && !strchr(command->err, '\033'), "escape sequences: %s%s",
                  command->out, command->err);
}

void cm_unit_forget(cm_command *command)
{
    free(command->out);
    free(command->err);
    command->out = command->err = NULL;
}

cm_command cm_unit_command(const char *format, ...)
{
    char line[4096], *words[MOST_WORDS + 1] = {NULL};
    int count = 0;
    va_list list;
    va_start(list, format);
    ck_assert_int_lt(vsnprintf(line, sizeof line, format, list), (int)sizeof line);
    va_end(list);
    for (char *at = line + strspn(line, " "); *at && count < MOST_WORDS; at += strspn(at, " ")) {
        char end = *at == '\'' ? '\'' : ' ';
        words[count++] = at += end == '\'';
        at += strcspn(at, end == ' ' ? " " : "'");
        if (*at)
            *at++ = 0;
    }
    cm_command command;
    cm_unit_start(&command, (const char *const *)words);
    cm_unit_finish(&command);
    return command;
}

void cm_unit_expect_command(int code, const char *out, const char *err, const char *line)
{
    cm_command command = cm_unit_command("%s", line);
    ck_assert_msg(command.code == code, "%s: exit status %d, expected %d\n%s%s", line, command.code, code,
                  command.out, command.err);
    ck_assert_msg(out ? strstr(command.out, out) != NULL : !command.out[0], "%s: stdout has no \"%s\": %s",
                  line, out ? out : "(nothing)", command.out);
    ck_assert_msg(err ? strstr(command.err, err) != NULL : !command.err[0], "%s: stderr has no \"%s\": %s",
                  line, err ? err : "(nothing)", command.err);
    cm_unit_forget(&command);
}

void cm_unit_expect_good(const cm_command *command)
{
    if (command->code == 0 && !command->err[0])
        return;
    printf("%s%s\n", command->out, command->err);
    fflush(stdout);
    ck_abort_msg("exit status %d, see the output above", command->code);
}
