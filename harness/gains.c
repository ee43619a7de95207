// SPDX-License-Identifier: Apache-2.0
#include "harness/gains.h"

#include <math.h>
#include <stdlib.h>

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
};

static void add_element(struct sums *sums, int64_t i, int64_t column, int active)
{
    double value = cm_tensor_get(sums->got, i), ulp = cm_dtype_ulp(sums->dtype, sums->want->value[i]);
    double sigma = sums->want->sigma[i], rounding = ulp * ulp / 12;
    double variance = sigma * sigma + rounding;
    if (variance == 0 || !isfinite(value))
        return;
    double error = value - sums->want->value[i];
    double excess = (sums->shared * sigma * sigma + rounding) / variance;
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

static void finish(const struct sums *sums, cm_gains *gains)
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
        gains->gain[p] = 1 + coefficient;
        gains->error[p] = sqrt(variance);
    }
    free(product);
}

void cm_gains_solve(const DLTensor *got, cm_dtype dtype, const cm_want *want, const cm_effect *const *effects,
                    int count, int64_t begin, int64_t end, cm_gains *gains)
{
    size_t n = (size_t)count;
    int64_t rows = got->ndim ? got->shape[0] : 0, row = rows ? want->count / rows : 0;
    int64_t columns = got->ndim ? got->shape[got->ndim - 1] : 0;
    *gains = (cm_gains){count, cm_new(n, sizeof(double)), cm_new(n, sizeof(double)), cm_new(n, sizeof(bool))};
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
    int64_t *next = cm_new(n, sizeof *next); // place in the rows of each effect
    for (int64_t t = 0; t < rows; t++) {
        int active = 0;
        for (int p = 0; p < count; p++)
            if (next[p] < effects[p]->row_count && effects[p]->rows[next[p]] == t) {
                sums.active[active] = p;
                sums.values[active++] = effects[p]->values + next[p]++ * row;
            }
        for (int64_t i = 0; active && i < row; i++)
            if (i % columns >= begin && i % columns < end)
                add_element(&sums, t * row + i, i, active);
    }
    finish(&sums, gains);
    free(sums.normal);
    free(sums.right);
    free(sums.noise);
    free(sums.active);
    free(sums.values);
    free(next);
}

void cm_gains_close(cm_gains *gains)
{
    free(gains->gain);
    free(gains->error);
    free(gains->determined);
    *gains = (cm_gains){0};
}

double cm_gain_limit(double error, int tests)
{
    double z = sqrt(36 + 2 * log(tests > 1 ? tests : 1));
    return z * error > 0.02 ? z * error : 0.02;
}
