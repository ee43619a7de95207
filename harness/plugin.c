// SPDX-License-Identifier: Apache-2.0
#include "harness/plugin.h"

#include "harness/paths.h"
#include "harness/registry.h"

#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PROBE_SECONDS = 10, LARGEST_ALIGNMENT = 4096 };

// What the probing child was doing, should it not come back.
enum progress { LOADING, ENTERING, READING, FINISHED };
static const char *const progress_words[] = {"while it was loaded", "in " CM_PLUGIN_SYMBOL "()",
                                             "while its descriptors were read"};

// Plain memory that the probing child shares with its parent.
struct probe {
    volatile int progress;
    cm_status status;
    cm_error error;
    int count;
    struct {
        cm_kernel kernel; // without pointers
        char name[sizeof((cm_plugin_kernel *)0)->name], file[sizeof((cm_plugin_kernel *)0)->file];
        cm_plugin_paths declared;
    } kernels[CM_MAX_PLUGIN_KERNELS];
};

static void *find_entry(const char *path, void *library, cm_error *error)
{
    void *entry = dlsym(library, CM_PLUGIN_SYMBOL);
    for (int version = 0; !entry && version < 10; version++) {
        char symbol[32];
        snprintf(symbol, sizeof symbol, "checkmoe_plugin_%d", version);
        if (version != CM_ABI_VERSION && dlsym(library, symbol)) {
            cm_fail(error, CM_UNSUPPORTED,
                    "plug-in %s: built for ABI %d, this checkmoe has %d; build it again with this checkmoe's "
                    "header",
                    path, version, CM_ABI_VERSION);
            return NULL;
        }
    }
    if (!entry)
        cm_fail(error, CM_BAD_FILE,
                "plug-in %s: exports no symbol \"%s\"; it needs const cm_kernel *const *%s(uint32_t), "
                "extern \"C\" in C++ and not hidden",
                path, CM_PLUGIN_SYMBOL, CM_PLUGIN_SYMBOL);
    return entry;
}

static cm_status open_library(const char *path, volatile int *progress, const cm_kernel *const **kernels,
                              cm_error *error)
{
    char *whole = realpath(path, NULL); // dlopen looks for a bare name elsewhere
    if (!whole)
        return cm_fail(error, CM_BAD_FILE, "plug-in %s: cannot be opened (%s)", path, strerror(errno));
    void *library = dlopen(whole, RTLD_NOW | RTLD_LOCAL);
    free(whole);
    if (!library)
        return cm_fail(error, CM_BAD_FILE, "plug-in %s: cannot be loaded: %s", path, dlerror());
    cm_plugin_entry entry;
    void *symbol = find_entry(path, library, error);
    if (!symbol)
        return CM_UNSUPPORTED;
    memcpy(&entry, &symbol, sizeof entry);
    *progress = ENTERING;
    *kernels = entry(CM_ABI_VERSION);
    *progress = READING;
    if (!*kernels)
        return cm_fail(error, CM_UNSUPPORTED,
                       "plug-in %s: %s(%d) returned NULL: the plug-in cannot serve ABI %d", path,
                       CM_PLUGIN_SYMBOL, CM_ABI_VERSION, CM_ABI_VERSION);
    if (!**kernels)
        return cm_fail(error, CM_BAD_FILE, "plug-in %s: its list of kernels is empty", path);
    return CM_OK;
}

static bool is_built_in(const char *name)
{
    for (const cm_kernel *const *kernel = cm_registry_kernels(); *kernel; kernel++)
        if (!strcmp((*kernel)->name, name))
            return true;
    return false;
}

static cm_status check_name(const char *path, const cm_kernel *const *kernels, int n, cm_error *error)
{
    const char *name = kernels[n]->name;
    size_t op = name ? strcspn(name, "/") : 0, length = name ? strlen(name) : 0;
    bool plain = name && name[op] && name[op + 1] && length < sizeof((cm_plugin_kernel *)0)->name;
    for (const char *c = name; plain && *c; c++)
        plain = isalnum((unsigned char)*c) || *c == '_' || *c == '-' || c == name + op;
    if (!plain)
        return cm_fail(error, CM_BAD_VALUE,
                       "plug-in %s: kernel %d is called \"%.95s\"; a name is \"op/target\", in letters, "
                       "digits, \"_\" and \"-\"",
                       path, n, name ? name : "");
    if (!cm_registry_find_op(name, op))
        return cm_fail(
            error, CM_BAD_VALUE,
            "plug-in %s: kernel \"%s\": there is no op \"%.*s\"; \"checkmoe list --ops\" shows them", path,
            name, (int)op, name);
    if (is_built_in(name))
        return cm_fail(error, CM_BAD_VALUE,
                       "plug-in %s: kernel \"%s\": checkmoe has a kernel of that name; choose another target",
                       path, name);
    for (int other = 0; other < n; other++)
        if (!strcmp(kernels[other]->name, name))
            return cm_fail(error, CM_BAD_VALUE, "plug-in %s: two kernels are called \"%s\"", path, name);
    return CM_OK;
}

static cm_status check_kernel(const char *path, const cm_kernel *const *kernels, int n, cm_error *error)
{
    const cm_kernel *kernel = kernels[n];
    if (kernel->size < sizeof *kernel) // structs grow at their end
        return cm_fail(error, CM_BAD_VALUE,
                       "plug-in %s: kernel %d has size %zu, cm_kernel has %zu; set .size = sizeof(cm_kernel)",
                       path, n, kernel->size, sizeof *kernel);
    cm_status status = check_name(path, kernels, n, error);
    if (status != CM_OK)
        return status;
    if (!kernel->run)
        return cm_fail(error, CM_BAD_VALUE, "plug-in %s: kernel \"%s\" has no run function", path,
                       kernel->name);
    if ((unsigned)kernel->accuracy > CM_ACCURACY_SINGLE)
        return cm_fail(error, CM_BAD_VALUE, "plug-in %s: kernel \"%s\": there is no accuracy %d", path,
                       kernel->name, (int)kernel->accuracy);
    if (kernel->alignment < 0 || kernel->alignment > LARGEST_ALIGNMENT ||
        kernel->alignment & (kernel->alignment - 1))
        return cm_fail(error, CM_BAD_VALUE,
                       "plug-in %s: kernel \"%s\": alignment %d is no power of two up to %d", path,
                       kernel->name, kernel->alignment, LARGEST_ALIGNMENT);
    if (kernel->device != 0 && kernel->device != kDLCPU)
        return cm_fail(
            error, CM_UNSUPPORTED,
            "plug-in %s: kernel \"%s\" needs arguments on device type %d; plug-ins get host memory", path,
            kernel->name, kernel->device);
    char reason[160];
    if (cm_paths_wrong(kernel, cm_registry_find_op(kernel->name, strcspn(kernel->name, "/")), reason,
                       sizeof reason))
        return cm_fail(error, CM_BAD_VALUE, "plug-in %s: kernel \"%s\": %s", path, kernel->name, reason);
    return CM_OK;
}

// In the probing child: the texts, of which all pointers are followed here.
static void copy_paths(const cm_kernel *kernel, cm_plugin_paths *declared)
{
    for (int n = 0; n < cm_paths_count(kernel); n++) {
        const cm_path *path = &kernel->paths[n];
        snprintf(declared->names[n], sizeof declared->names[n], "%s", path->name);
        snprintf(declared->meanings[n], sizeof declared->meanings[n], "%s",
                 path->meaning ? path->meaning : "");
        declared->path_count = n + 1;
    }
    for (const cm_switch_point *point = kernel->switch_points; point && point->quantity; point++) {
        int n = declared->point_count++;
        snprintf(declared->quantities[n], sizeof declared->quantities[n], "%s", point->quantity);
        snprintf(declared->reasons[n], sizeof declared->reasons[n], "%s",
                 point->meaning ? point->meaning : "");
        declared->firsts[n] = point->first;
    }
}

// In the parent: as a descriptor has them, whatever the child did to the texts.
static void take_paths(const cm_plugin_paths *from, cm_plugin_kernel *item)
{
    cm_plugin_paths *to = &item->declared;
    *to = *from;
    for (int n = 0; n < to->path_count && n < CM_MAX_PATHS; n++) {
        to->names[n][sizeof to->names[n] - 1] = to->meanings[n][sizeof to->meanings[n] - 1] = 0;
        to->paths[n] = (cm_path){to->names[n], to->meanings[n]};
        to->paths[n + 1] = (cm_path){0};
    }
    for (int n = 0; n < to->point_count && n < 2 * CM_MAX_PATHS; n++) {
        to->quantities[n][sizeof to->quantities[n] - 1] = to->reasons[n][sizeof to->reasons[n] - 1] = 0;
        to->points[n] = (cm_switch_point){to->quantities[n], to->firsts[n], to->reasons[n]};
        to->points[n + 1] = (cm_switch_point){0};
    }
    item->kernel.paths = to->path_count > 0 ? to->paths : NULL;
    item->kernel.switch_points = to->point_count > 0 ? to->points : NULL;
}

static cm_status read_plugin(const char *path, struct probe *probe)
{
    const cm_kernel *const *kernels;
    cm_status status = open_library(path, &probe->progress, &kernels, &probe->error);
    for (int n = 0; status == CM_OK && kernels[n]; n++) {
        if (n == CM_MAX_PLUGIN_KERNELS)
            return cm_fail(&probe->error, CM_BAD_VALUE,
                           "plug-in %s: more than %d kernels, or no NULL behind the last one", path, n);
        status = check_kernel(path, kernels, n, &probe->error);
        if (status != CM_OK)
            return status;
        cm_kernel *kernel = &probe->kernels[n].kernel;
        *kernel = *kernels[n];
        kernel->name = kernel->file = NULL; // what it points to stays in this process
        kernel->supports = NULL;
        kernel->prepare = NULL;
        kernel->update = kernel->run = NULL;
        kernel->release = NULL;
        kernel->side = NULL;
        kernel->emulated = NULL;
        kernel->paths = NULL;
        kernel->switch_points = NULL;
        copy_paths(kernels[n], &probe->kernels[n].declared);
        snprintf(probe->kernels[n].name, sizeof probe->kernels[n].name, "%s", kernels[n]->name);
        snprintf(probe->kernels[n].file, sizeof probe->kernels[n].file, "%s",
                 kernels[n]->file ? kernels[n]->file : path);
        probe->count = n + 1;
    }
    return status;
}

static _Noreturn void run_probe(const char *path, struct probe *probe, int output)
{
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS};
    setpgid(0, 0); // what the plug-in starts ends with it
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (size_t n = 0; n < sizeof fatal / sizeof *fatal; n++)
        signal(fatal[n], SIG_DFL); // a sanitizer would turn them into an exit status
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    if (output >= 0) {
        dup2(output, STDOUT_FILENO);
        dup2(output, STDERR_FILENO);
    }
    probe->status = read_plugin(path, probe);
    probe->progress = FINISHED;
    _exit(0);
}

// Waits for the child; false: it didn't come back in time and was ended.
static bool wait_for(pid_t child, int *result)
{
    for (int ms = 0; ms < 1000 * PROBE_SECONDS; ms += 5) {
        pid_t ended = waitpid(child, result, WNOHANG);
        if (ended == child || (ended < 0 && errno != EINTR))
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    kill(-child, SIGKILL);
    kill(child, SIGKILL); // before it had a group of its own
    while (waitpid(child, result, 0) < 0 && errno == EINTR)
        ;
    return false;
}

// The last line of what the child printed, behind `start`; "" if nothing.
static void last_line(int output, const char *start, char *text, size_t size)
{
    char tail[256];
    off_t end = output >= 0 ? lseek(output, 0, SEEK_END) : 0;
    off_t begin = end > (off_t)sizeof tail - 1 ? end - (off_t)sizeof tail + 1 : 0;
    ssize_t length = end > 0 ? pread(output, tail, sizeof tail - 1, begin) : 0;
    while (length > 0 && tail[length - 1] == '\n')
        length--;
    tail[length > 0 ? length : 0] = 0;
    char *line = strrchr(tail, '\n');
    snprintf(text, size, "%s%s", tail[0] ? start : "", line ? line + 1 : tail);
}

static cm_status probe_plugin(const char *path, struct probe *probe, cm_error *error)
{
    char printed[300];
    int result = 0, output = memfd_create("plug-in output", MFD_CLOEXEC);
    memset(probe, 0, sizeof *probe);
    fflush(NULL);
    pid_t child = fork();
    if (child < 0)
        cm_broken("no process to probe a plug-in in (%s)", strerror(errno));
    if (child == 0)
        run_probe(path, probe, output);
    bool in_time = wait_for(child, &result);
    last_line(output, "; it printed: ", printed, sizeof printed);
    if (output >= 0)
        close(output);
    if (probe->progress == FINISHED)
        return probe->status == CM_OK ? CM_OK : cm_fail(error, probe->status, "%s", probe->error.message);
    const char *when = progress_words[probe->progress];
    if (!in_time)
        return cm_fail(error, CM_BAD_FILE, "plug-in %s: did not come back within %d s %s%s", path,
                       PROBE_SECONDS, when, printed);
    if (WIFSIGNALED(result)) {
        const char *name = sigabbrev_np(WTERMSIG(result));
        return cm_fail(error, CM_BAD_FILE, "plug-in %s: crashed (SIG%s) %s%s", path, name ? name : "?", when,
                       printed);
    }
    return cm_fail(error, CM_BAD_FILE, "plug-in %s: ended its process with exit status %d %s%s", path,
                   WEXITSTATUS(result), when, printed);
}

// Takes over what the probe found.
static cm_status add_plugin(const char *path, const struct probe *probe, cm_plugins *plugins, cm_error *error)
{
    for (int n = 0; n < probe->count && n < CM_MAX_PLUGIN_KERNELS; n++) {
        for (size_t other = 0; other < plugins->count; other++)
            if (!strcmp(plugins->items[other].name, probe->kernels[n].name))
                return cm_fail(error, CM_BAD_VALUE,
                               "plug-in %s: kernel \"%s\": plug-in %s has a kernel of that name", path,
                               probe->kernels[n].name, plugins->items[other].path);
        cm_plugin_kernel *item = &plugins->items[plugins->count++];
        item->kernel = probe->kernels[n].kernel;
        item->path = path;
        memcpy(item->name, probe->kernels[n].name, sizeof item->name);
        memcpy(item->file, probe->kernels[n].file, sizeof item->file);
        item->name[sizeof item->name - 1] = item->file[sizeof item->file - 1] = 0; // whatever it did there
        item->kernel.name = item->name;
        item->kernel.file = item->file;
        take_paths(&probe->kernels[n].declared, item);
    }
    return CM_OK;
}

cm_status cm_plugins_open(const char *const *paths, bool alone, cm_plugins *plugins, cm_error *error)
{
    cm_status status = CM_OK;
    size_t files = 0, built_in = 0, used = 0;
    struct probe *probe = NULL;
    *plugins = (cm_plugins){0};
    while (paths && paths[files])
        files++;
    while (cm_registry_kernels()[built_in])
        built_in++;
    if (files) { // the items must not move: their kernels point into them
        plugins->items = cm_new(files * CM_MAX_PLUGIN_KERNELS, sizeof *plugins->items);
        probe = mmap(NULL, sizeof *probe, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (probe == MAP_FAILED)
            cm_broken("no memory to probe plug-ins");
    }
    for (size_t n = 0; n < files; n++) {
        CM_TRY(probe_plugin(paths[n], probe, error));
        CM_TRY(add_plugin(paths[n], probe, plugins, error));
    }
    plugins->kernels = cm_new(built_in + plugins->count + 1, sizeof *plugins->kernels);
    for (size_t n = 0; n < built_in && !(alone && files); n++)
        plugins->kernels[used++] = cm_registry_kernels()[n];
    for (size_t n = 0; n < plugins->count; n++)
        plugins->kernels[used++] = &plugins->items[n].kernel;
done:
    if (probe)
        munmap(probe, sizeof *probe);
    if (status != CM_OK)
        cm_plugins_close(plugins);
    return status;
}

cm_status cm_plugins_require(const cm_plugins *plugins, const char *wanted, cm_error *error)
{
    bool found = !wanted;
    for (const cm_kernel *const *kernel = plugins->kernels; *kernel && !found; kernel++)
        found = !strcmp((*kernel)->name, wanted);
    return found ? CM_OK
                 : cm_fail(error, CM_BAD_VALUE,
                           "there is no kernel \"%s\"; \"checkmoe list --kernels\" shows them", wanted);
}

void cm_plugins_close(cm_plugins *plugins)
{
    free(plugins->items);
    free(plugins->kernels);
    *plugins = (cm_plugins){0};
}

const char *cm_plugins_path(const cm_plugins *plugins, const cm_kernel *kernel)
{
    for (size_t n = 0; n < plugins->count; n++)
        if (kernel == &plugins->items[n].kernel)
            return plugins->items[n].path;
    return NULL;
}

cm_status cm_plugin_load(const char *path, const char *name, cm_kernel *kernel, cm_error *error)
{
    volatile int progress = LOADING;
    const cm_kernel *const *kernels;
    cm_status status = open_library(path, &progress, &kernels, error);
    if (status != CM_OK)
        return status;
    for (; *kernels; kernels++)
        if ((*kernels)->name && !strcmp((*kernels)->name, name)) {
            *kernel = **kernels;
            return CM_OK;
        }
    return cm_fail(error, CM_BAD_FILE, "plug-in %s: has no kernel \"%s\" any more", path, name);
}
