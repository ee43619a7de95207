// SPDX-License-Identifier: Apache-2.0
// checkmoe inspect: what a file or folder of weights holds. The fixtures know the formats.
#include "harness/commands.h"
#include "harness/expect.h"
#include "harness/registry.h"

#include <argp.h>
#include <stdlib.h>

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    const char **path = state->input;
    switch (key) {
    case ARGP_KEY_ARG:
        if (*path)
            argp_error(state, "one path at a time; \"%s\" is the second", text);
        *path = text;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "name a .safetensors file, a model folder or a PEFT adapter folder");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int cm_cmd_inspect(int argc, char **argv)
{
    static const struct argp argp = {
        .parser = parse_option,
        .args_doc = "PATH",
        .doc =
            "Lists the tensors of PATH, a .safetensors file, a model folder or a PEFT adapter folder, with "
            "what its config says. Reads headers only. The table goes to stdout when all of it is good; "
            "else one line says what is wrong, and the exit status is 4.",
    };
    char name[] = "checkmoe inspect", *text = NULL;
    const char *path = NULL;
    size_t size = 0;
    cm_error error = {{0}};
    argv[0] = name;
    argp_err_exit_status = CM_EXIT_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, &path);
    FILE *table = open_memstream(&text, &size);
    if (!table)
        cm_broken("out of memory for a table");
    cm_status status = cm_registry_inspect(path, table, &error);
    if (fclose(table))
        cm_broken("out of memory for a table");
    if (status != CM_OK)
        fprintf(stderr, "checkmoe: %s\n", error.message);
    else if (fwrite(text, 1, size, stdout) != size || fflush(stdout))
        status = CM_BAD_FILE; // nobody reads it: as for every filter
    free(text);
    return status == CM_OK ? CM_EXIT_OK : CM_EXIT_USAGE;
}
