// SPDX-License-Identifier: Apache-2.0
// Random configurations, shapes, addresses and values through the machine code of every tile instruction,
// held to the bit against the scalar model (NaN by class). Half of the configurations fit together; of the
// rest, most are refused somewhere, and then instruction and signal must be the model's.
#include "suites/unit/amx.h"

#if defined(__x86_64__)

#include "suites/unit/amx_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { AREA = 1 << 14, CASES = 20000, PATCHED_CASES = 4000, MOST = 16, OUTPUTS = 4, NOTHING = 16 };

// One instruction, as data for the model and as bytes.
struct step {
    enum { CONFIGURE, DESCRIBE, ZERO, LOAD, STORE, DOT, RELEASE } what;
    int c, a, b, kind; // tiles; LOAD: kind 1 is tileloaddt1
    int64_t offset, stride;
    size_t at; // of its first byte in the code
};

struct trial {
    uint64_t random;
    struct step steps[MOST];
    int count;
    uint8_t config[64];
    uint8_t data[AREA];
    uint8_t got[AREA * OUTPUTS], want[AREA * OUTPUTS]; // an area for each store and description
};

static uint64_t draw(struct trial *trial, uint64_t below)
{
    return cm_unit_amx_random(&trial->random) % below;
}

// Bits whose products reach every branch: anything, moderate, around the smallest normal number, near the
// largest.
static uint16_t draw_half_word(struct trial *trial, int tier)
{
    uint16_t bits = (uint16_t)draw(trial, 65536);
    switch (tier) {
    case 0:
        return bits;
    case 1:
        return (uint16_t)((bits & 0x807f) | (120 + draw(trial, 12)) << 7);
    case 2:
        return (uint16_t)((bits & 0x807f) | (61 + draw(trial, 5)) << 7);
    case 3:
        return (uint16_t)((bits & 0x807f) | (187 + draw(trial, 5)) << 7);
    default: // few integers, so that sums cancel
        return (uint16_t[]){0, 0x3f80, 0xbf80, 0x4000, 0xc000, 0x8000, 0x0001, 0x8040}[bits % 8];
    }
}

static void draw_data(struct trial *trial)
{
    int tier = (int)draw(trial, 5);
    bool as_float = draw(trial, 2);
    for (int n = 0; n < AREA; n += 2) {
        uint16_t bits = draw_half_word(trial, tier);
        if (as_float && n % 4 == 0 && draw(trial, 4) == 0)
            bits = 0; // fp32 with few digits
        memcpy(trial->data + n, &bits, 2);
    }
}

static void draw_config(struct trial *trial, bool fits, const int *tiles)
{
    uint8_t *config = trial->config;
    memset(config, 0, sizeof trial->config);
    config[0] = 1;
    for (int tile = 0; tile < 8; tile++)
        if (draw(trial, 3)) {
            config[16 + 2 * tile] =
                (uint8_t)(draw(trial, 8) ? 4 * (1 + draw(trial, 16)) : 1 + draw(trial, 64));
            config[48 + tile] = (uint8_t)(1 + draw(trial, 16));
        }
    if (draw(trial, 16) == 0)
        config[1] = (uint8_t)draw(trial, 17);
    if (fits) {
        uint8_t m = (uint8_t)(1 + draw(trial, 16)), n = (uint8_t)(1 + draw(trial, 16)),
                k = (uint8_t)(1 + draw(trial, 16));
        uint8_t rows[3] = {m, m, k}, columns[3] = {(uint8_t)(4 * n), (uint8_t)(4 * k), (uint8_t)(4 * n)};
        for (int tile = 0; tile < 3; tile++) {
            config[48 + tiles[tile]] = rows[tile];
            config[16 + 2 * tiles[tile]] = columns[tile];
        }
    } else if (draw(trial, 4) == 0) {
        config[draw(trial, 64)] = (uint8_t)(1 + draw(trial, 100)); // often a protection fault
    }
}

// 16 rows of 64 bytes have to lie in the area.
static struct step draw_place(struct trial *trial, struct step step)
{
    step.stride = (int64_t)draw(trial, 900) - 450;
    if (draw(trial, 8) == 0)
        step.stride = 0; // half of them without an index register
    step.offset = 450 * 15 + (int64_t)draw(trial, AREA - 2 * 450 * 15 - 64);
    return step;
}

static void add(struct trial *trial, struct step step)
{
    trial->steps[trial->count++] = step;
}

// Rows that overlap would leave parts of a NaN.
static void add_store(struct trial *trial, int tile, bool floats, int area)
{
    struct step step = draw_place(trial, (struct step){.what = STORE, .c = tile});
    if (floats && step.stride > -64 && step.stride < 64)
        step.stride += step.stride < 0 ? -64 : 64;
    step.offset += area * AREA;
    add(trial, step);
}

static void draw_trial(struct trial *trial)
{
    int tiles[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    bool fits = draw(trial, 2);
    trial->count = 0;
    for (int n = 0; n < 8; n++) {
        int other = (int)draw(trial, 8), swap = tiles[n];
        tiles[n] = tiles[other];
        tiles[other] = swap;
    }
    draw_data(trial);
    draw_config(trial, fits, tiles);
    add(trial, (struct step){.what = CONFIGURE});
    for (int n = 0; n < 3; n++)
        add(trial,
            draw_place(trial, (struct step){.what = LOAD, .c = tiles[n], .kind = (int)draw(trial, 2)}));
    if (draw(trial, 4) == 0)
        add(trial, (struct step){.what = ZERO, .c = tiles[draw(trial, fits ? 3 : 8)]});
    if (draw(trial, 64) == 0)
        tiles[2] = tiles[1];
    // integers after floats would show the payload of a NaN, which is nobody's promise
    bool floats = draw(trial, 2);
    for (int n = 1 + (int)draw(trial, 2); n > 0; n--)
        add(trial, (struct step){.what = DOT,
                                 .kind = (int)(floats ? draw(trial, 2) : MODEL_SS + draw(trial, 4)),
                                 .c = tiles[0],
                                 .a = tiles[1],
                                 .b = tiles[2]});
    add_store(trial, tiles[draw(trial, 4)], floats, 0);
    add_store(trial, tiles[0], floats, 1);
    add(trial, (struct step){.what = DESCRIBE, .offset = 2 * AREA + (int64_t)draw(trial, AREA - 64)});
    if (draw(trial, 4) == 0) {
        add(trial, (struct step){.what = RELEASE});
        add(trial, (struct step){.what = DESCRIBE, .offset = 3 * AREA + (int64_t)draw(trial, AREA - 64)});
    }
}

static void emit_step(struct cm_unit_code *code, struct trial *trial, struct step *step, int base, int index)
{
    static const int dots[MODEL_DOTS][2] = {{0x5c, 2}, {0x5c, 3}, {0x5e, 3}, {0x5e, 2}, {0x5e, 1}, {0x5e, 0}};
    int scale = (int)((size_t)step->stride % 2 ? 0 : draw(trial, 2));
    int32_t displacement = (int32_t[]){0, 3, -128, 1000000, -70000}[draw(trial, 5)];
    bool bare = step->stride == 0 && draw(trial, 2);
    uint8_t *place = step->what == CONFIGURE ? trial->config
                     : step->what == LOAD    ? trial->data + step->offset
                                             : trial->got + step->offset;
    uint64_t address = (uint64_t)(uintptr_t)place - (uint64_t)(int64_t)displacement;
    uint64_t stride = (uint64_t)(step->stride >> scale);
    if (step->what == CONFIGURE || step->what == DESCRIBE) {
        stride = draw(trial, 1000); // an ordinary index
        address -= stride << scale;
    }
    cm_unit_emit_constant(code, base, address);
    if (!bare || step->what != LOAD)
        cm_unit_emit_constant(code, index, stride);
    if (draw(trial, 2))
        cm_unit_emit_text(code, "90");
    step->at = code->at;
    switch (step->what) {
    case CONFIGURE:
    case DESCRIBE:
        cm_unit_emit_memory(code, 0x49, step->what == DESCRIBE, 0, base, index, scale, displacement);
        break;
    case LOAD:
        cm_unit_emit_memory(code, 0x4b, step->kind ? 1 : 3, step->c, base, bare ? NOTHING : index, scale,
                            displacement);
        break;
    case STORE:
        cm_unit_emit_memory(code, 0x4b, 2, step->c, base, index, scale, displacement);
        break;
    case ZERO:
        cm_unit_emit_tiles(code, 0x49, 3, step->c, 0, 0);
        break;
    case RELEASE:
        cm_unit_emit_text(code, "c4 e2 78 49 c0");
        break;
    case DOT:
        cm_unit_emit_tiles(code, dots[step->kind][0], dots[step->kind][1], step->c, step->a, step->b);
    }
}

static void emit_trial(struct cm_unit_code *code, struct trial *trial)
{
    code->at = 0;
    cm_unit_emit_text(code, "53 55 41 54 41 55 41 56 41 57"); // push rbx, rbp, r12 to r15
    for (int n = 0; n < trial->count; n++) {
        int base = (int)draw(trial, 16), index = (int)draw(trial, 16);
        if (base == 4)
            base = 12;
        if (index == 4 || index == base)
            index = base == 13 ? 7 : 13;
        emit_step(code, trial, &trial->steps[n], base, index);
    }
    cm_unit_emit_text(code, "41 5f 41 5e 41 5d 41 5c 5d 5b c3");
}

// The same by the model; the step that faults, or count.
static int follow(struct trial *trial, int *fault)
{
    struct model model = {0};
    *fault = MODEL_FINE;
    for (int n = 0; n < trial->count; n++) {
        const struct step *step = &trial->steps[n];
        switch (step->what) {
        case CONFIGURE:
            *fault = model_configure(&model, trial->config);
            break;
        case DESCRIBE:
            model_describe(&model, trial->want + step->offset);
            break;
        case ZERO:
            *fault = model_zero(&model, step->c);
            break;
        case LOAD:
            *fault = model_load(&model, step->c, trial->data + step->offset, step->stride);
            break;
        case STORE:
            *fault = model_store(&model, step->c, trial->want + step->offset, step->stride);
            break;
        case DOT:
            *fault = model_dot(&model, step->kind, step->c, step->a, step->b);
            break;
        case RELEASE:
            model = (struct model){0};
        }
        if (*fault)
            return n;
    }
    return trial->count;
}

static bool is_float(const struct trial *trial)
{
    for (int n = 0; n < trial->count; n++)
        if (trial->steps[n].what == DOT && trial->steps[n].kind <= MODEL_FP16)
            return true;
    return false;
}

// Bits, or NaN on both sides: rows may lie at any byte, so that a NaN is looked for around a difference.
static bool agree(const struct trial *trial, int at)
{
    if (trial->got[at] == trial->want[at])
        return true;
    for (int n = at - 3; n <= at && is_float(trial); n++) {
        uint32_t got, want;
        if (n < 0 || n + 4 > AREA * OUTPUTS)
            continue;
        memcpy(&got, trial->got + n, 4);
        memcpy(&want, trial->want + n, 4);
        if (model_is_nan(got) && model_is_nan(want))
            return true;
    }
    return false;
}

static int first_difference(const struct trial *trial)
{
    int at = 0;
    if (!memcmp(trial->got, trial->want, sizeof trial->got))
        return AREA * OUTPUTS;
    while (at < AREA * OUTPUTS && agree(trial, at))
        at++;
    return at;
}

static void run_trials(cm_amx_method method, uint64_t seed, int count)
{
    struct cm_unit_code code;
    struct trial *trial = calloc(1, sizeof *trial);
    int faults[3] = {0}, products = 0;
    struct cm_amx_counts before, after;
    cm_unit_amx_begin(method);
    cm_unit_code_open(&code);
    cm_amx_count(&before);
    for (int n = 0; n < count; n++) {
        static const int signals[3] = {0, SIGILL, SIGSEGV};
        int fault;
        trial->random = seed + (uint64_t)n;
        draw_trial(trial);
        memset(trial->got, 0xa5, sizeof trial->got);
        memset(trial->want, 0xa5, sizeof trial->want);
        emit_trial(&code, trial);
        int number = cm_unit_amx_catch(cm_unit_code_function(&code, 0), NULL, NULL);
        int stopped = follow(trial, &fault);
        ck_assert_msg(number == signals[fault], "case %d: signal %d, the model has fault %d at step %d (%s)",
                      n, number, fault, stopped, cm_amx_fault_text());
        if (fault)
            ck_assert_msg(cm_unit_amx_rip == (uintptr_t)code.bytes + trial->steps[stopped].at,
                          "case %d: fault at another instruction than step %d", n, stopped);
        int at = first_difference(trial);
        ck_assert_msg(at == AREA * OUTPUTS, "case %d: byte %d is %02x, the model has %02x", n, at,
                      trial->got[at % (AREA * OUTPUTS)], trial->want[at % (AREA * OUTPUTS)]);
        faults[fault]++;
        for (int step = 0; step < stopped; step++)
            products += trial->steps[step].what == DOT;
        cm_amx_reset();
    }
    cm_amx_count(&after);
    if (cm_amx_available() == CM_AMX_EMULATED) {
        ck_assert_uint_gt(after.instructions - before.instructions, (unsigned)count);
        ck_assert(method == CM_AMX_TRAP ? after.sites == 0 : after.sites > 0);
    }
    // neither side of a branch may have gone untested
    ck_assert_int_gt(faults[MODEL_FINE], count / 3);
    ck_assert_int_gt(faults[MODEL_UD], count / 10);
    ck_assert_int_gt(faults[MODEL_GP], count / 50);
    ck_assert_int_gt(products, count / 2);
    if (getenv("CM_VERBOSE"))
        printf("%d cases, %d without fault, %d SIGILL, %d SIGSEGV, %d products, %llu instructions, %llu "
               "traps, %llu sites\n",
               count, faults[MODEL_FINE], faults[MODEL_UD], faults[MODEL_GP], products,
               (unsigned long long)(after.instructions - before.instructions),
               (unsigned long long)(after.traps - before.traps), (unsigned long long)after.sites);
    cm_unit_code_close(&code);
    free(trial);
}

START_TEST(trapping)
{
    run_trials(CM_AMX_TRAP, 1, CASES);
}
END_TEST

// The code of each case is written over that of the case before, as by a just-in-time compiler.
START_TEST(patching)
{
    run_trials(CM_AMX_PATCH, 1000000, PATCHED_CASES);
}
END_TEST

TCase *cm_unit_amx_random_cases(void)
{
    TCase *cases = tcase_create("random");
    tcase_add_test(cases, trapping);
    tcase_add_test(cases, patching);
    return cases;
}

#endif
