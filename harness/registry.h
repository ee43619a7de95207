// SPDX-License-Identifier: Apache-2.0
// The lists that the program binds together: each is a NULL-terminated table expanded from an .inc file in
// registry.c, the only source file that knows every part.
#ifndef CM_REGISTRY_H
#define CM_REGISTRY_H

#include "harness/check.h"
#include "harness/fixture.h"
#include "harness/record.h"
#include "harness/source.h"
#include "harness/suite.h"

#include <stdio.h>

const cm_op *const *cm_registry_ops(void);
const cm_kernel *const *cm_registry_kernels(void);
const cm_fault *const *cm_registry_faults(void);
const cm_check *const *cm_registry_checks(void);
const cm_suite *const *cm_registry_suites(void);
const cm_report *const *cm_registry_reports(void);
const cm_axis *cm_registry_axes(void);         // CM_AXIS_COUNT of them
const cm_case_alias *cm_registry_layers(void); // ends with a NULL name, like the next
const cm_case_alias *cm_registry_formats(void);
const cm_generator *cm_registry_generators(void); // ends with a NULL kind

// Opens a layer of a model on disk as a source.
cm_status cm_registry_open_source(const cm_source_options *options, cm_source *source, cm_error *error);
// Writes what is in a file or folder of weights; incomplete before a refusal.
cm_status cm_registry_inspect(const char *path, FILE *out, cm_error *error);
// Folder of the recorded fixtures: CHECKMOE_FIXTURES, or where the program was built.
const char *cm_registry_fixtures(void);

const cm_op *cm_registry_find_op(const char *name, size_t length); // NULL: none
const cm_check *cm_registry_find_check(const char *name, size_t length);

#endif
