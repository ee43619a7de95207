// SPDX-License-Identifier: Apache-2.0
// What the emulated device must find, each by its own name and in every schedule: a kernel with a switch for
// each mistake, and the right kernel, which must pass.
#include "suites/unit/simt.h"

#include <stdlib.h>

enum Mistake {
    NOTHING,
    NO_BARRIER,
    NO_BARRIER_BEFORE_REUSE,
    NO_WARP_BARRIER,
    BARRIER_IN_BRANCH,
    BARRIER_AGAINST_SHUFFLE,
    WAITS_FOR_EXITED,
    OTHER_MASKS,
    NOT_IN_MASK,
    OTHER_COLLECTIVES,
    SHUFFLE_FROM_OUTSIDE,
    SHARED_OVERRUN,
    GLOBAL_OVERRUN,
    GLOBAL_UNDERRUN,
    UNINITIALISED,
    NO_WAIT,
    WAIT_TOO_YOUNG,
    NO_BARRIER_AFTER_WAIT,
    ODD_VECTOR,
    BLOCKS_COLLIDE,
    TWO_WRITERS,
    MISTAKES,
};

static const struct {
    const char *name; // of the fault; NULL: the launch must go well
    const char *part; // of the sentence
} expected[MISTAKES] = {
    {nullptr, nullptr},
    {"missing barrier", "shared memory"},
    {"missing barrier", "since the last barrier"},
    {"missing barrier", "since the last barrier"},
    {"divergent barrier", "32 threads wait at "},
    {"deadlock", "wait at a barrier, e.g. thread "},
    {"collective with an exited lane", "__shfl_xor_sync with mask ffffffff"},
    {"wrong lane mask", "mask 0000ffff"},
    {"wrong lane mask", "in which it is not"},
    {"wrong lane mask", "__ballot_sync"},
    {"shuffle from a lane outside the mask", "reads from lane 20"},
    {"shared memory out of bounds", "element 64 of an array of 64"},
    {"device memory out of bounds", "element 64 of an array of 64"},
    {"device memory out of bounds", "element -1 of an array of 64"},
    {"read of uninitialised shared memory", "byte "},
    {"missing cp.async wait", "which a cp.async of thread "},
    {"missing cp.async wait", "which a cp.async of thread "},
    {"missing barrier", "since the last barrier"},
    {"misaligned access", "8 bytes"},
    {"write conflict between blocks", "writes an element"},
    {"missing barrier", "writes byte "},
};

// Reverses 64 numbers through shared memory, with two warps; most mistakes are one step left out.
__global__ void reverse(cm_global<const float> in, cm_global<float> out, Mistake mistake)
{
    cm_shared<float> own = cm_shared_array<float>(0, 64), copied = cm_shared_array<float>(256, 64);
    int n = (int)threadIdx.x, lane = n % 32;
    if (n < 16)
        cm_async_copy(copied, (uint32_t)n * 4, in, n * 4);
    cm_async_commit();
    if (mistake == WAIT_TOO_YOUNG)
        cm_async_wait<1>();
    else if (mistake != NO_WAIT)
        cm_async_wait<0>();
    int from = mistake == GLOBAL_OVERRUN ? n + 1 : mistake == GLOBAL_UNDERRUN ? n - 1 : n;
    if (!(mistake == UNINITIALISED && n == 5))
        own.set((uint32_t)(mistake == SHARED_OVERRUN ? n + 1 : n), in.get(from));
    if (mistake == TWO_WRITERS)
        own.set(7, 1.0f);
    if (mistake == BARRIER_IN_BRANCH && n < 32)
        cm_barrier();
    else if (mistake == BARRIER_AGAINST_SHUFFLE && n < 16)
        cm_barrier();
    else if (mistake == BARRIER_AGAINST_SHUFFLE && n < 32)
        cm_barrier_warp(0xffffffffu);
    else if (mistake != NO_BARRIER && mistake != NO_BARRIER_AFTER_WAIT)
        cm_barrier();
    float value =
        mistake == NO_BARRIER_AFTER_WAIT ? copied.get((uint32_t)(63 - n)) : own.get((uint32_t)(63 - n));
    if (mistake == ODD_VECTOR)
        value = own.get_vector<float2>((uint32_t)(n % 32 + 1)).x;
    float sum = value;
    if (mistake == WAITS_FOR_EXITED && lane == 3)
        return;
    if (mistake == OTHER_MASKS)
        sum += cm_shuffle_xor(value, 1, 16, lane < 16 ? 0xffffu : ~0u);
    else if (mistake == NOT_IN_MASK)
        sum += (float)cm_ballot(true, 0x7fffffffu);
    else if (mistake == OTHER_COLLECTIVES && lane == 9)
        sum += (float)cm_ballot(true);
    else if (mistake == SHUFFLE_FROM_OUTSIDE && lane < 16)
        sum += cm_shuffle(value, 20, 32, 0xffffu);
    else
        sum += cm_shuffle_xor(value, 1);
    if (mistake != NO_BARRIER_BEFORE_REUSE)
        cm_barrier();
    own.set((uint32_t)n, sum);
    if (mistake != NO_WARP_BARRIER)
        cm_barrier_warp();
    float neighbour = own.get((uint32_t)(n ^ 1)); // of the same warp
    float in_turn =
        mistake == NO_WAIT || mistake == WAIT_TOO_YOUNG || mistake == NOTHING ? copied.get((uint32_t)n) : 0;
    int64_t to = mistake == BLOCKS_COLLIDE ? n : (int64_t)blockIdx.x * 64 + n;
    out.set(to, sum - neighbour + value + in_turn - in_turn);
}

START_TEST(mistakes_are_named)
{
    Mistake mistake = (Mistake)_i;
    alignas(16) float in[64], out[128];
    for (int n = 0; n < 64; n++)
        in[n] = (float)n;
    for (uint64_t schedule = 0; schedule < 12; schedule++) {
        cm_simt::set_schedule(schedule);
        cm_status status = CM_UNIT_LAUNCH(reverse, 2, 64, 512, cm_global<const float>{in, 64},
                                          cm_global<float>{out, 128}, mistake);
        if (!expected[_i].name) {
            ck_assert_msg(status == CM_OK, "%s", cm_unit_said);
            for (int n = 0; n < 128; n++)
                ck_assert_msg(out[n] == (float)(63 - n % 64), "element %d: %g", n, out[n]);
            continue;
        }
        ck_assert_int_eq(status, CM_DEVICE_FAULT);
        ck_assert_msg(!strncmp(cm_unit_said, expected[_i].name, strlen(expected[_i].name)) &&
                          strstr(cm_unit_said, expected[_i].part) && strstr(cm_unit_said, "block ("),
                      "schedule %d: %s", (int)schedule, cm_unit_said);
        ck_assert_msg(strstr(cm_unit_said, "simt_faults.cpp:") != NULL, "no place: %s", cm_unit_said);
    }
}
END_TEST

// After a fault the device works again.
START_TEST(the_device_recovers)
{
    alignas(16) float in[64], out[128];
    for (int n = 0; n < 64; n++)
        in[n] = (float)n;
    for (int mistake = 0; mistake < MISTAKES; mistake++)
        for (int again = 0; again < 2; again++) {
            cm_status status = CM_UNIT_LAUNCH(reverse, 2, 64, 512, cm_global<const float>{in, 64},
                                              cm_global<float>{out, 128}, again ? NOTHING : (Mistake)mistake);
            ck_assert_msg((status == CM_OK) == (again || mistake == NOTHING), "%s", cm_unit_said);
        }
}
END_TEST

START_TEST(bad_launches)
{
    static const struct {
        dim3 grid, block;
        size_t shared;
    } bad[] = {{{1, 1, 1}, {1025, 1, 1}, 0},   {{1, 1, 1}, {32, 33, 1}, 0},
               {{1, 1, 1}, {0, 1, 1}, 0},      {{0, 1, 1}, {32, 1, 1}, 0},
               {{1, 65536, 1}, {32, 1, 1}, 0}, {{1, 1, 65536}, {32, 1, 1}, 0},
               {{1, 1, 1}, {1, 1, 65}, 0},     {{1, 1, 1}, {32, 1, 1}, 227 * 1024 + 1}};
    float in[64] = {0}, out[128];
    for (const auto &launch : bad) {
        cm_status status = CM_LAUNCH(&cm_unit_call, reverse, launch.grid, launch.block, launch.shared,
                                     cm_global<const float>{in, 64}, cm_global<float>{out, 128}, NOTHING);
        ck_assert_msg(status == CM_DEVICE_FAULT && !strncmp(cm_unit_said, "bad launch: grid (", 18), "%s",
                      cm_unit_said);
    }
}
END_TEST

TCase *cm_unit_simt_faults(void)
{
    TCase *tcase = tcase_create("faults");
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, mistakes_are_named, 0, MISTAKES);
    tcase_add_test(tcase, the_device_recovers);
    tcase_add_test(tcase, bad_launches);
    return tcase;
}
