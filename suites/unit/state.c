// SPDX-License-Identifier: Apache-2.0
// The checks state, determinism and device on kernels made for them: what must be found and with which words,
// what a refusal leaves in the record, and the calls that the check state makes.
#include "harness/state.h"
#include "harness/child.h"
#include "harness/op.h"
#include "optimized/kernels.h"
#include "suites/unit/cases.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

Suite *cm_unit_state(void);

extern const cm_check cm_check_state, cm_check_determinism, cm_check_device;

static const char *const expand_case = "t9-r8x4-n48-S2-bf16-full-random-s1";

// The kernel's outcome, from a process of its own.
static cm_outcome outcome_of(const cm_check *check, const cm_kernel *kernel, const char *op, const char *name)
{
    cm_pristine *pristine = cm_unit_open(op, name);
    cm_slot *slot = mmap(NULL, sizeof *slot, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(slot, MAP_FAILED);
    pid_t process = fork();
    ck_assert_int_ge(process, 0);
    if (process == 0) {
        cm_trial trial = {kernel, pristine, &slot->outcome};
        cm_child_run(check, &trial, NULL, 60, slot);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(process, NULL, 0), process);
    cm_outcome outcome = slot->outcome;
    munmap(slot, sizeof *slot);
    cm_unit_close(pristine);
    return outcome;
}

static void expect(const cm_outcome *outcome, cm_verdict verdict, const char *finding)
{
    ck_assert_msg(outcome->verdict == verdict && strstr(outcome->reason, finding), "%s, expected %s: %s",
                  cm_verdict_name(outcome->verdict), cm_verdict_name(verdict), outcome->reason);
}

// -1: the record has no such metric.
static double metric_of(const cm_outcome *outcome, const char *name)
{
    for (int n = 0; n < outcome->metric_count; n++)
        if (!strcmp(outcome->metrics[n].name, name))
            return outcome->metrics[n].value;
    return -1;
}

// A kernel with a state that knows how many adapters prepare saw.
struct counted {
    int64_t L;
};

static cm_status prepare(const cm_call *call, void **state)
{
    cm_status status = call->host->validate(call);
    if (status != CM_OK)
        return status;
    struct counted *counted = malloc(sizeof *counted);
    if (!counted)
        return CM_NO_MEMORY;
    counted->L = call->host->dim(call, 'L');
    *state = counted;
    return CM_OK;
}

static cm_status run_counted(const cm_call *call, const struct counted *counted, cm_status refusal)
{
    if (!counted)
        return (call->host->fail)(call, CM_BAD_STATE, "prepare was not called");
    if (counted->L != call->host->dim(call, 'L'))
        return (call->host->fail)(call, refusal, "there is room for %d adapters", (int)counted->L);
    return cm_sgmv_expand_naive.run(call, NULL);
}

static cm_status run_honest(const cm_call *call, void *state)
{
    return run_counted(call, state, CM_BAD_STATE);
}

static cm_status run_vague(const cm_call *call, void *state)
{
    return run_counted(call, state, CM_NO_MEMORY);
}

static cm_status run_careless(const cm_call *call, void *state)
{
    (void)state;
    return cm_sgmv_expand_naive.run(call, NULL);
}

static cm_status update_strict(const cm_call *call, void *state)
{
    return state ? call->host->validate(call) : CM_BAD_STATE;
}

static cm_status update_careless(const cm_call *call, void *state)
{
    (void)state;
    return call->host->validate(call);
}

static cm_status prepare_leaves_state(const cm_call *call, void **state)
{
    *state = malloc(sizeof(struct counted));
    if (!*state)
        return CM_NO_MEMORY;
    *(struct counted *)*state = (struct counted){call->host->dim(call, 'L')};
    return call->host->validate(call);
}

// Adds to the result what the last call of any state left behind.
static cm_status run_with_memory(const cm_call *call, void *state)
{
    static int calls;
    cm_status status = run_honest(call, state);
    const DLTensor *y = call->host->argument(call, "y");
    if (status == CM_OK && calls++ == 2)
        memset(y->data, 0, 2);
    return status;
}

static const struct state_row {
    const char *name;
    cm_status (*prepare)(const cm_call *call, void **state);
    cm_status (*update)(const cm_call *call, void *state);
    cm_status (*run)(const cm_call *call, void *state);
    cm_verdict verdict;
    const char *finding;
    double refused; // the metric capacity_refused
} state_rows[] = {
    {"honest", prepare, NULL, run_honest, CM_PASS, "", 1},
    {"honest, with update", prepare, update_strict, run_honest, CM_PASS, "", 1},
    {"no state", NULL, NULL, run_careless, CM_PASS, "", -1},
    {"vague", prepare, NULL, run_vague, CM_FAIL, "only \"bad state\" or \"unsupported\" refuse", -1},
    {"run without prepare", prepare, NULL, run_careless, CM_FAIL, "run before prepare was accepted", -1},
    {"update without prepare", prepare, update_careless, run_honest, CM_FAIL,
     "update before prepare was accepted", -1},
    {"state of a failed prepare", prepare_leaves_state, NULL, run_honest, CM_FAIL,
     "prepare without `v` failed, but left a state", -1},
    {"memory of former calls", prepare, NULL, run_with_memory, CM_FAIL,
     "`y` differs from that of a fresh state, first at element 0", -1},
};

START_TEST(states)
{
    const struct state_row *row = &state_rows[_i];
    const cm_kernel kernel = {.size = sizeof kernel,
                              .name = "sgmv_expand/test",
                              .prepare = row->prepare,
                              .update = row->update,
                              .run = row->run,
                              .release = free};
    cm_outcome outcome = outcome_of(&cm_check_state, &kernel, "sgmv_expand", expand_case);
    expect(&outcome, row->verdict, row->finding);
    ck_assert_msg(metric_of(&outcome, "capacity_refused") == row->refused, "%s", row->name);
}
END_TEST

// The calls are what they are called: sizes, weights and what is absent.
START_TEST(scenes)
{
    cm_pristine *pristine = cm_unit_open("moe_forward", "t5-k2-e4-h48-i40-d24-r8x4-bf16-full-exact-s1");
    const cm_op *op = pristine->test_case.op;
    cm_outcome *outcome =
        mmap(NULL, sizeof *outcome, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(outcome, MAP_FAILED);
    cm_trial trial = {&cm_moe_forward_naive, pristine, outcome};
    cm_scenes *made = cm_new(1, sizeof *made);
    ck_assert_int_eq(cm_scenes_open(&trial, made), CM_PASS);
    static const struct {
        cm_scene_kind kind;
        int64_t T, L, r, H;
        bool lora, same_weights, same_adapters;
    } rows[] = {
        {CM_SCENE_FIRST, 5, 4, 8, 48, true, true, true},
        {CM_SCENE_INPUTS, 5, 4, 8, 48, true, true, true},
        {CM_SCENE_ADAPTERS, 5, 4, 8, 48, true, true, false},
        {CM_SCENE_UNLOADED, 5, 0, 0, 48, false, true, false},
        {CM_SCENE_TOKENS, 2, 4, 8, 48, true, true, true},
        {CM_SCENE_SMALL, 1, 2, 4, 48, true, true, false},
        {CM_SCENE_SHAPE, 8, 4, 8, 96, true, false, false},
    };
    for (size_t n = 0; n < sizeof rows / sizeof *rows; n++) {
        const cm_scene *scene = &made->list[rows[n].kind];
        const int64_t *dims = scene->values.test_case.dims;
        int64_t flat;
        ck_assert_msg(scene->open, "scene %zu", n);
        ck_assert(dims[cm_dim_index('T')] == rows[n].T && dims[cm_dim_index('L')] == rows[n].L);
        ck_assert(dims[cm_dim_index('r')] == rows[n].r && dims[cm_dim_index('H')] == rows[n].H);
        const DLTensor *w = cm_unit_argument(&scene->values, "w_down");
        const DLTensor *b = cm_unit_argument(&scene->values, "shared_lora_b_up");
        const DLTensor *rank = cm_unit_argument(&scene->values, "lora_rank");
        ck_assert((b != NULL) == rows[n].lora && (rank != NULL) == rows[n].lora);
        ck_assert((cm_unit_argument(&scene->values, "token_adapter") != NULL) == rows[n].lora);
        if (rows[n].same_weights)
            ck_assert(cm_tensor_equal(w, cm_unit_argument(pristine, "w_down"), &flat));
        if (rows[n].same_adapters)
            ck_assert(cm_tensor_equal(b, cm_unit_argument(pristine, "shared_lora_b_up"), &flat));
        for (int64_t a = 0; rank && a < rows[n].L; a++)
            ck_assert(cm_tensor_get(rank, a) <= (double)rows[n].r);
    }
    // The first element of the last row of the smaller A stands where the case has it.
    const DLTensor *all = cm_unit_argument(pristine, "lora_a_up");
    const DLTensor *some = cm_unit_argument(&made->list[CM_SCENE_SMALL].values, "lora_a_up");
    for (int64_t j = 0; j < 4; j++)
        ck_assert(cm_tensor_get(some, ((1 * 4 + 3) * 4 + j) * 48) ==
                  cm_tensor_get(all, ((1 * 4 + 3) * 8 + j) * 48));
    int64_t flat;
    const DLTensor *hidden = cm_unit_argument(pristine, "hidden");
    ck_assert(
        !cm_tensor_equal(cm_unit_argument(&made->list[CM_SCENE_INPUTS].values, "hidden"), hidden, &flat));
    ck_assert_int_ge(cm_op_argument_index(op, "hidden"), 0);
    cm_scenes_close(made);
    free(made);
    munmap(outcome, sizeof *outcome);
    cm_unit_close(pristine);
}
END_TEST

// Scales what the naive kernel wrote by 1 + 2^-8 for more than one thread.
static cm_status run_by_threads(const cm_call *call, void *state)
{
    cm_status status = cm_sgmv_expand_naive.run(call, state);
    const DLTensor *y = call->host->argument(call, "y");
    for (int64_t n = 0; status == CM_OK && call->threads > 1 && n < cm_tensor_count(y); n++)
        cm_tensor_set(y, n, cm_tensor_get(y, n) * (1 + 0x1p-6));
    return status;
}

static cm_status run_by_turns(const cm_call *call, void *state)
{
    static int turn;
    cm_status status = cm_sgmv_expand_naive.run(call, state);
    const DLTensor *y = call->host->argument(call, "y");
    if (status == CM_OK && turn++ >= 7)
        cm_tensor_set(y, 3, 1 + cm_tensor_get(y, 3));
    return status;
}

static const struct determinism_row {
    cm_status (*run)(const cm_call *call, void *state);
    bool declared;
    cm_verdict verdict;
    const char *finding;
    double varies;
} determinism_rows[] = {
    {run_careless, false, CM_PASS, "", -1},
    {run_careless, true, CM_PASS, "", 0},
    {run_by_threads, false, CM_FAIL, "`y` differs from the first run in run 4 (at most 2 threads)", -1},
    {run_by_threads, true, CM_PASS, "", 1},
    {run_by_turns, true, CM_FAIL,
     "differs from the first run with this limit in run 8 (at most 2 threads), "
     "first at element 3",
     -1},
};

START_TEST(thread_limits)
{
    const struct determinism_row *row = &determinism_rows[_i];
    const cm_kernel kernel = {.size = sizeof kernel,
                              .name = "sgmv_expand/test",
                              .threads_change_bits = row->declared,
                              .run = row->run};
    cm_outcome outcome = outcome_of(&cm_check_determinism, &kernel, "sgmv_expand", expand_case);
    expect(&outcome, row->verdict, row->finding);
    ck_assert(metric_of(&outcome, "threads_change_bits") == row->varies);
}
END_TEST

// Kernels whose arguments lie on a CUDA device: host code can only look at the tags.
static cm_status run_on_device(const cm_call *call, void *state)
{
    (void)state;
    cm_status status = call->host->validate(call);
    return status == CM_OK ? CM_UNSUPPORTED : status; // there is no device here
}

static cm_status run_reads(const cm_call *call, void *state)
{
    const int *ids = call->host->argument(call, "token_adapter")->data;
    return *(const volatile int *)ids < -1 ? CM_BAD_ID : run_on_device(call, state);
}

static cm_status run_writes(const cm_call *call, void *state)
{
    *(volatile int *)call->host->argument(call, "segment_adapter")->data = 0;
    return run_on_device(call, state);
}

static cm_status run_takes_all(const cm_call *call, void *state)
{
    cm_status status = run_on_device(call, state);
    return status == CM_BAD_DEVICE ? CM_OK : status;
}

static const struct device_row {
    cm_status (*run)(const cm_call *call, void *state);
    cm_verdict verdict;
    const char *finding;
} device_rows[] = {
    {run_on_device, CM_PASS, ""},
    {run_reads, CM_FAIL, "host read of device pointer `token_adapter`[0]"},
    {run_writes, CM_FAIL, "host write to device pointer `segment_adapter`[0]"},
    {run_takes_all, CM_FAIL, "accepted `token_adapter` in host memory"},
};

START_TEST(device_kernels)
{
    const cm_kernel kernel = {
        .size = sizeof kernel, .name = "sgmv_plan/test", .device = kDLCUDA, .run = device_rows[_i].run};
    cm_outcome outcome = outcome_of(&cm_check_device, &kernel, "sgmv_plan", "t9-l3-random-s1");
    expect(&outcome, device_rows[_i].verdict, device_rows[_i].finding);
    if (device_rows[_i].verdict == CM_PASS)
        ck_assert_int_eq(outcome.compared, 4 * 4); // arguments, sides
}
END_TEST

#define COUNT(table) (int)(sizeof(table) / sizeof *(table))

Suite *cm_unit_state(void)
{
    Suite *suite = suite_create("state");
    TCase *tcase = tcase_create("checks");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, scenes);
    tcase_add_loop_test(tcase, states, 0, COUNT(state_rows));
    tcase_add_loop_test(tcase, thread_limits, 0, COUNT(determinism_rows));
    tcase_add_loop_test(tcase, device_kernels, 0, COUNT(device_rows));
    suite_add_tcase(suite, tcase);
    return suite;
}
