// SPDX-License-Identifier: Apache-2.0
// oneDNN's matmul through its C interface: memory descriptors, primitives kept in a list by shape, execution.
// w [n, k] is handed over as the transposed view [k, n].
#include "optimized/onednn/product.h"

#include <stdlib.h>

// Of the OpenMP runtime that oneDNN itself uses; <omp.h> may be another compiler's.
int omp_get_max_threads(void);
void omp_set_num_threads(int count);

enum { MANY_ROWS = 64 }; // for which the layout of packed weights is chosen

#define TRY(expression)                                                                                      \
    do {                                                                                                     \
        dnnl_status_t try_status = (expression);                                                             \
        if (try_status != dnnl_success)                                                                      \
            return try_status;                                                                               \
    } while (0)

dnnl_status_t cm_onednn_open(struct cm_onednn *onednn)
{
    *onednn = (struct cm_onednn){0};
    TRY(dnnl_engine_create(&onednn->engine, dnnl_cpu, 0));
    return dnnl_stream_create(&onednn->stream, onednn->engine, dnnl_stream_default_flags);
}

static void close_product(struct cm_onednn_product *product)
{
    if (product->primitive)
        dnnl_primitive_destroy(product->primitive);
    if (product->description)
        dnnl_primitive_desc_destroy(product->description);
    free(product);
}

void cm_onednn_close(struct cm_onednn *onednn)
{
    while (onednn->products) {
        struct cm_onednn_product *next = onednn->products->next;
        close_product(onednn->products);
        onednn->products = next;
    }
    if (onednn->stream)
        dnnl_stream_destroy(onednn->stream);
    if (onednn->engine)
        dnnl_engine_destroy(onednn->engine);
    *onednn = (struct cm_onednn){0};
}

static dnnl_status_t describe_rows(dnnl_memory_desc_t *rows, int64_t count, int64_t columns,
                                   dnnl_data_type_t dtype)
{
    return dnnl_memory_desc_init_by_strides(rows, 2, (dnnl_dims_t){count, columns}, dtype,
                                            (dnnl_dims_t){columns, 1});
}

static dnnl_status_t describe_plain(dnnl_memory_desc_t *weights, int64_t n, int64_t k, int64_t stride,
                                    dnnl_data_type_t dtype)
{
    return dnnl_memory_desc_init_by_strides(weights, 2, (dnnl_dims_t){k, n}, dtype, (dnnl_dims_t){1, stride});
}

static dnnl_status_t describe_product(struct cm_onednn *onednn, struct cm_onednn_shape shape,
                                      const dnnl_memory_desc_t *weights, dnnl_primitive_desc_t *description)
{
    dnnl_memory_desc_t in, out;
    dnnl_matmul_desc_t operation;
    TRY(describe_rows(&in, shape.m, shape.k, shape.in));
    TRY(describe_rows(&out, shape.m, shape.n, shape.out));
    TRY(dnnl_matmul_desc_init(&operation, &in, weights, NULL, &out));
    return dnnl_primitive_desc_create(description, &operation, NULL, onednn->engine, NULL);
}

// Holds this thread's OpenMP to the limit; returns what it was, for unlimit.
static int limit(const struct cm_onednn *onednn)
{
    int before = omp_get_max_threads();
    if (onednn->threads > 0)
        omp_set_num_threads(onednn->threads);
    return before;
}

static void unlimit(int before)
{
    if (before != omp_get_max_threads())
        omp_set_num_threads(before);
}

dnnl_status_t cm_onednn_layout(struct cm_onednn *onednn, struct cm_onednn_shape shape,
                               dnnl_memory_desc_t *layout)
{
    dnnl_memory_desc_t any;
    dnnl_primitive_desc_t description = NULL;
    shape.m = MANY_ROWS;
    TRY(dnnl_memory_desc_init_by_tag(&any, 2, (dnnl_dims_t){shape.k, shape.n}, shape.in,
                                     dnnl_format_tag_any));
    TRY(describe_product(onednn, shape, &any, &description));
    *layout = *dnnl_primitive_desc_query_md(description, dnnl_query_weights_md, 0);
    return dnnl_primitive_desc_destroy(description);
}

// Runs a primitive on memories that are made for it: x, w (optional) and out.
static dnnl_status_t execute(struct cm_onednn *onednn, dnnl_primitive_t primitive, int count,
                             const int *arguments, const dnnl_memory_desc_t *const *layouts,
                             void *const *handles)
{
    dnnl_exec_arg_t list[3];
    dnnl_status_t status = dnnl_success;
    int made = 0;
    while (made < count && status == dnnl_success) {
        list[made].arg = arguments[made];
        status = dnnl_memory_create(&list[made].memory, layouts[made], onednn->engine, handles[made]);
        made += status == dnnl_success;
    }
    if (status == dnnl_success)
        status = dnnl_primitive_execute(primitive, onednn->stream, count, list);
    dnnl_status_t waited = dnnl_stream_wait(onednn->stream);
    while (made > 0)
        dnnl_memory_destroy(list[--made].memory);
    return status == dnnl_success ? waited : status;
}

dnnl_status_t cm_onednn_pack(struct cm_onednn *onednn, const void *w, int64_t n, int64_t k,
                             const dnnl_memory_desc_t *layout, void *to)
{
    dnnl_memory_desc_t plain;
    dnnl_primitive_desc_t description = NULL;
    dnnl_primitive_t reorder = NULL;
    TRY(describe_plain(&plain, n, k, k, layout->data_type));
    TRY(dnnl_reorder_primitive_desc_create(&description, &plain, onednn->engine, layout, onednn->engine,
                                           NULL));
    int before = limit(onednn);
    dnnl_status_t status = dnnl_primitive_create(&reorder, description);
    if (status == dnnl_success)
        status =
            execute(onednn, reorder, 2, (int[]){DNNL_ARG_FROM, DNNL_ARG_TO},
                    (const dnnl_memory_desc_t *[]){&plain, layout}, (void *[]){(void *)(uintptr_t)w, to});
    unlimit(before);
    if (reorder)
        dnnl_primitive_destroy(reorder);
    dnnl_primitive_desc_destroy(description);
    return status;
}

static bool same_shape(const struct cm_onednn_shape *a, const struct cm_onednn_shape *b)
{
    return a->m == b->m && a->n == b->n && a->k == b->k && a->w_stride == b->w_stride && a->out == b->out &&
           a->in == b->in;
}

static dnnl_status_t find_product(struct cm_onednn *onednn, struct cm_onednn_shape shape,
                                  const dnnl_memory_desc_t *layout, struct cm_onednn_product **found)
{
    for (*found = onednn->products; *found; *found = (*found)->next)
        if (same_shape(&(*found)->shape, &shape) && (*found)->threads == onednn->threads)
            return dnnl_success;
    dnnl_memory_desc_t plain;
    if (shape.w_stride > 0) {
        TRY(describe_plain(&plain, shape.n, shape.k, shape.w_stride, shape.in));
        layout = &plain;
    }
    struct cm_onednn_product *product = calloc(1, sizeof *product);
    if (!product)
        return dnnl_out_of_memory;
    product->shape = shape;
    product->threads = onednn->threads;
    dnnl_status_t status = describe_product(onednn, shape, layout, &product->description);
    if (status == dnnl_success)
        status = dnnl_primitive_create(&product->primitive, product->description);
    if (status != dnnl_success) {
        close_product(product);
        return status;
    }
    product->next = onednn->products;
    onednn->products = product;
    *found = product;
    return dnnl_success;
}

dnnl_status_t cm_onednn_multiply(struct cm_onednn *onednn, struct cm_onednn_shape shape, const void *x,
                                 const void *w, const dnnl_memory_desc_t *layout, void *out)
{
    struct cm_onednn_product *product;
    int before = limit(onednn);
    dnnl_status_t status = find_product(onednn, shape, layout, &product);
    if (status != dnnl_success)
        goto done;
    const dnnl_memory_desc_t *layouts[] = {
        dnnl_primitive_desc_query_md(product->description, dnnl_query_src_md, 0),
        dnnl_primitive_desc_query_md(product->description, dnnl_query_weights_md, 0),
        dnnl_primitive_desc_query_md(product->description, dnnl_query_dst_md, 0)};
    status = execute(onednn, product->primitive, 3, (int[]){DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST},
                     layouts, (void *[]){(void *)(uintptr_t)x, (void *)(uintptr_t)w, out});
done:
    unlimit(before);
    return status;
}

cm_status cm_onednn_fail(const cm_call *call, dnnl_status_t status, const char *what)
{
    if (status == dnnl_out_of_memory)
        return call->host->fail(call, CM_NO_MEMORY, "oneDNN has no memory for %s", what);
    return call->host->fail(call, CM_UNSUPPORTED, "oneDNN refuses %s (dnnl_status_t %d)", what, (int)status);
}
