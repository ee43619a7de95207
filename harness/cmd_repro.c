// SPDX-License-Identifier: Apache-2.0
#include "harness/commands.h"
#include "harness/options.h"
#include "harness/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The id of a record, see cm_record_id: no op has such a name.
static bool is_id(const char *text)
{
    size_t length = strlen(text);
    return length >= 4 && length < CM_RECORD_ID && strspn(text, "0123456789abcdef") == length;
}

// One case, whether a suite has it or not: OP/TARGET/CASE; or the id of a record.
static error_t parse(int key, char *argument, struct argp_state *state)
{
    cm_options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = state->child_inputs[1] = state->input;
        break;
    case ARGP_KEY_ARG:
        if (is_id(argument) && options->glob_count == 0)
            options->globs[options->glob_count++] = argument;
        else
            cm_options_add_glob(options, argument, state);
        break;
    case ARGP_KEY_END:
        if (options->glob_count != 1)
            argp_error(state, "exactly one OP/TARGET/CASE or id is needed");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

int cm_cmd_repro(int argc, char **argv)
{
    static const struct argp_child children[] = {
        {&cm_selection_argp, 0, "Selection:", 1}, {&cm_results_argp, 0, "Results:", 2}, {0}};
    static const struct argp argp = {
        .parser = parse,
        .args_doc = "OP/TARGET/CASE|ID",
        .doc =
            "Runs one case again, the last line of a failure. CK_FORK=no runs it in this "
            "process, for a debugger. An ID (of a failure's card, or its first 4 digits or more) is looked "
            "up in --records FILE or in the last run.",
        .children = children};
    cm_options options;
    cm_error error = {{0}};
    cm_case test_case;
    cm_options_begin(&options, argv, "repro");
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    cm_options_end(&options, argc, argv);
    const char *path = options.globs[0], *target = strchr(path, '/');
    const char *name = target ? strchr(target + 1, '/') : NULL;
    if (!target && is_id(path)) {
        int code = cm_options_open_last(&options, path);
        options.globs[0] = NULL;
        options.run.records_path = NULL; // it was read, and stays as it is
        if (code == 0)
            code = cm_run(&options.run);
        cm_last_close(&options.last);
        return code;
    }
    if (!name) {
        fprintf(stderr, "checkmoe: \"%s\" is not OP/TARGET/CASE; a failure's rerun line has all three\n",
                path);
        return CM_EXIT_USAGE;
    }
    const cm_op *op = cm_registry_find_op(path, (size_t)(target - path));
    if (!op || cm_case_parse(op, name + 1, &test_case, &error) != CM_OK) {
        fprintf(stderr, "checkmoe: %s\n",
                op ? error.message : "there is no such op; see \"checkmoe list --ops\"");
        return CM_EXIT_USAGE;
    }
    char *kernel = cm_text("%.*s", (int)(name - path), path);
    options.run.selection.repro_kernel = kernel;
    options.run.selection.repro_case = name + 1;
    int code = cm_run(&options.run);
    free(kernel);
    return code;
}
