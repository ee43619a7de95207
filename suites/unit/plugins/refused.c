// SPDX-License-Identifier: Apache-2.0
// Plug-ins that must be refused with a sentence. CMake builds one library for each REFUSED_..., and each
// differs in one thing from a plug-in that would be taken.
#include <checkmoe.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef REFUSED_abort
__attribute__((constructor)) static void load(void)
{
    fprintf(stderr, "first line\nno licence found\n");
    abort();
}
#endif
#ifdef REFUSED_exit
__attribute__((constructor)) static void load(void)
{
    exit(0);
}
#endif
#ifdef REFUSED_undefined
void a_function_that_nobody_has(void);
__attribute__((constructor)) static void load(void)
{
    a_function_that_nobody_has();
}
#endif

#ifdef REFUSED_path_endless
static const cm_path endless[] = {{"a", ""}, {"b", ""}, {"c", ""}, {"d", ""}, {"e", ""}, {"f", ""},
                                  {"g", ""}, {"h", ""}, {"i", ""}, {"j", ""}, {"k", ""}, {"l", ""},
                                  {"m", ""}, {"n", ""}, {"o", ""}, {"p", ""}, {"q", ""}, {0}};
#endif

static cm_status run(const cm_call *call, void *state)
{
    (void)state;
    return call->host->fail(call, CM_UNSUPPORTED, "only here to be refused");
}

static const cm_kernel kernel = {
    .size = sizeof(cm_kernel),
    .name = "sgmv_plan/refused",
    .file = __FILE__,
    .line = __LINE__,
    .run = run,
#ifdef REFUSED_old_size
    .size = sizeof(cm_kernel) - sizeof(void *),
#endif
#ifdef REFUSED_unknown_op
    .name = "sgmv_fold/refused",
#endif
#ifdef REFUSED_no_target
    .name = "sgmv_plan",
#endif
#ifdef REFUSED_taken_name
    .name = "sgmv_plan/naive",
#endif
#ifdef REFUSED_no_run
    .run = NULL,
#endif
#ifdef REFUSED_accuracy
    .accuracy = (cm_accuracy)7,
#endif
#ifdef REFUSED_alignment
    .alignment = 48,
#endif
#ifdef REFUSED_device
    .device = kDLMetal,
#endif
#ifdef REFUSED_path_twice
    .paths = (const cm_path[]){{"tiles", ""}, {"tiles", ""}, {0}},
#endif
#ifdef REFUSED_path_endless
    .paths = endless,
#endif
#ifdef REFUSED_switch_point
    .switch_points = (const cm_switch_point[]){{"H", 16, "no such dimension"}, {0}},
#endif
};

#ifdef REFUSED_other_abi
#define ENTRY checkmoe_plugin_2
#elif defined(REFUSED_no_symbol)
#define ENTRY checkmoe_kernels
#else
#define ENTRY checkmoe_plugin_1
#endif

const cm_kernel *const *ENTRY(uint32_t abi_version);
const cm_kernel *const *ENTRY(uint32_t abi_version)
{
    static const cm_kernel *const kernels[] = {
#ifdef REFUSED_garbage
        (const cm_kernel *)16,
#endif
#ifdef REFUSED_empty
        NULL,
#endif
        &kernel,
#ifdef REFUSED_twice
        &kernel,
#endif
        NULL};
#ifdef REFUSED_hang
    for (;;)
        pause();
#endif
#ifdef REFUSED_null
    abi_version = 0;
#endif
    return abi_version == CM_ABI_VERSION ? kernels : NULL;
}
