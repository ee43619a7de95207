// SPDX-License-Identifier: Apache-2.0
#include "harness/registry.h"

#include "fixtures/inspect.h"
#include "fixtures/layer.h"
#include "fixtures/layers.h"
#include "fixtures/values.h"
#include "optimized/kernels.h"
#include "reports/reports.h"
#include "suites/suites.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CM_OP(symbol) extern const cm_op symbol;
#include "reference/ops.inc"
#undef CM_OP
#define CM_CHECK(symbol) extern const cm_check symbol;
#include "harness/checks.inc"
#undef CM_CHECK

#define CM_OP(symbol)     &symbol,
#define CM_KERNEL(symbol) &symbol,
#define CM_CHECK(symbol)  &symbol,
#define CM_SUITE(symbol)  &symbol,
#define CM_REPORT(symbol) &symbol,
#ifdef CM_CUDA
#define CM_NATIVE(symbol) &symbol##_native,
#else
#define CM_NATIVE(symbol)
#endif
#define CM_NATIVE_HOST CM_NATIVE

static const cm_op *const ops[] = {
#include "reference/ops.inc"
    NULL};
static const cm_kernel *const kernels[] = {
#include "optimized/kernels.inc"
    NULL};
static const cm_check *const checks[] = {
#include "harness/checks.inc"
    NULL};
static const cm_suite *const suites[] = {
#include "suites/suites.inc"
    NULL};
static const cm_report *const reports[] = {
#include "reports/reports.inc"
    NULL};

const cm_op *const *cm_registry_ops(void)
{
    return ops;
}

const cm_kernel *const *cm_registry_kernels(void)
{
    return kernels;
}

const cm_fault *const *cm_registry_faults(void)
{
    return cm_faults;
}

const cm_check *const *cm_registry_checks(void)
{
    return checks;
}

const cm_suite *const *cm_registry_suites(void)
{
    return suites;
}

const cm_report *const *cm_registry_reports(void)
{
    return reports;
}

const cm_axis *cm_registry_axes(void)
{
    return cm_axes;
}

const cm_case_alias *cm_registry_layers(void)
{
    return cm_layers;
}

const cm_case_alias *cm_registry_formats(void)
{
    return cm_formats;
}

const cm_generator *cm_registry_generators(void)
{
    return cm_generators;
}

cm_status cm_registry_open_source(const cm_source_options *options, cm_source *source, cm_error *error)
{
    cm_status status = cm_layer_open(options, source, error);
    source->recorded = cm_layer_recorded;
    return status;
}

cm_status cm_registry_inspect(const char *path, FILE *out, cm_error *error)
{
    return cm_inspect(path, out, error);
}

// An installed program finds share/checkmoe/fixtures beside its bin/, whether the sources still exist or not.
const char *cm_registry_fixtures(void)
{
    static const char place[] = "/../share/checkmoe/fixtures";
    static char installed[PATH_MAX];
    const char *folder = getenv("CHECKMOE_FIXTURES");
    if (folder && folder[0])
        return folder;
    ssize_t length = readlink("/proc/self/exe", installed, sizeof installed - sizeof place);
    installed[length > 0 ? length : 0] = 0;
    char *slash = strrchr(installed, '/');
    if (slash) {
        memcpy(slash, place, sizeof place);
        if (access(installed, R_OK) == 0)
            return installed;
    }
    return CM_FIXTURES_DIR;
}

const cm_op *cm_registry_find_op(const char *name, size_t length)
{
    for (const cm_op *const *op = ops; *op; op++)
        if (strlen((*op)->name) == length && !strncmp((*op)->name, name, length))
            return *op;
    return NULL;
}

const cm_check *cm_registry_find_check(const char *name, size_t length)
{
    for (const cm_check *const *check = checks; *check; check++)
        if (strlen((*check)->name) == length && !strncmp((*check)->name, name, length))
            return *check;
    return NULL;
}
