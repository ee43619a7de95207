// SPDX-License-Identifier: Apache-2.0
// Every check on kernels whose arguments lie on a device: an emulated one, whose memory is fenced, and a
// made-up real one, to which arguments are copied.
#include "suites/unit/site.h"

#include "harness/child.h"
#include "harness/op.h"
#include "harness/site.h"
#include "optimized/kernels.h"
#include "suites/unit/cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

Suite *cm_unit_site(void);

static const char plan_case[] = "t9-l3-random-s1";

#define CM_CHECK(symbol) extern const cm_check symbol;
#include "harness/checks.inc"
#undef CM_CHECK

// The kernel's outcome, from a process of its own.
static cm_outcome outcome_of(const cm_check *check, const cm_kernel *kernel)
{
    cm_pristine *pristine = cm_unit_open("sgmv_plan", plan_case);
    cm_slot *slot = mmap(NULL, sizeof *slot, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cm_error error;
    ck_assert_ptr_ne(slot, MAP_FAILED);
    ck_assert_int_eq(cm_pristine_want(pristine, kernel->accuracy, &error), CM_OK);
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

static void expect(const cm_check *check, const cm_kernel *kernel, cm_verdict verdict, const char *finding)
{
    cm_outcome outcome = outcome_of(check, kernel);
    ck_assert_msg(outcome.verdict == verdict && strstr(outcome.reason, finding), "%s: %s, expected %s: %s",
                  check->name, cm_verdict_name(outcome.verdict), cm_verdict_name(verdict), outcome.reason);
}

static const cm_check *const all_checks[] = {&cm_check_numerics,   &cm_check_mutation, &cm_check_bounds,
                                             &cm_check_device,     &cm_check_shape,    &cm_check_state,
                                             &cm_check_determinism};

START_TEST(clean_kernels_pass)
{
    expect(all_checks[_i], &cm_unit_plans[CM_UNIT_CLEAN], CM_PASS, "");
}
END_TEST

static const struct {
    enum cm_unit_mistake mistake;
    const cm_check *check;
    cm_verdict verdict;
    const char *finding;
} rows[] = {
    {CM_UNIT_HOST_READS, &cm_check_numerics, CM_CRASH, "host read of device pointer `token_adapter`[0]"},
    {CM_UNIT_HOST_READS, &cm_check_device, CM_FAIL, "host read of device pointer `token_adapter`[0]"},
    {CM_UNIT_HOST_WRITES, &cm_check_device, CM_FAIL, "host write to device pointer `segment_offset`[0]"},
    {CM_UNIT_HOST_SCRATCH, &cm_check_device, CM_FAIL, "host read of device pointer `scratch`"},
    {CM_UNIT_VALIDATES_NOT, &cm_check_device, CM_FAIL, "device read of host pointer `token_adapter`[0]"},
    {CM_UNIT_VALIDATES_NOT, &cm_check_shape, CM_FAIL, "`token_adapter` of extent 8 in place of 9"},
    {CM_UNIT_WRITES_INPUT, &cm_check_mutation, CM_FAIL, "write to input `token_adapter`[8]"},
    {CM_UNIT_WRITES_AND_BACK, &cm_check_mutation, CM_FAIL, "write to input `token_adapter`[8] (read-only)"},
    {CM_UNIT_WRITES_AND_BACK, &cm_check_numerics, CM_PASS, ""},
    {CM_UNIT_OVERRUN, &cm_check_bounds, CM_FAIL, "read 0 bytes past the end of `token_adapter`"},
    {CM_UNIT_OVERRUN, &cm_check_numerics, CM_CRASH, "read 0 bytes past the end of `token_adapter`"},
    {CM_UNIT_SCRATCH_OVERRUN, &cm_check_bounds, CM_FAIL, "write 0 bytes past the end of `scratch`"},
    {CM_UNIT_INDEX_OVERRUN, &cm_check_numerics, CM_FAIL,
     "device memory out of bounds: element 4 of an array of 4"},
    {CM_UNIT_INDEX_OVERRUN, &cm_check_shape, CM_FAIL, "device memory out of bounds"},
    {CM_UNIT_INDEX_OVERRUN, &cm_check_state, CM_FAIL, "device memory out of bounds"},
    {CM_UNIT_LEAVES_OUT, &cm_check_bounds, CM_FAIL, "`segment_offset`[4] was never written"},
};

START_TEST(mistakes_are_named)
{
    expect(rows[_i].check, &cm_unit_plans[rows[_i].mistake], rows[_i].verdict, rows[_i].finding);
}
END_TEST

// A real device, as far as the harness can see: memory of its own, which is copied to and from.
static struct {
    int allocated;
    bool absent, faulty; // there is none; launches fail
    int64_t overrun;     // bytes that each launch writes past an output
    bool capturing;
    bool eager;   // what is captured runs at once
    bool spoiled; // what is captured can't be replayed
    bool frozen;  // a replay has the permutation of the captured run
    int graphs;
    bool misplaced, mute; // the runtime says that all is host memory; nothing
    bool touched;         // the host looks into device memory, which it can't reach
} device;

static bool available(char *reason, size_t size)
{
    snprintf(reason, size, "there is no such device");
    return !device.absent;
}

// Its addresses, each used once. A page lies between allocations: a small overrun harms nothing, and only the
// harness can see it.
enum { PAGE = 4096 };
static const size_t device_bytes = (size_t)1 << 30;
static char *device_memory;
static size_t device_used;

static cm_status allocate(size_t bytes, void **memory, char *reason, size_t size)
{
    size_t pages = (bytes + PAGE - 1) / PAGE * PAGE + PAGE,
           at = __atomic_fetch_add(&device_used, pages, __ATOMIC_RELAXED);
    snprintf(reason, size, "%zu bytes are all that there is", device_bytes);
    if (at + pages > device_bytes)
        return CM_NO_MEMORY;
    *memory = device_memory + at;
    device.allocated++;
    return CM_OK;
}

static void give_back(void *memory)
{
    device.allocated -= memory != NULL;
}

static cm_status copy(void *to, const void *from, size_t bytes, char *reason, size_t size)
{
    (void)reason;
    (void)size;
    memcpy(to, from, bytes);
    return CM_OK;
}

static cm_status synchronize(char *reason, size_t size)
{
    snprintf(reason, size, "an illegal address was met");
    return device.faulty ? CM_DEVICE_FAULT : CM_OK;
}

static cm_status capture(void **stream, char *reason, size_t size)
{
    (void)reason;
    (void)size;
    device.capturing = true;
    *stream = &device;
    return CM_OK;
}

static cm_status conclude(void *stream, void **graph, char *reason, size_t size)
{
    snprintf(reason, size, "a capture was spoiled");
    *graph = device.spoiled || stream != &device ? NULL : &device;
    device.capturing = false;
    device.graphs += *graph != NULL;
    return *graph ? CM_OK : CM_DEVICE_FAULT;
}

static cm_status replay(const cm_call *call, void *graph)
{
    static int32_t kept[9];
    static bool has_kept;
    cm_status status = cm_sgmv_plan_naive.run(call, NULL);
    int32_t *permutation = call->host->argument(call, "permutation")->data;
    if (status == CM_OK && device.frozen) {
        if (!has_kept)
            memcpy(kept, permutation, sizeof kept);
        memcpy(permutation, kept, sizeof kept);
        has_kept = true;
    }
    return graph == &device ? status : CM_BAD_VALUE;
}

static void forget(void *graph)
{
    device.graphs -= graph != NULL;
}

static cm_status locate(const void *pointer, DLDevice *found, char *reason, size_t size)
{
    const char *place = pointer;
    bool inside = place >= device_memory && place < device_memory + device_bytes;
    snprintf(reason, size, "the runtime is gone");
    *found = (DLDevice){inside && !device.misplaced ? kDLCUDA : kDLCPU, 0};
    return device.mute ? CM_DEVICE_FAULT : CM_OK;
}

static const cm_side real = {.size = sizeof real,
                             .available = available,
                             .allocate = allocate,
                             .release = give_back,
                             .copy_in = copy,
                             .copy_out = copy,
                             .synchronize = synchronize,
                             .capture = capture,
                             .conclude = conclude,
                             .replay = replay,
                             .forget = forget,
                             .locate = locate};

static void map_device(void)
{
    device_memory =
        mmap(NULL, device_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ck_assert_ptr_ne(device_memory, MAP_FAILED);
    device_used = 0;
}

static void unmap_device(void)
{
    munmap(device_memory, device_bytes);
}

// What a launch would do, in the device's memory.
static cm_status run_there(const cm_call *call, void *state)
{
    if (device.capturing && (call->stream != &device || !device.eager))
        return call->stream == &device ? CM_OK : CM_BAD_VALUE;
    const DLTensor *ids = call->host->argument(call, "token_adapter");
    if (device.touched && ids && ids->device.device_type == kDLCUDA) {
        mprotect((void *)((uintptr_t)ids->data & ~(uintptr_t)(PAGE - 1)), PAGE, PROT_NONE);
        return *(const volatile int32_t *)ids->data < -1 ? CM_BAD_ID : CM_OK;
    }
    cm_status status = cm_sgmv_plan_naive.run(call, state);
    const DLTensor *offset = call->host->argument(call, "segment_offset");
    if (status == CM_OK && device.overrun > 0)
        memset((char *)offset->data + 4 * offset->shape[0], 0, (size_t)device.overrun);
    return status;
}

static const cm_kernel on_real = {
    .size = sizeof on_real, .name = "sgmv_plan/test", .device = kDLCUDA, .run = run_there, .side = &real};
static const cm_kernel in_graphs = {.size = sizeof in_graphs,
                                    .name = "sgmv_plan/test",
                                    .device = kDLCUDA,
                                    .run = run_there,
                                    .side = &real,
                                    .capturable = true};

START_TEST(arguments_are_copied)
{
    expect(all_checks[_i], &on_real, CM_PASS, "");
}
END_TEST

START_TEST(real_devices_are_watched)
{
    device.overrun = 2;
    expect(&cm_check_bounds, &on_real, CM_FAIL, "write 0 bytes past the end of `segment_offset`");
    device.overrun = 0;
    device.faulty = true;
    expect(&cm_check_numerics, &on_real, CM_FAIL, "an illegal address was met");
    expect(&cm_check_state, &on_real, CM_FAIL, "an illegal address was met");
    device.absent = true;
    for (size_t n = 0; n < sizeof all_checks / sizeof *all_checks; n++)
        expect(all_checks[n], &on_real, CM_SKIP, "there is no such device");
}
END_TEST

// Nothing fences a real device's memory but its addresses: what the runtime says of them is asked, and what
// the host touches there has its argument's name.
START_TEST(real_devices_have_places)
{
    cm_outcome outcome = outcome_of(&cm_check_device, &on_real);
    double located = 0;
    for (int n = 0; n < outcome.metric_count; n++)
        if (!strcmp(outcome.metrics[n].name, "located_by_runtime"))
            located = outcome.metrics[n].value;
    ck_assert_msg(located > 4 * 4, "%g", located); // arguments, sides
    device.misplaced = true;
    expect(&cm_check_device, &on_real, CM_VACUOUS, "its device's runtime says that it lies on 1");
    device.misplaced = false;
    device.mute = true;
    expect(&cm_check_device, &on_real, CM_VACUOUS,
           "nobody knows where `token_adapter` lies: the runtime is gone");
    device.mute = false;
    device.touched = true;
    expect(&cm_check_device, &on_real, CM_FAIL, "host read of device pointer `token_adapter`[0]");
    expect(&cm_check_numerics, &on_real, CM_CRASH, "host read of device pointer `token_adapter`[0]");
    device.touched = false;
}
END_TEST

// A kernel that promises to be capturable is captured and replayed by the check state; others are not.
START_TEST(graphs_are_replayed)
{
    expect(&cm_check_state, &in_graphs, CM_PASS, "");
    cm_outcome with = outcome_of(&cm_check_state, &in_graphs),
               without = outcome_of(&cm_check_state, &on_real);
    ck_assert_int_gt(with.compared, without.compared);
    device.eager = true;
    expect(&cm_check_state, &in_graphs, CM_FAIL, "while it was captured, the kernel wrote to `permutation`");
    expect(&cm_check_state, &on_real, CM_PASS, "");
    device.eager = false;
    device.spoiled = true;
    expect(&cm_check_state, &in_graphs, CM_FAIL,
           "while a run was captured, the kernel returned \"device fault\": a capture was spoiled");
    device.spoiled = false;
    device.frozen = true;
    expect(&cm_check_state, &in_graphs, CM_FAIL, "replayed without any adapter, `permutation` differs");
    device.frozen = false;
}
END_TEST

// What is sent comes home with what the device made of it, and nothing stays there.
START_TEST(memory_comes_and_goes)
{
    cm_arena arena = {0};
    cm_site site = {.arena = &arena, .side = &real};
    char *data = cm_arena_take(&arena, "data", 100, 4, CM_PLACE_END, true);
    memset(data, 7, 100);
    char *there = cm_site_send(&site, 0);
    ck_assert_ptr_ne(there, data);
    ck_assert_int_eq(there[99], 7);
    there[99] = 8;
    ck_assert_ptr_eq(cm_site_send(&site, 0), there); // once
    ck_assert_int_eq(there[99], 8);
    ck_assert_int_eq(data[99], 7);
    ck_assert(cm_site_fetch(&site, 0));
    ck_assert_int_eq(data[99], 8);
    ck_assert_int_eq(device.allocated, 1);
    cm_site_drop(&site, 0);
    ck_assert_int_eq(device.allocated, 0);
}
END_TEST

static bool yes(void)
{
    return true;
}

START_TEST(modes)
{
    cm_kernel kernel = {.name = "op/target"};
    ck_assert_str_eq(cm_kernel_mode(&kernel), "native");
    kernel.emulated = yes;
    ck_assert_str_eq(cm_kernel_mode(&kernel), "emulated");
    ck_assert_str_eq(cm_kernel_mode(&cm_unit_plans[CM_UNIT_CLEAN]), "emulated");
    ck_assert_str_eq(cm_kernel_mode(&on_real), "native");
}
END_TEST

#define COUNT(table) (int)(sizeof(table) / sizeof *(table))

Suite *cm_unit_site(void)
{
    Suite *suite = suite_create("site");
    TCase *tcase = tcase_create("devices");
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, clean_kernels_pass, 0, COUNT(all_checks));
    tcase_add_loop_test(tcase, mistakes_are_named, 0, COUNT(rows));
    tcase_add_loop_test(tcase, arguments_are_copied, 0, COUNT(all_checks));
    tcase_add_test(tcase, real_devices_are_watched);
    tcase_add_checked_fixture(tcase, map_device, unmap_device);
    tcase_add_test(tcase, real_devices_have_places);
    tcase_add_test(tcase, graphs_are_replayed);
    tcase_add_test(tcase, memory_comes_and_goes);
    tcase_add_test(tcase, modes);
    suite_add_tcase(suite, tcase);
    return suite;
}
