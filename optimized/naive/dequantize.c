// SPDX-License-Identifier: Apache-2.0
// dequantize/naive: each code times the scale of its row and group, in fp32, rounded once to y.
#include "optimized/kernels.h"
#include "optimized/view.h"

static cm_status run(const cm_call *call, void *state)
{
    (void)state;
    cm_status status = call->host->validate(call);
    if (status != CM_OK)
        return status;
    int64_t T = call->host->dim(call, 'T'), K = call->host->dim(call, 'K'), G = call->host->dim(call, 'G');
    const DLTensor *codes = call->host->argument(call, "codes"), *y = call->host->argument(call, "y");
    const DLTensor *scales = call->host->argument(call, "scale");
    int64_t size = G > 0 ? G : K;
    for (int64_t t = 0; t < T; t++) {
        const char *code_row = cm_row_at(codes, 0, 0, t), *scale_row = cm_row_at(scales, 0, 0, t);
        char *row = (char *)cm_row_at(y, 0, 0, t);
        for (int64_t i = 0; i < K; i++) {
            float scale = cm_load_float(scales, scale_row, i / size);
            cm_store_float(y, row, i, (float)cm_load_code(codes, code_row, i) * scale);
        }
    }
    return CM_OK;
}

const cm_kernel cm_dequantize_naive = {
    .size = sizeof(cm_kernel),
    .name = "dequantize/naive",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .row_invariant = true,
    .run = run,
};
