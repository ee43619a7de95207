// SPDX-License-Identifier: Apache-2.0
// A plain user of tiles, as its author would write it: out [m, n] = a [m, k] b [k, n] with intrinsics. b is
// packed by pairs of bf16 ([k/2, n, 2]) or quadruples of bytes ([k/4, n, 4]); k is a multiple of 2 or 4, m
// and n are any. Compiled twice: with tile instructions (cm_unit_tiles_*) and with the emulator's replacement
// of the intrinsics (cm_unit_calls_*), which sanitizers see through.
#ifndef CM_UNIT_AMX_MATMUL_H
#define CM_UNIT_AMX_MATMUL_H

#include <stdint.h>

void cm_unit_tiles_bf16(const uint16_t *a, const uint16_t *b, float *out, int m, int n, int k);
void cm_unit_tiles_int8(const int8_t *a, const int8_t *b, int32_t *out, int m, int n, int k);
void cm_unit_calls_bf16(const uint16_t *a, const uint16_t *b, float *out, int m, int n, int k);
void cm_unit_calls_int8(const int8_t *a, const int8_t *b, int32_t *out, int m, int n, int k);

#endif
