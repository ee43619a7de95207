// SPDX-License-Identifier: Apache-2.0
#include "harness/gains.h"

#include <math.h>
#include <stdlib.h>

// Inverts the symmetric positive definite matrix a[n][n] in place; false when it is nearly singular.
static bool invert(double *a, int n)
{
    double *work = cm_new((size_t)(2 * n * n), sizeof *work);
    bool good = true;
    int width = 2 * n;
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < n; j++)
            work[i * width + j] = a[i * n + j];
        work[i * width + n + i] = 1;
    }
    for (int i = 0; i < n && good; i++) {
        double pivot = work[i * width + i];
        good = pivot > 1e-6 * a[i * n + i]; // what is left of effect i after the others explain it
        for (int j = 0; j < width && good; j++)
            work[i * width + j] /= pivot;
        for (int k = 0; k < n && good; k++) {
            double factor = work[k * width + i];
            for (int j = 0; k != i && j < width; j++)
                work[k * width + j] -= factor * work[i * width + j];
        }
    }
    for (int i = 0; i < n && good; i++)
        for (int j = 0; j < n; j++)
            a[i * n + j] = work[i * width + n + j];
    free(work);
    return good;
}

void cm_gains_solve(const DLTensor *got, cm_dtype dtype, const cm_want *want, const double *const *effects,
                    int count, const uint8_t *use, cm_gains *gains)
{
    *gains = (cm_gains){.count = count};
    size_t n = (size_t)count;
    double *normal = cm_new(n * n, sizeof *normal), *right = cm_new(n, sizeof *right);
    double *noise = cm_new(n * n, sizeof *noise);
    int64_t row = got->ndim && got->shape[0] ? want->count / got->shape[0] : 1;
    double shared = row > 8 ? (double)row / 8 : 1;
    for (int64_t i = 0; i < want->count; i++) {
        double value = cm_tensor_get(got, i), ulp = cm_dtype_ulp(dtype, want->value[i]);
        double sigma = want->sigma[i], rounding = ulp * ulp / 12;
        double variance = sigma * sigma + rounding;
        if ((use && !use[i]) || variance == 0 || !isfinite(value))
            continue;
        double error = value - want->value[i], excess = (shared * sigma * sigma + rounding) / variance;
        for (int p = 0; p < count; p++) {
            double weighted = effects[p][i] / variance;
            right[p] += weighted * error;
            for (int q = 0; q < count; q++) {
                normal[p * count + q] += weighted * effects[q][i];
                noise[p * count + q] += weighted * effects[q][i] * excess;
            }
        }
    }
    gains->solvable = count > 0 && invert(normal, count);
    for (int p = 0; p < count && gains->solvable; p++) {
        double coefficient = 0, variance = 0;
        for (int q = 0; q < count; q++) {
            coefficient += normal[p * count + q] * right[q];
            for (int s = 0; s < count; s++)
                variance += normal[p * count + q] * noise[q * count + s] * normal[s * count + p];
        }
        gains->gain[p] = 1 + coefficient;
        gains->error[p] = sqrt(variance);
    }
    free(normal);
    free(right);
    free(noise);
}
