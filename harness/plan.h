// SPDX-License-Identifier: Apache-2.0
// What a run will do: the selected cases with their kernels and checks, in the order of the suites.
#ifndef CM_PLAN_H
#define CM_PLAN_H

#include "harness/last.h"
#include "harness/registry.h"

typedef struct cm_selection {
    const char *const *globs; // op/target/case; NULL-terminated; none: everything
    const char *checks;       // names, comma between; NULL: those of the suites
    const char *mode;         // "native" or "emulated"; NULL: both
    unsigned sets;            // of enum cm_set
    bool faults;              // the kernels that must fail, in place of the others
    const char *fault;        // glob over fault ids; NULL: all
    uint64_t seed;            // of fuzz draws: case n has seed + n
    int64_t fuzz_cases;       // drawn from the fuzz rows
    const char *model, *adapter, *recorded;
    const char *lora_orientation, *lora_b_order; // as in cm_source_options
    int layer;
    int64_t tokens;                        // for a model without recorded input
    int shard, shards;                     // this part (1..shards) of the cases
    const char *repro_kernel, *repro_case; // one case of one kernel in place of everything else
    const cm_kernel *const *kernels;       // whose switch points the cases cross; NULL: the built-in ones
    cm_last *last;                         // what of an earlier run is to be run again; NULL: everything
} cm_selection;

typedef struct cm_item {
    const char *suite;
    const cm_op *op;
    char *case_name;                  // NULL: the source decides
    char *checks;                     // blank between; NULL: all
    const cm_fault *fault;            // NULL: the registered kernels
    const char *kernels;              // see cm_suite
    char *model, *adapter, *recorded; // model NULL: generated values
    const char *lora_orientation, *lora_b_order;
    int layer;
    int64_t tokens;
} cm_item;

typedef struct cm_plan {
    cm_item *items;
    size_t count, space;
} cm_plan;

cm_status cm_plan_make(const cm_selection *selection, cm_plan *plan, cm_error *error);
void cm_plan_close(cm_plan *plan);

// The case that a source asks for: its dimensions and dtypes; every token is adapted when an output was
// recorded.
cm_status cm_item_source_case(const cm_item *item, const cm_source *source, cm_case *test_case,
                              cm_error *error);

// Whether "op/target/case" is selected. A glob with fewer parts matches everything below it.
bool cm_selection_matches(const cm_selection *selection, const char *kernel, const char *case_name);
// The same for a kernel, which runs in the selected mode, too.
bool cm_selection_takes(const cm_selection *selection, const cm_kernel *kernel, const char *case_name);
// Whether the item is for a kernel of this name.
bool cm_item_is_for(const cm_item *item, const char *kernel);
bool cm_selection_has_check(const cm_selection *selection, const cm_item *item, const char *check);

#endif
