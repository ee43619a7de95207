// SPDX-License-Identifier: Apache-2.0
// Tile instructions as bytes and as data. All are VEX.128, map 0F38, W 0.
#ifndef CM_AMX_DECODE_H
#define CM_AMX_DECODE_H

#include <stddef.h>
#include <stdint.h>

typedef enum cm_amx_operation {
    CM_AMX_LDTILECFG,
    CM_AMX_STTILECFG,
    CM_AMX_TILERELEASE,
    CM_AMX_TILEZERO,
    CM_AMX_TILELOADD,
    CM_AMX_TILELOADDT1,
    CM_AMX_TILESTORED,
    CM_AMX_TDPBF16PS,
    CM_AMX_TDPFP16PS,
    CM_AMX_TDPBSSD,
    CM_AMX_TDPBSUD,
    CM_AMX_TDPBUSD,
    CM_AMX_TDPBUUD,
    CM_AMX_OPERATION_COUNT,
} cm_amx_operation;

enum { CM_AMX_LONGEST = 15, CM_AMX_NO_REGISTER = 16, CM_AMX_RIP = 17 };

struct cm_amx_instruction {
    uint8_t operation, length;
    uint8_t c, a, b; // tiles; of zero, load and store: c
    uint8_t base,
        index;     // general registers in the order of their encoding, CM_AMX_NO_REGISTER, CM_AMX_RIP (base)
    uint8_t scale; // log2
    uint8_t segment; // prefix 0x64 (FS), 0x65 (GS), or 0
    uint8_t narrow;  // prefix 0x67: addresses are taken modulo 2^32
    int32_t displacement;
    uint64_t address; // of its first byte; set by the caller
};

typedef enum cm_amx_decoded {
    CM_AMX_IS_TILE,   // a tile instruction
    CM_AMX_NOT_TILE,  // another one, or an encoding that is undefined on hardware, too
    CM_AMX_CUT_SHORT, // could be one, but `available` bytes don't hold it
} cm_amx_decoded;

cm_amx_decoded cm_amx_decode(const uint8_t *bytes, size_t available, struct cm_amx_instruction *instruction);
const char *cm_amx_name(cm_amx_operation operation);

#endif
