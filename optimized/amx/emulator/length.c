// SPDX-License-Identifier: Apache-2.0
// Lengths of instructions: prefixes, opcode map, ModRM and SIB, displacement, immediate. Enough to walk
// through a function from its start, so that bytes which look like CPUID within another instruction are told
// from CPUID. Source: opcode maps of Intel SDM volume 2. XOP and 3DNow! are unknown, and so are APX.
#include "optimized/amx/emulator/length.h"

#include <stdbool.h>

enum {
    N = 0,  // opcode alone
    M = 1,  // ModRM
    B = 2,  // 8-bit immediate
    W = 4,  // 16-bit immediate
    Z = 8,  // 32-bit immediate, 16-bit with prefix 66
    Q = 16, // 64-bit with REX.W, else as Z
    A = 32, // absolute address: 64-bit, 32-bit with prefix 67
    G = 64, // immediate only where ModRM.reg is 0 or 1
    X = 128,
    MB = M | B,
    MZ = M | Z,
};

static const uint8_t one_byte[256] = {
    M,  M,  M, M,  B, Z, X,      X,      M,     M,  M, M,  B, Z, X, X, // 00
    M,  M,  M, M,  B, Z, X,      X,      M,     M,  M, M,  B, Z, X, X, // 10
    M,  M,  M, M,  B, Z, X,      X,      M,     M,  M, M,  B, Z, X, X, // 20
    M,  M,  M, M,  B, Z, X,      X,      M,     M,  M, M,  B, Z, X, X, // 30
    X,  X,  X, X,  X, X, X,      X,      X,     X,  X, X,  X, X, X, X, // 40 REX
    N,  N,  N, N,  N, N, N,      N,      N,     N,  N, N,  N, N, N, N, // 50
    X,  X,  X, M,  X, X, X,      X,      Z,     MZ, B, MB, N, N, N, N, // 60
    B,  B,  B, B,  B, B, B,      B,      B,     B,  B, B,  B, B, B, B, // 70
    MB, MZ, X, MB, M, M, M,      M,      M,     M,  M, M,  M, M, M, M, // 80
    N,  N,  N, N,  N, N, N,      N,      N,     N,  X, N,  N, N, N, N, // 90
    A,  A,  A, A,  N, N, N,      N,      B,     Z,  N, N,  N, N, N, N, // a0
    B,  B,  B, B,  B, B, B,      B,      Q,     Q,  Q, Q,  Q, Q, Q, Q, // b0
    MB, MB, W, N,  X, X, MB,     MZ,     W | B, N,  W, N,  N, B, X, N, // c0
    M,  M,  M, M,  X, X, X,      N,      M,     M,  M, M,  M, M, M, M, // d0
    B,  B,  B, B,  B, B, B,      B,      Z,     Z,  X, B,  N, N, N, N, // e0
    X,  N,  X, X,  N, N, MB | G, MZ | G, N,     N,  N, N,  N, N, M, M, // f0
};

static uint8_t after_0f(uint8_t opcode)
{
    switch (opcode) {
    case 0x05:
    case 0x06:
    case 0x07:
    case 0x08:
    case 0x09:
    case 0x0b:
    case 0x0e:
    case 0x77:
    case 0xa0:
    case 0xa1:
    case 0xa2:
    case 0xa8:
    case 0xa9:
    case 0xaa:
        return N;
    case 0x70:
    case 0x71:
    case 0x72:
    case 0x73:
    case 0xa4:
    case 0xac:
    case 0xba:
    case 0xc2:
    case 0xc4:
    case 0xc5:
    case 0xc6:
        return MB;
    case 0x04:
    case 0x0a:
    case 0x0c:
    case 0x0f:
        return X;
    default:
        break;
    }
    if (opcode >> 4 == 8)
        return Z;
    if (opcode >> 4 == 3 || (opcode >> 3) == 0xc8 >> 3)
        return N;
    return M;
}

static size_t address_bytes(const uint8_t *modrm, size_t available)
{
    if (available == 0)
        return 0;
    int mode = *modrm >> 6, rm = *modrm & 7;
    size_t length = 1;
    if (mode == 3)
        return 1;
    if (rm == 4) {
        if (available < 2)
            return 0;
        length = 2;
        rm = modrm[1] & 7;
    }
    if (mode == 1)
        return length + 1;
    return mode == 2 || rm == 5 ? length + 4 : length;
}

size_t cm_amx_length(const uint8_t *code, size_t available)
{
    bool narrow_operand = false, narrow_address = false, wide = false;
    size_t at = 0;
    uint8_t form;
    if (available > 15)
        available = 15;
    for (; at < available; at++) {
        uint8_t byte = code[at];
        if (byte == 0x66)
            narrow_operand = true;
        else if (byte == 0x67)
            narrow_address = true;
        else if (byte != 0x26 && byte != 0x2e && byte != 0x36 && byte != 0x3e && byte != 0x64 &&
                 byte != 0x65 && byte != 0xf0 && byte != 0xf2 && byte != 0xf3)
            break;
    }
    if (at < available && code[at] >> 4 == 4)
        wide = code[at++] & 8;
    if (at + 1 >= available) {
        if (at == available)
            return 0;
        form = one_byte[code[at++]];
    } else if (code[at] == 0x62 || code[at] == 0xc4 || code[at] == 0xc5) {
        size_t prefix = code[at] == 0x62 ? 4 : code[at] == 0xc4 ? 3 : 2;
        if (at + prefix >= available)
            return 0;
        int map = code[at] == 0xc5 ? 1 : code[at + 1] & (code[at] == 0xc4 ? 31 : 7);
        uint8_t opcode = code[at + prefix];
        if (map == 1)
            form = after_0f(opcode) & B ? MB : opcode == 0x77 ? N : M;
        else if (map == 3)
            form = MB;
        else
            form = map == 2 || map == 5 || map == 6 ? M : X;
        at += prefix + 1;
    } else if (code[at] == 0x0f) {
        uint8_t opcode = code[at + 1];
        at += 2;
        form = after_0f(opcode);
        if (opcode == 0x38 || opcode == 0x3a) {
            form = opcode == 0x38 ? M : MB;
            at++;
        }
    } else {
        form = one_byte[code[at++]];
    }
    if (form & X || at > available)
        return 0;
    if (form & G && (at == available || code[at] >> 3 & 6))
        form = M;
    if (form & M) {
        size_t address = address_bytes(code + at, available - at);
        if (address == 0)
            return 0;
        at += address;
    }
    if (form & A)
        at += narrow_address ? 4 : 8;
    if (form & Q)
        at += wide ? 8 : narrow_operand ? 2 : 4;
    at += form & B ? 1 : 0;
    at += form & W ? 2 : 0;
    if (form & Z)
        at += narrow_operand && !wide ? 2 : 4;
    return at <= available ? at : 0;
}
