// SPDX-License-Identifier: Apache-2.0
// doctor's table. What is missing is never an error: the line says what is skipped without it, and where it
// comes from.
#include "harness/env.h"

#include "harness/registry.h"
#include "harness/site.h"
#include "harness/status.h"

#include <dlfcn.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct item {
    const char *name;
    bool here;
    char detail[160];    // version, path, or why it is not here
    const char *skipped; // without it
};

static void print_item(FILE *out, const struct item *item)
{
    fprintf(out, "  %-8s %-14s %s\n", item->here ? "here" : "MISSING", item->name, item->detail);
    if (!item->here)
        fprintf(out, "  %-8s %-14s -> %s\n", "", "", item->skipped);
}

// One line for a value: a text, a number, or "absent" with its reason.
static void print_fact(FILE *out, const char *name, const json_t *value)
{
    const char *reason = json_string_value(json_object_get(value, "absent"));
    fprintf(out, "  %-22s ", name);
    if (reason) {
        fprintf(out, "unknown: %s\n", reason);
    } else if (json_is_string(value)) {
        fprintf(out, "%s\n", json_string_value(value)[0] ? json_string_value(value) : "none");
    } else if (json_is_boolean(value)) {
        fprintf(out, "%s\n", json_is_true(value) ? "yes" : "no");
    } else if (json_is_array(value)) {
        for (size_t n = 0, column = 25; n < json_array_size(value); n++) {
            const char *word = json_string_value(json_array_get(value, n));
            column += strlen(word ? word : "") + 1;
            if (column > 105) {
                fprintf(out, "\n%25s", "");
                column = 25 + strlen(word ? word : "") + 1;
            }
            fprintf(out, "%s ", word ? word : "?");
        }
        fputc('\n', out);
    } else {
        char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        fprintf(out, "%s\n", text ? text : "?");
        free(text);
    }
}

static void print_facts(FILE *out, const json_t *environment)
{
    static const char *const paths[][2] = {{NULL, "version"},
                                           {NULL, "commit"},
                                           {NULL, "dirty"},
                                           {"build", "compiler"},
                                           {"build", "type"},
                                           {"build", "sanitizer"},
                                           {"cpu", "name"},
                                           {"cpu", "isa"},
                                           {"cpu", "hypervisor"},
                                           {"cpu", "governor"},
                                           {"cpu", "usable_threads"},
                                           {"topology", "packages"},
                                           {"topology", "cores"},
                                           {"topology", "numa_nodes"},
                                           {"topology", "l1d"},
                                           {"topology", "l2"},
                                           {"topology", "l3"},
                                           {NULL, "memory_bytes"},
                                           {"numerics", "flush_to_zero"},
                                           {"numerics", "denormals_are_zero"},
                                           {"numerics", "variables"},
                                           {"os", "kernel"},
                                           {"os", "glibc"},
                                           {NULL, "machine_key"},
                                           {NULL, "numeric_key"}};
    for (size_t n = 0; n < sizeof paths / sizeof *paths; n++) {
        const json_t *group = paths[n][0] ? json_object_get(environment, paths[n][0]) : environment;
        const json_t *value = json_object_get(group, paths[n][1]);
        if (value)
            print_fact(out, paths[n][1], value);
    }
}

static bool has_isa(const json_t *environment, const char *flag)
{
    const json_t *isa = json_object_get(json_object_get(environment, "cpu"), "isa");
    for (size_t n = 0; n < json_array_size(isa); n++)
        if (!strcmp(json_string_value(json_array_get(isa, n)), flag))
            return true;
    return false;
}

static void print_isa(FILE *out, const json_t *environment)
{
    static const char *const rows[][3] = {
        {"AVX2", "avx2", "the avx2 kernels are SKIP"},
        {"AVX-512", "avx512bw", "the avx512 kernels are SKIP"},
        {"AVX-512 VNNI", "avx512_vnni", "int8 and int4 kernels of avx512 are SKIP"},
        {"AVX-512 BF16", "avx512_bf16", "avx512 kernels that multiply in bf16 are SKIP"},
    };
    for (size_t n = 0; n < sizeof rows / sizeof *rows; n++) {
        struct item item = {
            .name = rows[n][0], .here = has_isa(environment, rows[n][1]), .skipped = rows[n][2]};
        snprintf(item.detail, sizeof item.detail, item.here ? "%s" : "%s is not among this CPU's flags",
                 rows[n][1]);
        print_item(out, &item);
    }
}

// The CPU flag alone is not enough: Linux hands out the tile registers on request.
static void print_amx(FILE *out, const json_t *environment)
{
    struct item item = {.name = "AMX", .skipped = "amx kernels don't run natively"};
    snprintf(item.detail, sizeof item.detail, "amx_tile is not among this CPU's flags");
#if defined(__x86_64__) && defined(SYS_arch_prctl)
    enum { ARCH_REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; // asm/prctl.h, XCR0 bit
    if (has_isa(environment, "amx_tile")) {
        item.here = syscall(SYS_arch_prctl, ARCH_REQUEST_PERMISSION, TILE_DATA) == 0;
        snprintf(item.detail, sizeof item.detail, "amx_tile%s%s%s",
                 has_isa(environment, "amx_int8") ? " int8" : "",
                 has_isa(environment, "amx_bf16") ? " bf16" : "",
                 item.here ? "" : ": the kernel refuses the tile registers");
    }
#else
    (void)environment;
#endif
    print_item(out, &item);
}

static void print_gpu(FILE *out)
{
    struct item item = {.name = "NVIDIA GPU",
                        .skipped = "CUDA kernels don't run natively; install NVIDIA's driver"};
    int count = 0, device = 0, status = -1;
    char name[96] = "";
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(item.detail, sizeof item.detail, "no libcuda.so.1: there is no driver");
        print_item(out, &item);
        return;
    }
    int (*init)(unsigned) = (int (*)(unsigned))dlsym(library, "cuInit");
    int (*get_count)(int *) = (int (*)(int *))dlsym(library, "cuDeviceGetCount");
    int (*get)(int *, int) = (int (*)(int *, int))dlsym(library, "cuDeviceGet");
    int (*get_name)(char *, int, int) = (int (*)(char *, int, int))dlsym(library, "cuDeviceGetName");
    if (init && get_count && get && get_name && (status = init(0)) == 0 &&
        (status = get_count(&count)) == 0 && count > 0 && (status = get(&device, 0)) == 0)
        status = get_name(name, sizeof name, device);
    item.here = status == 0 && count > 0;
    if (item.here)
        snprintf(item.detail, sizeof item.detail, "%d of them, the first: %s", count, name);
    else
        snprintf(item.detail, sizeof item.detail, "the driver answers %d and shows %d devices", status,
                 count);
    print_item(out, &item); // the library stays: unloading it is not safe
}

// Whether `program` lies on PATH or where the CUDA toolkit is installed; its place goes to `detail`.
static bool find_program(const char *program, char *detail, size_t size)
{
    const char *path = getenv("PATH"), *toolkit = getenv("CUDA_HOME");
    char *rest = NULL;
    char *folders =
        cm_text("%s:%s/bin", path ? path : "/usr/bin", toolkit && toolkit[0] ? toolkit : "/usr/local/cuda");
    bool found = false;
    for (char *folder = strtok_r(folders, ":", &rest); folder && !found;
         folder = strtok_r(NULL, ":", &rest)) {
        snprintf(detail, size, "%s/%s", folder, program);
        found = access(detail, X_OK) == 0;
    }
    free(folders);
    if (!found)
        snprintf(detail, size, "neither on PATH nor in CUDA's folder");
    return found;
}

static void print_programs(FILE *out)
{
    static const char *const rows[][2] = {
        {"nvcc",
         "CUDA kernels are left out of the build. nvcc is not in Debian's main archive: it comes from\n"
         "                             NVIDIA's apt repository (cuda-nvcc) or from Debian non-free\n"
         "                             (nvidia-cuda-toolkit)"},
        {"compute-sanitizer",
         "ci/gate runs no memcheck, racecheck and initcheck on a GPU; it comes with the CUDA\n"
         "                             toolkit (cuda-sanitizer)"},
        {"gnuplot", "reports have tables in place of plots; Debian: gnuplot-nox"},
        {"xmllint", "the test of the JUnit writer fails; Debian: libxml2-utils"},
    };
    for (size_t n = 0; n < sizeof rows / sizeof *rows; n++) {
        struct item item = {.name = rows[n][0], .skipped = rows[n][1]};
        item.here = find_program(rows[n][0], item.detail, sizeof item.detail);
        print_item(out, &item);
    }
}

// The kernels that are compiled for a GPU, and what their runtime says of this machine.
static void print_native(FILE *out)
{
    const cm_side *side = NULL;
    int count = 0;
    char reason[200] = "";
    for (const cm_kernel *const *kernel = cm_registry_kernels(); *kernel; kernel++) {
        const cm_side *own = cm_kernel_side(*kernel);
        if (!own || own->emulated)
            continue;
        side = own;
        count++;
    }
    struct item item = {.name = "native CUDA",
                        .here = side && (!side->available || side->available(reason, sizeof reason)),
                        .skipped = "CUDA kernels run on the emulated device: mode \"emulated\", no timing"};
    if (item.here)
        snprintf(item.detail, sizeof item.detail, "%d kernels for the GPU are in this program", count);
    else if (side)
        snprintf(item.detail, sizeof item.detail, "%d kernels are in this program, but %.100s", count,
                 reason);
    else
        snprintf(item.detail, sizeof item.detail,
                 "no kernel for a GPU is in this program: the preset cuda builds them");
    print_item(out, &item);
}

void cm_environment_print(FILE *out)
{
    char *text = cm_environment_json("doctor", 0, NULL);
    json_t *environment = json_loads(text, 0, NULL);
    fprintf(out, "this program and this machine\n");
    print_facts(out, environment);
    fprintf(out, "\nwhat kernels and reports can use\n");
    print_isa(out, environment);
    print_amx(out, environment);
    print_gpu(out);
    print_native(out);
    print_programs(out);
    json_decref(environment);
    free(text);
}
