// SPDX-License-Identifier: Apache-2.0
#ifndef CM_AMX_LENGTH_H
#define CM_AMX_LENGTH_H

#include <stddef.h>
#include <stdint.h>

// Bytes of the 64-bit mode instruction at `code`; 0 if it is none that this table has, or if it does not fit.
size_t cm_amx_length(const uint8_t *code, size_t available);

#endif
