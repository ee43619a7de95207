// SPDX-License-Identifier: Apache-2.0
#include "harness/plan.h"

#include "harness/op.h"
#include "harness/paths.h"
#include "harness/site.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool matches_one(const char *glob, const char *path)
{
    int parts = 0;
    for (const char *c = glob; *c; c++)
        parts += *c == '/';
    char longer[512];
    snprintf(longer, sizeof longer, "%s%s", glob, parts == 0 ? "/*/*" : parts == 1 ? "/*" : "");
    return fnmatch(longer, path, 0) == 0;
}

bool cm_selection_matches(const cm_selection *selection, const char *kernel, const char *case_name)
{
    char path[512];
    if (selection->repro_kernel)
        return !strcmp(selection->repro_kernel, kernel);
    snprintf(path, sizeof path, "%s/%s", kernel, case_name);
    bool any = false;
    for (const char *const *glob = selection->globs; glob && *glob; glob++) {
        any = true;
        if (matches_one(*glob, path))
            return true;
    }
    return !any;
}

bool cm_selection_takes(const cm_selection *selection, const cm_kernel *kernel, const char *case_name)
{
    return cm_selection_matches(selection, kernel->name, case_name) &&
           (!selection->mode || !strcmp(selection->mode, cm_kernel_mode(kernel)));
}

bool cm_item_is_for(const cm_item *item, const char *kernel)
{
    size_t length = strlen(item->op->name);
    if (strncmp(kernel, item->op->name, length) != 0 || kernel[length] != '/')
        return false;
    if (item->kernels && item->kernels[0] == '!')
        return fnmatch(item->kernels + 1, kernel, 0) != 0;
    return !item->kernels || fnmatch(item->kernels, kernel, 0) == 0;
}

bool cm_selection_has_check(const cm_selection *selection, const cm_item *item, const char *check)
{
    if (item->checks && !cm_has_word(item->checks, check, strlen(check)))
        return false;
    if (!selection->checks)
        return true;
    char words[256];
    snprintf(words, sizeof words, "%s", selection->checks);
    for (char *comma = words; (comma = strchr(comma, ',')) != NULL;)
        *comma = ' ';
    return cm_has_word(words, check, strlen(check));
}

static cm_item *add(cm_plan *plan, const cm_item *item)
{
    if (plan->count == plan->space) {
        plan->space = plan->space ? 2 * plan->space : 256;
        plan->items = realloc(plan->items, plan->space * sizeof *plan->items);
        if (!plan->items)
            cm_broken("out of memory for %zu cases", plan->space);
    }
    plan->items[plan->count] = *item;
    return &plan->items[plan->count++];
}

static char *copy(const char *text)
{
    return text ? cm_text("%s", text) : NULL;
}

struct adding {
    cm_plan *plan;
    const cm_item *model; // of the items to add
    const char *checks;
};

static cm_status add_case(const char *text, void *self)
{
    struct adding *adding = self;
    cm_item *item = add(adding->plan, adding->model);
    item->case_name = copy(text);
    item->checks = copy(adding->checks);
    return CM_OK;
}

static cm_status add_rows(const cm_selection *selection, const cm_suite *suite, cm_plan *plan,
                          cm_error *error)
{
    cm_item model = {.suite = suite->name,
                     .op = cm_registry_find_op(suite->op, strlen(suite->op)),
                     .kernels = suite->kernels};
    cm_status status = CM_OK;
    const cm_kernel *const *kernels = selection->kernels ? selection->kernels : cm_registry_kernels();
    int64_t fuzz_rows = 0, drawn = 0;
    for (const cm_row *row = suite->rows; row->cases; row++) {
        struct adding adding = {plan, &model, row->checks};
        fuzz_rows += (row->sets & CM_SET_FUZZ) != 0;
        if (row->sets & selection->sets & ~(unsigned)CM_SET_FUZZ)
            status = cm_paths_expand(row->cases, model.op, kernels, add_case, &adding, error);
        if (status != CM_OK)
            return status;
    }
    for (int64_t n = 0; fuzz_rows && selection->sets & CM_SET_FUZZ && n < selection->fuzz_cases;)
        for (const cm_row *row = suite->rows; row->cases && n < selection->fuzz_cases; row++) {
            char text[CM_CASE_TEXT];
            struct adding adding = {plan, &model, row->checks};
            if (!(row->sets & CM_SET_FUZZ))
                continue;
            status = cm_case_draw(row->cases, selection->seed + (uint64_t)drawn++, text, error);
            if (status != CM_OK)
                return status;
            add_case(text, &adding);
            n++;
        }
    return CM_OK;
}

static void add_files(const cm_selection *selection, const cm_suite *suite, cm_plan *plan)
{
    for (const cm_file_row *row = suite->files; row && row->model; row++) {
        if (!(row->sets & selection->sets))
            continue;
        cm_item *item = add(plan, &(cm_item){.suite = suite->name,
                                             .op = cm_registry_find_op(suite->op, strlen(suite->op)),
                                             .kernels = suite->kernels,
                                             .layer = row->layer});
        item->model = cm_text("%s/%s", cm_registry_fixtures(), row->model);
        item->adapter = row->adapter ? cm_text("%s/%s", cm_registry_fixtures(), row->adapter) : NULL;
        item->recorded = row->recorded ? cm_text("%s/%s", cm_registry_fixtures(), row->recorded) : NULL;
    }
}

static cm_status add_faults(const cm_selection *selection, cm_plan *plan, cm_error *error)
{
    for (const cm_fault *const *fault = cm_registry_faults(); *fault; fault++) {
        const char *name = (*fault)->kernel->name;
        cm_item model = {
            .suite = "faults", .op = cm_registry_find_op(name, strcspn(name, "/")), .fault = *fault};
        struct adding adding = {plan, &model, (*fault)->checks};
        if (selection->fault && fnmatch(selection->fault, (*fault)->id, 0))
            continue;
        const char *cases = selection->repro_case ? selection->repro_case : (*fault)->cases;
        cm_status status = cm_paths_expand(cases, model.op, cm_registry_kernels(), add_case, &adding, error);
        if (status != CM_OK)
            return status;
    }
    return CM_OK;
}

// Cases on files are found by the rows of their suite; run.c then holds each against the wanted ones.
static cm_status add_wanted_files(const cm_selection *selection, const char *name, cm_plan *plan)
{
    cm_selection all = *selection;
    all.sets = ~0u;
    for (const cm_suite *const *suite = cm_registry_suites(); *suite; suite++)
        if (!strcmp((*suite)->name, name))
            add_files(&all, *suite, plan);
    return CM_OK;
}

static bool follows_equal(const cm_last *last, size_t n)
{
    for (size_t m = 0; m < n; m++)
        if (last->wanted[m] && !strcmp(last->records.items[m].case_name, last->records.items[n].case_name) &&
            !strcmp(last->records.items[m].op, last->records.items[n].op) &&
            !strcmp(last->records.items[m].fault ? last->records.items[m].fault : "",
                    last->records.items[n].fault ? last->records.items[n].fault : ""))
            return true;
    return false;
}

// One item for each case of the wanted records. Those whose op, fault or files are not here are left to
// cm_last_missed.
static cm_status add_last(const cm_selection *selection, cm_plan *plan)
{
    const cm_last *last = selection->last;
    for (size_t n = 0; n < last->records.count; n++) {
        const cm_record *record = &last->records.items[n];
        const cm_op *op = record->op ? cm_registry_find_op(record->op, strlen(record->op)) : NULL;
        cm_case test_case;
        cm_error ignored = {{0}};
        cm_item item = {.suite = "last", .op = op};
        if (!last->wanted[n] || !op || !record->case_name || follows_equal(last, n))
            continue;
        for (const cm_fault *const *fault = cm_registry_faults(); record->fault && *fault; fault++)
            if (!strcmp((*fault)->id, record->fault))
                item.fault = *fault;
        if ((record->fault && !item.fault) ||
            cm_case_parse(op, record->case_name, &test_case, &ignored) != CM_OK)
            continue;
        if (!strcmp(cm_case_word(&test_case, CM_AXIS_TIER), "file")) {
            bool first = true;
            for (size_t m = 0; m < plan->count; m++)
                first = first && !(plan->items[m].model && !strcmp(plan->items[m].suite, record->suite));
            if (first)
                add_wanted_files(selection, record->suite, plan);
        } else {
            for (const cm_suite *const *suite = cm_registry_suites(); *suite; suite++)
                if (record->suite && !strcmp((*suite)->name, record->suite))
                    item.suite = (*suite)->name;
            item.case_name = copy(record->case_name);
            add(plan, &item);
        }
    }
    return CM_OK;
}

static void keep_shard(const cm_selection *selection, cm_plan *plan)
{
    size_t kept = 0;
    for (size_t n = 0; n < plan->count; n++) {
        if (selection->shards > 1 && n % (size_t)selection->shards != (size_t)selection->shard - 1) {
            cm_plan rest = {&plan->items[n], 1, 0};
            cm_item one = plan->items[n];
            rest.items = cm_new(1, sizeof one);
            rest.items[0] = one;
            cm_plan_close(&rest);
            continue;
        }
        plan->items[kept++] = plan->items[n];
    }
    plan->count = kept;
}

cm_status cm_plan_make(const cm_selection *selection, cm_plan *plan, cm_error *error)
{
    cm_status status = CM_OK;
    *plan = (cm_plan){0};
    if (selection->model) {
        cm_item *item =
            add(plan, &(cm_item){.suite = "model", .layer = selection->layer, .tokens = selection->tokens});
        item->model = copy(selection->model);
        item->adapter = copy(selection->adapter);
        item->recorded = copy(selection->recorded);
        item->lora_orientation = selection->lora_orientation;
        item->lora_b_order = selection->lora_b_order;
    } else if (selection->last) {
        status = add_last(selection, plan);
    } else if (selection->faults) {
        status = add_faults(selection, plan, error);
    } else if (selection->repro_case) {
        cm_item *item = add(plan, &(cm_item){.suite = "repro"});
        item->op = cm_registry_find_op(selection->repro_kernel, strcspn(selection->repro_kernel, "/"));
        item->case_name = copy(selection->repro_case);
    } else {
        for (const cm_suite *const *suite = cm_registry_suites(); *suite && status == CM_OK; suite++) {
            if (!cm_registry_find_op((*suite)->op, strlen((*suite)->op)))
                cm_broken("suite %s: no op %s", (*suite)->name, (*suite)->op);
            add_files(selection, *suite, plan);
            status = add_rows(selection, *suite, plan, error);
        }
    }
    keep_shard(selection, plan);
    if (status != CM_OK)
        cm_plan_close(plan);
    return status;
}

void cm_plan_close(cm_plan *plan)
{
    for (size_t n = 0; n < plan->count; n++) {
        cm_item *item = &plan->items[n];
        free(item->case_name);
        free(item->checks);
        free(item->model);
        free(item->adapter);
        free(item->recorded);
    }
    free(plan->items);
    *plan = (cm_plan){0};
}

cm_status cm_item_source_case(const cm_item *item, const cm_source *source, cm_case *test_case,
                              cm_error *error)
{
    const cm_op *op = item->op ? item->op : cm_registry_find_op(source->op, strlen(source->op));
    *test_case = (cm_case){.op = op, .seed = 1};
    for (int d = 0; d < CM_DIM_COUNT; d++) {
        int64_t generated = CM_DIM_LETTERS[d] == 'T' ? item->tokens : 0;
        test_case->dims[d] = source->dims[d] >= 0 ? source->dims[d] : generated;
    }
    for (int variable = 0; variable < 128; variable++)
        test_case->dtypes[variable] =
            source->dtypes[variable] < 0 ? CM_F32 : (cm_dtype)source->dtypes[variable];
    for (int n = 0; op->attributes[n].name; n++)
        test_case->attributes[n] = op->attributes[n].fallback;
    const cm_axis *axes = cm_registry_axes();
    for (int word = 0; axes[CM_AXIS_TIER].words[word].name; word++)
        if (!strcmp(axes[CM_AXIS_TIER].words[word].name, "file"))
            test_case->words[CM_AXIS_TIER] = word;
    for (int word = 0; item->recorded && axes[CM_AXIS_ADAPTERS].words[word].name; word++)
        if (!strcmp(axes[CM_AXIS_ADAPTERS].words[word].name, "full"))
            test_case->words[CM_AXIS_ADAPTERS] = word;
    char text[CM_CASE_TEXT];
    cm_case parsed;
    cm_case_print(test_case, text);
    return cm_case_parse(op, text, &parsed, error); // holds the dimensions against their ranges
}
