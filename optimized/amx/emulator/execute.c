// SPDX-License-Identifier: Apache-2.0
// Faults in the order of Intel SDM volume 2 (exception classes AMX-E1 to E6), addresses, effects.
#include "optimized/amx/emulator/execute.h"

#include "optimized/amx/emulator/system.h"
#include "optimized/amx/emulator/tiles.h"

#include <asm/prctl.h>
#include <string.h>
#include <sys/syscall.h>

bool cm_amx_permitted, cm_amx_fast_segments;
uint64_t cm_amx_executed;

void cm_amx_say(const char *text)
{
    char *fault = cm_amx_tiles.fault;
    size_t length = strnlen(fault, CM_AMX_TEXT - 1);
    while (*text && length + 1 < CM_AMX_TEXT)
        fault[length++] = *text++;
    fault[length] = 0;
}

void cm_amx_say_number(uint64_t number, unsigned base)
{
    char digits[24], *at = digits + sizeof digits;
    *--at = 0;
    do {
        *--at = "0123456789abcdef"[number % base];
        number /= base;
    } while (number);
    cm_amx_say(at);
}

static cm_amx_fault refuse(const struct cm_amx_instruction *instruction, const char *why)
{
    cm_amx_tiles.fault[0] = 0;
    cm_amx_say(cm_amx_name(instruction->operation));
    cm_amx_say(": ");
    cm_amx_say(why);
    return CM_AMX_UNDEFINED;
}

// "C.rows is 16, A.rows 8"
static cm_amx_fault refuse_sizes(const struct cm_amx_instruction *instruction, const char *left, int is,
                                 const char *right, int other)
{
    refuse(instruction, left);
    cm_amx_say(" is ");
    cm_amx_say_number((uint64_t)is, 10);
    cm_amx_say(", ");
    cm_amx_say(right);
    cm_amx_say(" ");
    cm_amx_say_number((uint64_t)other, 10);
    return CM_AMX_UNDEFINED;
}

static cm_amx_fault check_tile(const struct cm_amx_instruction *instruction, const char *name, int tile,
                               bool dwords)
{
    if (cm_amx_tiles.rows[tile] == 0) {
        refuse(instruction, name);
        cm_amx_say(", tmm");
        cm_amx_say_number((uint64_t)tile, 10);
        cm_amx_say(", is not configured");
        return CM_AMX_UNDEFINED;
    }
    if (dwords && cm_amx_tiles.colsb[tile] % 4) {
        refuse(instruction, name);
        cm_amx_say(".colsb is ");
        cm_amx_say_number(cm_amx_tiles.colsb[tile], 10);
        cm_amx_say(", no multiple of 4");
        return CM_AMX_UNDEFINED;
    }
    return CM_AMX_NO_FAULT;
}

static cm_amx_fault check_use(const struct cm_amx_instruction *instruction)
{
    if (!cm_amx_permitted)
        return refuse(instruction, "used before arch_prctl(ARCH_REQ_XCOMP_PERM, 18)");
    if (cm_amx_tiles.palette == 0)
        return refuse(instruction, "tiles are not configured (palette 0)");
    return CM_AMX_NO_FAULT;
}

static cm_amx_fault check_move(const struct cm_amx_instruction *instruction)
{
    const struct cm_amx_tiles *tiles = &cm_amx_tiles;
    if (check_use(instruction) || check_tile(instruction, "the tile", instruction->c, true))
        return CM_AMX_UNDEFINED;
    if (tiles->start_row >= tiles->rows[instruction->c])
        return refuse_sizes(instruction, "start_row", tiles->start_row, "the tile's rows",
                            tiles->rows[instruction->c]);
    return CM_AMX_NO_FAULT;
}

static cm_amx_fault check_dot(const struct cm_amx_instruction *instruction)
{
    const struct cm_amx_tiles *tiles = &cm_amx_tiles;
    int c = instruction->c, a = instruction->a, b = instruction->b;
    if (check_use(instruction))
        return CM_AMX_UNDEFINED;
    if (c == a || c == b || a == b)
        return refuse(instruction, "two of its tiles are the same");
    if (check_tile(instruction, "C", c, true) || check_tile(instruction, "A", a, true) ||
        check_tile(instruction, "B", b, true))
        return CM_AMX_UNDEFINED;
    if (tiles->rows[c] != tiles->rows[a])
        return refuse_sizes(instruction, "C.rows", tiles->rows[c], "A.rows", tiles->rows[a]);
    if (tiles->colsb[c] != tiles->colsb[b])
        return refuse_sizes(instruction, "C.colsb", tiles->colsb[c], "B.colsb", tiles->colsb[b]);
    if (tiles->colsb[a] / 4 != tiles->rows[b])
        return refuse_sizes(instruction, "A.colsb / 4", tiles->colsb[a] / 4, "B.rows", tiles->rows[b]);
    return CM_AMX_NO_FAULT;
}

static uint64_t read_segment(uint8_t prefix)
{
    uint64_t base = 0;
    if (prefix == 0)
        return 0;
    if (!cm_amx_fast_segments)
        cm_amx_system(SYS_arch_prctl, prefix == 0x64 ? ARCH_GET_FS : ARCH_GET_GS, (long)&base, 0, 0, 0, 0);
    else if (prefix == 0x64)
        __asm__ volatile("rdfsbase %0" : "=r"(base));
    else
        __asm__ volatile("rdgsbase %0" : "=r"(base));
    return base;
}

// Base and displacement; the index is the stride of a load or store, and a part of the address elsewhere.
static struct cm_amx_rows find_rows(const struct cm_amx_instruction *instruction, const uint64_t *registers)
{
    struct cm_amx_rows rows = {.narrow = instruction->narrow, .segment = read_segment(instruction->segment)};
    rows.address = (uint64_t)(int64_t)instruction->displacement;
    if (instruction->base == CM_AMX_RIP)
        rows.address += instruction->address + instruction->length;
    else if (instruction->base != CM_AMX_NO_REGISTER)
        rows.address += registers[instruction->base];
    if (instruction->index != CM_AMX_NO_REGISTER)
        rows.stride = registers[instruction->index] << instruction->scale;
    return rows;
}

static uint8_t *find_config(const struct cm_amx_instruction *instruction, const uint64_t *registers)
{
    struct cm_amx_rows rows = find_rows(instruction, registers);
    uint64_t address = rows.address + rows.stride;
    return (uint8_t *)(uintptr_t)((rows.narrow ? (uint32_t)address : address) + rows.segment);
}

static cm_amx_fault configure(const struct cm_amx_instruction *instruction, const uint64_t *registers)
{
    uint8_t config[CM_AMX_CONFIG_BYTES];
    memcpy(config, find_config(instruction, registers), sizeof config);
    const char *wrong = cm_amx_tiles_configure(&cm_amx_tiles, config);
    if (!wrong)
        return CM_AMX_NO_FAULT;
    refuse(instruction, wrong);
    return CM_AMX_PROTECTION;
}

static void describe(const struct cm_amx_instruction *instruction, const uint64_t *registers)
{
    uint8_t config[CM_AMX_CONFIG_BYTES];
    cm_amx_tiles_describe(&cm_amx_tiles, config);
    memcpy(find_config(instruction, registers), config, sizeof config);
}

cm_amx_fault cm_amx_execute(const struct cm_amx_instruction *instruction, const uint64_t *registers)
{
    struct cm_amx_tiles *tiles = &cm_amx_tiles;
    cm_amx_fault fault = CM_AMX_NO_FAULT;
    tiles->instruction = (const void *)(uintptr_t)instruction->address;
    switch (instruction->operation) {
    case CM_AMX_LDTILECFG: // needs no permission
        fault = configure(instruction, registers);
        break;
    case CM_AMX_STTILECFG:
        describe(instruction, registers);
        break;
    case CM_AMX_TILERELEASE:
        cm_amx_tiles_init(tiles);
        break;
    case CM_AMX_TILEZERO:
        fault = check_use(instruction) ? CM_AMX_UNDEFINED
                                       : check_tile(instruction, "the tile", instruction->c, false);
        if (!fault)
            cm_amx_tiles_zero(tiles, instruction->c);
        break;
    case CM_AMX_TILELOADD:
    case CM_AMX_TILELOADDT1:
        fault = check_move(instruction);
        if (!fault)
            cm_amx_tiles_load(tiles, instruction->c, find_rows(instruction, registers));
        break;
    case CM_AMX_TILESTORED:
        fault = check_move(instruction);
        if (!fault)
            cm_amx_tiles_store(tiles, instruction->c, find_rows(instruction, registers));
        break;
    default:
        fault = check_dot(instruction);
        if (!fault)
            cm_amx_tiles_dot(tiles, instruction->operation, instruction->c, instruction->a, instruction->b);
    }
    if (!fault)
        __atomic_fetch_add(&cm_amx_executed, 1, __ATOMIC_RELAXED);
    return fault;
}
