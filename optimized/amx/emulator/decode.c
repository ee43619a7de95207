// SPDX-License-Identifier: Apache-2.0
// Source of the encodings: Intel SDM volume 2, opcode maps and the pages of the instructions.
#include "optimized/amx/emulator/decode.h"

#include <stdbool.h>

// Forms of the operands.
enum form {
    MEMORY = 1, // any address, ModRM.reg 0
    SIB,        // an address with a SIB byte, ModRM.reg is the tile
    ONE_TILE,   // ModRM.reg, ModRM.rm is 0
    NO_TILE,    // ModRM is C0
    THREE_TILES,
};

static const struct row {
    const char *name;
    uint8_t opcode, prefix; // VEX.pp: 0 none, 1 66, 2 F3, 3 F2
    uint8_t form;
} rows[CM_AMX_OPERATION_COUNT] = {
    [CM_AMX_LDTILECFG] = {"ldtilecfg", 0x49, 0, MEMORY},
    [CM_AMX_STTILECFG] = {"sttilecfg", 0x49, 1, MEMORY},
    [CM_AMX_TILERELEASE] = {"tilerelease", 0x49, 0, NO_TILE},
    [CM_AMX_TILEZERO] = {"tilezero", 0x49, 3, ONE_TILE},
    [CM_AMX_TILELOADD] = {"tileloadd", 0x4b, 3, SIB},
    [CM_AMX_TILELOADDT1] = {"tileloaddt1", 0x4b, 1, SIB},
    [CM_AMX_TILESTORED] = {"tilestored", 0x4b, 2, SIB},
    [CM_AMX_TDPBF16PS] = {"tdpbf16ps", 0x5c, 2, THREE_TILES},
    [CM_AMX_TDPFP16PS] = {"tdpfp16ps", 0x5c, 3, THREE_TILES},
    [CM_AMX_TDPBSSD] = {"tdpbssd", 0x5e, 3, THREE_TILES},
    [CM_AMX_TDPBSUD] = {"tdpbsud", 0x5e, 2, THREE_TILES},
    [CM_AMX_TDPBUSD] = {"tdpbusd", 0x5e, 1, THREE_TILES},
    [CM_AMX_TDPBUUD] = {"tdpbuud", 0x5e, 0, THREE_TILES},
};

const char *cm_amx_name(cm_amx_operation operation)
{
    return rows[operation].name;
}

static int find_operation(uint8_t opcode, int prefix, uint8_t modrm)
{
    for (int n = 0; n < CM_AMX_OPERATION_COUNT; n++) {
        bool memory = rows[n].form == MEMORY || rows[n].form == SIB;
        if (rows[n].opcode == opcode && rows[n].prefix == prefix && memory == (modrm >> 6 != 3))
            return n;
    }
    return -1;
}

// The operand in memory, from ModRM on; sets base, index, scale, displacement. Returns its bytes, 0 if there
// are too few.
static size_t decode_memory(const uint8_t *bytes, size_t available, bool extend_base, bool extend_index,
                            struct cm_amx_instruction *instruction)
{
    int mode = bytes[0] >> 6, rm = bytes[0] & 7;
    size_t used = 1, displacement = mode == 1 ? 1 : mode == 2 ? 4 : 0;
    instruction->index = CM_AMX_NO_REGISTER;
    instruction->base = (uint8_t)(rm | extend_base << 3);
    if (rm == 4) {
        if (available < 2)
            return 0;
        int index = (bytes[1] >> 3 & 7) | extend_index << 3;
        used = 2;
        instruction->scale = bytes[1] >> 6;
        instruction->base = (uint8_t)((bytes[1] & 7) | extend_base << 3);
        if (index != 4) // the stack pointer is no index
            instruction->index = (uint8_t)index;
        if ((bytes[1] & 7) == 5 && mode == 0) {
            instruction->base = CM_AMX_NO_REGISTER;
            displacement = 4;
        }
    } else if (rm == 5 && mode == 0) {
        instruction->base = CM_AMX_RIP;
        displacement = 4;
    }
    if (available < used + displacement)
        return 0;
    if (displacement == 1)
        instruction->displacement = (int8_t)bytes[used];
    else if (displacement == 4)
        instruction->displacement =
            (int32_t)(bytes[used] | (uint32_t)bytes[used + 1] << 8 | (uint32_t)bytes[used + 2] << 16 |
                      (uint32_t)bytes[used + 3] << 24);
    return used + displacement;
}

cm_amx_decoded cm_amx_decode(const uint8_t *bytes, size_t available, struct cm_amx_instruction *instruction)
{
    *instruction = (struct cm_amx_instruction){.base = CM_AMX_NO_REGISTER, .index = CM_AMX_NO_REGISTER};
    size_t at = 0;
    bool cut = available < CM_AMX_LONGEST;
    if (!cut)
        available = CM_AMX_LONGEST;
    // CS, DS, ES and SS are ignored in 64-bit code; any other prefix before VEX is undefined
    for (; at < available; at++) {
        if (bytes[at] == 0x64 || bytes[at] == 0x65)
            instruction->segment = bytes[at];
        else if (bytes[at] == 0x67)
            instruction->narrow = 1;
        else if (bytes[at] != 0x26 && bytes[at] != 0x2e && bytes[at] != 0x36 && bytes[at] != 0x3e)
            break;
    }
    if (at < available && bytes[at] != 0xc4)
        return CM_AMX_NOT_TILE;
    if (available < at + 5)
        return cut ? CM_AMX_CUT_SHORT : CM_AMX_NOT_TILE;
    const uint8_t *vex = bytes + at;
    // R̄ X̄ B̄ and v̄ are inverted; map 2, W 0, L 0
    bool extend_reg = !(vex[1] & 0x80), extend_index = !(vex[1] & 0x40), extend_base = !(vex[1] & 0x20);
    int third = ~vex[2] >> 3 & 15, modrm = vex[4], reg = modrm >> 3 & 7, rm = modrm & 7;
    if ((vex[1] & 0x1f) != 2 || vex[2] & 0x84)
        return CM_AMX_NOT_TILE;
    int operation = find_operation(vex[3], vex[2] & 3, vex[4]);
    if (operation < 0 || extend_reg)
        return CM_AMX_NOT_TILE;
    instruction->operation = (uint8_t)operation;
    instruction->c = (uint8_t)reg;
    size_t used = 1;
    bool right = third == 0;
    switch (rows[operation].form) {
    case MEMORY:
        right = right && reg == 0;
        used = decode_memory(vex + 4, available - at - 4, extend_base, extend_index, instruction);
        break;
    case SIB:
        right = right && rm == 4;
        used = decode_memory(vex + 4, available - at - 4, extend_base, extend_index, instruction);
        break;
    case ONE_TILE:
        right = right && rm == 0 && !extend_base;
        break;
    case NO_TILE:
        right = right && modrm == 0xc0 && !extend_base;
        break;
    default:
        right = third < 8 && !extend_base;
        instruction->a = (uint8_t)rm;
        instruction->b = (uint8_t)third;
    }
    if (!right)
        return CM_AMX_NOT_TILE;
    if (used == 0)
        return cut ? CM_AMX_CUT_SHORT : CM_AMX_NOT_TILE;
    instruction->length = (uint8_t)(at + 4 + used);
    return CM_AMX_IS_TILE;
}
