// SPDX-License-Identifier: Apache-2.0
// Kernels of plug-ins: shared libraries that know checkmoe.h and nothing else. Only children load them: one
// that probes what a library has, and one for each test. The parent sees copies of the descriptors.
#ifndef CM_PLUGIN_H
#define CM_PLUGIN_H

#include "harness/status.h"

enum { CM_MAX_PLUGINS = 16, CM_MAX_PLUGIN_KERNELS = 64 };

// Paths and switch points as the probe copied them: text first, pointers to it in the parent alone.
typedef struct cm_plugin_paths {
    int path_count, point_count;
    char names[CM_MAX_PATHS][32], meanings[CM_MAX_PATHS][128];
    char quantities[2 * CM_MAX_PATHS][32], reasons[2 * CM_MAX_PATHS][128];
    int64_t firsts[2 * CM_MAX_PATHS];
    cm_path paths[CM_MAX_PATHS + 1];
    cm_switch_point points[2 * CM_MAX_PATHS + 1];
} cm_plugin_paths;

typedef struct cm_plugin_kernel {
    cm_kernel kernel; // what the probe reported; its functions are NULL
    const char *path; // of the plug-in, not owned
    char name[96], file[256];
    cm_plugin_paths declared;
} cm_plugin_kernel;

// The kernels that a run may choose from.
typedef struct cm_plugins {
    cm_plugin_kernel *items; // owned
    size_t count;
    const cm_kernel **kernels; // NULL-terminated, owned: those of the plug-ins behind the built-in ones
} cm_plugins;

// Probes each of `paths` (NULL-terminated, must outlive `plugins`; NULL: none) in a child process. `alone`:
// without the built-in kernels, if there is any plug-in. Refused: whatever is no plug-in for this ABI.
cm_status cm_plugins_open(const char *const *paths, bool alone, cm_plugins *plugins, cm_error *error);
// Refuses a kernel that is neither built in nor in a plug-in; NULL: none is asked for.
cm_status cm_plugins_require(const cm_plugins *plugins, const char *kernel, cm_error *error);
void cm_plugins_close(cm_plugins *plugins);

const char *cm_plugins_path(const cm_plugins *plugins, const cm_kernel *kernel); // NULL: built in

// Loads a plug-in into this process, for good, and copies a descriptor with its functions. In children only.
cm_status cm_plugin_load(const char *path, const char *name, cm_kernel *kernel, cm_error *error);

#endif
