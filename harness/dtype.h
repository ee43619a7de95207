// SPDX-License-Identifier: Apache-2.0
// Number formats: names, conversion to and from double (round to nearest even), distances.
#ifndef CM_DTYPE_H
#define CM_DTYPE_H

#include "harness/checkmoe.h"

const char *cm_dtype_name(cm_dtype dtype);              // "bf16"
bool cm_dtype_parse(const char *name, cm_dtype *dtype); // false: no such name
DLDataType cm_dtype_to_dl(cm_dtype dtype);
bool cm_dtype_from_dl(DLDataType dl, cm_dtype *dtype); // false: none of ours
int cm_dtype_bits(cm_dtype dtype);                     // of storage
bool cm_dtype_is_float(cm_dtype dtype);
int cm_dtype_precision(cm_dtype dtype); // significand bits with the hidden one; 0: integer

double cm_load(const void *data, cm_dtype dtype, int64_t index);
// Rounds to nearest even; floats overflow to infinity and keep denormals, integers saturate.
void cm_store(void *data, cm_dtype dtype, int64_t index, double value);

// Distance from |value| to the next larger magnitude of the format; 1 for integers.
double cm_dtype_ulp(cm_dtype dtype, double value);

#endif
