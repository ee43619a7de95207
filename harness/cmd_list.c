// SPDX-License-Identifier: Apache-2.0
#include "harness/commands.h"
#include "harness/op.h"
#include "harness/options.h"

#include <stdio.h>
#include <string.h>

struct listing {
    cm_options options;
    bool ops, kernels, checks, words;
};

enum { KEY_OPS = 512, KEY_KERNELS, KEY_CHECKS, KEY_WORDS };

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct listing *listing = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &listing->options;
        break;
    case ARGP_KEY_ARG:
        cm_options_add_glob(&listing->options, argument, state);
        break;
    case KEY_OPS:
        listing->ops = true;
        break;
    case KEY_KERNELS:
        listing->kernels = true;
        break;
    case KEY_CHECKS:
        listing->checks = true;
        break;
    case KEY_WORDS:
        listing->words = true;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static void list_ops(void)
{
    for (const cm_op *const *op = cm_registry_ops(); *op; op++) {
        printf("%s: %s\n", (*op)->name, (*op)->formula);
        for (const cm_argument *argument = (*op)->arguments; argument->name; argument++)
            printf("  %-22s [%s]%s  %s\n", argument->name, argument->shape,
                   argument->optional ? " optional" : "", argument->meaning);
        for (const cm_rounding *rounding = (*op)->roundings; rounding->name; rounding++)
            printf("  rounding point %s: %s%s\n", rounding->name, rounding->meaning,
                   rounding->always ? "" : " (accuracy \"model\" only)");
    }
}

static void list_kernels(const cm_kernel *const *kernel)
{
    for (; *kernel; kernel++) {
        printf("%-24s %s:%d\n", (*kernel)->name, (*kernel)->file, (*kernel)->line);
        for (const cm_path *path = (*kernel)->paths; path && path->name; path++)
            printf("  path %-17s %s\n", path->name, path->meaning ? path->meaning : "");
        for (const cm_switch_point *point = (*kernel)->switch_points; point && point->quantity; point++)
            printf("  from %s = %-10lld %s\n", point->quantity, (long long)point->first,
                   point->meaning ? point->meaning : "");
    }
}

static void list_checks(void)
{
    for (const cm_check *const *check = cm_registry_checks(); *check; check++)
        printf("%-10s proves: %s\n%-10s blind to: %s\n", (*check)->name, (*check)->proves, "",
               (*check)->blind_to);
    printf("%-10s proves: each path that a kernel declares was taken by a case; of a whole ci or full set\n"
           "%-10s blind to: whether the path that was taken is the one that the kernel named\n",
           CM_CHECK_PATHS, "");
}

static void list_words(void)
{
    const cm_axis *axes = cm_registry_axes();
    for (int axis = 0; axis < CM_AXIS_COUNT; axis++) {
        printf("%s\n", axes[axis].name);
        for (const cm_word *word = axes[axis].words; word->name; word++)
            printf("  %-14s %s%s\n", word->name, word->meaning, word == axes[axis].words ? " (default)" : "");
    }
    for (int which = 0; which < 2; which++) {
        const cm_case_alias *alias = which ? cm_registry_formats() : cm_registry_layers();
        printf("%s\n", which ? "formats of weights" : "layers");
        for (; alias->name; alias++)
            printf("  %-14s %s: %s\n", alias->name, alias->meaning, alias->words);
    }
}

static void list_faults(void)
{
    for (const cm_fault *const *fault = cm_registry_faults(); *fault; fault++)
        printf("%-26s %-22s killed by %-10s %s\n", (*fault)->id, (*fault)->kernel->name, (*fault)->check,
               (*fault)->story);
}

// With the ids that repro takes.
static int list_last(cm_options *options)
{
    int code = cm_options_open_last(options, NULL);
    const cm_last *last = &options->last;
    if (code != 0)
        return code;
    for (size_t n = 0; n < last->records.count; n++) {
        const cm_record *record = &last->records.items[n];
        char id[CM_RECORD_ID];
        if (!last->wanted[n])
            continue;
        cm_record_id(record, id);
        printf("%s  %-8s  %-11s  %s%s%s/%s\n", id, cm_verdict_name(record->outcome.verdict), record->check,
               record->fault ? record->fault : "", record->fault ? " in " : "", record->kernel,
               record->case_name);
    }
    code = last->count ? CM_EXIT_OK : CM_EXIT_NOTHING;
    cm_last_close(&options->last);
    return code;
}

static int list_cases(const cm_selection *selection, const cm_kernel *const *kernels)
{
    cm_plan plan;
    cm_error error = {{0}};
    size_t shown = 0;
    cm_selection all = *selection;
    all.kernels = kernels;
    if (cm_plan_make(&all, &plan, &error) != CM_OK) {
        fprintf(stderr, "checkmoe: %s\n", error.message);
        return CM_EXIT_USAGE;
    }
    for (size_t n = 0; n < plan.count; n++) {
        const cm_item *item = &plan.items[n];
        for (const cm_kernel *const *kernel = kernels; *kernel; kernel++) {
            const char *name = item->case_name ? item->case_name : item->model;
            if (!item->op || !cm_item_is_for(item, (*kernel)->name) ||
                !cm_selection_takes(selection, *kernel, name))
                continue;
            printf("%s/%s\n", (*kernel)->name, name);
            shown++;
        }
    }
    cm_plan_close(&plan);
    return shown ? CM_EXIT_OK : CM_EXIT_NOTHING;
}

int cm_cmd_list(int argc, char **argv)
{
    static const struct argp_option list_options[] = {
        {"ops", KEY_OPS, NULL, 0, "ops with their arguments", 4},
        {"kernels", KEY_KERNELS, NULL, 0, "kernels with their source", 4},
        {"checks", KEY_CHECKS, NULL, 0, "checks, what they prove and what they can't see", 4},
        {"words", KEY_WORDS, NULL, 0, "words of case names", 4},
        {0}};
    static const struct argp_child children[] = {{&cm_selection_argp, 0, "Selection:", 1}, {0}};
    static const struct argp argp = {.options = list_options,
                                     .parser = parse,
                                     .args_doc = "[OP[/TARGET[/CASE]]...]",
                                     .doc = "Lists what would run; with --faults the kernels that must fail.",
                                     .children = children};
    struct listing listing = {0};
    cm_plugins plugins;
    cm_error error = {{0}};
    int code = CM_EXIT_OK;
    cm_options_begin(&listing.options, argv, "list");
    argp_parse(&argp, argc, argv, 0, NULL, &listing);
    cm_options_end(&listing.options, argc, argv);
    if (cm_plugins_open(listing.options.plugins, listing.options.glob_count == 0, &plugins, &error) !=
        CM_OK) {
        fprintf(stderr, "checkmoe: %s\n", error.message);
        return CM_EXIT_USAGE;
    }
    if (listing.ops)
        list_ops();
    if (listing.kernels)
        list_kernels(plugins.kernels);
    if (listing.checks)
        list_checks();
    if (listing.words)
        list_words();
    if (listing.options.last_failed)
        code = list_last(&listing.options);
    else if (listing.options.run.selection.faults)
        list_faults();
    else if (!listing.ops && !listing.kernels && !listing.checks && !listing.words)
        code = list_cases(&listing.options.run.selection, plugins.kernels);
    cm_plugins_close(&plugins);
    return code;
}
