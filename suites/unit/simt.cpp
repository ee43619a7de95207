// SPDX-License-Identifier: Apache-2.0
// The emulated device against plain models: indices, collectives, matrix fragments, asynchronous copies,
// 16-bit floats, and schedules.
#include "suites/unit/simt.h"

extern "C" {
#include "harness/dtype.h"
}

#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <vector>

char cm_unit_said[512];

static cm_status say(const cm_call *call, cm_status status, const char *format, ...)
{
    (void)call;
    va_list list;
    va_start(list, format);
    vsnprintf(cm_unit_said, sizeof cm_unit_said, format, list);
    va_end(list);
    return status;
}

static cm_host make_host(void)
{
    cm_host host = cm_host();
    host.abi_version = CM_ABI_VERSION;
    host.fail = say;
    return host;
}

static cm_call make_call(void)
{
    static const cm_host host = make_host();
    cm_call call = cm_call();
    call.size = sizeof call;
    call.host = &host;
    call.device = kDLCUDA;
    return call;
}
const cm_call cm_unit_call = make_call();

static uint64_t random_state = 1;
static uint32_t draw(void)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(random_state >> 33);
}

__global__ void write_indices(cm_global<uint32_t> out)
{
    unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    unsigned threads = blockDim.x * blockDim.y * blockDim.z;
    out.set((int64_t)block * threads + thread,
            threadIdx.x | threadIdx.y << 8 | threadIdx.z << 16 | blockIdx.z << 24);
}

START_TEST(indices_cover_the_grid)
{
    dim3 grid = {3, 2, 4}, block = {5, 3, 7};
    std::vector<uint32_t> out(3 * 2 * 4 * 5 * 3 * 7, ~0u);
    for (uint64_t schedule = 0; schedule < 6; schedule++) {
        std::fill(out.begin(), out.end(), ~0u);
        cm_simt::set_schedule(schedule);
        ck_assert_int_eq(CM_LAUNCH(&cm_unit_call, write_indices, grid, block, 0,
                                   cm_global<uint32_t>{out.data(), (int64_t)out.size()}),
                         CM_OK);
        for (size_t n = 0; n < out.size(); n++) {
            unsigned thread = (unsigned)n % 105;
            ck_assert_uint_eq(out[n], thread % 5 | thread / 5 % 3 << 8 | thread / 15 << 16 |
                                          (unsigned)(n / 105 / 6) << 24);
        }
    }
}
END_TEST

struct Shuffled {
    uint32_t from, exclusive, down, up, votes;
};

__global__ void shuffle_all(cm_global<const uint32_t> values, cm_global<Shuffled> out, int width,
                            int argument, unsigned mask)
{
    int lane = (int)threadIdx.x % 32;
    if (!(mask >> lane & 1))
        return;
    uint32_t value = values.get(threadIdx.x);
    // Lanes outside the mask are nobody's source: each kind is clamped to lanes that are in it.
    Shuffled got;
    got.from = cm_shuffle(value, argument, width, mask);
    got.exclusive = cm_shuffle_xor(value, argument & (width - 1), width, mask);
    got.down = cm_shuffle_down(value, argument, width, mask);
    got.up = cm_shuffle_up(value, argument, width, mask);
    got.votes = cm_ballot(value & 1, mask);
    out.set(threadIdx.x, got);
}

START_TEST(collectives_follow_their_tables)
{
    uint32_t values[64];
    Shuffled out[64];
    for (int round = 0; round < 200; round++) {
        int width = 1 << draw() % 6, argument = (int)(draw() % 32);
        unsigned mask = ~0u, votes[2] = {0, 0};
        for (uint32_t &value : values)
            value = draw();
        for (int n = 0; n < 64; n++)
            votes[n / 32] |= (values[n] & 1) << n % 32;
        cm_simt::set_schedule((uint64_t)round);
        ck_assert_msg(CM_UNIT_LAUNCH(shuffle_all, 1, 64, 0, cm_global<const uint32_t>{values, 64},
                                     cm_global<Shuffled>{out, 64}, width, argument, mask) == CM_OK,
                      "%s", cm_unit_said);
        for (int n = 0; n < 64; n++) {
            int lane = n % 32, base = lane / width * width, warp = n - lane, inside = argument % width;
            int partner = lane ^ inside;
            ck_assert_uint_eq(out[n].from, values[warp + base + inside]);
            ck_assert_uint_eq(out[n].exclusive, values[warp + partner]);
            ck_assert_uint_eq(out[n].down,
                              values[warp + (lane - base + argument < width ? lane + argument : lane)]);
            ck_assert_uint_eq(out[n].up, values[warp + (lane - base >= argument ? lane - argument : lane)]);
            ck_assert_uint_eq(out[n].votes, votes[n / 32]);
        }
    }
}
END_TEST

// Halves of a warp meet apart, at different times, often: values never get mixed up.
__global__ void apart(cm_global<uint32_t> out)
{
    int lane = (int)threadIdx.x % 32;
    unsigned mask = lane < 16 ? 0xffffu : 0xffff0000u;
    uint32_t sum = threadIdx.x;
    for (int round = 0; round < (lane < 16 ? 5 : 9); round++) {
        sum += cm_shuffle_xor(sum, 1, 16, mask);
        if (lane < 2) // a meeting inside a meeting's mask, with the same lowest lane
            sum += cm_shuffle_xor(sum, 1, 2, 3u);
    }
    out.set(threadIdx.x, sum + cm_shuffle(sum, 31));
}

START_TEST(disjoint_masks_meet_apart)
{
    uint32_t want[32], out[32];
    for (int n = 0; n < 32; n++)
        want[n] = (uint32_t)n;
    for (int round = 0; round < 9; round++) {
        uint32_t before[32];
        memcpy(before, want, sizeof want);
        for (int n = round < 5 ? 0 : 16; n < 32; n++)
            want[n] += before[n ^ 1];
        memcpy(before, want, sizeof want);
        for (int n = 0; n < 2 && round < 5; n++)
            want[n] += before[n ^ 1];
    }
    for (uint64_t schedule = 0; schedule < 12; schedule++) {
        cm_simt::set_schedule(schedule);
        ck_assert_msg(CM_UNIT_LAUNCH(apart, 1, 32, 0, cm_global<uint32_t>{out, 32}) == CM_OK, "%s",
                      cm_unit_said);
        for (int n = 0; n < 32; n++)
            ck_assert_uint_eq(out[n], want[n] + want[31]);
    }
}
END_TEST

template <typename T, bool TRANSPOSED>
__global__ void multiply(cm_global<const T> a, cm_global<const T> b, cm_global<float> c)
{
    cm_shared<T> in_a = cm_shared_array<T>(0, 256), in_b = cm_shared_array<T>(512, 128);
    int lane = (int)threadIdx.x;
    cm_async_copy(in_a, (uint32_t)lane * 8, a, lane * 8);
    cm_async_commit();
    if (lane < 16)
        cm_async_copy(in_b, (uint32_t)lane * 8, b, lane * 8);
    cm_async_commit();
    cm_async_wait<0>();
    cm_barrier();
    uint32_t of_a[4], of_b[2];
    float sum[4];
    for (int i = 0; i < 4; i++)
        sum[i] = c.get((lane / 4 + 8 * (i >> 1)) * 8 + 2 * (lane % 4) + (i & 1));
    cm_load_matrices<4>(of_a, in_a, (uint32_t)(lane % 16 * 16 + lane / 16 * 8));
    if (TRANSPOSED) // b is [16][8]
        cm_load_matrices_transposed<2>(of_b, in_b, (uint32_t)(lane % 16 * 8));
    else // b is [8][16]
        cm_load_matrices<2>(of_b, in_b, (uint32_t)(lane % 8 * 16 + lane / 8 % 2 * 8));
    cm_mma<T>(sum, of_a, of_b, sum);
    for (int i = 0; i < 4; i++)
        c.set((lane / 4 + 8 * (i >> 1)) * 8 + 2 * (lane % 4) + (i & 1), sum[i]);
}

template <typename T, bool TRANSPOSED> static void check_products(void)
{
    for (int round = 0; round < 20; round++) {
        alignas(16) T a[256], b[128];
        float c[128], want[128];
        for (T &value : a)
            cm_narrow((float)(int)(draw() % 33) - 16, &value);
        for (T &value : b)
            cm_narrow((float)(int)(draw() % 33) - 16, &value);
        for (int n = 0; n < 128; n++)
            want[n] = c[n] = (float)(draw() % 99);
        for (int row = 0; row < 16; row++)
            for (int column = 0; column < 8; column++)
                for (int k = 0; k < 16; k++)
                    want[row * 8 + column] += cm_widen(a[row * 16 + k]) *
                                              cm_widen(TRANSPOSED ? b[k * 8 + column] : b[column * 16 + k]);
        cm_simt::set_schedule((uint64_t)round);
        ck_assert_msg(CM_UNIT_LAUNCH((multiply<T, TRANSPOSED>), 1, 32, 768, cm_global<const T>{a, 256},
                                     cm_global<const T>{b, 128}, cm_global<float>{c, 128}) == CM_OK,
                      "%s", cm_unit_said);
        for (int n = 0; n < 128; n++)
            ck_assert_msg(c[n] == want[n], "element %d: %a, not %a", n, c[n], want[n]);
    }
}

START_TEST(matrices_multiply)
{
    check_products<cm_bf16, false>();
    check_products<cm_bf16, true>();
    check_products<cm_f16, false>();
    check_products<cm_f16, true>();
}
END_TEST

// Two stages in turn: what is waited for is the older one, and elements past `valid` are 0.
__global__ void stream(cm_global<const float> in, cm_global<float> out, int count)
{
    cm_shared<float> stage = cm_shared_array<float>(0, 256);
    int lane = (int)threadIdx.x, tiles = (count + 127) / 128;
    for (int tile = 0; tile <= tiles; tile++) {
        if (tile < tiles) {
            int first = tile * 128 + lane * 4, valid = count - first;
            cm_async_copy(stage, (uint32_t)(tile % 2 * 128 + lane * 4), in, first,
                          valid < 0   ? 0
                          : valid > 4 ? 4
                                      : valid);
        }
        cm_async_commit();
        if (tile == 0)
            continue;
        cm_async_wait<1>();
        cm_barrier();
        for (int n = lane; n < 128; n += 32)
            out.set((tile - 1) * 128 + 127 - n, stage.get((uint32_t)((tile - 1) % 2 * 128 + n)));
        cm_barrier();
    }
}

START_TEST(copies_arrive_when_waited_for)
{
    alignas(16) float in[512];
    for (int n = 0; n < 512; n++)
        in[n] = (float)n + 1;
    for (int count = 1; count <= 512; count += 37) {
        std::vector<float> out(512, -1.0f);
        ck_assert_msg(CM_UNIT_LAUNCH(stream, 1, 32, 1024, cm_global<const float>{in, count},
                                     cm_global<float>{out.data(), 512}, count) == CM_OK,
                      "%s", cm_unit_said);
        for (int n = 0; n < (count + 127) / 128 * 128; n++)
            ck_assert_msg(out[(size_t)(n / 128 * 128 + 127 - n % 128)] == (n < count ? in[n] : 0),
                          "element %d of %d", n, count);
    }
}
END_TEST

// Every 16-bit pattern widens and comes back; 32-bit patterns round as the harness rounds.
START_TEST(narrow_floats_agree_with_the_harness)
{
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        uint16_t raw = (uint16_t)bits;
        cm_bf16 b = {raw}, b_again;
        cm_f16 h = {raw}, h_again;
        double wide[2] = {cm_load(&raw, CM_BF16, 0), cm_load(&raw, CM_F16, 0)};
        float got[2] = {cm_widen(b), cm_widen(h)};
        for (int n = 0; n < 2; n++)
            ck_assert_msg(isnan(wide[n]) ? isnan(got[n])
                                         : got[n] == wide[n] && !signbit(got[n]) == !signbit(wide[n]),
                          "%04x: %a, not %a", bits, got[n], wide[n]);
        cm_narrow(got[0], &b_again);
        cm_narrow(got[1], &h_again);
        ck_assert_msg(isnan(wide[0]) ? b_again.bits == 0x7fff : b_again.bits == raw, "bf16 %04x", bits);
        ck_assert_msg(isnan(wide[1]) ? h_again.bits == 0x7fff : h_again.bits == raw, "f16 %04x", bits);
    }
    for (uint32_t n = 0; n < 3000000; n++) {
        float value = cm_bits_float(draw() * 2 + (n & 1));
        uint16_t want[2];
        cm_bf16 b;
        cm_f16 h;
        if (isnan(value))
            continue;
        cm_store(&want[0], CM_BF16, 0, value);
        cm_store(&want[1], CM_F16, 0, value);
        cm_narrow(value, &b);
        cm_narrow(value, &h);
        ck_assert_msg(b.bits == want[0] && h.bits == want[1], "%a: bf16 %04x, not %04x; f16 %04x, not %04x",
                      value, b.bits, want[0], h.bits, want[1]);
    }
}
END_TEST

// A result that depends on the order of the threads shows between schedules; one that doesn't stays.
__global__ void add_all(cm_global<float> sum, cm_global<uint32_t> count)
{
    sum.add(0, 1.0f / (float)(threadIdx.x + 1));
    count.add(0, 1u);
}

START_TEST(schedules_differ)
{
    float first = 0;
    bool differs = false;
    for (uint64_t schedule = 0; schedule < 4; schedule++) {
        float sum = 0;
        uint32_t count = 0;
        cm_simt::set_schedule(schedule);
        ck_assert_int_eq(
            CM_UNIT_LAUNCH(add_all, 2, 128, 0, cm_global<float>{&sum, 1}, cm_global<uint32_t>{&count, 1}),
            CM_OK);
        ck_assert_uint_eq(count, 256);
        first = schedule ? first : sum;
        differs = differs || sum != first;
    }
    ck_assert(differs);
}
END_TEST

static void *run_some(void *result)
{
    alignas(16) float in[512];
    bool *good = static_cast<bool *>(result);
    for (int n = 0; n < 512; n++)
        in[n] = (float)n;
    for (int round = 0; round < 50; round++) {
        float out[512];
        *good = *good && CM_LAUNCH(&cm_unit_call, stream, (dim3{1, 1, 1}), (dim3{32, 1, 1}), 1024,
                                   cm_global<const float>{in, 512}, cm_global<float>{out, 512}, 512) == CM_OK;
        for (int n = 0; n < 512; n++)
            *good = *good && out[n / 128 * 128 + 127 - n % 128] == in[n];
    }
    return nullptr;
}

START_TEST(threads_have_devices_of_their_own)
{
    bool good[3] = {true, true, true};
    pthread_t threads[3];
    for (int n = 0; n < 3; n++)
        ck_assert_int_eq(pthread_create(&threads[n], nullptr, run_some, &good[n]), 0);
    for (int n = 0; n < 3; n++) {
        pthread_join(threads[n], nullptr);
        ck_assert(good[n]);
    }
}
END_TEST

Suite *cm_unit_simt(void)
{
    Suite *suite = suite_create("simt");
    TCase *tcase = tcase_create("device");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, indices_cover_the_grid);
    tcase_add_test(tcase, collectives_follow_their_tables);
    tcase_add_test(tcase, disjoint_masks_meet_apart);
    tcase_add_test(tcase, matrices_multiply);
    tcase_add_test(tcase, copies_arrive_when_waited_for);
    tcase_add_test(tcase, narrow_floats_agree_with_the_harness);
    tcase_add_test(tcase, schedules_differ);
    tcase_add_test(tcase, threads_have_devices_of_their_own);
    suite_add_tcase(suite, tcase);
    suite_add_tcase(suite, cm_unit_simt_faults());
    suite_add_tcase(suite, cm_unit_simt_far());
    suite_add_tcase(suite, cm_unit_simt_graph());
    return suite;
}
