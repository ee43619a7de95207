// SPDX-License-Identifier: Apache-2.0
// What a bench is asked for by names, and what it says about all of its cells: layers and formats, calls
// without adapters, memory, ids by threads, and the table in Markdown from made-up times.
#include "harness/bench.h"
#include "harness/bench_inputs.h"
#include "harness/bench_layers.h"
#include "harness/bench_summary.h"
#include "optimized/kernels.h"
#include "suites/unit/bench_kernels.h"
#include "suites/unit/cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct named {
    const char *layers, *formats;
    int64_t rank;
    const char *want; // NULL: refused
} named[] = {
    {"ds", NULL, 16, "{ds}-bf16-{}-r16x1-full-random-s1"},
    {"QW,mixtral-8x7b", "bf16,int8,int4g128", 0, "{qw,mx}-bf16-{,int8,int4g128}-random-s1"},
    {"ds,", NULL, 16, NULL},
    {"ds", "int4,", 16, NULL},
};

START_TEST(layers_by_name)
{
    char *pattern = NULL;
    cm_error error = {{0}};
    cm_status status = cm_bench_layers(named[_i].layers, named[_i].formats, named[_i].rank, &pattern, &error);
    ck_assert_int_eq(status, named[_i].want ? CM_OK : CM_BAD_VALUE);
    if (named[_i].want)
        ck_assert_str_eq(pattern, named[_i].want);
    else
        ck_assert(error.message[0] && !pattern);
    free(pattern);
}
END_TEST

// Names of layers and formats are words of a case; its printed name has what they stand for.
START_TEST(names_are_words_of_a_case)
{
    static const char *const cases[][2] = {
        {"t4-ds-bf16-r16x1-full-random-s1", "t4-k6-e64-h2048-i1408-r16x1-bf16-full-random-s1"},
        {"qw-t1-bf16-int8-random-s1", "t1-k8-e128-h2048-i768-bf16-wi8-act_quant=int8_row-random-s1"},
        {"t1-mx-f32-int4g128-random-s1", "t1-k2-e8-h4096-i14336-g128-f32-wi4-act_quant=int8_row-random-s1"},
    };
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
        char text[CM_CASE_TEXT];
        cm_case test_case = cm_unit_case("moe_forward", cases[n][0]);
        cm_case_print(&test_case, text);
        ck_assert_str_eq(text, cases[n][1]);
    }
}
END_TEST

static cm_status run_wrong_without(const cm_call *call, void *state)
{
    cm_status status = cm_moe_forward_naive.run(call, state);
    if (status == CM_OK && call->host->dim(call, 'L') == 0)
        *(float *)call->host->argument(call, "output")->data += 1;
    return status;
}

// What is left out is absent for kernel and reference alike; weights are the same memory. A kernel that is
// wrong only without adapters gets no ratio.
START_TEST(calls_without_adapters)
{
    cm_pristine *pristine = cm_unit_open("moe_forward", "t5-k2-e4-h48-i40-d24-r8x2-f32-full-random-s1"), bare;
    cm_error error = {{0}};
    const cm_op *op = pristine->test_case.op;
    cm_kernel wrong = cm_moe_forward_naive;
    cm_copies copies, bare_copies;
    ck_assert_int_eq(cm_pristine_unadapted(pristine, &bare, &error), CM_OK);
    ck_assert_str_eq(bare.name, "t5-k2-e4-h48-i40-d24-f32-full-random-s1");
    for (int n = 0; op->arguments[n].name; n++)
        if (pristine->arguments[n] && op->arguments[n].role == CM_ADAPTER)
            ck_assert_ptr_null(bare.arguments[n]);
        else if (op->arguments[n].role == CM_WEIGHT && pristine->arguments[n])
            ck_assert_ptr_eq(bare.arguments[n]->data, pristine->arguments[n]->data);
    ck_assert_int_eq(cm_pristine_want(pristine, wrong.accuracy, &error), CM_OK);
    ck_assert_int_eq(cm_pristine_want(&bare, wrong.accuracy, &error), CM_OK);
    ck_assert_int_eq(cm_copies_open(pristine, 1000, 2000, 0, 256, &copies, &error), CM_OK);
    bare_copies = copies;
    bare_copies.pristine = &bare;
    wrong.name = "moe_forward/wrong_without";
    wrong.run = run_wrong_without;
    for (int which = 0; which < 2; which++) {
        const cm_kernel *kernel = which ? &wrong : &cm_moe_forward_naive;
        cm_bench_job jobs[2] = {{kernel, NULL, &bare_copies, 1, 60, NULL},
                                {kernel, NULL, &copies, 1, 60, NULL}};
        cm_bench_options options = {.rounds = 8, .seconds = 20, .seed = 1};
        cm_bench_result result;
        ck_assert_int_eq(cm_bench_pair(jobs, &options, &result), which == 0);
        ck_assert_int_eq(result.outcomes[0].verdict, which ? CM_FAIL : CM_PASS);
    }
    cm_copies_close(&copies);
    cm_pristine_close(&bare);
    cm_unit_close(pristine);
    cm_pristine *shrink = cm_unit_open("sgmv_shrink", "t7-r8x2-K96-f32-random-s1");
    ck_assert_int_eq(cm_pristine_unadapted(shrink, &bare, &error), CM_BAD_VALUE);
    cm_pristine_close(&bare);
    cm_unit_close(shrink);
}
END_TEST

// One copy with what two kernels make of it is three times its bytes, beside the pristine's own.
START_TEST(memory_is_limited)
{
    cm_pristine *pristine = cm_unit_open("moe_forward", "t1-k1-e2-h512-i512-bf16-random-s1");
    cm_copies copies;
    cm_error error = {{0}};
    size_t mib = (size_t)1 << 20; // 3 MiB of weights; a copy of them takes 9.2 MiB in all
    ck_assert_int_eq(cm_copies_open(pristine, 1000, 8000, 0, 256, &copies, &error), CM_OK);
    ck_assert_int_eq(copies.count, 8);
    cm_copies_close(&copies);
    ck_assert_int_eq(cm_copies_open(pristine, 1000, 8000, 32 * mib, 256, &copies, &error), CM_OK);
    ck_assert(copies.count == 3 && copies.short_of_memory);
    cm_copies_close(&copies);
    ck_assert_int_eq(cm_copies_open(pristine, 1000, 8000, 8 * mib, 256, &copies, &error), CM_NO_MEMORY);
    ck_assert_ptr_nonnull(strstr(error.message, "--memory-gib"));
    cm_copies_close(&copies);
    cm_unit_close(pristine);
}
END_TEST

// Two kernels with 1 and 2 threads: exact times make exact words.
START_TEST(tables_of_made_up_times)
{
    cm_pristine *pristine = cm_unit_open("moe_forward", "t4-k1-e2-h8-i8-r2x1-bf16-full-random-s1");
    cm_ceilings ceilings = {.read = 1e9, .multiply = {1e9, 1e9, 1e9}};
    cm_copies copies = {.pristine = pristine, .count = 1};
    cm_bench_row rows[3] = {{.kernel = &cm_moe_forward_openblas, .timed = true, .ns = 4e6},
                            {.kernel = &cm_moe_forward_naive, .timed = true, .ns = 2e6},
                            {.kernel = &cm_moe_forward_onednn}};
    cm_bench_group group = {.pristine = pristine,
                            .copies = &copies,
                            .ceilings = &ceilings,
                            .counts = {.operations = 5e5, .bytes_read = 1e6},
                            .gate = log(1.02),
                            .rows = rows,
                            .count = 3};
    cm_bench_summary summary = {0};
    char *text = NULL, ids[2][CM_RECORD_ID];
    size_t size;
    rows[0].ratio = (cm_interval){0, -0.01, 0.01};
    rows[0].adapted = (cm_interval){NAN, NAN, NAN};
    rows[1].adapted = (cm_interval){log(1.05), log(1.04), log(1.06)};
    for (int threads = 1; threads <= 2; threads++) {
        cm_record record;
        group.threads = threads;
        rows[1].ratio = (cm_interval){log(0.5 * threads * threads), log(0.4), NAN};
        rows[1].ratio.high = log(2.5);
        cm_bench_summary_add(&summary, &group);
        cm_bench_record(&group, &rows[1], "r", &record);
        cm_record_id(&record, ids[threads - 1]);
        cm_record_close(&record);
    }
    ck_assert_str_ne(ids[0], ids[1]); // each number of threads is a series of its own
    FILE *out = open_memstream(&text, &size);
    cm_bench_summary_print(&summary, out);
    fclose(out);
    static const char *const parts[] = {
        "| k1-e2-h8-i8-r2x1-bf16-full-random-s1 | 1 | 4 | moe_forward/openblas | 4 | - | 25 % | 12 % | 4.00 "
        "| - |",
        "| 1 | 4 | moe_forward/naive | 2 | 0.500 [0.400, 2.500] | 50 % | 25 % | 2.00 | 1.050 [1.040, 1.060] "
        "|",
        "| 2 | 4 | moe_forward/naive | 2 | 2.000 [0.400, 2.500] |",
        "moe_forward/naive: geometric mean of 2 ratios 1.000; T = 4: 1.000 of 2",
        "changes from 2.00 % up in the quietest case",
        "2 kernels of a case got no time",
    };
    for (size_t n = 0; n < sizeof parts / sizeof *parts; n++)
        ck_assert_msg(strstr(text, parts[n]) != NULL, "without \"%s\":\n%s", parts[n], text);
    free(text);
    cm_bench_summary_close(&summary);
    cm_unit_close(pristine);
}
END_TEST

// Remembers its first result, as if inputs never changed: what a state with a cache would do.
static cm_status prepare_cache(const cm_call *call, void **state)
{
    const DLTensor *v = call->host->argument(call, "v");
    *state = calloc((size_t)(v->shape[0] * v->strides[0]) + 1, sizeof(float)); // the last says whether
    return *state ? CM_OK : CM_NO_MEMORY;
}

static cm_status run_first_again(const cm_call *call, void *state)
{
    const DLTensor *v = call->host->argument(call, "v");
    size_t count = (size_t)(v->shape[0] * v->strides[0]);
    float *cache = state;
    if (cache[count] == 0) {
        cm_status status = cm_sgmv_shrink_naive.run(call, NULL);
        memcpy(cache, v->data, count * sizeof *cache);
        cache[count] = 1;
        return status;
    }
    memcpy(v->data, cache, count * sizeof *cache);
    return CM_OK;
}

// Other inputs with every turn, each judged: a kernel that gives the last answer again gets no time.
START_TEST(inputs_change)
{
    cm_pristine *pristine = cm_unit_open("sgmv_shrink", "t7-r8x2-K96-f32-full-random-s1");
    cm_copies copies;
    cm_bench_inputs *inputs = NULL;
    cm_error error = {{0}};
    cm_kernel cached = cm_sgmv_shrink_naive;
    ck_assert_int_eq(cm_copies_open(pristine, 1000, 2000, 0, 256, &copies, &error), CM_OK);
    ck_assert_int_eq(cm_bench_inputs_open(pristine, NULL, 1e5, 8000, &copies, &inputs, &error), CM_OK);
    ck_assert_int_eq(copies.other_count, 7); // 8000 bytes twice over
    ck_assert_int_eq(cm_bench_inputs_want(inputs, cached.accuracy, &error), CM_OK);
    const cm_op *op = pristine->test_case.op;
    for (int n = 0; op->arguments[n].name; n++)
        for (int other = 0; other < copies.other_count; other++) {
            const DLTensor *one = pristine->arguments[n], *two = copies.others[other]->arguments[n];
            if (op->arguments[n].role == CM_ADAPTER)
                ck_assert_ptr_eq(one->data, two->data);
            if (!strcmp(op->arguments[n].name, "x"))
                ck_assert(memcmp(one->data, two->data, cm_tensor_extent(one)) != 0);
        }
    cached.name = "sgmv_shrink/cached";
    cached.prepare = prepare_cache;
    cached.run = run_first_again;
    cached.release = free;
    for (int which = 0; which < 2; which++) {
        const cm_kernel *kernel = which ? &cached : &cm_sgmv_shrink_naive;
        cm_bench_job jobs[2] = {{&cm_sgmv_shrink_naive, NULL, &copies, 1, 60, NULL},
                                {kernel, NULL, &copies, 1, 60, NULL}};
        cm_bench_options options = {.rounds = 8, .seconds = 20, .seed = 1};
        cm_bench_result result;
        ck_assert_int_eq(cm_bench_pair(jobs, &options, &result), which == 0);
        ck_assert_int_eq(result.outcomes[1].verdict, which ? CM_FAIL : CM_PASS);
    }
    cm_bench_inputs_close(inputs);
    cm_copies_close(&copies);
    ck_assert_int_eq(cm_copies_open(pristine, 1000, 2000, 0, 256, &copies, &error), CM_OK);
    ck_assert_int_eq(cm_bench_inputs_open(pristine, NULL, 1e12, 2000, &copies, &inputs, &error), CM_OK);
    ck_assert_int_eq(copies.other_count, 0); // the reference would take minutes for each
    cm_bench_inputs_close(inputs);
    cm_copies_close(&copies);
    cm_unit_close(pristine);
}
END_TEST

TCase *cm_unit_bench_tables(void)
{
    TCase *tcase = tcase_create("tables");
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, layers_by_name, 0, sizeof named / sizeof *named);
    tcase_add_test(tcase, names_are_words_of_a_case);
    tcase_add_test(tcase, calls_without_adapters);
    tcase_add_test(tcase, memory_is_limited);
    tcase_add_test(tcase, inputs_change);
    tcase_add_test(tcase, tables_of_made_up_times);
    return tcase;
}
