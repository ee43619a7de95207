// SPDX-License-Identifier: Apache-2.0
// Graphs of the emulated device: what is recorded runs later, in its order, on what memory then holds; what
// can't be recorded is refused by name.
#include "suites/unit/simt.h"

#include "optimized/cuda/simt/graph.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

__global__ void add(cm_global<const float> in, cm_global<float> out, float more)
{
    out.set(threadIdx.x, in.get(threadIdx.x) + more);
}

__global__ void twice(cm_global<float> out)
{
    out.set(threadIdx.x, 2 * out.get(threadIdx.x));
}

static cm_call on_stream(void *stream)
{
    cm_call call = cm_unit_call;
    call.stream = stream;
    return call;
}

#define LAUNCH_ON(call, kernel, ...)                                                                         \
    CM_LAUNCH(&call, kernel, (dim3{1, 1, 1}), (dim3{4, 1, 1}), 0, __VA_ARGS__)

START_TEST(launches_are_replayed)
{
    float in[4] = {1, 2, 3, 4}, out[4] = {0};
    char reason[100] = "";
    void *stream = nullptr, *graph = nullptr;
    ck_assert_int_eq(cm_simt::capture(&stream, reason, sizeof reason), CM_OK);
    ck_assert_ptr_nonnull(stream);
    cm_call call = on_stream(stream);
    float more = 10;
    ck_assert_int_eq(LAUNCH_ON(call, add, cm_global<const float>{in, 4}, cm_global<float>{out, 4}, more),
                     CM_OK);
    ck_assert_int_eq(LAUNCH_ON(call, twice, cm_global<float>{out, 4}), CM_OK);
    more = 99; // was taken by value
    ck_assert_int_eq(cm_simt::conclude(stream, &graph, reason, sizeof reason), CM_OK);
    for (float value : out)
        ck_assert(value == 0);
    for (int round = 0; round < 3; round++) {
        in[2] = (float)round;
        ck_assert_int_eq(cm_simt::replay(&cm_unit_call, graph), CM_OK);
        for (int n = 0; n < 4; n++)
            ck_assert(out[n] == 2 * (in[n] + 10));
    }
    // Outside of a capture launches run at once, as before.
    call = on_stream(nullptr);
    ck_assert_int_eq(LAUNCH_ON(call, twice, cm_global<float>{out, 4}), CM_OK);
    ck_assert(out[0] == 4 * (in[0] + 10));
    cm_simt::forget(graph);
    cm_simt::forget(nullptr);
}
END_TEST

START_TEST(faults_show_in_replays)
{
    float in[4] = {0}, out[4];
    char reason[100] = "";
    void *stream = nullptr, *graph = nullptr;
    ck_assert_int_eq(cm_simt::capture(&stream, reason, sizeof reason), CM_OK);
    cm_call call = on_stream(stream);
    ck_assert_int_eq(LAUNCH_ON(call, add, cm_global<const float>{in, 3}, cm_global<float>{out, 4}, 1.0f),
                     CM_OK);
    ck_assert_int_eq(cm_simt::conclude(stream, &graph, reason, sizeof reason), CM_OK);
    cm_unit_said[0] = 0;
    ck_assert_int_eq(cm_simt::replay(&cm_unit_call, graph), CM_DEVICE_FAULT);
    ck_assert_msg(!strncmp(cm_unit_said, "device memory out of bounds: element 3 of an array of 3", 55), "%s",
                  cm_unit_said);
    cm_simt::forget(graph);
}
END_TEST

enum Forbidden { COPY, ALLOCATION, RELEASE, OTHER_STREAM, REPLAY, FORBIDDEN };
static const char *const names[FORBIDDEN] = {"a copy to the host", "an allocation", "a release of memory",
                                             "a launch on another stream", "a replay"};

START_TEST(what_cannot_be_recorded)
{
    float in[4] = {0}, out[4] = {0};
    char reason[200] = "";
    void *stream = nullptr, *graph = nullptr, *empty = nullptr, *memory = cm_allocate(&cm_unit_call, 16);
    ck_assert_ptr_nonnull(memory);
    ck_assert_int_eq(cm_simt::capture(&stream, reason, sizeof reason), CM_OK);
    ck_assert_int_eq(cm_simt::conclude(stream, &empty, reason, sizeof reason), CM_OK);
    ck_assert_int_eq(cm_simt::capture(&stream, reason, sizeof reason), CM_OK);
    cm_call call = on_stream(stream), elsewhere = on_stream(nullptr);
    cm_unit_said[0] = 0;
    switch (_i) {
    case COPY:
        ck_assert_int_eq(cm_copy_out(&call, out, in, sizeof out), CM_DEVICE_FAULT);
        break;
    case ALLOCATION:
        ck_assert_ptr_null(cm_allocate(&call, 100));
        break;
    case RELEASE:
        ck_assert_int_eq(cm_release(&call, nullptr), CM_OK);
        ck_assert_int_eq(cm_release(&call, memory), CM_DEVICE_FAULT);
        break;
    case OTHER_STREAM:
        ck_assert_int_eq(
            LAUNCH_ON(elsewhere, add, cm_global<const float>{in, 4}, cm_global<float>{out, 4}, 1.0f),
            CM_DEVICE_FAULT);
        break;
    default:
        ck_assert_int_eq(cm_simt::replay(&call, empty), CM_DEVICE_FAULT);
    }
    ck_assert_msg(!strncmp(cm_unit_said, "forbidden while capturing: ", 27) &&
                      !strncmp(cm_unit_said + 27, names[_i], strlen(names[_i])),
                  "%s", cm_unit_said);
    // What comes afterwards is recorded, but the graph is spoiled, and says why.
    ck_assert_int_eq(LAUNCH_ON(call, twice, cm_global<float>{out, 4}), CM_OK);
    graph = &graph;
    ck_assert_int_eq(cm_simt::conclude(stream, &graph, reason, sizeof reason), CM_DEVICE_FAULT);
    ck_assert_ptr_null(graph);
    ck_assert_msg(strstr(reason, names[_i]) != nullptr, "%s", reason);
    // And the device works as before.
    ck_assert_int_eq(cm_simt::replay(&cm_unit_call, empty), CM_OK);
    ck_assert_int_eq(cm_copy_out(&cm_unit_call, out, in, sizeof out), CM_OK);
    ck_assert_int_eq(cm_release(&cm_unit_call, memory), CM_OK);
    cm_simt::forget(empty);
}
END_TEST

static void *capture_beside(void *)
{
    char reason[100];
    void *stream, *graph;
    if (cm_simt::capture(&stream, reason, sizeof reason) == CM_OK &&
        cm_simt::conclude(stream, &graph, reason, sizeof reason) == CM_OK)
        return graph;
    return nullptr;
}

START_TEST(captures_are_of_a_thread)
{
    char reason[100] = "";
    void *stream = nullptr, *second = nullptr, *graph = nullptr, *other = nullptr;
    pthread_t thread;
    ck_assert_int_eq(cm_simt::capture(&stream, reason, sizeof reason), CM_OK);
    ck_assert_int_eq(cm_simt::capture(&second, reason, sizeof reason), CM_BAD_STATE);
    ck_assert_msg(strstr(reason, "captures already") != nullptr, "%s", reason);
    ck_assert_int_eq(pthread_create(&thread, nullptr, capture_beside, nullptr), 0);
    ck_assert_int_eq(pthread_join(thread, &other), 0);
    ck_assert_ptr_nonnull(other);
    ck_assert_int_eq(cm_simt::conclude(other, &graph, reason, sizeof reason), CM_BAD_STATE);
    ck_assert_int_eq(cm_simt::conclude(stream, &graph, reason, sizeof reason), CM_OK);
    ck_assert_int_eq(cm_simt::conclude(stream, &second, reason, sizeof reason), CM_BAD_STATE);
    cm_simt::forget(graph);
    cm_simt::forget(other);
}
END_TEST

// Memory that a kernel allocates is poisoned, reached by launches and copies, and by nobody else.
START_TEST(allocations_are_fenced)
{
    float *memory = static_cast<float *>(cm_allocate(&cm_unit_call, 4 * sizeof(float)));
    float in[4] = {1, 2, 3, 4}, out[4] = {0};
    ck_assert_ptr_nonnull(memory);
    ck_assert_int_eq(cm_copy_out(&cm_unit_call, out, memory, sizeof out), CM_OK);
    ck_assert(isnan(out[0]) && isnan(out[3]));
    ck_assert_int_eq(
        CM_UNIT_LAUNCH(add, 1, 4, 0, cm_global<const float>{in, 4}, cm_global<float>{memory, 4}, 1.0f),
        CM_OK);
    ck_assert_int_eq(cm_copy_out(&cm_unit_call, out, memory, sizeof out), CM_OK);
    ck_assert(out[0] == 2 && out[3] == 5);
    int ends[2]; // the kernel says whether this process can read it
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(write(ends[1], memory, sizeof out), -1);
    ck_assert_int_eq(errno, EFAULT);
    close(ends[0]);
    close(ends[1]);
    ck_assert_int_eq(cm_release(&cm_unit_call, memory), CM_OK);
}
END_TEST

TCase *cm_unit_simt_graph(void)
{
    TCase *tcase = tcase_create("graph");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, launches_are_replayed);
    tcase_add_test(tcase, faults_show_in_replays);
    tcase_add_loop_test(tcase, what_cannot_be_recorded, 0, FORBIDDEN);
    tcase_add_test(tcase, captures_are_of_a_thread);
    tcase_add_test(tcase, allocations_are_fenced);
    return tcase;
}
