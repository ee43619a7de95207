// SPDX-License-Identifier: Apache-2.0
// The CUDA kernels behind ci/peers/entry.h, here those of the emulated device, on the caller's own memory.
#include "ci/peers/entry.h"
#include "harness/dtype.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

Suite *cm_unit_entry(void);

static int set(checkmoe_call *call, const char *name, void *data, const char *dtype, int64_t d0, int64_t d1,
               int64_t d2, int64_t d3)
{
    int64_t shape[4] = {d0, d1, d2, d3}, strides[4];
    int ndim = d3 ? 4 : d2 ? 3 : d1 ? 2 : 1;
    strides[ndim - 1] = 1;
    for (int d = ndim - 1; d > 0; d--)
        strides[d - 1] = strides[d] * shape[d];
    return checkmoe_tensor(call, name, data, dtype, ndim, shape, strides);
}

// Tokens of two adapters and none; A of ones: v is the sum of x.
START_TEST(kernels_run)
{
    char error[200];
    int32_t tokens[5] = {1, -1, 0, 1, 1}, permutation[5], offset[4], adapter[3], rank[2] = {2, 1};
    static const int32_t want_offset[4] = {0, 1, 2, 5}, want_adapter[3] = {-1, 0, 1};
    float x[5 * 8], a[2 * 2 * 8], v[5 * 2];
    checkmoe_call *plan = checkmoe_open("sgmv_plan/cuda", error, sizeof error);
    ck_assert_ptr_nonnull(plan);
    ck_assert(checkmoe_dim(plan, 'T', 5) == 0 && checkmoe_dim(plan, 'L', 2) == 0);
    ck_assert_int_eq(set(plan, "token_adapter", tokens, "i32", 5, 0, 0, 0), 0);
    ck_assert_int_eq(set(plan, "permutation", permutation, "i32", 5, 0, 0, 0), 0);
    ck_assert_int_eq(set(plan, "segment_offset", offset, "i32", 4, 0, 0, 0), 0);
    ck_assert_int_eq(set(plan, "segment_adapter", adapter, "i32", 3, 0, 0, 0), 0);
    ck_assert_int_eq(checkmoe_prepare(plan), 0);
    ck_assert_int_eq(checkmoe_run(plan, NULL), 0);
    ck_assert(!memcmp(offset, want_offset, sizeof offset) && !memcmp(adapter, want_adapter, sizeof adapter));
    ck_assert(permutation[0] == 1 && permutation[1] == 2);

    for (int n = 0; n < 5 * 8; n++)
        x[n] = (float)(n / 8 + 1);
    for (int n = 0; n < 2 * 2 * 8; n++)
        a[n] = 1;
    checkmoe_call *shrink = checkmoe_open("sgmv_shrink/cuda", error, sizeof error);
    ck_assert_ptr_nonnull(shrink);
    static const char letters[] = "TLSrK";
    static const int64_t extents[] = {5, 2, 1, 2, 8};
    for (int n = 0; n < 5; n++)
        ck_assert_int_eq(checkmoe_dim(shrink, letters[n], extents[n]), 0);
    ck_assert_int_eq(set(shrink, "x", x, "f32", 5, 8, 0, 0), 0);
    ck_assert_int_eq(set(shrink, "lora_a", a, "f32", 2, 1, 2, 8), 0);
    ck_assert_int_eq(set(shrink, "v", v, "f32", 5, 1, 2, 0), 0);
    ck_assert_int_eq(set(shrink, "lora_rank", rank, "i32", 2, 0, 0, 0), 0);
    ck_assert_int_eq(set(shrink, "permutation", permutation, "i32", 5, 0, 0, 0), 0);
    ck_assert_int_eq(set(shrink, "segment_offset", offset, "i32", 4, 0, 0, 0), 0);
    ck_assert_int_eq(checkmoe_prepare(shrink), -1);
    ck_assert_str_eq(checkmoe_error(shrink), "`segment_adapter` is missing");
    ck_assert_int_eq(set(shrink, "segment_adapter", adapter, "i32", 3, 0, 0, 0), 0);
    ck_assert_int_eq(checkmoe_prepare(shrink), 0);
    for (int round = 0; round < 2; round++) {
        memset(v, 0xff, sizeof v);
        ck_assert_msg(checkmoe_run(shrink, NULL) == 0, "%s", checkmoe_error(shrink));
        for (int t = 0; t < 5; t++)
            for (int r = 0; r < 2; r++) {
                bool used = tokens[t] >= 0 && r < rank[tokens[t]];
                ck_assert_msg(v[2 * t + r] == (used ? 8 * (float)(t + 1) : 0), "v[%d,%d] = %g", t, r,
                              v[2 * t + r]);
            }
    }
    checkmoe_close(shrink);
    checkmoe_close(plan);
    checkmoe_close(NULL);
}
END_TEST

START_TEST(mistakes_are_said)
{
    char error[200] = "";
    float x[8];
    ck_assert_ptr_null(checkmoe_open("sgmv_plan/naive", error, sizeof error));
    ck_assert_str_eq(error, "there is no CUDA kernel \"sgmv_plan/naive\"");
    ck_assert_ptr_null(checkmoe_open("", error, sizeof error));
    checkmoe_call *call = checkmoe_open("sgmv_expand/cuda", error, sizeof error);
    ck_assert_ptr_nonnull(call);
    ck_assert_int_eq(set(call, "w", x, "f32", 8, 0, 0, 0), -1);
    ck_assert_str_eq(checkmoe_error(call), "sgmv_expand has no argument \"w\"");
    ck_assert_int_eq(set(call, "v", x, "f8", 8, 0, 0, 0), -1);
    ck_assert_str_eq(checkmoe_error(call), "v: there is no dtype \"f8\"");
    ck_assert_int_eq(checkmoe_tensor(call, "v", x, "f32", 7, (int64_t[7]){0}, (int64_t[7]){0}), -1);
    ck_assert_str_eq(checkmoe_error(call), "v: 7 dimensions");
    ck_assert_int_eq(checkmoe_attribute(call, "accumulate", 0), 0);
    ck_assert_int_eq(checkmoe_attribute(call, "act_quant", 0), -1);
    ck_assert_str_eq(checkmoe_error(call), "sgmv_expand has no attribute \"act_quant\"");
    ck_assert_int_eq(checkmoe_dim(call, 'Z', 1), -1);
    ck_assert_int_eq(checkmoe_dim(call, 0, 1), -1);
    ck_assert_uint_eq(checkmoe_scratch_used(call), 0);
    checkmoe_close(call);
}
END_TEST

Suite *cm_unit_entry(void)
{
    Suite *suite = suite_create("entry");
    TCase *tcase = tcase_create("calls");
    tcase_add_test(tcase, kernels_run);
    tcase_add_test(tcase, mistakes_are_said);
    suite_add_tcase(suite, tcase);
    return suite;
}
