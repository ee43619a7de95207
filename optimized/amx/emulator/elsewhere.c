// SPDX-License-Identifier: Apache-2.0
// What amx.h declares, on processors of another architecture: nothing runs, and everything says so.
#include "optimized/amx/emulator/amx.h"

#include <stdio.h>

static cm_status refuse(char *reason, size_t size)
{
    snprintf(reason, size, "this is no x86-64 processor");
    return CM_UNSUPPORTED;
}

cm_amx_mode cm_amx_available(void)
{
    return CM_AMX_NONE;
}

cm_status cm_amx_emulate_enable(cm_amx_method method, char *reason, size_t size)
{
    (void)method;
    return refuse(reason, size);
}

cm_status cm_amx_request_permission(char *reason, size_t size)
{
    return refuse(reason, size);
}

void cm_amx_revoke_permission(void)
{
}

void cm_amx_count(struct cm_amx_counts *counts)
{
    *counts = (struct cm_amx_counts){0};
}

int cm_amx_palette(void)
{
    return 0;
}

void cm_amx_reset(void)
{
}

const void *cm_amx_instruction_address(void)
{
    return NULL;
}

const char *cm_amx_fault_text(void)
{
    return "";
}
