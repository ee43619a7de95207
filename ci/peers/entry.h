/* SPDX-License-Identifier: Apache-2.0
   The CUDA kernels for callers that have their own tensors on the device, such as Python: no harness, no
   checks. The caller validates; a call's tensors must stay while it is used. One thread at a time. */
#ifndef CHECKMOE_ENTRY_H
#define CHECKMOE_ENTRY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct checkmoe_call checkmoe_call;

/* NULL: there is no such kernel, or its device is not here; the sentence goes to `error`. */
checkmoe_call *checkmoe_open(const char *kernel, char *error, size_t error_size);
/* The functions below return 0, or -1 with a sentence in checkmoe_error(). */
/* An argument of the op's table: dtype is that of harness/checkmoe.h by name ("bf16", "f32", "i32"); strides
   in elements. */
int checkmoe_tensor(checkmoe_call *call, const char *name, void *data, const char *dtype, int ndim,
                    const int64_t *shape, const int64_t *strides);
int checkmoe_attribute(checkmoe_call *call, const char *name, double value);
int checkmoe_dim(checkmoe_call *call, char letter, int64_t value);
/* Device memory from which a run takes what it needs beside its arguments. */
int checkmoe_scratch(checkmoe_call *call, void *memory, size_t bytes);
/* Whether the kernel supports the call; then prepare and update. After all tensors are set; again after other
   adapters were set. */
int checkmoe_prepare(checkmoe_call *call);
/* Launches on the device's stream (cudaStream_t), which may be capturing. */
int checkmoe_run(checkmoe_call *call, void *stream);
/* Most bytes of scratch memory that a run asked for so far. */
size_t checkmoe_scratch_used(const checkmoe_call *call);
const char *checkmoe_error(const checkmoe_call *call);
void checkmoe_close(checkmoe_call *call); /* accepts NULL */

#ifdef __cplusplus
}
#endif
#endif
