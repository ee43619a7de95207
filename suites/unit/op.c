// SPDX-License-Identifier: Apache-2.0
// Validation of calls: every op and every argument (those that no case has, too) is broken in every way that
// its row of the table forbids; each must be refused by name.
#include "suites/unit/op.h"

#include "harness/host.h"
#include "harness/op.h"
#include "suites/unit/cases.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// A call with every argument of its op, in memory of its own.
struct bench {
    const cm_op *op;
    cm_pristine *pristine;
    int count;
    int64_t dims[CM_DIM_COUNT];
    cm_tensor tensors[CM_MAX_ARGUMENTS];
    const DLTensor *arguments[CM_MAX_ARGUMENTS];
    cm_hosted hosted;
};
static struct bench bench;

static void refill(int n)
{
    const cm_argument *argument = &bench.op->arguments[n];
    int64_t shape[CM_MAX_RANK];
    int ndim = cm_op_shape(argument, bench.dims, shape, NULL);
    void *data = bench.tensors[n].dl.data;
    cm_tensor_init(&bench.tensors[n], cm_op_dtype(argument, bench.pristine->test_case.dtypes), ndim, shape,
                   data);
    bench.arguments[n] = &bench.tensors[n].dl;
    if (bench.pristine->arguments[n])
        cm_tensor_copy(&bench.tensors[n].dl, bench.pristine->arguments[n]);
}

static void open_bench(int row)
{
    memset(&bench, 0, sizeof bench);
    bench.pristine = cm_unit_open(cm_unit_valid[row].op, cm_unit_valid[row].name);
    bench.op = bench.pristine->test_case.op;
    bench.count = cm_op_argument_count(bench.op);
    memcpy(bench.dims, bench.pristine->test_case.dims, sizeof bench.dims);
    for (int n = 0; n < bench.count; n++) {
        bench.tensors[n].dl.data = cm_new(1 << 16, 1); // zeros are fine where nothing generates
        refill(n);
    }
    bench.hosted.call = (cm_call){.size = sizeof(cm_call),
                                  .op = bench.op,
                                  .host = &cm_host_services,
                                  .arguments = bench.arguments,
                                  .attributes = bench.pristine->test_case.attributes,
                                  .dims = bench.dims,
                                  .device = kDLCPU};
}

static void close_bench(void)
{
    for (int n = 0; n < bench.count; n++)
        free(bench.tensors[n].dl.data);
    cm_unit_close(bench.pristine);
}

static void expect_status(cm_status want, int n, const char *what)
{
    bench.hosted.error.message[0] = 0;
    cm_status status = cm_op_validate(&bench.hosted.call);
    const char *name = bench.op->arguments[n].name, *message = bench.hosted.error.message;
    if (status != want)
        ck_abort_msg("%s, %s: %s: \"%s\", expected \"%s\"; %s", bench.op->name, name, what,
                     cm_status_name(status), cm_status_name(want), message);
    if (want != CM_OK && !strstr(message, name))
        ck_abort_msg("%s: %s is not named: %s", what, name, message);
}

START_TEST(accepts_valid_calls)
{
    open_bench(_i);
    expect_status(CM_OK, 0, "everything present");
    for (int n = 0; n < bench.count; n++)
        bench.arguments[n] = bench.pristine->arguments[n];
    expect_status(CM_OK, 0, "as the case has it");
    close_bench();
}
END_TEST

// DLPack lets data begin behind the pointer; kernels may rely on data alone once a call is validated.
START_TEST(refuses_byte_offsets)
{
    static const uint64_t offsets[] = {1, 8, 256, UINT64_MAX - 7};
    open_bench(_i);
    for (int n = 0; n < bench.count; n++) {
        for (size_t o = 0; o < sizeof offsets / sizeof *offsets; o++) {
            bench.tensors[n].dl.byte_offset = offsets[o];
            expect_status(CM_BAD_VALUE, n, "a byte offset");
            ck_assert_ptr_nonnull(strstr(bench.hosted.error.message, "byte offset"));
        }
        bench.tensors[n].dl.byte_offset = 0;
    }
    expect_status(CM_OK, 0, "after all that");
    close_bench();
}
END_TEST

// DLPack allows NULL for the strides of a compact tensor; kernels may rely on them once a call is validated.
START_TEST(refuses_null_strides)
{
    open_bench(_i);
    for (int n = 0; n < bench.count; n++) {
        bench.tensors[n].dl.strides = NULL;
        expect_status(CM_BAD_SHAPE, n, "no strides");
        refill(n);
    }
    close_bench();
}
END_TEST

START_TEST(refuses_shapes)
{
    open_bench(_i);
    for (int n = 0; n < bench.count; n++) {
        cm_tensor *tensor = &bench.tensors[n];
        int ndim = tensor->dl.ndim;
        for (int d = 0; d < ndim; d++)
            for (int by = -1; by <= 1; by += 2) {
                tensor->shape[d] += by;
                expect_status(CM_BAD_SHAPE, n, by < 0 ? "an extent too small" : "an extent too large");
                tensor->shape[d] -= by;
            }
        for (tensor->dl.ndim = 0; tensor->dl.ndim <= CM_MAX_RANK; tensor->dl.ndim++) {
            for (int d = ndim; d < CM_MAX_RANK; d++)
                tensor->shape[d] = tensor->strides[d] = 1;
            expect_status(tensor->dl.ndim == ndim ? CM_OK : CM_BAD_SHAPE, n, "another number of dimensions");
        }
        refill(n);
    }
    for (const char *letter = CM_DIM_LETTERS; *letter; letter++) {
        if (!cm_op_has_dim(bench.op, *letter) || *letter == 'G')
            continue; // one more element in a group need not change a shape
        bench.dims[cm_dim_index(*letter)]++;
        ck_assert_msg(cm_op_validate(&bench.hosted.call) == CM_BAD_SHAPE, "%c is one larger", *letter);
        bench.dims[cm_dim_index(*letter)]--;
    }
    expect_status(CM_OK, 0, "after all that");
    close_bench();
}
END_TEST

START_TEST(refuses_strides)
{
    open_bench(_i);
    for (int n = 0; n < bench.count; n++) {
        int64_t shape[CM_MAX_RANK];
        char letters[CM_MAX_RANK];
        int ndim = cm_op_shape(&bench.op->arguments[n], bench.dims, shape, letters);
        for (int d = 0; d < ndim; d++) {
            int64_t before = bench.tensors[n].strides[d];
            bool may = letters[d] == bench.op->arguments[n].shareable || shape[d] <= 1;
            bench.tensors[n].strides[d] = -1;
            expect_status(CM_BAD_SHAPE, n, "a negative stride");
            bench.tensors[n].strides[d] = 0;
            expect_status(may ? CM_OK : CM_BAD_SHAPE, n, "a stride of 0");
            bench.tensors[n].strides[d] = 2;
            if (d == ndim - 1)
                expect_status(shape[d] <= 1 ? CM_OK : CM_BAD_SHAPE, n, "a gap between the elements of a row");
            bench.tensors[n].strides[d] = before;
        }
        if (ndim < 2 || shape[0] < 2 || bench.op->arguments[n].compare == CM_COMPARE_NONE)
            continue;
        int64_t stride = bench.tensors[n].strides[ndim - 2];
        bench.tensors[n].strides[ndim - 2] = stride - 1;
        expect_status(CM_BAD_SHAPE, n, "rows of an output that overlap");
        bench.tensors[n].strides[ndim - 2] = stride;
    }
    close_bench();
}
END_TEST

static bool shares_dtype(int n)
{
    for (int m = 0; m < bench.count; m++)
        if (m != n && bench.op->arguments[n].dtype_variable &&
            bench.op->arguments[m].dtype_variable == bench.op->arguments[n].dtype_variable)
            return true;
    return false;
}

START_TEST(refuses_dtypes)
{
    static const DLDataType strange[] = {
        {kDLUInt, 8, 1}, {kDLFloat, 8, 1}, {kDLInt, 64, 1}, {kDLBfloat, 16, 2}};
    open_bench(_i);
    for (int n = 0; n < bench.count; n++) {
        DLDataType before = bench.tensors[n].dl.dtype;
        for (int d = 0; d < CM_DTYPE_COUNT; d++) {
            bench.tensors[n].dl.dtype = cm_dtype_to_dl((cm_dtype)d);
            bool same = !memcmp(&bench.tensors[n].dl.dtype, &before, sizeof before);
            bool may = bench.op->arguments[n].dtypes & CM_DTYPE_BIT(d) && !shares_dtype(n);
            expect_status(same || may ? CM_OK : CM_BAD_DTYPE, n, cm_dtype_name((cm_dtype)d));
        }
        for (size_t s = 0; s < sizeof strange / sizeof *strange; s++) {
            bench.tensors[n].dl.dtype = strange[s];
            expect_status(CM_BAD_DTYPE, n, "a dtype that no op knows");
        }
        bench.tensors[n].dl.dtype = before;
    }
    close_bench();
}
END_TEST

// Puts `value` at every place of argument n in turn.
static void put_everywhere(int n, double value, cm_status want, const char *what)
{
    for (int64_t i = 0; i < cm_tensor_count(&bench.tensors[n].dl); i++) {
        char place[64];
        double before = cm_tensor_get(&bench.tensors[n].dl, i);
        cm_tensor_set(&bench.tensors[n].dl, i, value);
        expect_status(want, n, what);
        snprintf(place, sizeof place, "%s[%lld] = %.0f, outside ", bench.op->arguments[n].name, (long long)i,
                 value);
        if (want != CM_OK && !strstr(bench.hosted.error.message, place))
            ck_abort_msg("\"%s\" is not in: %s", place, bench.hosted.error.message);
        cm_tensor_set(&bench.tensors[n].dl, i, before);
    }
}

START_TEST(refuses_ids)
{
    int indices = 0;
    open_bench(_i);
    for (int n = 0; n < bench.count; n++) {
        const cm_argument *argument = &bench.op->arguments[n];
        if (!argument->index_into)
            continue;
        int64_t extent = bench.dims[cm_dim_index(argument->index_into)];
        put_everywhere(n, (double)extent, CM_BAD_ID, "an id past the last");
        put_everywhere(n, (double)argument->index_min - 1, CM_BAD_ID, "an id before the first");
        put_everywhere(n, INT_MAX, CM_BAD_ID, "the largest id");
        put_everywhere(n, INT_MIN, CM_BAD_ID, "the smallest id");
        put_everywhere(n, (double)extent - 1, CM_OK, "the last id");
        put_everywhere(n, (double)argument->index_min, CM_OK, "the first id");
        indices++;
    }
    ck_assert_int_gt(indices, 0);
    close_bench();
}
END_TEST

START_TEST(refuses_ranks)
{
    open_bench(_i);
    for (int n = 0; n < bench.count; n++) {
        if (!bench.op->arguments[n].is_rank)
            continue;
        double r = (double)bench.dims[cm_dim_index('r')];
        put_everywhere(n, r + 1, CM_BAD_VALUE, "a rank above r");
        put_everywhere(n, -1, CM_BAD_VALUE, "a negative rank");
        put_everywhere(n, r, CM_OK, "rank r");
        put_everywhere(n, 0, CM_OK, "rank 0");
    }
    close_bench();
}
END_TEST

static void put(int n, int64_t i, double value, cm_status want, const char *what)
{
    double before = cm_tensor_get(&bench.tensors[n].dl, i);
    cm_tensor_set(&bench.tensors[n].dl, i, value);
    expect_status(want, n, what);
    cm_tensor_set(&bench.tensors[n].dl, i, before);
}

START_TEST(refuses_offsets)
{
    open_bench(_i);
    for (int n = 0; n < bench.count; n++) {
        const DLTensor *tensor = &bench.tensors[n].dl;
        if (!bench.op->arguments[n].offset_into)
            continue;
        int64_t count = cm_tensor_count(tensor);
        double limit = (double)bench.dims[cm_dim_index(bench.op->arguments[n].offset_into)];
        ck_assert(cm_tensor_get(tensor, 0) == 0 && cm_tensor_get(tensor, count - 1) == limit);
        for (int64_t i = 0; i < count; i++) {
            put(n, i, limit + 1, CM_BAD_VALUE, "an offset past the end");
            put(n, i, -1, CM_BAD_VALUE, "a negative offset");
            if (i > 0 && cm_tensor_get(tensor, i - 1) > 0)
                put(n, i, cm_tensor_get(tensor, i - 1) - 1, CM_BAD_VALUE, "an offset that falls");
        }
        put(n, 0, 1, CM_BAD_VALUE, "offsets that do not begin at 0");
        put(n, count - 1, limit - 1, CM_BAD_VALUE, "offsets that end before the dimension");
    }
    close_bench();
}
END_TEST

START_TEST(refuses_absence)
{
    open_bench(_i);
    for (int n = 0; n < bench.count; n++) {
        const cm_argument *argument = &bench.op->arguments[n];
        bool needed = !argument->optional || argument->scales; // the case's weights are integers
        for (int m = 0; m < bench.count; m++) {
            const cm_argument *other = &bench.op->arguments[m];
            needed = needed || cm_has_word(other->with, argument->name, strlen(argument->name));
            needed = needed || (other->scales && !strcmp(other->scales, argument->name));
        }
        bench.arguments[n] = NULL;
        expect_status(needed ? CM_BAD_VALUE : CM_OK, n, "absent");
        if (!argument->optional)
            ck_assert_msg(strstr(bench.hosted.error.message, " is missing") != NULL, "%s",
                          bench.hosted.error.message);
        bench.arguments[n] = &bench.tensors[n].dl;
        void *data = bench.tensors[n].dl.data;
        bench.tensors[n].dl.data = NULL;
        expect_status(CM_BAD_VALUE, n, "no data");
        bench.tensors[n].dl.data = data;
    }
    close_bench();
}
END_TEST

// Any one argument of dimension r must be there while a rank is above 0; the table knows no more.
START_TEST(refuses_ranks_without_matrices)
{
    open_bench(_i);
    int rank = cm_op_argument_index(bench.op, "lora_rank");
    if (rank >= 0 && bench.op->arguments[rank].optional) {
        for (int n = 0; n < bench.count; n++)
            if (strchr(bench.op->arguments[n].shape, 'r'))
                bench.arguments[n] = NULL;
        expect_status(CM_BAD_VALUE, rank, "ranks without matrices");
        ck_assert_ptr_nonnull(strstr(bench.hosted.error.message, "no argument of that rank"));
        for (int64_t i = 0; i < cm_tensor_count(&bench.tensors[rank].dl); i++)
            cm_tensor_set(&bench.tensors[rank].dl, i, 0);
        expect_status(CM_OK, rank, "rank 0 without matrices");
    }
    close_bench();
}
END_TEST

// Every output over every other argument: by all bytes, by its first and by its last.
START_TEST(refuses_overlaps)
{
    open_bench(_i);
    for (int n = 0; n < bench.count; n++) {
        cm_role role = bench.op->arguments[n].role;
        DLTensor *output = &bench.tensors[n].dl;
        char *before = output->data;
        if (role != CM_OUTPUT && role != CM_INOUT)
            continue;
        for (int m = 0; m < bench.count; m++) {
            char *other = bench.tensors[m].dl.data;
            ptrdiff_t size = (ptrdiff_t)cm_tensor_extent(output);
            ptrdiff_t room = (ptrdiff_t)cm_tensor_extent(&bench.tensors[m].dl);
            const ptrdiff_t at[] = {0, room - 1, 1 - size}, clear[] = {room, -size};
            for (size_t a = 0; m != n && a < sizeof at / sizeof *at; a++) {
                output->data = other + at[a];
                expect_status(CM_BAD_VALUE, n, "an overlap");
                ck_assert_ptr_nonnull(strstr(bench.hosted.error.message, bench.op->arguments[m].name));
            }
            for (size_t c = 0; m != n && role == CM_OUTPUT && c < sizeof clear / sizeof *clear; c++) {
                output->data = other + clear[c];
                expect_status(CM_OK, n, "neighbours in memory");
            }
            output->data = before;
        }
    }
    expect_status(CM_OK, 0, "after all that");
    close_bench();
}
END_TEST

START_TEST(empty_tensors_overlap_nothing)
{
    float memory[8] = {0};
    cm_tensor a, b;
    cm_tensor_init(&a, CM_F32, 2, (int64_t[]){2, 2}, memory);
    cm_tensor_init(&b, CM_F32, 2, (int64_t[]){0, 2}, memory);
    ck_assert(!cm_tensor_overlap(&a.dl, &b.dl) && !cm_tensor_overlap(&b.dl, &a.dl));
    cm_tensor_init(&b, CM_F32, 2, (int64_t[]){1, 2}, memory + 4);
    ck_assert(!cm_tensor_overlap(&a.dl, &b.dl) && !cm_tensor_overlap(&b.dl, &a.dl));
    a.strides[0] = 3; // the first row ends where the gap begins, the second lies over b
    ck_assert(cm_tensor_overlap(&a.dl, &b.dl) && cm_tensor_overlap(&b.dl, &a.dl));
}
END_TEST

static void move_to(int n, DLDeviceType device)
{
    bench.tensors[n].dl.device.device_type = device;
}

// Each argument on the wrong side: of a host kernel, then of one whose arguments lie on a device.
START_TEST(refuses_devices)
{
    static const DLDeviceType types[] = {kDLCUDA, kDLCUDAManaged, kDLROCM, kDLCPU, (DLDeviceType)0};
    static const DLDeviceType sides[] = {kDLCPU, kDLCUDA};
    open_bench(_i);
    for (int side = 0; side < 2; side++) {
        bench.hosted.call.device = sides[side];
        for (int n = 0; n < bench.count; n++)
            move_to(n, sides[side]);
        for (int n = 0; n < bench.count; n++)
            for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
                move_to(n, types[t]);
                expect_status(types[t] == sides[side] ? CM_OK : CM_BAD_DEVICE, n, "a device");
                move_to(n, sides[side]);
            }
        for (int n = 0; n < bench.count; n++) {
            bench.tensors[n].dl.device.device_id = 1;
            expect_status(CM_BAD_DEVICE, n, "the second device");
            bench.tensors[n].dl.device.device_id = 0;
        }
    }
    close_bench();
}
END_TEST

Suite *cm_unit_op(void)
{
    Suite *suite = suite_create("op");
    TCase *calls = tcase_create("calls");
    tcase_set_timeout(calls, 60);
    tcase_add_loop_test(calls, accepts_valid_calls, 0, CM_UNIT_OPS);
    tcase_add_loop_test(calls, refuses_byte_offsets, 0, CM_UNIT_OPS);
    tcase_add_loop_test(calls, refuses_null_strides, 0, CM_UNIT_OPS);
    tcase_add_loop_test(calls, refuses_shapes, 0, CM_UNIT_OPS);
    tcase_add_loop_test(calls, refuses_strides, 0, CM_UNIT_OPS);
    tcase_add_loop_test(calls, refuses_dtypes, 0, CM_UNIT_OPS);
    tcase_add_loop_test(calls, refuses_ids, 0, CM_UNIT_INDEXED_OPS);
    tcase_add_loop_test(calls, refuses_ranks, 0, CM_UNIT_OPS);
    tcase_add_loop_test(calls, refuses_offsets, 0, CM_UNIT_OPS);
    tcase_add_loop_test(calls, refuses_absence, 0, CM_UNIT_OPS);
    tcase_add_loop_test(calls, refuses_ranks_without_matrices, 0, CM_UNIT_OPS);
    tcase_add_loop_test(calls, refuses_overlaps, 0, CM_UNIT_OPS);
    tcase_add_test(calls, empty_tensors_overlap_nothing);
    tcase_add_loop_test(calls, refuses_devices, 0, CM_UNIT_OPS);
    suite_add_tcase(suite, cm_unit_op_tables());
    suite_add_tcase(suite, calls);
    return suite;
}
