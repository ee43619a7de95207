// SPDX-License-Identifier: Apache-2.0
#include "reports/plot.h"

#include "harness/record.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const double USUAL_SECONDS = 10;
enum { MOST_BYTES = 1 << 20 };

extern char **environ;

char *cm_plot_label(const char *text, size_t most)
{
    char *label = cm_new(most + 3, 1);
    size_t length = 0;
    label[length++] = '\'';
    while (*text && length <= most) {
        int bytes = cm_utf8_length(text);
        bool plain = isalnum((unsigned char)*text) || strchr(" _./()[]-+=:,;%|", *text);
        label[length++] = bytes != 1 || !plain ? '?' : *text;
        text += bytes ? bytes : 1;
    }
    if (*text)
        label[length - 1] = '~'; // cut
    label[length] = '\'';
    return label;
}

// gnuplot with memory files for its streams: no pipe can fill up. Returns its process, or -1 and errno.
static pid_t start(const int streams[3])
{
    char *const words[] = {(char *)"gnuplot", (char *)"-d", (char *)"-", NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    pid_t process = -1;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    for (int stream = 0; stream < 3; stream++)
        posix_spawn_file_actions_adddup2(&actions, streams[stream], stream);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    errno = posix_spawnp(&process, "gnuplot", &actions, &attributes, words, environ);
    int why = errno;
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    errno = why;
    return why ? -1 : process;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

// Waits; false: it took too long and was killed.
static bool finish(pid_t process, double limit, int *state)
{
    double end = seconds() + limit;
    for (;;) {
        pid_t ended = waitpid(process, state, WNOHANG);
        if (ended == process || (ended < 0 && errno != EINTR))
            return true;
        if (seconds() > end)
            break;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    kill(-process, SIGKILL);
    while (waitpid(process, state, 0) < 0 && errno == EINTR)
        ;
    return false;
}

// What was written to a memory file; NULL if it is too much.
static char *read_all(int stream)
{
    struct stat file;
    if (fstat(stream, &file) != 0 || file.st_size > MOST_BYTES)
        return NULL;
    char *text = cm_new((size_t)file.st_size + 1, 1);
    ssize_t length = pread(stream, text, (size_t)file.st_size, 0);
    text[length > 0 ? length : 0] = 0;
    return text;
}

// Output of a script, or NULL with the reason in the plotter.
static char *run(cm_plotter *plotter, const char *script)
{
    int streams[3], state = 0;
    double limit = plotter->seconds > 0 ? plotter->seconds : USUAL_SECONDS;
    char *out = NULL, *messages = NULL;
    bool ready = true;
    for (int n = 0; n < 3; n++) {
        streams[n] = memfd_create("gnuplot", MFD_CLOEXEC);
        ready = ready && streams[n] > 2;
    }
    size_t length = strlen(script);
    if (!ready || pwrite(streams[0], script, length, 0) != (ssize_t)length) {
        snprintf(plotter->why_not, sizeof plotter->why_not, "no memory for a script of gnuplot");
        goto done;
    }
    pid_t process = start(streams);
    if (process < 0) {
        plotter->gone = true;
        snprintf(plotter->why_not, sizeof plotter->why_not,
                 "gnuplot cannot be started (%s); Debian has it in gnuplot-nox", strerror(errno));
        goto done;
    }
    if (!finish(process, limit, &state)) {
        plotter->gone = true;
        snprintf(plotter->why_not, sizeof plotter->why_not, "gnuplot took more than %.3g s for a picture",
                 limit);
        goto done;
    }
    out = read_all(streams[1]);
    messages = read_all(streams[2]);
    if (state != 0 || !out) {
        const char *said = messages ? messages + strspn(messages, " \n\t^") : "";
        snprintf(plotter->why_not, sizeof plotter->why_not, "gnuplot failed: %.*s",
                 said[0] ? (int)strcspn(said, "\n") : 15, said[0] ? said : "it did not say why");
        free(out);
        out = NULL;
    }
done:
    free(messages);
    for (int n = 0; n < 3; n++)
        if (streams[n] >= 0)
            close(streams[n]);
    return out;
}

static const struct rewrite {
    const char *from, *to; // to NULL: also goes what is between `from` and `end`
    const char *end;
} rewrites[] = {
    {"<defs>", NULL, "</defs>"},
    {"<title>", NULL, "</title>"},
    {" id=\"", NULL, "\""},
    {" font-family=\"", NULL, "\""},
    {"xlink:href=", "href=", NULL},
    {"\"black\"", "\"currentColor\"", NULL},
    {"'black'", "'currentColor'", NULL},
    {"'rgb(  0,   0,   0)'", "'currentColor'", NULL},
    {"\"rgb(0,0,0)\"", "\"currentColor\"", NULL},
    {"\n", " ", NULL},
    {"\t", " ", NULL},
};

// An element <g ...> that nothing stands in ends at `length`: its start, else `length`.
static size_t without_empty_group(const char *text, size_t length)
{
    size_t end = length;
    while (end > 0 && text[end - 1] == ' ')
        end--;
    if (end == 0 || text[end - 1] != '>')
        return length;
    size_t begin = end - 1;
    while (begin > 0 && text[begin] != '<')
        begin--;
    return strncmp(text + begin, "<g ", 3) && strncmp(text + begin, "<g>", 3) ? length : begin;
}

// The drawing inside gnuplot's document, fit to stand in a page beside others.
static char *clean(const char *document)
{
    const char *at = strstr(document, "<g id=\"gnuplot_canvas\">"), *end = at ? strstr(at, "</svg>") : NULL;
    if (!end)
        return NULL;
    char *text = cm_new(2 * (size_t)(end - at) + 1, 1); // no rewrite doubles its text
    size_t length = 0;
    while (at < end) {
        const struct rewrite *rewrite = NULL;
        for (size_t n = 0; n < sizeof rewrites / sizeof *rewrites && !rewrite; n++)
            if (!strncmp(at, rewrites[n].from, strlen(rewrites[n].from)))
                rewrite = &rewrites[n];
        if (rewrite && !rewrite->to) {
            const char *stop = strstr(at + strlen(rewrite->from), rewrite->end);
            at = stop ? stop + strlen(rewrite->end) : end;
        } else if (rewrite) {
            if (strcmp(rewrite->to, " ") != 0 || (length && text[length - 1] != ' '))
                length += strlen(strcpy(text + length, rewrite->to));
            at += strlen(rewrite->from);
        } else if (!strncmp(at, "</g>", 4) && without_empty_group(text, length) < length) {
            length = without_empty_group(text, length);
            at += 4;
        } else {
            text[length++] = *at++;
        }
    }
    text[length] = 0;
    return text;
}

char *cm_plot(cm_plotter *plotter, int width, int height, const char *script)
{
    if (plotter->gone)
        return NULL;
    plotter->why_not[0] = 0;
    char *whole = cm_text("set terminal svg size %d,%d dynamic noenhanced font 'sans-serif,11'\n%s", width,
                          height, script);
    char *document = run(plotter, whole), *picture = document ? clean(document) : NULL;
    if (document && !picture)
        snprintf(plotter->why_not, sizeof plotter->why_not, "gnuplot did not draw an SVG that is known here");
    free(document);
    free(whole);
    return picture;
}
