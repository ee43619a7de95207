// SPDX-License-Identifier: Apache-2.0
// Matrix products of oneDNN in bf16, f32 and s8 behind one function, with its objects made once per shape.
#ifndef CM_ONEDNN_PRODUCT_H
#define CM_ONEDNN_PRODUCT_H

#include "optimized/view.h"

#include <dnnl.h>

#if DNNL_VERSION_MAJOR != 2
#error "the onednn kernels use the interface of oneDNN 2 (op descriptors); install libdnnl-dev 2.x"
#endif

// One primitive: out [m, n] = x [m, k] w [n, k]^T, contiguous rows but for w's. `w_stride` is the elements
// between rows of a plain w; 0: w has the layout that oneDNN chose for [n, k]. x and w are bf16 (out f32 or
// bf16), f32 (out f32) or s8 (out s32).
struct cm_onednn_shape {
    int64_t m, n, k, w_stride;
    dnnl_data_type_t out, in;
};

struct cm_onednn_product {
    struct cm_onednn_shape shape;
    int threads; // that it was made for
    dnnl_primitive_desc_t description;
    dnnl_primitive_t primitive;
    struct cm_onednn_product *next;
};

struct cm_onednn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    struct cm_onednn_product *products; // made so far
    int threads;                        // most that OpenMP may start; 0: as it likes
};

// Each returns oneDNN's status. close accepts zero.
dnnl_status_t cm_onednn_open(struct cm_onednn *onednn);
void cm_onednn_close(struct cm_onednn *onednn);

// The layout that oneDNN prefers for weights [n, k] of products of this shape with many rows.
dnnl_status_t cm_onednn_layout(struct cm_onednn *onednn, struct cm_onednn_shape shape,
                               dnnl_memory_desc_t *layout);
// Brings a plain w [n, k] with contiguous rows into that layout; `to` has dnnl_memory_desc_get_size bytes.
dnnl_status_t cm_onednn_pack(struct cm_onednn *onednn, const void *w, int64_t n, int64_t k,
                             const dnnl_memory_desc_t *layout, void *to);
// Forms one product and waits for it. `layout`: of w, if shape.w_stride is 0.
dnnl_status_t cm_onednn_multiply(struct cm_onednn *onednn, struct cm_onednn_shape shape, const void *x,
                                 const void *w, const dnnl_memory_desc_t *layout, void *out);

// CM_NO_MEMORY or CM_UNSUPPORTED, with a sentence.
cm_status cm_onednn_fail(const cm_call *call, dnnl_status_t status, const char *what);

#endif
