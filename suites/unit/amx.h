// SPDX-License-Identifier: Apache-2.0
// The test cases of the suite amx, and the machine code that they make.
#ifndef CM_UNIT_AMX_H
#define CM_UNIT_AMX_H

#include "optimized/amx/emulator/amx.h"

#include <check.h>
#include <setjmp.h>
#include <signal.h>

// Emulates (where the processor has no tiles), and asks for permission; fails the test if it can't.
void cm_unit_amx_begin(cm_amx_method method);

// Functions made of bytes: code grows at `at`; room is checked.
struct cm_unit_code {
    uint8_t *bytes; // mapped, executable; owned
    size_t at, size;
};
void cm_unit_code_open(struct cm_unit_code *code);
void cm_unit_code_close(struct cm_unit_code *code);
void cm_unit_emit(struct cm_unit_code *code, const void *bytes, size_t count);
void cm_unit_emit_text(struct cm_unit_code *code, const char *hex); // "c4 e2 78 49 c0"
// A VEX.128 instruction of map 0F38; prefix as in VEX.pp. Of three tiles, or ModRM rm of another form.
void cm_unit_emit_tiles(struct cm_unit_code *code, int opcode, int prefix, int reg, int rm, int third);
// [base + index << scale + displacement], 16 for no index; displacement in 0, 1 or 4 bytes, whatever it
// needs.
void cm_unit_emit_memory(struct cm_unit_code *code, int opcode, int prefix, int reg, int base, int index,
                         int scale, int32_t displacement);
void cm_unit_emit_constant(struct cm_unit_code *code, int reg, uint64_t value); // movabs
typedef void (*cm_unit_function)(void *first, void *second);
cm_unit_function cm_unit_code_function(const struct cm_unit_code *code, size_t offset);

// Calls it and returns the signal that it raised, 0 if it returned. The three then say where.
int cm_unit_amx_catch(cm_unit_function function, void *first, void *second);
extern siginfo_t cm_unit_amx_info;
extern uintptr_t cm_unit_amx_rip;

uint64_t cm_unit_amx_random(uint64_t *state);

Suite *cm_unit_amx(void);
TCase *cm_unit_amx_random_cases(void);
TCase *cm_unit_amx_matmul(void);
TCase *cm_unit_amx_decoding(void);
TCase *cm_unit_amx_length(void);
TCase *cm_unit_amx_faults(void);
TCase *cm_unit_amx_memory(void);
TCase *cm_unit_amx_signals(void);

#endif
