// SPDX-License-Identifier: Apache-2.0
#include "harness/commands.h"
#include "harness/options.h"

static error_t parse(int key, char *argument, struct argp_state *state)
{
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = state->child_inputs[1] = state->input;
        break;
    case ARGP_KEY_ARG:
        cm_options_add_glob(state->input, argument, state);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

int cm_cmd_run(int argc, char **argv)
{
    static const struct argp_child children[] = {
        {&cm_selection_argp, 0, "Selection:", 1}, {&cm_results_argp, 0, "Results:", 2}, {0}};
    static const struct argp argp = {
        .parser = parse,
        .args_doc = "[OP[/TARGET[/CASE]]...]",
        .doc =
            "Runs the checks on the selected kernels and cases (globs) and reports.\v"
            "Exit status: 0 all passed, 1 something failed, 2 interrupted, 3 a fault of checkmoe, 4 usage, "
            "5 nothing selected, 77 everything skipped.",
        .children = children};
    cm_options options;
    cm_options_begin(&options, argv, "run");
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    cm_options_end(&options, argc, argv);
    options.run.keep_last = true;
    int code = options.last_failed ? cm_options_open_last(&options, NULL) : 0;
    if (code == 0)
        code = cm_run(&options.run);
    cm_last_close(&options.last);
    return code;
}
