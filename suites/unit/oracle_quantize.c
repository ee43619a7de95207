// SPDX-License-Identifier: Apache-2.0
// quantize and dequantize a second time. Codes and scales come from integers alone: significands are divided
// as 128-bit numbers and remainders decide the rounding.
#include "suites/unit/oracle_parts.h"

#include <math.h>

__extension__ typedef unsigned __int128 wide;

// value = significand * 2^exponent, 0 <= significand < 2^24.
struct number {
    wide significand;
    int exponent;
};

static struct number number_of(double magnitude)
{
    int exponent;
    double fraction = frexp(magnitude, &exponent);
    return (struct number){(wide)ldexp(fraction, 24), exponent - 24};
}

// a 2^shift / b to the nearest integer, ties to even.
static int64_t divide(wide a, wide b, int shift)
{
    if (a == 0 || shift < -60) // a quotient below 2^-36
        return 0;
    wide dividend = shift > 0 ? a << shift : a, divisor = shift < 0 ? b << -shift : b;
    wide quotient = dividend / divisor, twice = 2 * (dividend % divisor);
    bool up = twice > divisor || (twice == divisor && quotient % 2 == 1);
    return (int64_t)quotient + up;
}

// fp32(amax / top): the significand has 24 bits, fewer below 2^-126.
static double scale_of(double amax, int top)
{
    struct number number = number_of(amax);
    int unit = number.exponent - 8 > -149 ? number.exponent - 8 : -149; // at least 24 bits, if not denormal
    while (amax > 0 && divide(number.significand, (wide)top, number.exponent - unit) > 0xffffff)
        unit++;
    return ldexp((double)divide(number.significand, (wide)top, number.exponent - unit), unit);
}

static double code_of(double x, double scale, int top)
{
    if (scale == 0)
        return 0;
    struct number value = number_of(fabs(x)), step = number_of(scale);
    int64_t code = divide(value.significand, step.significand, value.exponent - step.exponent);
    code = code < top ? code : top;
    return (double)(x < 0 ? -code : code);
}

static int64_t group_of(const cm_pristine *pristine, int64_t column)
{
    int64_t G = cm_oracle_dim(pristine, 'G');
    return G == 0 ? 0 : column / G;
}

void cm_oracle_quantize(const cm_pristine *pristine, double *const outputs[])
{
    int64_t T = cm_oracle_dim(pristine, 'T'), K = cm_oracle_dim(pristine, 'K'),
            groups = group_of(pristine, K - 1) + 1;
    const DLTensor *x = cm_oracle_argument(pristine, "x"), *codes = cm_oracle_argument(pristine, "codes");
    double *code = outputs[1], *scale = outputs[2];
    int top = codes->dtype.bits == 8 ? 127 : 7;
    for (int64_t n = 0; n < T * groups; n++)
        scale[n] = 0;
    for (int64_t n = 0; n < T * K; n++) { // the largest of each group
        double *amax = &scale[n / K * groups + group_of(pristine, n % K)];
        *amax = fmax(*amax, fabs(cm_tensor_get(x, n)));
    }
    for (int64_t n = 0; n < T * groups; n++)
        scale[n] = scale_of(scale[n], top);
    for (int64_t n = 0; n < T * K; n++)
        code[n] = code_of(cm_tensor_get(x, n), scale[n / K * groups + group_of(pristine, n % K)], top);
}

void cm_oracle_dequantize(const cm_pristine *pristine, double *const outputs[])
{
    int64_t T = cm_oracle_dim(pristine, 'T'), K = cm_oracle_dim(pristine, 'K'),
            groups = group_of(pristine, K - 1) + 1;
    for (int64_t n = 0; n < T * K; n++)
        outputs[2][n] =
            cm_tensor_get(cm_oracle_argument(pristine, "codes"), n) *
            cm_tensor_get(cm_oracle_argument(pristine, "scale"), n / K * groups + group_of(pristine, n % K));
}
