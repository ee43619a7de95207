// SPDX-License-Identifier: Apache-2.0
// The arena: real page faults and the sentences that they become, every byte of slack, placement and
// alignment, limits, and that nothing stays mapped.
#include "harness/arena.h"

#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PAGE = 4096 };

Suite *cm_unit_arena(void);

static cm_arena arena;
static struct fault {
    sigjmp_buf back;
    bool write;
    cm_touch touch;
    char text[128];
    const cm_block *block;
} fault;

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    fault.touch = cm_arena_explain(info->si_addr, fault.write, fault.text, sizeof fault.text, &fault.block);
    siglongjmp(fault.back, 1);
}

// Touches one byte; true if that faulted.
__attribute__((no_sanitize("undefined", "address"))) static bool touch(volatile char *address, bool write)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO}, before;
    volatile bool faulted = true;
    fault.write = write;
    sigaction(SIGSEGV, &action, &before);
    if (sigsetjmp(fault.back, 1) == 0) {
        if (write)
            *address = 1;
        else
            (void)*address;
        faulted = false;
    }
    sigaction(SIGSEGV, &before, NULL);
    return faulted;
}

static void tear_down(void)
{
    cm_arena_activate(NULL);
    cm_arena_drop(&arena, 0);
}

// Blocks of 100, 10, 4096, 0 and 0 bytes, and inputs with and without a tensor.
enum { FLUSH, ODD, START, EMPTY_END, EMPTY_START, IDS, PADDED, SHARED, RAW, BLOCKS };
static cm_tensor ids, padded, shared;

static void set_up(void)
{
    cm_tensor_init(&ids, CM_I32, 2, (int64_t[]){3, 4}, NULL);
    cm_tensor_init(&padded, CM_BF16, 3, (int64_t[]){2, 3, 4}, NULL);
    padded.strides[1] = 7;
    padded.strides[0] = 21;
    cm_tensor_init(&shared, CM_F32, 2, (int64_t[]){5, 4}, NULL);
    shared.strides[0] = 0;
    cm_arena_take(&arena, "flush", 100, 4, CM_PLACE_END, false);
    cm_arena_take(&arena, "odd", 10, 8, CM_PLACE_END, false);
    cm_arena_take(&arena, "start", PAGE, 64, CM_PLACE_START, false);
    cm_arena_take(&arena, "empty", 0, 4, CM_PLACE_END, false);
    cm_arena_take(&arena, "hollow", 0, 4, CM_PLACE_START, false);
    cm_arena_take(&arena, "ids", 48, 4, CM_PLACE_END, true);
    cm_arena_take(&arena, "padded", cm_tensor_extent(&padded.dl), 2, CM_PLACE_END, true);
    cm_arena_take(&arena, "shared", 16, 4, CM_PLACE_START, true);
    cm_arena_take(&arena, "raw", 16, 4, CM_PLACE_END, true);
    ck_assert_int_eq(arena.count, BLOCKS);
    arena.blocks[IDS].tensor = &ids.dl;
    arena.blocks[PADDED].tensor = &padded.dl;
    arena.blocks[SHARED].tensor = &shared.dl;
    cm_arena_activate(&arena);
    cm_arena_protect(&arena, true);
}

static const struct touched {
    int block;
    int64_t offset; // from the data
    bool write;
    cm_touch touch;
    const char *text;
} touched[] = {
    {FLUSH, 100, false, CM_TOUCH_GUARD, "read 0 bytes past the end of `flush`"},
    {FLUSH, 100, true, CM_TOUCH_GUARD, "write 0 bytes past the end of `flush`"},
    {FLUSH, 105, false, CM_TOUCH_GUARD, "read 5 bytes past the end of `flush`"},
    {FLUSH, 100 + PAGE - 1, true, CM_TOUCH_GUARD, "write 4095 bytes past the end of `flush`"},
    {FLUSH, 99 - PAGE, false, CM_TOUCH_GUARD, "read 3997 bytes before the start of `flush`"},
    {ODD, 16, true, CM_TOUCH_GUARD, "write 6 bytes past the end of `odd`"},
    {START, -1, false, CM_TOUCH_GUARD, "read 1 bytes before the start of `start`"},
    {START, -7, true, CM_TOUCH_GUARD, "write 7 bytes before the start of `start`"},
    {START, -PAGE, true, CM_TOUCH_GUARD, "write 4096 bytes before the start of `start`"},
    {START, PAGE, true, CM_TOUCH_GUARD, "write 0 bytes past the end of `start`"},
    {EMPTY_END, 0, false, CM_TOUCH_GUARD, "read 0 bytes past the end of `empty`"},
    {EMPTY_END, 3, true, CM_TOUCH_GUARD, "write 3 bytes past the end of `empty`"},
    {EMPTY_START, -1, true, CM_TOUCH_GUARD, "write 1 bytes before the start of `hollow`"},
    {IDS, 0, true, CM_TOUCH_INPUT_WRITE, "write to input `ids`[0,0] (read-only)"},
    {IDS, 36, true, CM_TOUCH_INPUT_WRITE, "write to input `ids`[2,1] (read-only)"},
    {IDS, 39, true, CM_TOUCH_INPUT_WRITE, "write to input `ids`[2,1] (read-only)"},
    {IDS, 47, true, CM_TOUCH_INPUT_WRITE, "write to input `ids`[2,3] (read-only)"},
    {IDS, -1, true, CM_TOUCH_INPUT_WRITE, "write to input `ids` (read-only)"},
    {IDS, 48, false, CM_TOUCH_GUARD, "read 0 bytes past the end of `ids`"},
    {PADDED, 2 * (21 + 2 * 7 + 3), true, CM_TOUCH_INPUT_WRITE, "write to input `padded`[1,2,3] (read-only)"},
    {PADDED, 2 * (7 + 1) + 1, true, CM_TOUCH_INPUT_WRITE, "write to input `padded`[0,1,1] (read-only)"},
    {SHARED, 8, true, CM_TOUCH_INPUT_WRITE, "write to input `shared`[0,2] (read-only)"},
    {SHARED, 16, true, CM_TOUCH_INPUT_WRITE, "write to input `shared` (read-only)"},
    {RAW, 5, true, CM_TOUCH_INPUT_WRITE, "write to input `raw` (read-only)"},
};

START_TEST(faults_are_explained)
{
    const struct touched *row = &touched[_i];
    const cm_block *block = &arena.blocks[row->block];
    ck_assert(touch(block->data + row->offset, row->write));
    ck_assert_str_eq(fault.text, row->text);
    ck_assert_int_eq(fault.touch, row->touch);
    ck_assert_ptr_eq(fault.block, block);
}
END_TEST

static void *ask(void *context)
{
    cm_arena_explain(context, true, fault.text, sizeof fault.text, &fault.block);
    return NULL;
}

// A kernel's own threads have no arena, and are told about those of the thread that called it.
START_TEST(other_threads_are_told)
{
    const cm_block *block = &arena.blocks[PADDED];
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, ask, block->data + 76), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_ptr_eq(fault.block, block);
    ck_assert_ptr_nonnull(strstr(fault.text, block->name));
    cm_arena_activate(NULL);
    ck_assert_int_eq(pthread_create(&thread, NULL, ask, block->data + 76), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_ptr_null(fault.block);
}
END_TEST

START_TEST(strangers_are_named)
{
    static const struct {
        uintptr_t address;
        bool write;
        const char *text;
    } rows[] = {
        {0, true, "write to an address that belongs to no argument (null pointer)"},
        {0, false, "read from an address that belongs to no argument (null pointer)"},
        {PAGE - 1, false, "read from an address that belongs to no argument (null pointer)"},
        {PAGE, true, "write to an address that belongs to no argument"},
    };
    for (size_t n = 0; n < sizeof rows / sizeof *rows; n++) {
        ck_assert(touch((char *)rows[n].address, rows[n].write));
        ck_assert_str_eq(fault.text, rows[n].text);
        ck_assert_int_eq(fault.touch, CM_TOUCH_UNKNOWN);
        ck_assert_ptr_null(fault.block);
    }
    char *data = arena.blocks[IDS].data;
    cm_arena_activate(NULL);
    ck_assert(touch(data, true));
    ck_assert_str_eq(fault.text, "write to an address that belongs to no argument");
}
END_TEST

START_TEST(sentences_fit)
{
    char text[200];
    const cm_block *block;
    for (size_t size = 1; size < 60; size++) {
        memset(text, '#', sizeof text);
        cm_arena_explain(arena.blocks[PADDED].data + 76, true, text, size, &block);
        ck_assert_uint_lt(strlen(text), size);
        ck_assert(text[size] == '#');
        ck_assert(!strncmp(text, "write to input `padded`[1,2,3] (read-only)", strlen(text)));
    }
}
END_TEST

// Only inputs are protected, reads stay possible, and protection ends.
START_TEST(protection_is_for_inputs)
{
    for (int n = 0; n < BLOCKS; n++)
        if (arena.blocks[n].size) {
            ck_assert(!touch(arena.blocks[n].data, false));
            ck_assert_int_eq(touch(arena.blocks[n].data, true), arena.blocks[n].input);
        }
    cm_arena_protect(&arena, false);
    for (int n = 0; n < BLOCKS; n++)
        if (arena.blocks[n].size)
            ck_assert(!touch(arena.blocks[n].data, true) && arena.blocks[n].data[0] == 1);
}
END_TEST

static const struct placed {
    size_t size, alignment;
} sizes[] = {{0, 1},        {1, 1},     {10, 8},       {100, 4},    {64, 64},  {PAGE - 1, 1}, {PAGE, 64},
             {PAGE + 1, 2}, {1000, 64}, {3 * PAGE, 4}, {70000, 64}, {5, 4096}, {PAGE, PAGE}};

START_TEST(placement)
{
    const struct placed *row = &sizes[_i / 2];
    cm_place place = _i % 2 ? CM_PLACE_START : CM_PLACE_END;
    char *data = cm_arena_take(&arena, "x", row->size, row->alignment, place, false);
    const cm_block *block = &arena.blocks[0];
    int64_t distance;
    ck_assert_ptr_nonnull(data);
    ck_assert_ptr_eq(data, block->data);
    ck_assert_uint_eq((uintptr_t)data % row->alignment, 0);
    size_t inside = (size_t)(data - block->mapping) - PAGE, pages = block->mapped - 2 * PAGE;
    ck_assert_uint_eq(pages % PAGE, 0);
    ck_assert_uint_ge(pages, row->size);
    ck_assert_uint_lt(pages, row->size + PAGE + (row->size == 0));
    if (place == CM_PLACE_START)
        ck_assert_uint_eq(inside, 0);
    else
        ck_assert_uint_lt(pages - inside - row->size, row->alignment);
    if (place == CM_PLACE_END && row->size % row->alignment == 0)
        ck_assert_uint_eq(inside + row->size, pages);
    ck_assert(touch(block->mapping, false) && touch(block->mapping + PAGE - 1, true));
    ck_assert(touch(block->mapping + PAGE + pages, false) && touch(block->mapping + block->mapped - 1, true));
    ck_assert_ptr_null(cm_arena_broken(&arena, &distance));
    memset(data, 0, row->size); // all of it is ours
    ck_assert_ptr_null(cm_arena_broken(&arena, &distance));
}
END_TEST

// Each byte of slack, with a neighbour on both sides that is intact.
START_TEST(canaries)
{
    const struct placed *row = &sizes[_i / 2];
    cm_arena_take(&arena, "before", 16, 16, CM_PLACE_START, false);
    cm_arena_take(&arena, "x", row->size, row->alignment, _i % 2 ? CM_PLACE_START : CM_PLACE_END, false);
    cm_arena_take(&arena, "behind", 16, 16, CM_PLACE_END, false);
    const cm_block *block = &arena.blocks[1];
    char *begin = block->mapping + PAGE, *end = block->mapping + block->mapped - PAGE;
    for (char *c = begin; c < end; c++) {
        int64_t distance = -12345;
        if (c >= block->data && c < block->data + block->size)
            continue;
        if ((unsigned char)*c != CM_CANARY)
            ck_abort_msg("no canary %lld bytes from the data", (long long)(c - block->data));
        *c ^= (char)(1 << (c - begin) % 8);
        const cm_block *broken = cm_arena_broken(&arena, &distance);
        *c ^= (char)(1 << (c - begin) % 8);
        if (broken != block || distance != c - block->data)
            ck_abort_msg("byte %lld is reported as %lld", (long long)(c - block->data), (long long)distance);
    }
}
END_TEST

// Simulated device memory: the host can neither read nor write it, and its canaries are out of reach.
START_TEST(fenced_blocks)
{
    int64_t distance;
    cm_arena_fence(&arena, arena.blocks[IDS].data);
    cm_arena_fence(&arena, arena.blocks[FLUSH].data);
    for (int again = 0; again < 2; again++) { // protection of inputs does not open them
        ck_assert(touch(arena.blocks[IDS].data + 36, true));
        ck_assert_str_eq(fault.text, "host write to device pointer `ids`[2,1]");
        ck_assert_int_eq(fault.touch, CM_TOUCH_DEVICE);
        ck_assert_ptr_eq(fault.block, &arena.blocks[IDS]);
        ck_assert(touch(arena.blocks[FLUSH].data + 1, false));
        ck_assert_str_eq(fault.text, "host read of device pointer `flush`");
        ck_assert(touch(arena.blocks[FLUSH].data - 1, false) && fault.touch == CM_TOUCH_DEVICE);
        ck_assert(!touch(arena.blocks[ODD].data, true));
        cm_arena_protect(&arena, false);
    }
    ck_assert_ptr_null(cm_arena_broken(&arena, &distance));
    arena.blocks[RAW].data[-1] = 0;
    ck_assert_ptr_eq(cm_arena_broken(&arena, &distance), &arena.blocks[RAW]);
}
END_TEST

START_TEST(nearest_damage_first)
{
    int64_t distance;
    char *first = cm_arena_take(&arena, "first", 8, 8, CM_PLACE_END, true);
    char *second = cm_arena_take(&arena, "second", 8, 8, CM_PLACE_START, false);
    second[8] = second[20] = 0;
    ck_assert_ptr_eq(cm_arena_broken(&arena, &distance), &arena.blocks[1]);
    ck_assert_int_eq(distance, 8);
    first[-5] = first[-2] = 0;
    cm_arena_protect(&arena, true);
    ck_assert_ptr_eq(cm_arena_broken(&arena, &distance), &arena.blocks[0]);
    ck_assert_int_eq(distance, -2);
}
END_TEST

START_TEST(limits)
{
    static const size_t absurd[] = {((size_t)1 << 46) + 1, SIZE_MAX, SIZE_MAX - 8191};
    for (size_t n = 0; n < sizeof absurd / sizeof *absurd; n++)
        ck_assert_ptr_null(cm_arena_take(&arena, "x", absurd[n], 64, CM_PLACE_END, false));
    ck_assert_int_eq(arena.count, 0);
    for (int n = 0; n < CM_ARENA_BLOCKS; n++)
        ck_assert_ptr_nonnull(cm_arena_take(&arena, "x", 8, 8, CM_PLACE_END, false));
    ck_assert_ptr_null(cm_arena_take(&arena, "x", 8, 8, CM_PLACE_END, false));
    ck_assert_int_eq(arena.count, CM_ARENA_BLOCKS);
    cm_arena_drop(&arena, 1);
    ck_assert_int_eq(arena.count, 1);
    arena.blocks[0].data[0] = 7; // still there
    ck_assert_ptr_nonnull(cm_arena_take(&arena, "x", 8, 8, CM_PLACE_END, false));
    cm_arena_drop(&arena, 2);
    ck_assert_int_eq(arena.count, 2);
}
END_TEST

// Lines of /proc/self/maps, without memory of its own.
static int mappings(void)
{
    static char text[1 << 16];
    int lines = 0, file = open("/proc/self/maps", O_RDONLY);
    ck_assert_int_ge(file, 0);
    for (ssize_t size; (size = read(file, text, sizeof text)) > 0;)
        for (ssize_t n = 0; n < size; n++)
            lines += text[n] == '\n';
    close(file);
    return lines;
}

static void cycle(void)
{
    for (int n = 0; n < 10; n++)
        ck_assert_ptr_nonnull(cm_arena_take(&arena, "x", (size_t)n * 1000, 4, (cm_place)(n % 2), n % 3 == 0));
    cm_arena_protect(&arena, true);
    cm_arena_drop(&arena, 5);
    cm_arena_drop(&arena, 0);
}

START_TEST(drop_unmaps)
{
    cycle();
    int before = mappings();
    for (int n = 0; n < 100; n++)
        cycle();
    ck_assert_int_lt(mappings() - before, 10); // libraries may have made one of their own
    char *data = cm_arena_take(&arena, "x", 8, 8, CM_PLACE_END, false);
    cm_arena_activate(&arena);
    cm_arena_drop(&arena, 0);
    ck_assert(touch(data, false));
    ck_assert_int_eq(fault.touch, CM_TOUCH_UNKNOWN);
}
END_TEST

// An arena that recycles: no mapping more after the first round, dropped memory can't be touched, and a block
// that comes back is like a new one.
START_TEST(recycled_blocks)
{
    int64_t distance;
    arena.recycle = true;
    cycle();
    int before = mappings();
    for (int n = 0; n < 100; n++)
        cycle();
    ck_assert_int_lt(mappings() - before, 10); // libraries may have made one of their own
    char *first = cm_arena_take(&arena, "first", 5000, 4, CM_PLACE_START, true);
    memset(first, 0, 8192);
    cm_arena_fence(&arena, first);
    cm_arena_drop(&arena, 0);
    ck_assert(touch(first, false));
    for (int n = 0; n < 10; n++) {
        char *data = cm_arena_take(&arena, "x", 5000, 4, (cm_place)(n % 2), n % 3 == 0);
        const cm_block *block = &arena.blocks[n];
        ck_assert(!block->fenced && !touch(data, true) && !touch(data + 4999, true));
        ck_assert(touch(block->mapping + PAGE - 1, false));
        ck_assert(touch(block->mapping + block->mapped - PAGE, true));
        ck_assert_ptr_null(cm_arena_broken(&arena, &distance));
    }
    cm_arena_drop(&arena, 0);
    arena.recycle = false;
}
END_TEST

Suite *cm_unit_arena(void)
{
    Suite *suite = suite_create("arena");
    TCase *faults = tcase_create("faults"), *memory = tcase_create("memory");
    tcase_set_timeout(memory, 60);
    tcase_add_checked_fixture(faults, set_up, tear_down);
    tcase_add_checked_fixture(memory, NULL, tear_down);
    tcase_add_loop_test(faults, faults_are_explained, 0, (int)(sizeof touched / sizeof *touched));
    tcase_add_test(faults, other_threads_are_told);
    tcase_add_test(faults, strangers_are_named);
    tcase_add_test(faults, sentences_fit);
    tcase_add_test(faults, protection_is_for_inputs);
    tcase_add_loop_test(memory, placement, 0, 2 * (int)(sizeof sizes / sizeof *sizes));
    tcase_add_loop_test(memory, canaries, 0, 2 * (int)(sizeof sizes / sizeof *sizes));
    tcase_add_test(faults, fenced_blocks);
    tcase_add_test(memory, nearest_damage_first);
    tcase_add_test(memory, limits);
    tcase_add_test(memory, drop_unmaps);
    tcase_add_test(memory, recycled_blocks);
    suite_add_tcase(suite, faults);
    suite_add_tcase(suite, memory);
    return suite;
}
