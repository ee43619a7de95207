// SPDX-License-Identifier: Apache-2.0
// The environment line of a record file. Two keys summarise it: times compare only under the same machine
// key, and results may differ between numeric keys.
#include "harness/env.h"

#include "harness/record.h"

#include <gnu/libc-version.h>
#include <hwloc.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#ifndef CM_VERSION
#define CM_VERSION "0.1.0"
#endif
#ifndef CM_COMMIT
#define CM_COMMIT "" // git describe --always --dirty
#endif
#ifndef CM_BUILD
#define CM_BUILD "" // CMake's build type, then the sanitizers
#endif
#if defined(CM_HAVE_NVCC)
#define HAVE_NVCC 1
#else
#define HAVE_NVCC 0
#endif

static const char *const isa_flags[] = {"sse4_2",
                                        "avx",
                                        "avx2",
                                        "fma",
                                        "f16c",
                                        "bmi2",
                                        "avx_vnni",
                                        "avx512f",
                                        "avx512bw",
                                        "avx512cd",
                                        "avx512dq",
                                        "avx512vl",
                                        "avx512ifma",
                                        "avx512vbmi",
                                        "avx512_vbmi2",
                                        "avx512_vnni",
                                        "avx512_bf16",
                                        "avx512_fp16",
                                        "avx512_bitalg",
                                        "amx_tile",
                                        "amx_int8",
                                        "amx_bf16",
                                        "amx_fp16",
                                        "asimd",
                                        "asimddp",
                                        "bf16",
                                        "i8mm",
                                        "sve",
                                        "avx512_vpopcntdq",
                                        "avx512_vp2intersect"};

static const char *const variables[] = {
    "OMP_NUM_THREADS",         "OMP_PROC_BIND",        "OMP_PLACES",           "OMP_DYNAMIC",
    "OMP_WAIT_POLICY",         "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE",    "GOTO_NUM_THREADS",
    "MKL_NUM_THREADS",         "KMP_AFFINITY",         "ONEDNN_MAX_CPU_ISA",   "DNNL_MAX_CPU_ISA",
    "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "CUDA_VISIBLE_DEVICES", "MALLOC_PERTURB_"};

// A missing value is an object with the reason; NULL values (no valid UTF-8, no memory) become one too.
static json_t *absent(const char *reason)
{
    return json_pack("{s:s}", "absent", reason);
}

static void set(json_t *object, const char *key, json_t *value)
{
    json_object_set_new(object, key, value ? value : absent("not valid UTF-8"));
}

static json_t *text_or_absent(const char *text, const char *reason)
{
    return text && text[0] ? json_string(text) : absent(reason);
}

static json_t *code_value(void)
{
    const char *suffix = strstr(CM_COMMIT, "-dirty");
    json_t *object = json_object();
    set(object, "version", json_string(CM_VERSION));
    if (CM_COMMIT[0]) {
        size_t length = suffix ? (size_t)(suffix - CM_COMMIT) : strlen(CM_COMMIT);
        set(object, "commit", json_stringn(CM_COMMIT, length));
        set(object, "dirty", json_boolean(suffix != NULL));
    } else {
        set(object, "commit", absent("not built from a git checkout"));
        set(object, "dirty", absent("not built from a git checkout"));
    }
    return object;
}

static json_t *build_value(void)
{
    static const char *const types[] = {"Release", "RelWithDebInfo", "MinSizeRel", "Debug"};
    json_t *object = json_object();
    size_t length = 0;
    for (size_t n = 0; n < sizeof types / sizeof *types; n++)
        if (!strncasecmp(CM_BUILD, types[n], strlen(types[n])))
            length = strlen(types[n]);
    const char *sanitizer = &CM_BUILD[length];
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
    sanitizer = sanitizer[0] ? sanitizer : "address";
#endif
#elif defined(__SANITIZE_ADDRESS__)
    sanitizer = sanitizer[0] ? sanitizer : "address";
#endif
#if defined(__clang__)
    set(object, "compiler", json_string("clang " __clang_version__));
#else
    set(object, "compiler", json_string("gcc " __VERSION__));
#endif
    set(object, "type", length ? json_stringn(CM_BUILD, length) : absent("no build type was set"));
#if defined(__OPTIMIZE__)
    set(object, "optimized", json_true());
#else
    set(object, "optimized", json_false());
#endif
    set(object, "sanitizer", json_string(sanitizer + strspn(sanitizer, "+- ")));
    set(object, "nvcc", json_boolean(HAVE_NVCC));
    return object;
}

// The text behind "key : " in the first block of /proc/cpuinfo, "" if it isn't there.
static void find_line(const char *all, const char *key, char *to, size_t size)
{
    size_t length = strlen(key);
    to[0] = 0;
    for (const char *line = all; line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, key, length) || !colon || line + length + strspn(line + length, " \t") != colon)
            continue;
        colon += 1 + (colon[1] == ' ');
        snprintf(to, size, "%.*s", (int)strcspn(colon, "\n"), colon);
        return;
    }
}

static bool has_word(const char *words, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = words; (at = strstr(at, word)) != NULL; at += length)
        if ((at == words || at[-1] == ' ') && (at[length] == 0 || at[length] == ' '))
            return true;
    return false;
}

static json_t *file_text(const char *path, const char *reason)
{
    char text[128] = "";
    FILE *file = fopen(path, "r");
    if (file) {
        if (!fgets(text, sizeof text, file))
            text[0] = 0;
        fclose(file);
    }
    text[strcspn(text, "\n")] = 0;
    return text_or_absent(text, reason);
}

static json_t *cpu_value(void)
{
    static const char *const keys[][2] = {{"vendor", "vendor_id"}, {"family", "cpu family"},
                                          {"model", "model"},      {"stepping", "stepping"},
                                          {"name", "model name"},  {"microcode", "microcode"}};
    json_t *object = json_object(), *isa = json_array();
    char *all = cm_new(1, 1 << 16), *flags = cm_new(1, 8192), text[256];
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (file) {
        size_t length = fread(all, 1, (1 << 16) - 1, file);
        all[length] = 0;
        fclose(file);
    }
    for (size_t n = 0; n < sizeof keys / sizeof *keys; n++) {
        find_line(all, keys[n][1], text, sizeof text);
        set(object, keys[n][0], text_or_absent(text, "not in /proc/cpuinfo"));
    }
    find_line(all, "flags", flags, 8192);
    if (!flags[0])
        find_line(all, "Features", flags, 8192); // AArch64
    for (size_t n = 0; n < sizeof isa_flags / sizeof *isa_flags; n++)
        if (has_word(flags, isa_flags[n]))
            json_array_append_new(isa, json_string(isa_flags[n]));
    set(object, "isa", isa);
    set(object, "hypervisor", json_boolean(has_word(flags, "hypervisor")));
    set(object, "governor",
        file_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
                  "no cpufreq here, as in most virtual machines"));
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0)
        set(object, "usable_threads", json_integer(CPU_COUNT(&allowed)));
    free(flags);
    free(all);
    return object;
}

static json_t *cache_value(hwloc_topology_t topology, hwloc_obj_type_t type)
{
    int count = hwloc_get_nbobjs_by_type(topology, type);
    hwloc_obj_t cache = count > 0 ? hwloc_get_obj_by_type(topology, type, 0) : NULL;
    if (!cache)
        return absent("hwloc sees none");
    return json_pack("{s:I,s:i}", "bytes", (json_int_t)cache->attr->cache.size, "count", count);
}

static json_t *topology_value(void)
{
    hwloc_topology_t topology;
    if (hwloc_topology_init(&topology) != 0)
        return absent("hwloc could not start");
    // No devices: their discovery may load driver libraries.
    hwloc_topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_NONE);
    if (hwloc_topology_load(topology) != 0) {
        hwloc_topology_destroy(topology);
        return absent("hwloc could not read the topology");
    }
    json_t *object = json_object();
    set(object, "packages", json_integer(hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PACKAGE)));
    set(object, "cores", json_integer(hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE)));
    set(object, "threads", json_integer(hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PU)));
    set(object, "numa_nodes", json_integer(hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE)));
    set(object, "l1d", cache_value(topology, HWLOC_OBJ_L1CACHE));
    set(object, "l2", cache_value(topology, HWLOC_OBJ_L2CACHE));
    set(object, "l3", cache_value(topology, HWLOC_OBJ_L3CACHE));
    hwloc_topology_destroy(topology);
    return object;
}

static json_t *numerics_value(void)
{
    json_t *object = json_object(), *set_variables = json_object();
#if defined(__x86_64__)
    static const char *const roundings[] = {"nearest", "down", "up", "zero"};
    unsigned mode = _mm_getcsr();
    set(object, "flush_to_zero", json_boolean(mode & (1u << 15)));
    set(object, "denormals_are_zero", json_boolean(mode & (1u << 6)));
    set(object, "rounding", json_string(roundings[mode >> 13 & 3]));
#else
    set(object, "flush_to_zero", absent("read on x86-64 only"));
#endif
    for (size_t n = 0; n < sizeof variables / sizeof *variables; n++)
        if (getenv(variables[n]))
            set(set_variables, variables[n], json_string(getenv(variables[n])));
    set(object, "variables", set_variables);
    return object;
}

static json_t *os_value(void)
{
    struct utsname names;
    json_t *object = json_object();
    if (uname(&names) == 0) { // names.nodename stays out
        set(object, "kernel", json_string(names.release));
        set(object, "machine", json_string(names.machine));
    }
    set(object, "glibc", json_string(gnu_get_libc_version()));
    return object;
}

// First 12 hexadecimal digits of the SHA-256 of the parts' JSON with sorted keys.
static json_t *key_of(json_t *parts)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    char *text = json_dumps(parts, JSON_COMPACT | JSON_SORT_KEYS), key[13] = "";
    bool hashed = text && EVP_Digest(text, strlen(text), digest, &size, EVP_sha256(), NULL) == 1;
    for (unsigned n = 0; hashed && n < 6; n++)
        snprintf(key + 2 * n, 3, "%02x", digest[n]);
    free(text);
    json_decref(parts);
    return text_or_absent(key, "libcrypto has no SHA-256");
}

// Without microcode and governor: they change on a machine that stays the same.
static json_t *machine_key(json_t *cpu, json_t *topology, const json_t *os)
{
    const char *release = json_string_value(json_object_get(os, "kernel"));
    json_t *stable = json_copy(cpu);
    json_object_del(stable, "microcode");
    json_object_del(stable, "governor");
    return key_of(json_pack("{s:o,s:O,s:i}", "cpu", stable, "topology", topology, "kernel",
                            release ? atoi(release) : 0));
}

static json_t *arguments_value(int argc, char *const *argv)
{
    json_t *array = json_array();
    for (int n = 0; n < argc; n++) {
        json_t *text = json_string(argv[n]);
        json_array_append_new(array, text ? text : absent("not valid UTF-8"));
    }
    return array;
}

static json_t *start_value(void)
{
    char text[32];
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
    return json_string(text);
}

char *cm_environment_json(const char *run, int argc, char *const *argv)
{
    json_t *object = json_object(), *code = code_value(), *build = build_value(), *cpu = cpu_value();
    json_t *topology = topology_value(), *numerics = numerics_value(), *os = os_value();
    long long memory = (long long)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    set(object, "schema", json_string(CM_SCHEMA_ENV));
    set(object, "run", json_string(run ? run : ""));
    json_object_update(object, code);
    set(object, "start", start_value());
    set(object, "argv", arguments_value(argc, argv));
    set(object, "machine_key", machine_key(cpu, topology, os));
    set(object, "numeric_key",
        key_of(json_pack("{s:O,s:O,s:O,s:O,s:O}", "code", code, "build", build, "isa",
                         json_object_get(cpu, "isa"), "numerics", numerics, "glibc",
                         json_object_get(os, "glibc"))));
    set(object, "build", build);
    set(object, "cpu", cpu);
    set(object, "topology", topology);
    set(object, "memory_bytes", json_integer(memory));
    set(object, "numerics", numerics);
    set(object, "os", os);
    set(object, "gpu",
        absent(HAVE_NVCC ? "the process that records does not touch the driver; see doctor"
                         : "built without nvcc: no CUDA kernel is in this program"));
    json_decref(code);
    char *text = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    if (!text)
        cm_broken("the environment could not be written as JSON");
    return text;
}
