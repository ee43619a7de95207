// SPDX-License-Identifier: Apache-2.0
// Loops that do nothing but multiply and add: how much one thread can compute at most, by kind of operand.
#ifndef CM_BENCH_PEAK_H
#define CM_BENCH_PEAK_H

#include <stddef.h>
#include <stdint.h>

typedef enum cm_operand { CM_OPERAND_F32, CM_OPERAND_BF16, CM_OPERAND_I8, CM_OPERAND_COUNT } cm_operand;

const char *cm_operand_name(cm_operand operand); // "fp32", "bf16", "int8"
const char *
cm_operand_instruction(cm_operand operand); // what the loop is made of here; NULL: this CPU has none

// Runs the loop `rounds` times and returns the number of additions and multiplications; only kinds that have
// an instruction here.
double cm_peak_multiply(cm_operand operand, int64_t rounds);

// Reads `bytes` (a multiple of 128) from `data` (aligned to 16) once and returns a number that depends on all
// of them.
uint64_t cm_peak_read(const void *data, size_t bytes);

#endif
