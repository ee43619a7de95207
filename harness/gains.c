// SPDX-License-Identifier: Apache-2.0
#include "harness/gains.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Residuals of 3 sigma are no rounding's: numerics refuses an rms of 1.5.
static const double MISFIT = 9;
enum { REFITS = 4 };

// Inverts the symmetric, positive semidefinite matrix a[n][n] in place by sweeping, without the rows that
// earlier ones explain all but entirely: those become 0 and are not determined.
static void invert(double *a, int n, bool *determined)
{
    double *scale = cm_new((size_t)n, sizeof *scale);
    for (int i = 0; i < n; i++)
        scale[i] = a[i * n + i];
    for (int i = 0; i < n; i++) {
        double pivot = a[i * n + i];
        determined[i] = pivot > 1e-6 * scale[i] && isfinite(pivot);
        if (!determined[i])
            continue;
        for (int k = 0; k < n; k++) {
            double factor = a[k * n + i] / pivot;
            if (k == i || factor == 0)
                continue;
            for (int j = 0; j < n; j++)
                a[k * n + j] -= j == i ? 0 : factor * a[i * n + j];
            a[k * n + i] = -factor;
        }
        for (int j = 0; j < n; j++)
            a[i * n + j] = (j == i ? 1 : a[i * n + j]) / pivot;
    }
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            if (!determined[i] || !determined[j])
                a[i * n + j] = 0;
    free(scale);
}

struct sums {
    const DLTensor *got;
    cm_dtype dtype;
    const cm_want *want;
    int count;
    double *normal, *right, *noise; // [count, count], [count], [count, count]
    double shared;                  // elements of a row that share one error
    int *active;                    // effects of the row in hand,
    const double **values;          // and their values there
    double misfit;                  // variance of an element beside its sigma
    const double *gain;            // of a fit whose residuals are summed in place of everything else; or NULL
    double chi, squares, elements; // sums of (residual/sigma)^2, residual^2 - sigma^2, 1
};

static void add_element(struct sums *sums, int64_t i, int64_t column, int active)
{
    double value = cm_tensor_get(sums->got, i), ulp = cm_dtype_ulp(sums->dtype, sums->want->value[i]);
    double sigma = sums->want->sigma[i], rounding = ulp * ulp / 12;
    double variance = sigma * sigma + rounding;
    if (variance == 0 || !isfinite(value))
        return;
    double error = value - sums->want->value[i];
    if (sums->gain) {
        for (int p = 0; p < active; p++)
            error -= (sums->gain[sums->active[p]] - 1) * sums->values[p][column];
        sums->chi += error * error / variance;
        sums->squares += error * error - variance;
        sums->elements++;
        return;
    }
    variance += sums->misfit;
    double excess = (sums->shared * (sigma * sigma + sums->misfit) + rounding) / variance;
    for (int p = 0; p < active; p++) {
        double weighted = sums->values[p][column] / variance;
        int row = sums->active[p] * sums->count;
        sums->right[sums->active[p]] += weighted * error;
        for (int q = 0; q < active; q++) {
            double product = weighted * sums->values[q][column];
            sums->normal[row + sums->active[q]] += product;
            sums->noise[row + sums->active[q]] += product * excess;
        }
    }
}

static void finish(const struct sums *sums, cm_gains *gains, double *gain, double *error)
{
    int n = sums->count;
    double *product = cm_new((size_t)n, sizeof *product);
    invert(sums->normal, n, gains->determined);
    for (int p = 0; p < n; p++) {
        double coefficient = 0, variance = 0;
        const double *row = sums->normal + p * n;
        for (int s = 0; s < n; s++)
            product[s] = 0;
        for (int q = 0; q < n; q++) {
            coefficient += row[q] * sums->right[q];
            for (int s = 0; row[q] != 0 && s < n; s++)
                product[s] += row[q] * sums->noise[q * n + s];
        }
        for (int s = 0; s < n; s++)
            variance += product[s] * row[s];
        gain[p] = 1 + coefficient;
        error[p] = sqrt(variance);
    }
    free(product);
}

// Sums over all elements in the columns.
static void add_all(struct sums *sums, const cm_effect *const *effects, int64_t begin, int64_t end)
{
    const DLTensor *got = sums->got;
    int64_t rows = got->ndim ? got->shape[0] : 0, row = rows ? sums->want->count / rows : 0;
    int64_t columns = got->ndim ? got->shape[got->ndim - 1] : 0;
    int64_t *next = cm_new((size_t)sums->count, sizeof *next); // place in the rows of each effect
    for (int64_t t = 0; t < rows; t++) {
        int active = 0;
        for (int p = 0; p < sums->count; p++)
            if (next[p] < effects[p]->row_count && effects[p]->rows[next[p]] == t) {
                sums->active[active] = p;
                sums->values[active++] = effects[p]->values + next[p]++ * row;
            }
        for (int64_t i = 0; active && i < row; i++)
            if (i % columns >= begin && i % columns < end)
                add_element(sums, t * row + i, i, active);
    }
    free(next);
}

// Fits again while the residuals are far above sigma: elements of a small sigma then say less, not more.
static void refit(struct sums *sums, const cm_effect *const *effects, int64_t begin, int64_t end,
                  cm_gains *gains)
{
    size_t n = (size_t)sums->count;
    for (int turn = 0; turn < REFITS; turn++) {
        sums->gain = gains->gain;
        sums->chi = sums->squares = sums->elements = 0;
        add_all(sums, effects, begin, end);
        sums->gain = NULL;
        if (turn == 0 && !(sums->chi > MISFIT * sums->elements))
            return;
        sums->misfit = sums->squares > 0 ? sums->squares / sums->elements : 0;
        memset(sums->normal, 0, n * n * sizeof(double));
        memset(sums->right, 0, n * sizeof(double));
        memset(sums->noise, 0, n * n * sizeof(double));
        add_all(sums, effects, begin, end);
        finish(sums, gains, gains->gain, gains->error);
    }
}

void cm_gains_solve(const DLTensor *got, cm_dtype dtype, const cm_want *want, const cm_effect *const *effects,
                    int count, int64_t begin, int64_t end, cm_gains *gains)
{
    size_t n = (size_t)count;
    int64_t rows = got->ndim ? got->shape[0] : 0, row = rows ? want->count / rows : 0;
    *gains = (cm_gains){.count = count,
                        .gain = cm_new(n, sizeof(double)),
                        .error = cm_new(n, sizeof(double)),
                        .strict_gain = cm_new(n, sizeof(double)),
                        .strict_error = cm_new(n, sizeof(double)),
                        .determined = cm_new(n, sizeof(bool))};
    struct sums sums = {.got = got,
                        .dtype = dtype,
                        .want = want,
                        .count = count,
                        .normal = cm_new(n * n, sizeof(double)),
                        .right = cm_new(n, sizeof(double)),
                        .noise = cm_new(n * n, sizeof(double)),
                        .shared = row > 8 ? (double)row / 8 : 1,
                        .active = cm_new(n, sizeof(int)),
                        .values = cm_new(n, sizeof(double *))};
    add_all(&sums, effects, begin, end);
    finish(&sums, gains, gains->strict_gain, gains->strict_error);
    memcpy(gains->gain, gains->strict_gain, n * sizeof(double));
    memcpy(gains->error, gains->strict_error, n * sizeof(double));
    refit(&sums, effects, begin, end, gains);
    free(sums.normal);
    free(sums.right);
    free(sums.noise);
    free(sums.active);
    free(sums.values);
}

void cm_gains_close(cm_gains *gains)
{
    free(gains->gain);
    free(gains->error);
    free(gains->strict_gain);
    free(gains->strict_error);
    free(gains->determined);
    *gains = (cm_gains){0};
}

double cm_gain_limit(double error, int tests)
{
    double z = sqrt(36 + 2 * log(tests > 1 ? tests : 1));
    return z * error > 0.02 ? z * error : 0.02;
}
