// SPDX-License-Identifier: Apache-2.0
// quantize/naive: per row and group the largest magnitude, one division for the scale, one per code.
#include "optimized/kernels.h"
#include "optimized/view.h"

#include <math.h>

static float largest(const DLTensor *x, const char *row, int64_t begin, int64_t end)
{
    float amax = 0;
    for (int64_t i = begin; i < end && !isnan(amax); i++) {
        float magnitude = fabsf(cm_load_float(x, row, i));
        amax = magnitude <= amax ? amax : magnitude; // NaN, too, so that the scale shows it
    }
    return amax;
}

static int quantise(float value, float scale, int top)
{
    float u = scale > 0 ? value / scale : 0;
    u = u > (float)top ? (float)top : u; // beyond amax / scale only with a denormal scale
    u = u >= (float)-top ? u : (float)-top;
    return (int)rintf(u); // to nearest even
}

// In ascending order of n: an even i4 sets its whole byte.
static void store_code(const DLTensor *codes, char *row, int64_t n, int code)
{
    if (codes->dtype.bits == 8)
        row[n] = (char)code;
    else if (n % 2 == 0)
        row[n / 2] = (char)(code & 15);
    else
        row[n / 2] = (char)((row[n / 2] & 15) | (code & 15) << 4);
}

static cm_status run(const cm_call *call, void *state)
{
    (void)state;
    cm_status status = call->host->validate(call);
    if (status != CM_OK)
        return status;
    int64_t T = call->host->dim(call, 'T'), K = call->host->dim(call, 'K'), G = call->host->dim(call, 'G');
    const DLTensor *x = call->host->argument(call, "x"), *codes = call->host->argument(call, "codes");
    const DLTensor *scales = call->host->argument(call, "scale");
    int top = codes->dtype.bits == 8 ? 127 : 7;
    int64_t size = G > 0 && G < K ? G : K;
    for (int64_t t = 0; t < T; t++) {
        const char *row = cm_row_at(x, 0, 0, t);
        char *code_row = (char *)cm_row_at(codes, 0, 0, t), *scale_row = (char *)cm_row_at(scales, 0, 0, t);
        for (int64_t begin = 0; begin < K; begin += size) {
            int64_t end = begin + size < K ? begin + size : K;
            float scale = largest(x, row, begin, end) / (float)top;
            cm_store_float(scales, scale_row, begin / size, scale);
            for (int64_t i = begin; i < end; i++)
                store_code(codes, code_row, i, quantise(cm_load_float(x, row, i), scale, top));
        }
    }
    return CM_OK;
}

const cm_kernel cm_quantize_naive = {
    .size = sizeof(cm_kernel),
    .name = "quantize/naive",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .row_invariant = true,
    .run = run,
};
