// SPDX-License-Identifier: Apache-2.0
#include "optimized/amx/emulator/replace.h"

#include "optimized/amx/emulator/execute.h"
#include "optimized/amx/emulator/tiles.h"

#include <signal.h>
#include <stdio.h>

static void run(struct cm_amx_instruction instruction, const uint64_t *registers, const void *caller)
{
    instruction.address = (uint64_t)(uintptr_t)caller;
    for (cm_amx_fault fault; (fault = cm_amx_execute(&instruction, registers));) {
        fprintf(stderr, "%s (called from %p)\n", cm_amx_tiles.fault, caller);
        raise(fault == CM_AMX_UNDEFINED ? SIGILL : SIGSEGV); // whoever handles it may try again
    }
}

void cm_amx_call(cm_amx_operation operation, int c, int a, int b)
{
    run(
        (struct cm_amx_instruction){
            .operation = (uint8_t)operation, .c = (uint8_t)c & 7, .a = (uint8_t)a & 7, .b = (uint8_t)b & 7},
        NULL, __builtin_return_address(0));
}

void cm_amx_call_memory(cm_amx_operation operation, int tile, const void *base, int64_t stride)
{
    const uint64_t registers[2] = {(uint64_t)(uintptr_t)base, (uint64_t)stride};
    run((struct cm_amx_instruction){.operation = (uint8_t)operation,
                                    .c = (uint8_t)tile & 7,
                                    .base = 0,
                                    .index = operation == CM_AMX_LDTILECFG || operation == CM_AMX_STTILECFG
                                                 ? CM_AMX_NO_REGISTER
                                                 : 1},
        registers, __builtin_return_address(0));
}
