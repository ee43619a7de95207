// SPDX-License-Identifier: Apache-2.0
#include "harness/compare.h"

#include "harness/op.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double rounded(cm_dtype dtype, double value)
{
    char storage[8];
    cm_store(storage, dtype, 0, value);
    return cm_load(storage, dtype, 0);
}

double cm_bound(const cm_want *want, int64_t n, cm_dtype dtype)
{
    double value = want->value[n], sigma = want->sigma ? want->sigma[n] : 0;
    if (sigma == 0)
        return fabs(rounded(dtype, value) - value);
    double order = want->order[n], wide = 6 * sqrt(sigma * sigma + 3 * order * order);
    return wide + cm_dtype_ulp(dtype, fabs(value) + wide) / 2;
}

// Whether element n is bad. Non-finite values are decided first: they never reach an inequality.
static bool is_bad(double got, const cm_want *want, int64_t n, cm_dtype dtype, bool exact)
{
    double value = want->value[n];
    if (!isfinite(got) || !isfinite(value)) {
        value = rounded(dtype, value); // what overflows the format is rightly infinite
        return !((isnan(got) && isnan(value)) ||
                 (isinf(got) && isinf(value) && signbit(got) == signbit(value)));
    }
    if (exact || !want->sigma || want->sigma[n] == 0)
        return got != rounded(dtype, value);
    return !(fabs(got - value) <= cm_bound(want, n, dtype));
}

// Mean over tokens of the token's mean of err sign(want) / sigma. Errors of one token share the errors of its
// h, so tokens, not elements, are the independent samples.
struct bias {
    double token_sum, sum, squares;
    int64_t in_token, tokens;
};

static void bias_token_ends(struct bias *bias)
{
    if (bias->in_token) {
        double mean = bias->token_sum / (double)bias->in_token;
        bias->sum += mean;
        bias->squares += mean * mean;
        bias->tokens++;
    }
    bias->token_sum = 0;
    bias->in_token = 0;
}

void cm_compare_bounded(const DLTensor *got, cm_dtype dtype, const cm_want *want, bool exact,
                        cm_measure *measure)
{
    *measure = (cm_measure){.count = want->count, .first_bad = -1, .worst = -1};
    struct bias bias = {0};
    int64_t row = got->ndim && got->shape[0] ? want->count / got->shape[0] : 1, with_z = 0;
    double z_squares = 0, want_squares = 0, bound_squares = 0, worst_squares = 0;
    for (int64_t n = 0; n < want->count; n++) {
        double value = cm_tensor_get(got, n), wanted = want->value[n];
        bool bad = is_bad(value, want, n, dtype, exact);
        if (n % row == 0)
            bias_token_ends(&bias);
        if (bad) {
            measure->beyond++;
            measure->first_bad = measure->first_bad < 0 ? n : measure->first_bad;
            measure->nan += isnan(value) || (isnan(wanted) && !isinf(value));
            measure->infinite += !isnan(value) && (isinf(value) || isinf(wanted));
        }
        if (!isfinite(value) || !isfinite(wanted))
            continue;
        measure->finite++;
        double error = value - wanted, bound = cm_bound(want, n, dtype),
               sigma = want->sigma ? want->sigma[n] : 0;
        double share =
            cm_dtype_is_float(dtype) ? bound : sigma; // an integer can't be off by less than a step
        want_squares += wanted * wanted;
        bound_squares += share * share;
        if (want->worst)
            worst_squares += want->worst[n] * want->worst[n];
        if (fabs(error) > measure->largest_error)
            measure->largest_error = fabs(error);
        double ratio = bound > 0 ? fabs(error) / bound : bad ? (double)INFINITY : 0;
        if (ratio > measure->worst_ratio) {
            measure->worst_ratio = ratio;
            measure->worst = n;
        }
        if (sigma > 0) {
            double ulp = cm_dtype_ulp(dtype, wanted), z = error / sqrt(sigma * sigma + ulp * ulp / 12);
            z_squares += z * z;
            with_z++;
            bias.token_sum += wanted < 0 ? -z : z;
            bias.in_token++;
        }
    }
    bias_token_ends(&bias);
    double count = (double)(want->count ? want->count : 1), tokens = (double)bias.tokens;
    measure->rms_z = with_z ? sqrt(z_squares / (double)with_z) : 0;
    measure->independent = (double)with_z * (row > 8 ? 8.0 / (double)row : 1);
    measure->rms_want = sqrt(want_squares / count);
    measure->rms_bound = sqrt(bound_squares / count);
    measure->rms_worst = sqrt(worst_squares / count);
    measure->clusters = bias.tokens;
    if (bias.tokens > 1) {
        measure->bias = bias.sum / tokens;
        double variance = (bias.squares - tokens * measure->bias * measure->bias) / (tokens - 1);
        measure->bias_error = sqrt(fmax(variance, 0) / tokens);
    }
}

void cm_compare_permutation(const DLTensor *got, const cm_want *want, const DLTensor *keys,
                            cm_measure *measure)
{
    *measure = (cm_measure){.count = want->count, .first_bad = -1, .worst = -1};
    bool *seen = cm_new((size_t)want->count, sizeof *seen);
    for (int64_t n = 0; n < want->count; n++) {
        double value = cm_tensor_get(got, n);
        bool inside = value >= 0 && value < (double)want->count;
        int64_t token = inside ? (int64_t)value : 0;
        bool good = inside && !seen[token] &&
                    cm_tensor_get(keys, token) == cm_tensor_get(keys, (int64_t)want->value[n]);
        if (inside)
            seen[token] = true;
        measure->beyond += !good;
        if (!good && measure->first_bad < 0)
            measure->first_bad = n;
    }
    free(seen);
}

// "3, 5..7" of the marked numbers, at most a few runs.
static void print_runs(const bool *marked, int64_t count, char *text, size_t size)
{
    size_t length = 0;
    int runs = 0;
    text[0] = 0;
    for (int64_t n = 0; n < count && length + 32 < size; n++) {
        if (!marked[n])
            continue;
        int64_t last = n;
        while (last + 1 < count && marked[last + 1])
            last++;
        if (++runs > 4) {
            snprintf(text + length, size - length, ", ...");
            return;
        }
        const char *comma = length ? ", " : "";
        if (last > n)
            length += (size_t)snprintf(text + length, size - length, "%s%lld..%lld", comma, (long long)n,
                                       (long long)last);
        else
            length += (size_t)snprintf(text + length, size - length, "%s%lld", comma, (long long)n);
        n = last;
    }
}

static void describe(const bool *marked, int64_t count, char letter, char *text, size_t size)
{
    int64_t total = 0;
    for (int64_t n = 0; n < count; n++)
        total += marked[n];
    char runs[96];
    print_runs(marked, count, runs, sizeof runs);
    if (total == count)
        snprintf(text, size, "every %c", letter);
    else
        snprintf(text, size, "%c %s (%lld of %lld)", letter, runs, (long long)total, (long long)count);
}

// Rounded up to sixteenths, above 16 to whole numbers: few digits in a record, and nothing beyond its bound
// comes down to it.
static float rounded_ratio(double ratio)
{
    return (float)(ratio > 16 ? ceil(ratio) : ceil(16 * ratio) / 16);
}

// Tiles of a power of two, so that blocks of a kernel show as blocks.
static void fill_tiles(const DLTensor *got, const cm_want *want, cm_dtype dtype, bool exact,
                       const char *letters, cm_tiles *tiles)
{
    int64_t columns = got->shape[got->ndim - 1];
    *tiles = (cm_tiles){.letters = {letters[0], letters[got->ndim - 1]},
                        .extents = {want->count / columns, columns}};
    for (int d = 0; d < 2; d++) {
        tiles->steps[d] = 1;
        while (tiles->extents[d] > tiles->steps[d] * CM_MAX_TILES)
            tiles->steps[d] *= 2;
        tiles->counts[d] = (int)((tiles->extents[d] + tiles->steps[d] - 1) / tiles->steps[d]);
    }
    for (int64_t n = 0; n < want->count; n++) {
        double value = cm_tensor_get(got, n), bound = cm_bound(want, n, dtype);
        bool bad = is_bad(value, want, n, dtype, exact);
        bool measured = isfinite(value) && isfinite(want->value[n]) && bound > 0 && !exact;
        double ratio = measured ? fabs(value - want->value[n]) / bound : bad ? (double)INFINITY : 0;
        float *worst =
            &tiles->worst[n / columns / tiles->steps[0] * tiles->counts[1] + n % columns / tiles->steps[1]];
        *worst = fmaxf(*worst, rounded_ratio(ratio));
    }
}

void cm_compare_locate(const cm_pristine *pristine, int argument, const DLTensor *got, const cm_want *want,
                       bool exact, const cm_measure *measure, cm_outcome *outcome)
{
    const cm_argument *row = &pristine->test_case.op->arguments[argument];
    cm_dtype dtype = pristine->tensors[argument].dtype;
    if (measure->first_bad < 0)
        return;
    cm_first_bad *first = &outcome->first_bad;
    *first = (cm_first_bad){.ndim = got->ndim,
                            .got = cm_tensor_get(got, measure->first_bad),
                            .want = want->value[measure->first_bad],
                            .bound = exact ? 0 : cm_bound(want, measure->first_bad, dtype)};
    int64_t shape[CM_MAX_RANK];
    snprintf(first->argument, sizeof first->argument, "%s", row->name);
    cm_op_shape(row, pristine->test_case.dims, shape, first->letters);
    cm_tensor_unravel(got, measure->first_bad, first->index);
    outcome->bad_count = measure->beyond;
    if (row->compare == CM_COMPARE_PERMUTATION || got->ndim < 2)
        return;
    if (outcome->tiles)
        fill_tiles(got, want, dtype, exact, first->letters, outcome->tiles);
    int64_t rows = got->shape[0], columns = got->shape[got->ndim - 1];
    bool *bad_rows = cm_new((size_t)rows, sizeof(bool)), *bad_columns = cm_new((size_t)columns, sizeof(bool));
    for (int64_t n = 0; n < want->count; n++)
        if (is_bad(cm_tensor_get(got, n), want, n, dtype, exact))
            bad_rows[n / (want->count / rows)] = bad_columns[n % columns] = true;
    char left[90], right[90];
    describe(bad_rows, rows, first->letters[0], left, sizeof left);
    describe(bad_columns, columns, first->letters[got->ndim - 1], right, sizeof right);
    snprintf(outcome->bad_pattern, sizeof outcome->bad_pattern, "%s; %s", left, right);
    free(bad_rows);
    free(bad_columns);
}
