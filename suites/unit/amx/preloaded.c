// SPDX-License-Identifier: Apache-2.0
// A program that has the emulator within and finds libcheckmoe-amx.so preloaded: tiles run, are said to be
// emulated, and a second emulator is refused. Exit status: 0 right, 1 wrong, 77 on a processor with tiles.
#include "optimized/amx/emulator/amx.h"
#include "suites/unit/amx/matmul.h"

#include <stdio.h>
#include <string.h>

int main(void)
{
    const int8_t a[4] = {1, -2, 3, -128}, b[4] = {5, 6, 7, -128};
    int32_t out = 0;
    char reason[160] = "";
    if (cm_amx_available() == CM_AMX_NATIVE)
        return 77;
    if (cm_amx_available() != CM_AMX_EMULATED)
        return 1;
    cm_status status = cm_amx_emulate_enable(CM_AMX_PATCH, reason, sizeof reason);
    printf("%s\n", reason);
    if (status != CM_UNSUPPORTED || !strstr(reason, "preloaded"))
        return 1;
    if (cm_amx_request_permission(reason, sizeof reason) != CM_OK)
        return 1;
    cm_unit_tiles_int8(a, b, &out, 1, 1, 4);
    printf("%d\n", out);
    return out != 5 - 12 + 21 + 128 * 128;
}
