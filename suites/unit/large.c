// SPDX-License-Identifier: Apache-2.0
// What makes layers of full size cheap, on small ones: values made in bulk, weights that stages see and do
// not copy, and a reference that is asked once. None of it may show in a single bit.
#include "fixtures/bulk.h"
#include "harness/stage.h"
#include "suites/unit/cases.h"
#include "suites/unit/oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LAYER "t5-k2-e4-h64-i128-d128-r8x2-bf16-random-s1" // w_gate and the others: 64 KiB each

Suite *cm_unit_large(void);

static double third(int32_t number, const void *self)
{
    return number * *(const double *)self / 3;
}

static const struct bulk {
    cm_dtype dtype;
    int64_t rows, columns;
    cm_rng rng;
} bulks[] = {
    {CM_BF16, 2048, 2048, {1, 22}},
    {CM_F16, 1031, 4099, {0x123456789abcdef0, 0xffffffff}}, // a last batch of odd size
    {CM_F32, 2049, 2048, {7, 16}},
};

START_TEST(bulk_is_the_same_one_by_one)
{
    const struct bulk *bulk = &bulks[_i];
    cm_tensor tensor;
    int64_t count = bulk->rows * bulk->columns;
    double factor = 0x1p-20;
    size_t bytes = (size_t)cm_dtype_bits(bulk->dtype) / 8;
    char *data = cm_new((size_t)count, bytes);
    struct timespec begin, end;
    cm_tensor_init(&tensor, bulk->dtype, 2, (int64_t[]){bulk->rows, bulk->columns}, data);
    ck_assert(cm_bulk_fits(&tensor.dl));
    clock_gettime(CLOCK_MONOTONIC, &begin);
    cm_bulk_fill(bulk->rng, third, &factor, &tensor.dl);
    clock_gettime(CLOCK_MONOTONIC, &end);
    for (int64_t n = 0; n < count; n += CM_UNIT_SLOW ? 17 : 1) {
        char one[4];
        cm_store(one, bulk->dtype, 0, third(cm_rng_normal(bulk->rng, (uint64_t)n), &factor));
        ck_assert_msg(!memcmp(one, data + n * (int64_t)bytes, bytes), "element %lld", (long long)n);
    }
    if (getenv("CM_VERBOSE"))
        printf("bulk %s: %.2f ns an element\n", cm_dtype_name(bulk->dtype),
               ((double)(end.tv_sec - begin.tv_sec) * 1e9 + (double)(end.tv_nsec - begin.tv_nsec)) /
                   (double)count);
    free(data);
}
END_TEST

START_TEST(bulk_leaves_what_it_cannot_serve)
{
    cm_tensor tensor;
    cm_tensor_init(&tensor, CM_BF16, 2, (int64_t[]){2048, 2047}, NULL);
    ck_assert(!cm_bulk_fits(&tensor.dl)); // small
    cm_tensor_init(&tensor, CM_F64, 2, (int64_t[]){2048, 2048}, NULL);
    ck_assert(!cm_bulk_fits(&tensor.dl));
    cm_tensor_init(&tensor, CM_BF16, 2, (int64_t[]){4096, 2048}, NULL);
    tensor.strides[0] = 2051;
    ck_assert(!cm_bulk_fits(&tensor.dl)); // gaps
    tensor.strides[0] = 0;
    ck_assert(!cm_bulk_fits(&tensor.dl)); // one row for all
}
END_TEST

static const cm_kernel none = {.size = sizeof none, .name = "moe_forward/none"};

struct play {
    cm_pristine *pristine;
    cm_outcome outcome;
    cm_trial trial;
    int w_gate;
    cm_stage stage;
};

static void open_play(struct play *play, const cm_stage_options *options)
{
    *play = (struct play){.pristine = cm_unit_open("moe_forward", LAYER)};
    play->trial = (cm_trial){&none, play->pristine, &play->outcome};
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++)
        if (play->pristine->arguments[n] == cm_unit_argument(play->pristine, "w_gate"))
            play->w_gate = n;
    ck_assert_int_gt(play->pristine->files[play->w_gate], 0);
    cm_stage_open(&play->trial, options, &play->stage);
}

static void close_play(struct play *play)
{
    cm_stage_close(&play->stage);
    cm_unit_close(play->pristine);
}

static const cm_stage_options plain = {.place = CM_PLACE_END, .poison = CM_CANARY};

// A stage that is written to is alone with it.
START_TEST(views_are_private)
{
    struct play play;
    cm_stage other;
    int64_t flat;
    open_play(&play, &plain);
    cm_stage_open(&play.trial, &plain, &other);
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++) {
        const DLTensor *mine = play.stage.arguments[n], *first = play.pristine->arguments[n];
        if (!mine || play.pristine->test_case.op->arguments[n].role == CM_OUTPUT)
            continue;
        ck_assert(cm_tensor_equal(mine, first, &flat));
        ck_assert_ptr_ne(mine->data, first->data);
    }
    cm_tensor_set(play.stage.arguments[play.w_gate], 70, 1000);
    ck_assert(
        !cm_tensor_equal(play.stage.arguments[play.w_gate], play.pristine->arguments[play.w_gate], &flat));
    ck_assert_int_eq(flat, 70);
    ck_assert(cm_tensor_equal(other.arguments[play.w_gate], play.pristine->arguments[play.w_gate], &flat));
    cm_stage_close(&other);
    close_play(&play);
}
END_TEST

// Reads or writes one byte in a child; the signal that ended it, or 0.
static int signal_of(volatile char *address, bool write)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        signal(SIGBUS, SIG_DFL);
        if (write)
            *address = 1;
        else
            (void)*address;
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

START_TEST(views_are_guarded)
{
    struct play play;
    const cm_block *block = NULL;
    char text[160];
    open_play(&play, &plain);
    const DLTensor *gate = play.stage.arguments[play.w_gate];
    char *data = gate->data, *end = data + cm_tensor_extent(gate);
    ck_assert_int_eq(signal_of(data, true), 0);
    ck_assert_int_eq(signal_of(end - 1, true), 0);
    cm_arena_protect(&play.stage.arena, true);
    ck_assert_int_eq(signal_of(data, false), 0);
    ck_assert_int_ne(signal_of(data + 6, true), 0);
    ck_assert_int_ne(signal_of(end - 1, true), 0);
    ck_assert_int_ne(signal_of(data - 1, false), 0);
    ck_assert_int_ne(signal_of(end, false), 0);
    ck_assert_int_eq(cm_arena_explain(data + 6, true, text, sizeof text, &block), CM_TOUCH_INPUT_WRITE);
    ck_assert_str_eq(text, "write to input `w_gate`[0,0,3] (read-only)");
    ck_assert_int_eq(cm_arena_explain(end + 1, false, text, sizeof text, &block), CM_TOUCH_GUARD);
    ck_assert_str_eq(text, "read 1 bytes past the end of `w_gate`");
    close_play(&play);
}
END_TEST

// Whole runs are hidden as single elements would be.
START_TEST(hides_by_runs)
{
    struct play play;
    uint8_t *masks[CM_MAX_ARGUMENTS] = {0};
    cm_stage hidden;
    open_play(&play, &plain);
    const DLTensor *from = play.pristine->arguments[play.w_gate];
    int64_t count = cm_tensor_count(from);
    uint8_t *mask = masks[play.w_gate] = cm_new((size_t)count, 1);
    for (int64_t n = 0; n < count; n++) // runs of 1 to 40 of each, and values that a mask can have
        mask[n] = n / (1 + n / 1000 % 40) % 2 ? (uint8_t)(1 + n % 3) : 0;
    cm_stage_options options = plain;
    options.hide = masks;
    cm_stage_open(&play.trial, &options, &hidden);
    const uint16_t *is = hidden.arguments[play.w_gate]->data, *was = from->data;
    for (int64_t n = 0; n < count; n++)
        ck_assert_msg(is[n] == (mask[n] ? was[n] : 0xffff), "element %lld", (long long)n);
    cm_stage_close(&hidden);
    free(mask);
    close_play(&play);
}
END_TEST

// A copy shares large weights until it owns them; what it then changes stays its own, in stages, too.
START_TEST(copies_own_what_they_change)
{
    struct play play;
    cm_pristine copy;
    cm_error error = {{0}};
    int64_t flat;
    open_play(&play, &plain);
    int n = play.w_gate;
    ck_assert_int_eq(cm_pristine_copy(play.pristine, &copy, &error), CM_OK);
    ck_assert_int_ne(signal_of(copy.arguments[n]->data, true), 0); // a change by mistake is loud
    ck_assert_int_eq(cm_pristine_own(&copy, n, &error), CM_OK);
    ck_assert(cm_tensor_equal(copy.arguments[n], play.pristine->arguments[n], &flat));
    cm_tensor_set(copy.arguments[n], 9, 1000);
    ck_assert(!cm_tensor_equal(copy.arguments[n], play.pristine->arguments[n], &flat));
    cm_trial trial = {&none, &copy, &play.outcome};
    cm_stage stage;
    cm_stage_open(&trial, &plain, &stage);
    ck_assert(cm_tensor_equal(copy.arguments[n], stage.arguments[n], &flat));
    cm_stage_close(&stage);
    cm_pristine_close(&copy);
    ck_assert(cm_tensor_equal(play.stage.arguments[n], play.pristine->arguments[n], &flat));
    close_play(&play);
}
END_TEST

static int evaluations;
static cm_status (*evaluated)(const cm_call *call, uint64_t omit, cm_accuracy accuracy, cm_want *want);

static cm_status count_evaluation(const cm_call *call, uint64_t omit, cm_accuracy accuracy, cm_want *want)
{
    evaluations++;
    return evaluated(call, omit, accuracy, want);
}

// Asks the reference about a copy whose x is multiplied; returns how often it was evaluated.
static int ask(const cm_pristine *pristine, double factor, cm_accuracy accuracy, bool some, cm_pristine *copy)
{
    cm_pristine whole;
    cm_error error = {{0}};
    int before = evaluations;
    ck_assert_int_eq(cm_pristine_copy(pristine, &whole, &error), CM_OK);
    for (int64_t i = 0; i < cm_tensor_count(whole.arguments[0]); i++)
        cm_tensor_set(whole.arguments[0], i, factor * cm_tensor_get(whole.arguments[0], i));
    if (some)
        ck_assert_int_eq(cm_pristine_select(&whole, 'T', (int64_t[]){1, 0}, 2, copy, &error), CM_OK);
    else
        *copy = whole;
    ck_assert_int_eq(cm_pristine_want(copy, accuracy, &error), CM_OK);
    if (some)
        cm_pristine_close(&whole); // its wants are its own
    return evaluations - before;
}

// What one copy asked the reference, another of the same values gets without asking; other values, rows and
// accuracies are asked about anew.
START_TEST(reference_is_kept)
{
    cm_pristine *pristine = cm_unit_open("moe_forward", LAYER), copies[8];
    cm_op counting = *pristine->test_case.op;
    cm_error error = {{0}};
    int n = 0;
    evaluated = counting.reference;
    counting.reference = count_evaluation;
    pristine->test_case.op = &counting;
    ck_assert_ptr_nonnull(pristine->kept);
    ck_assert_int_eq(cm_pristine_want(pristine, CM_ACCURACY_MODEL, &error), CM_OK);
    while (pristine->want[CM_ACCURACY_MODEL][n].count == 0)
        n++;
    static const struct {
        double factor;
        cm_accuracy accuracy;
        bool some;
        int evaluations;
    } rows[] = {{1, CM_ACCURACY_MODEL, false, 0}, {0, CM_ACCURACY_MODEL, false, 1},
                {0, CM_ACCURACY_MODEL, false, 0}, {1, CM_ACCURACY_SINGLE, false, 1},
                {1, CM_ACCURACY_MODEL, true, 1},  {1, CM_ACCURACY_MODEL, true, 0},
                {1, CM_ACCURACY_MODEL, false, 0}, {1, CM_ACCURACY_SINGLE, false, 0}};
    for (int row = 0; row < 8; row++)
        ck_assert_int_eq(ask(pristine, rows[row].factor, rows[row].accuracy, rows[row].some, &copies[row]),
                         rows[row].evaluations);
    static const int same[][2] = {{0, 6}, {1, 2}, {3, 7}, {4, 5}};
    for (int pair = 0; pair < 4; pair++) {
        const cm_want *left = &copies[same[pair][0]].want[rows[same[pair][0]].accuracy][n];
        const cm_want *right = &copies[same[pair][1]].want[rows[same[pair][0]].accuracy][n];
        size_t size = (size_t)left->count * sizeof(double);
        ck_assert_int_eq(left->count, right->count);
        ck_assert(!memcmp(left->value, right->value, size) && !memcmp(left->sigma, right->sigma, size));
        ck_assert(!memcmp(left->worst, right->worst, size) && !memcmp(left->order, right->order, size));
        ck_assert(!memcmp(left->magnitude, right->magnitude, size));
    }
    const cm_want *want = &pristine->want[CM_ACCURACY_MODEL][n];
    int64_t row = want->count / pristine->arguments[n]->shape[0];
    for (int64_t i = 0; i < want->count; i++)
        ck_assert(copies[1].want[CM_ACCURACY_MODEL][n].value[i] == 0); // of x = 0
    for (int64_t i = 0; i < 2 * row; i++)
        ck_assert(copies[4].want[CM_ACCURACY_MODEL][n].value[i] == want->value[(i + row) % (2 * row)]);
    for (int row_number = 0; row_number < 8; row_number++)
        cm_pristine_close(&copies[row_number]);
    cm_unit_close(pristine);
}
END_TEST

Suite *cm_unit_large(void)
{
    Suite *suite = suite_create("large");
    TCase *tcase = tcase_create("large");
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, bulk_is_the_same_one_by_one, 0, sizeof bulks / sizeof *bulks);
    tcase_add_test(tcase, bulk_leaves_what_it_cannot_serve);
    tcase_add_test(tcase, views_are_private);
    tcase_add_test(tcase, views_are_guarded);
    tcase_add_test(tcase, hides_by_runs);
    tcase_add_test(tcase, copies_own_what_they_change);
    tcase_add_test(tcase, reference_is_kept);
    suite_add_tcase(suite, tcase);
    return suite;
}
