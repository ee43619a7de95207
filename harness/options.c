// SPDX-License-Identifier: Apache-2.0
#include "harness/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    KEY_SET = 256,
    KEY_CHECK,
    KEY_MODE,
    KEY_FAULTS,
    KEY_FAULT,
    KEY_SEED,
    KEY_CASES,
    KEY_MODEL,
    KEY_ADAPTER,
    KEY_LAYER,
    KEY_RECORDED,
    KEY_LORA_ORIENTATION,
    KEY_LORA_B_ORDER,
    KEY_TOKENS,
    KEY_SHARD,
    KEY_PLUGIN,
    KEY_LAST_FAILED,
    KEY_RECORDS,
    KEY_KNOWN,
    KEY_REQUIRE,
    KEY_TIMEOUT,
    KEY_QUIET,
    KEY_JOBS,
    KEY_REPORT, // + place of the report in the registry
};

static const struct argp_option selection_options[] = {
    {"set", KEY_SET, "SET", 0, "smoke, ci, full or fuzz; several with commas (default ci)", 1},
    {"check", KEY_CHECK, "CHECKS", 0, "only these checks, comma between", 1},
    {"mode", KEY_MODE, "MODE", 0, "only kernels that run so here: native or emulated", 1},
    {"faults", KEY_FAULTS, NULL, 0, "the kernels that must fail, in place of the others", 1},
    {"fault", KEY_FAULT, "GLOB", 0, "only these faults", 1},
    {"seed", KEY_SEED, "N", 0, "first seed of fuzz cases (default: from the clock)", 1},
    {"cases", KEY_CASES, "N", 0, "fuzz cases per suite (default 200)", 1},
    {"shard", KEY_SHARD, "I/N", 0, "the I-th of N parts", 1},
    {"last-failed", KEY_LAST_FAILED, NULL, 0, "what failed in the last run, or in that of --records FILE", 1},
    {"plugin", KEY_PLUGIN, "FILE", 0,
     "a shared library with kernels (repeatable); unless something is selected, only they run", 1},
    {"model", KEY_MODEL, "DIR", 0, "a Hugging Face model folder: its layer in place of the suites", 2},
    {"adapter", KEY_ADAPTER, "DIR", 0, "a PEFT adapter folder for --model", 2},
    {"layer", KEY_LAYER, "N", 0, "layer of --model (default 0)", 2},
    {"recorded", KEY_RECORDED, "FILE", 0,
     "input, routing and output that the model's own code had (safetensors)", 2},
    {"lora-orientation", KEY_LORA_ORIENTATION, "WAY", 0,
     "dimension of a fused parameter that lora_A stands at, where shapes do not say: in_first or out_first",
     2},
    {"lora-b-order", KEY_LORA_B_ORDER, "ORDER", 0,
     "columns of a fused lora_B: peft (default) or expert_major", 2},
    {"tokens", KEY_TOKENS, "T", 0, "tokens of generated input for --model (default 24)", 2},
    {0},
};

static bool parse_whole(const char *text, long long least, long long most, long long *number)
{
    char *end;
    errno = 0;
    *number = strtoll(text, &end, 0);
    return text[0] && !*end && !errno && *number >= least && *number <= most;
}

static void parse_sets(cm_options *options, char *text, struct argp_state *state)
{
    static const struct {
        const char *name;
        unsigned set;
    } names[] = {{"smoke", CM_SET_SMOKE},
                 {"ci", CM_SET_CI | CM_SET_SMOKE},
                 {"full", CM_SET_FULL | CM_SET_CI | CM_SET_SMOKE},
                 {"fuzz", CM_SET_FUZZ}};
    if (!options->set_given)
        options->run.selection.sets = 0;
    options->set_given = true;
    char *rest = NULL;
    for (char *word = strtok_r(text, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
        size_t n = 0;
        while (n < sizeof names / sizeof *names && strcmp(names[n].name, word) != 0)
            n++;
        if (n == sizeof names / sizeof *names)
            argp_error(state, "--set: there is no set \"%s\"; use smoke, ci, full or fuzz", word);
        options->run.selection.sets |= names[n].set;
    }
}

static void check_names(const char *text, struct argp_state *state)
{
    for (const char *at = text; *at;) {
        size_t length = strcspn(at, ",");
        if (!cm_registry_find_check(at, length))
            argp_error(state, "--check: there is no check \"%.*s\"; \"checkmoe list --checks\" shows them",
                       (int)length, at);
        at += length + (at[length] == ',');
    }
}

static error_t parse_selection(int key, char *argument, struct argp_state *state)
{
    cm_options *options = state->input;
    cm_selection *selection = &options->run.selection;
    long long number;
    char behind;
    switch (key) {
    case KEY_SET:
        parse_sets(options, argument, state);
        break;
    case KEY_CHECK:
        check_names(argument, state);
        selection->checks = argument;
        break;
    case KEY_MODE:
        if (strcmp(argument, "native") != 0 && strcmp(argument, "emulated") != 0)
            argp_error(state, "--mode: \"%s\" is neither native nor emulated", argument);
        selection->mode = argument;
        break;
    case KEY_FAULTS:
        selection->faults = true;
        break;
    case KEY_FAULT:
        selection->faults = true;
        selection->fault = argument;
        break;
    case KEY_SEED:
        if (!parse_whole(argument, 0, INT64_MAX, &number))
            argp_error(state, "--seed: \"%s\" is no whole number", argument);
        selection->seed = (uint64_t)number;
        break;
    case KEY_CASES:
        if (!parse_whole(argument, 1, 10000000, &number))
            argp_error(state, "--cases: \"%s\" is no number from 1 to 10000000", argument);
        selection->fuzz_cases = number;
        break;
    case KEY_SHARD:
        if (sscanf(argument, "%d/%d%c", &selection->shard, &selection->shards, &behind) != 2 ||
            selection->shard < 1 || selection->shard > selection->shards)
            argp_error(state, "--shard: \"%s\" is not I/N with 1 <= I <= N", argument);
        break;
    case KEY_PLUGIN:
        if (options->plugin_count == CM_MAX_PLUGINS)
            argp_error(state, "more than %d plug-ins", CM_MAX_PLUGINS);
        options->plugins[options->plugin_count++] = argument;
        break;
    case KEY_LAST_FAILED:
        options->last_failed = true;
        break;
    case KEY_MODEL:
        selection->model = argument;
        break;
    case KEY_ADAPTER:
        selection->adapter = argument;
        break;
    case KEY_RECORDED:
        selection->recorded = argument;
        break;
    case KEY_LORA_ORIENTATION:
        selection->lora_orientation = argument;
        break;
    case KEY_LORA_B_ORDER:
        selection->lora_b_order = argument;
        break;
    case KEY_LAYER:
        if (!parse_whole(argument, 0, 100000, &number))
            argp_error(state, "--layer: \"%s\" is no layer number", argument);
        selection->layer = (int)number;
        break;
    case KEY_TOKENS:
        if (!parse_whole(argument, 1, 1 << 20, &number))
            argp_error(state, "--tokens: \"%s\" is no number from 1 to 1048576", argument);
        selection->tokens = number;
        break;
    case ARGP_KEY_END:
        if (!selection->adapter && (selection->lora_orientation || selection->lora_b_order))
            argp_error(state, "--lora-orientation and --lora-b-order go with --adapter");
        if (!selection->model && (selection->adapter || selection->recorded))
            argp_error(state, "--adapter and --recorded go with --model");
        if (selection->faults && options->plugin_count)
            argp_error(state, "--plugin does not go with --faults: those are built in");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

const struct argp cm_selection_argp = {.options = selection_options, .parser = parse_selection};

static struct argp_option results_options[8 + CM_MAX_REPORTS] = {
    {"records", KEY_RECORDS, "FILE", 0, "keep the records (JSON lines)", 3},
    {"known", KEY_KNOWN, "FILE", 0, "failures that are known, each with a reason", 3},
    {"require", KEY_REQUIRE, "TARGETS", 0, "fail unless each of these ran something", 3},
    {"timeout", KEY_TIMEOUT, "SECONDS", 0,
     "for one check on one kernel and case (default 20), and again for each 256 MiB of arguments; longer for "
     "a "
     "process that gets no processor",
     3},
    {"jobs", KEY_JOBS, "N", 0, "processes that share the cases (default: one for each processor)", 3},
    {"quiet", KEY_QUIET, NULL, 0, "no progress", 3},
    {0},
};

static error_t parse_results(int key, char *argument, struct argp_state *state)
{
    cm_options *options = state->input;
    long long number;
    char *end;
    switch (key) {
    case KEY_RECORDS:
        options->run.records_path = argument;
        break;
    case KEY_KNOWN:
        options->run.known_path = argument;
        break;
    case KEY_REQUIRE:
        options->run.require = argument;
        break;
    case KEY_TIMEOUT:
        options->run.timeout = strtod(argument, &end);
        if (*end || !(options->run.timeout > 0 && options->run.timeout <= 86400))
            argp_error(state, "--timeout: \"%s\" is no number of seconds", argument);
        break;
    case KEY_JOBS:
        if (!parse_whole(argument, 1, 256, &number))
            argp_error(state, "--jobs: \"%s\" is no number from 1 to 256", argument);
        options->run.jobs = (int)number;
        break;
    case KEY_QUIET:
        options->run.quiet = true;
        break;
    default:
        if (key < KEY_REPORT || key >= KEY_REPORT + options->report_count)
            return ARGP_ERR_UNKNOWN;
        options->report_paths[key - KEY_REPORT] = argument;
    }
    return 0;
}

const struct argp cm_results_argp = {.options = results_options, .parser = parse_results};

void cm_options_begin(cm_options *options, char **argv, const char *verb)
{
    static char name[64];
    snprintf(name, sizeof name, "checkmoe %s", verb);
    argv[0] = name;
    argp_err_exit_status = CM_EXIT_USAGE;
    *options = (cm_options){.run = {.timeout = 20,
                                    .selection = {.sets = CM_SET_CI | CM_SET_SMOKE,
                                                  .seed = (uint64_t)time(NULL),
                                                  .fuzz_cases = 200,
                                                  .tokens = 24}}};
    int used = 0;
    while (results_options[used].name)
        used++;
    const cm_report *const *reports = cm_registry_reports();
    static bool listed; // once a process
    for (; reports[options->report_count]; options->report_count++) {
        if (options->report_count == CM_MAX_REPORTS)
            cm_broken("more than %d reports", CM_MAX_REPORTS);
        if (!listed)
            results_options[used++] = (struct argp_option){reports[options->report_count]->name,
                                                           KEY_REPORT + options->report_count,
                                                           "FILE",
                                                           0,
                                                           reports[options->report_count]->meaning,
                                                           3};
    }
    listed = true;
}

void cm_options_end(cm_options *options, int argc, char **argv)
{
    const cm_report *const *reports = cm_registry_reports();
    bool taken = false; // stdout, by another report
    for (int n = 0; n < options->report_count; n++)
        taken = taken || (options->report_paths[n] && !strcmp(options->report_paths[n], "-"));
    for (int n = 0; n < options->report_count; n++) // the terminal gets text unless it goes elsewhere
        if (!strcmp(reports[n]->name, "text") && !options->report_paths[n] && !taken)
            options->report_paths[n] = "-";
    options->run.selection.globs = options->globs;
    options->run.plugins = options->plugins;
    options->run.report_paths = options->report_paths;
    options->run.argc = argc;
    options->run.argv = argv;
}

int cm_options_open_last(cm_options *options, const char *id)
{
    cm_error error = {{0}};
    if (cm_last_open(options->run.records_path, id, &options->last, &error) != CM_OK) {
        fprintf(stderr, "checkmoe: %s\n", error.message);
        cm_last_close(&options->last);
        return CM_EXIT_USAGE;
    }
    options->run.selection.last = &options->last;
    return 0;
}

void cm_options_add_glob(cm_options *options, const char *glob, struct argp_state *state)
{
    if (options->glob_count == CM_MAX_GLOBS)
        argp_error(state, "more than %d selections", CM_MAX_GLOBS);
    const char *slash = strchr(glob, '/');
    size_t length = slash ? (size_t)(slash - glob) : strlen(glob);
    if (!strpbrk(glob, "*?[") && !cm_registry_find_op(glob, length))
        argp_error(state, "\"%s\": there is no op \"%.*s\"; \"checkmoe list --ops\" shows them", glob,
                   (int)length, glob);
    options->globs[options->glob_count++] = glob;
}
