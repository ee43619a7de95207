// SPDX-License-Identifier: Apache-2.0
// The cases of a bench that names layers and formats of weights in place of a case.
#ifndef CM_BENCH_LAYERS_H
#define CM_BENCH_LAYERS_H

#include "harness/registry.h"

// The pattern of every layer with every format, without T, one adapter of that rank for all tokens (0: none).
// `layers`: names or models' names, comma between; `formats` (NULL: bf16): bf16 or names. Free with free().
cm_status cm_bench_layers(const char *layers, const char *formats, int64_t rank, char **pattern,
                          cm_error *error);

#endif
