// SPDX-License-Identifier: Apache-2.0
// Where a case's values come from when they are not generated: files on disk. A source fixes some dimensions
// and dtypes and fills the arguments that it has; the generators make the rest.
#ifndef CM_SOURCE_H
#define CM_SOURCE_H

#include "harness/status.h"
#include "harness/tensor.h"

// What to open: one layer of a model on disk.
typedef struct cm_source_options {
    const char *model;    // directory with config.json and safetensors
    const char *adapter;  // PEFT directory; NULL: base only
    int layer;            // from 0
    const char *recorded; // safetensors with hidden, topk_ids, ...; NULL: generated
    // How a fused adapter is read. Orientation: "in_first" or "out_first"; NULL: by the shapes. Order of the
    // columns of lora_B: "peft" (NULL) or "expert_major", which some trainers used.
    const char *lora_orientation, *lora_b_order;
} cm_source_options;

typedef struct cm_source {
    const char *op;             // name of the op whose arguments it fills
    int64_t dims[CM_DIM_COUNT]; // in the order of CM_DIM_LETTERS; -1: not fixed by the source
    int dtypes[128];            // by dtype variable: a cm_dtype, or -1: not fixed
    // Whether `argument` is present in the files; an optional argument that is not stays absent.
    bool (*has)(const struct cm_source *source, const char *argument);
    // Fills a tensor of the fixed dtype and shape (any strides; last dimension contiguous).
    cm_status (*fill)(const struct cm_source *source, const char *argument, const DLTensor *tensor,
                      cm_error *error);
    // What the model's own code computed for an output: a read-only view, valid until close. False: not
    // recorded.
    bool (*recorded)(const struct cm_source *source, const char *argument, cm_tensor *view);
    // What was found, for the person: one line each, '\n' between; owned by the source.
    const char *summary;
    char *arguments; // the command-line options that open it again, for repro lines
    void *self;
    void (*close)(struct cm_source *source); // accepts a zeroed one
} cm_source;

#endif
