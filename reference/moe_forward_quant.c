// SPDX-License-Identifier: Apache-2.0
// Rows quantised by their largest value: codes q = rint(u), u = 127 x / amax, values q amax/127. Rounding is
// part of the op, so the reference rounds, too. A code moves by a step if u, which a kernel knows with an
// error of s.d. s, lies near a tie. The mean of the squared move follows from the normal distribution:
//   sum over n >= 1 of (2n - 1) (P(error >= n - 1/2 - delta) + P(error <= -(n - 1/2 + delta))), delta = u -
//   q.
// Where a single code may well move (a tie within 6 s), sigma is half a step of it at least, so that one
// step, and not more than that, is within the bound.
#include "reference/moe_forward.h"

#include <math.h>

// Mean square of rint(x + error) - rint(x) for an error of s.d. `s`; `delta` = x - rint(x).
static double moved(double delta, double s)
{
    double sum = 0;
    if (!(s > 0))
        return 0;
    for (int n = 1; n < 1000; n++) {
        double near = (n - 0.5 - fabs(delta)) / s, far = (n - 0.5 + fabs(delta)) / s;
        if (near > 9)
            break;
        sum += (2 * n - 1) * 0.5 * (erfc(near * M_SQRT1_2) + erfc(far * M_SQRT1_2));
    }
    return sum;
}

// Replaces the error of a value by that of rounding it to a multiple of `step`; `delta` and s.d. in steps.
static void round_error(double delta, double variance, double step, cm_error_size *error)
{
    double steps = moved(delta, sqrt(variance)), reach = error->worst / step + fabs(delta) - 0.5;
    double order = error->variance > 0 ? error->order / error->variance : 0;
    error->variance = step * step * steps;
    error->order = error->variance * order;
    error->worst = reach >= 0 ? step * (floor(reach) + 1) : 0;
}

struct moe_input moe_quantise(const struct moe_vector *row, int64_t n, struct moe_vector *out, double *flip)
{
    struct moe_input input = {.plain = row, .base = out, .flip = flip};
    int64_t top = 0;
    for (int64_t i = 1; i < n; i++)
        top = fabs(row->value[i]) > fabs(row->value[top]) ? i : top;
    double amax = n > 0 ? fabs(row->value[top]) : 0, step = amax / 127;
    for (int64_t i = 0; i < n; i++) {
        out->value[i] = out->magnitude[i] = flip[i] = 0;
        out->error[i] = (cm_error_size){0};
    }
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(row->value[i]))
            amax = NAN;
    for (int64_t i = 0; i < n && isnan(amax); i++) // there is no scale
        out->value[i] = NAN;
    if (amax == 0 || isnan(amax))
        return input;
    const cm_error_size *peak = &row->error[top];
    input.scale = (cm_error_size){.variance = peak->variance / (amax * amax) + CM_FP32_VARIANCE,
                                  .order = peak->order / (amax * amax),
                                  .worst = peak->worst / amax + CM_FP32_UNIT};
    for (int64_t i = 0; i < n; i++) {
        double u = 127 * row->value[i] / amax, code = nearbyint(u), share = row->value[i] / amax;
        cm_error_size error = row->error[i];
        // u has the errors of x and of amax, and those of amax/127, its inverse and the product
        error.variance += share * share * peak->variance;
        error.order += share * share * peak->order;
        error.worst += fabs(share) * peak->worst + 3 * CM_FP32_UNIT * fabs(row->value[i]);
        double variance = error.variance / (step * step) + 3 * CM_FP32_VARIANCE * u * u;
        if (i == top) // is 127 or -127, whatever its error
            error = (cm_error_size){0};
        else {
            if (0.5 - fabs(u - code) <= 6 * sqrt(variance) && variance > 0)
                flip[i] = step / 2;
            round_error(u - code, variance, step, &error);
        }
        out->value[i] = code * step;
        out->magnitude[i] = fabs(out->value[i]);
        error.variance += CM_FP32_VARIANCE * out->value[i] * out->value[i]; // a code times its scale
        error.worst += CM_FP32_UNIT * out->magnitude[i];
        out->error[i] = error;
    }
    return input;
}

void moe_round(DLDataType dtype, struct moe_vector *row, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double step = cm_ulp(dtype, row->value[i]), u = row->value[i] / step, whole = nearbyint(u);
        if (row->value[i] == 0 || !isfinite(row->value[i]))
            continue;
        round_error(u - whole, row->error[i].variance / (step * step), step, &row->error[i]);
        row->value[i] = whole * step;
    }
}

void moe_weight_row(const struct moe_layer *layer, const struct moe_projection *p, int64_t expert,
                    int64_t row, double *values)
{
    moe_row(p->weight, -1, expert, row, values);
    if (!p->scale)
        return;
    int64_t n = p->weight->shape[p->weight->ndim - 1], group = layer->group ? layer->group : n;
    for (int64_t begin = 0; begin < n; begin += group) {
        int64_t index[] = {expert, row, begin / group};
        double scale = cm_element_at(p->scale, expert < 0 ? index + 1 : index);
        for (int64_t i = begin; i < begin + group && i < n; i++)
            values[i] *= scale;
    }
}
