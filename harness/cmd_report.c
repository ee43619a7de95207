// SPDX-License-Identifier: Apache-2.0
// checkmoe report: renders records again and runs nothing. One option per report of the table.
#include "harness/commands.h"
#include "harness/expect.h"
#include "harness/output.h"

#include <argp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { FIRST_KEY = 0x100 }; // report n has the option FIRST_KEY + n; no short options

struct arguments {
    size_t report_count;
    const char **paths; // of each report; NULL: not asked for
    const char *records;
};

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    struct arguments *arguments = state->input;
    if (key >= FIRST_KEY && (size_t)(key - FIRST_KEY) < arguments->report_count) {
        arguments->paths[key - FIRST_KEY] = text;
        return 0;
    }
    switch (key) {
    case ARGP_KEY_ARG:
        if (arguments->records)
            argp_error(state, "one file of records at a time; \"%s\" is the second", text);
        arguments->records = text;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "name the file that --records wrote, e.g. records.jsonl");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void parse(int argc, char **argv, const cm_report *const *reports, struct arguments *arguments)
{
    struct argp_option *options = cm_new(arguments->report_count + 1, sizeof *options);
    for (size_t n = 0; n < arguments->report_count; n++)
        options[n] =
            (struct argp_option){reports[n]->name, FIRST_KEY + (int)n, "FILE", 0, reports[n]->meaning, 0};
    const struct argp argp = {
        .options = options,
        .parser = parse_option,
        .args_doc = "RECORDS",
        .doc = "Renders the records of a run again; runs nothing. FILE may be \"-\" for stdout; without an "
               "option it "
               "is --text -. The exit status is that of the records.",
    };
    argp_err_exit_status = CM_EXIT_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, arguments);
    free(options);
}

static bool is_same_file(const char *one, const char *other)
{
    struct stat a, b;
    return stat(one, &a) == 0 && stat(other, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

// Without a wish: text to stdout.
static void choose_default(const cm_report *const *reports, struct arguments *arguments)
{
    size_t text = 0;
    for (size_t n = 0; n < arguments->report_count; n++) {
        if (arguments->paths[n])
            return;
        if (!strcmp(reports[n]->name, "text"))
            text = n;
    }
    if (arguments->report_count > 0)
        arguments->paths[text] = "-";
}

int cm_cmd_report(int argc, char **argv, const cm_report *const *reports)
{
    char name[] = "checkmoe report";
    struct arguments arguments = {0};
    cm_records records = {0};
    cm_tally tally = {0};
    cm_error error = {{0}};
    cm_status status = CM_OK;
    int code = CM_EXIT_USAGE;
    while (reports[arguments.report_count])
        arguments.report_count++;
    arguments.paths = cm_new(arguments.report_count, sizeof *arguments.paths);
    argv[0] = name;
    parse(argc, argv, reports, &arguments);
    choose_default(reports, &arguments);

    CM_TRY(cm_records_read(arguments.records, &records, &error));
    for (size_t n = 0; n < arguments.report_count; n++) {
        if (!arguments.paths[n])
            continue;
        if (is_same_file(arguments.records, arguments.paths[n])) {
            status = cm_fail(&error, CM_BAD_VALUE, "%s: is the file of records; give --%s another path",
                             arguments.paths[n], reports[n]->name);
            goto done;
        }
        CM_TRY(cm_report_write(reports[n], &records, arguments.paths[n], &error));
    }
    cm_tally_make(&records, &tally);
    code = cm_tally_exit(&tally, !records.complete);

done:
    if (status != CM_OK)
        fprintf(stderr, "checkmoe report: %s\n", error.message);
    cm_tally_close(&tally);
    cm_records_close(&records);
    free(arguments.paths);
    return code;
}
