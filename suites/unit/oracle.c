// SPDX-License-Identifier: Apache-2.0
#include "suites/unit/oracle_parts.h"

#include "harness/op.h"
#include "harness/rng.h"

#include <cblas.h>
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#undef I // of complex.h: here it is the width of an expert

const DLTensor *cm_oracle_argument(const cm_pristine *pristine, const char *name)
{
    int n = cm_op_argument_index(pristine->test_case.op, name);
    return n < 0 ? NULL : pristine->arguments[n];
}

bool cm_oracle_add_argument(cm_pristine *pristine, const char *name, int gain)
{
    int n = cm_op_argument_index(pristine->test_case.op, name);
    if (n < 0)
        return false;
    cm_tensor *tensor = &pristine->tensors[n];
    cm_pristine_layout(&pristine->test_case, n, tensor);
    size_t extent = cm_tensor_extent(&tensor->dl);
    if (extent == 0)
        return false;
    void *data = mmap(NULL, extent, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED)
        cm_broken("no memory for %s", name);
    pristine->mappings[pristine->mapping_count] = data; // unmapped with the case
    pristine->mapped[pristine->mapping_count++] = extent;
    pristine->arguments[n] = &tensor->dl;
    tensor->dl.data = data;
    cm_rng rng = {pristine->test_case.seed, 0x6f726100u + (uint32_t)n};
    for (int64_t i = 0; i < cm_tensor_count(&tensor->dl); i++)
        cm_tensor_set(&tensor->dl, i, ldexp(cm_rng_normal(rng, (uint64_t)i), gain - 16));
    return true;
}

void cm_oracle_open_case(const cm_op *op, const char *text, cm_pristine *pristine)
{
    cm_error error = {{0}};
    cm_case test_case;
    cm_status status = cm_case_parse(op, text, &test_case, &error);
    if (status == CM_OK)
        status = cm_pristine_open(&test_case, NULL, pristine, &error);
    ck_assert_msg(status == CM_OK, "%s: %s", text, error.message);
}

void cm_oracle_want(const cm_pristine *pristine, uint64_t omit, cm_accuracy accuracy,
                    cm_want wants[CM_MAX_ARGUMENTS])
{
    cm_error error = {{0}};
    memset(wants, 0, CM_MAX_ARGUMENTS * sizeof *wants);
    for (int n = 0; pristine->test_case.op->arguments[n].name; n++) {
        if (pristine->test_case.op->arguments[n].compare == CM_COMPARE_NONE)
            continue;
        int64_t count = cm_tensor_count(pristine->arguments[n]);
        double *at = cm_new((size_t)(5 * count), sizeof *at);
        wants[n] = (cm_want){count, at, at + count, at + 2 * count, at + 3 * count, at + 4 * count};
    }
    cm_status status = cm_pristine_without(pristine, omit, accuracy, wants, &error);
    ck_assert_msg(status == CM_OK, "%s", error.message);
}

void cm_oracle_close_wants(cm_want wants[CM_MAX_ARGUMENTS])
{
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++)
        free(wants[n].value);
}

uint64_t cm_oracle_lora_terms(const cm_op *op)
{
    uint64_t terms = 0;
    for (int n = 0; op->terms[n].name; n++)
        terms |= op->terms[n].effect ? 1ull << n : 0;
    return terms;
}

int64_t cm_oracle_dim(const cm_pristine *pristine, char letter)
{
    return pristine->test_case.dims[cm_dim_index(letter)];
}

// The part of a tensor behind its `leads` leading indices, as contiguous doubles; one or two dimensions are
// left. Free with free().
double *cm_oracle_load(const DLTensor *tensor, int leads, const int64_t *lead)
{
    cm_dtype dtype = CM_F32;
    int left = tensor->ndim - leads, last = tensor->ndim - 1;
    if (!cm_dtype_from_dl(tensor->dtype, &dtype) || left < 1 || left > 2)
        cm_broken("the oracle cannot load a part of %d dimensions", left);
    int64_t rows = left > 1 ? tensor->shape[last - 1] : 1, columns = tensor->shape[last];
    int64_t row_stride = left > 1 ? tensor->strides[last - 1] : 0, offset = 0;
    for (int d = 0; d < leads; d++)
        offset += lead[d] * tensor->strides[d];
    double *values = cm_new((size_t)(rows * columns), sizeof *values);
    for (int64_t n = 0; n < rows * columns; n++)
        values[n] = cm_load((const char *)tensor->data + tensor->byte_offset, dtype,
                            offset + n / columns * row_stride + n % columns * tensor->strides[last]);
    return values;
}

// out[m,n] += alpha x[m,k] w^T, w is [n,k]. Row strides follow their arrays.
void cm_oracle_multiply_add(int64_t m, int64_t n, int64_t k, double alpha, const double *x, int64_t x_stride,
                            const double *w, int64_t w_stride, double *out, int64_t out_stride)
{
    if (m > 0 && n > 0 && k > 0)
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)m, (blasint)n, (blasint)k, alpha, x,
                    (blasint)x_stride, w, (blasint)w_stride, 1, out, (blasint)out_stride);
}

int cm_oracle_slot_order(const void *left, const void *right)
{
    const struct cm_oracle_slot *a = left, *b = right;
    if (a->expert != b->expert)
        return a->expert < b->expert ? -1 : 1;
    if (a->adapter != b->adapter)
        return a->adapter < b->adapter ? -1 : 1;
    return (a->token > b->token) - (a->token < b->token);
}

// SGMV -------------------------------------------------------------------------------------------------

static void sgmv_plan(const cm_pristine *pristine, double *const outputs[])
{
    const cm_op *op = pristine->test_case.op;
    int64_t T = cm_oracle_dim(pristine, 'T'), L = cm_oracle_dim(pristine, 'L'), segment = 0;
    struct cm_oracle_slot *tokens = cm_new((size_t)T, sizeof *tokens);
    for (int64_t t = 0; t < T; t++)
        tokens[t] = (struct cm_oracle_slot){0, (int64_t)cm_tensor_get(pristine->arguments[0], t), t, 1};
    qsort(tokens, (size_t)T, sizeof *tokens, cm_oracle_slot_order);
    double *permutation = outputs[cm_op_argument_index(op, "permutation")],
           *offset = outputs[cm_op_argument_index(op, "segment_offset")],
           *adapter = outputs[cm_op_argument_index(op, "segment_adapter")];
    for (int64_t n = 0; n < L + 2; n++)
        offset[n] = (double)T;
    for (int64_t n = 0; n < L + 1; n++)
        adapter[n] = -1;
    for (int64_t n = 0; n < T; n++) {
        permutation[n] = (double)tokens[n].token;
        if (n > 0 && tokens[n].adapter == tokens[n - 1].adapter)
            continue;
        offset[segment] = (double)n;
        adapter[segment++] = (double)tokens[n].adapter;
    }
    free(tokens);
}

// Segment `p` of a plan: its tokens, adapter and rank. Free tokens.
struct segment {
    double *tokens;
    int64_t count, adapter, rank;
};

static struct segment segment_of(const cm_pristine *pristine, int64_t p)
{
    const DLTensor *offset = cm_oracle_argument(pristine, "segment_offset");
    int64_t begin = (int64_t)cm_tensor_get(offset, p), end = (int64_t)cm_tensor_get(offset, p + 1);
    struct segment segment = {.tokens = cm_new((size_t)(end - begin), sizeof(double)),
                              .count = end - begin,
                              .adapter =
                                  (int64_t)cm_tensor_get(cm_oracle_argument(pristine, "segment_adapter"), p)};
    if (segment.adapter >= 0)
        segment.rank = (int64_t)cm_tensor_get(cm_oracle_argument(pristine, "lora_rank"), segment.adapter);
    for (int64_t n = 0; n < segment.count; n++)
        segment.tokens[n] = cm_tensor_get(cm_oracle_argument(pristine, "permutation"), begin + n);
    return segment;
}

// Copies rows of `row` elements between all tokens and those of a segment.
static void move_rows(const struct segment *segment, double *all, double *own, int64_t row, bool gather)
{
    for (int64_t n = 0; n < segment->count; n++) {
        double *there = all + (int64_t)segment->tokens[n] * row, *here = own + n * row;
        memcpy(gather ? here : there, gather ? there : here, (size_t)row * sizeof *all);
    }
}

static void sgmv_shrink(const cm_pristine *pristine, double *const outputs[])
{
    int64_t T = cm_oracle_dim(pristine, 'T'), L = cm_oracle_dim(pristine, 'L'),
            S = cm_oracle_dim(pristine, 'S'), r = cm_oracle_dim(pristine, 'r'),
            K = cm_oracle_dim(pristine, 'K');
    double *x = cm_oracle_load(cm_oracle_argument(pristine, "x"), 0, NULL);
    double *v = outputs[cm_op_argument_index(pristine->test_case.op, "v")];
    memset(v, 0, (size_t)(T * S * r) * sizeof *v);
    for (int64_t p = 0; p <= L; p++) {
        struct segment segment = segment_of(pristine, p);
        double *own_x = cm_new((size_t)(segment.count * K), sizeof *x);
        double *own_v = cm_new((size_t)(segment.count * S * r), sizeof *v);
        move_rows(&segment, x, own_x, K, true);
        for (int64_t s = 0; s < S && segment.adapter >= 0; s++) {
            double *a =
                cm_oracle_load(cm_oracle_argument(pristine, "lora_a"), 2, (int64_t[]){segment.adapter, s});
            cm_oracle_multiply_add(segment.count, segment.rank, K, 1, own_x, K, a, K, own_v + s * r, S * r);
            free(a);
        }
        move_rows(&segment, v, own_v, S * r, false);
        free(own_x);
        free(own_v);
        free(segment.tokens);
    }
    free(x);
}

static void sgmv_expand(const cm_pristine *pristine, double *const outputs[])
{
    int64_t T = cm_oracle_dim(pristine, 'T'), L = cm_oracle_dim(pristine, 'L'),
            S = cm_oracle_dim(pristine, 'S'), r = cm_oracle_dim(pristine, 'r'),
            N = cm_oracle_dim(pristine, 'N');
    const DLTensor *base = cm_oracle_argument(pristine, "y"), *v = cm_oracle_argument(pristine, "v");
    double *slices = cm_oracle_load(cm_oracle_argument(pristine, "slice_offset"), 0, NULL);
    double *y = outputs[cm_op_argument_index(pristine->test_case.op, "y")];
    for (int64_t n = 0; n < T * N; n++)
        y[n] = pristine->test_case.attributes[0] != 0 ? cm_tensor_get(base, n) : 0; // accumulate
    for (int64_t p = 0; p <= L; p++) {
        struct segment segment = segment_of(pristine, p);
        double *own_y = cm_new((size_t)(segment.count * N), sizeof *y);
        double *own_v = cm_new((size_t)(segment.count * S * r), sizeof *y);
        double *b = NULL, s = 0;
        if (segment.adapter >= 0) {
            b = cm_oracle_load(cm_oracle_argument(pristine, "lora_b"), 1, &segment.adapter);
            s = cm_tensor_get(cm_oracle_argument(pristine, "lora_scaling"), segment.adapter);
        }
        for (int64_t n = 0; n < segment.count * S * r; n++)
            own_v[n] = cm_tensor_get(v, (int64_t)segment.tokens[n / (S * r)] * S * r + n % (S * r));
        move_rows(&segment, y, own_y, N, true);
        for (int64_t part = 0; part < S && b; part++) {
            int64_t begin = (int64_t)slices[part], end = (int64_t)slices[part + 1];
            cm_oracle_multiply_add(segment.count, end - begin, segment.rank, s, own_v + part * r, S * r,
                                   b + begin * r, r, own_y + begin, N);
        }
        move_rows(&segment, y, own_y, N, false);
        free(own_y);
        free(own_v);
        free(b);
        free(segment.tokens);
    }
    free(slices);
}

// W' = s B A of each adapter and slice is one matrix.
static void sgmv(const cm_pristine *pristine, double *const outputs[])
{
    int64_t T = cm_oracle_dim(pristine, 'T'), L = cm_oracle_dim(pristine, 'L'),
            S = cm_oracle_dim(pristine, 'S'), r = cm_oracle_dim(pristine, 'r'),
            K = cm_oracle_dim(pristine, 'K'), N = cm_oracle_dim(pristine, 'N');
    const DLTensor *base = cm_oracle_argument(pristine, "y");
    double *slices = cm_oracle_load(cm_oracle_argument(pristine, "slice_offset"), 0, NULL);
    double *x = cm_oracle_load(cm_oracle_argument(pristine, "x"), 0, NULL);
    double *y = outputs[cm_op_argument_index(pristine->test_case.op, "y")];
    for (int64_t n = 0; n < T * N; n++)
        y[n] = pristine->test_case.attributes[0] != 0 ? cm_tensor_get(base, n) : 0; // accumulate
    for (int64_t p = 0; p <= L; p++) {
        struct segment segment = segment_of(pristine, p);
        double *own_x = cm_new((size_t)(segment.count * K), sizeof *x);
        double *own_y = cm_new((size_t)(segment.count * N), sizeof *y);
        double *merged = cm_new((size_t)(N * K), sizeof *merged);
        move_rows(&segment, x, own_x, K, true);
        move_rows(&segment, y, own_y, N, true);
        for (int64_t s = 0; s < S && segment.rank > 0; s++) {
            int64_t begin = (int64_t)slices[s], width = (int64_t)slices[s + 1] - begin;
            double *a =
                cm_oracle_load(cm_oracle_argument(pristine, "lora_a"), 2, (int64_t[]){segment.adapter, s});
            double *b = cm_oracle_load(cm_oracle_argument(pristine, "lora_b"), 1, &segment.adapter);
            double scaling = cm_tensor_get(cm_oracle_argument(pristine, "lora_scaling"), segment.adapter);
            if (width > 0)
                cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)width, (blasint)K,
                            (blasint)segment.rank, scaling, b + begin * r, (blasint)r, a, (blasint)K, 0,
                            merged + begin * K, (blasint)K);
            free(a);
            free(b);
        }
        cm_oracle_multiply_add(segment.count, N, K, 1, own_x, K, merged, K, own_y, N);
        move_rows(&segment, y, own_y, N, false);
        free(own_x);
        free(own_y);
        free(merged);
        free(segment.tokens);
    }
    free(slices);
    free(x);
}

cm_status cm_oracle(const cm_pristine *pristine, double *const outputs[])
{
    static const struct oracle {
        const char *op;
        void (*compute)(const cm_pristine *pristine, double *const outputs[]);
    } oracles[] = {
        {"moe_forward", cm_oracle_moe_forward}, {"sgmv_plan", sgmv_plan}, {"sgmv_shrink", sgmv_shrink},
        {"sgmv_expand", sgmv_expand},           {"sgmv", sgmv},           {"quantize", cm_oracle_quantize},
        {"dequantize", cm_oracle_dequantize}};
    for (size_t n = 0; n < sizeof oracles / sizeof *oracles; n++)
        if (!strcmp(oracles[n].op, pristine->test_case.op->name)) {
            oracles[n].compute(pristine, outputs);
            return CM_OK;
        }
    return CM_UNSUPPORTED;
}
