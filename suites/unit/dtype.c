// SPDX-License-Identifier: Apache-2.0
// Number formats, exhaustively: every bf16 and f16 pattern, every tie between neighbours, every i8 and i4.
// The yardstick is an integer rounding of the double's own bits, which shares nothing with the harness, and
// the compiler's _Float16 where there is one. What kernels and reference convert is held against it, too.
#include "harness/tensor.h"

#include "optimized/view.h"
#include "reference/values.h"

#include <check.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#if defined(__FLT16_MANT_DIG__) && (!defined(__clang__) || __clang_major__ >= 15)
#define HAVE_FLOAT16 1
#endif

enum { PATTERNS = 1 << 16 };

Suite *cm_unit_dtype(void);

// The two 16-bit formats: stored significand bits, exponent bias.
static const struct half {
    cm_dtype dtype;
    int fraction, bias;
} halves[] = {{CM_BF16, 7, 127}, {CM_F16, 10, 15}};

// The pattern nearest to `value`, ties to even, by shifting the double's significand.
static uint16_t nearest_pattern(const struct half *half, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, 8);
    uint16_t sign = (uint16_t)(bits >> 63 << 15), infinite = (uint16_t)(PATTERNS / 2 - (1 << half->fraction));
    int exponent = (int)(bits >> 52 & 0x7ff) - 1023 + half->bias;
    uint64_t significand = (bits & ((1ull << 52) - 1)) | 1ull << 52;
    if ((bits >> 52 & 0x7ff) == 0x7ff)
        return sign | infinite | (significand << 12 ? 1u << (half->fraction - 1) : 0);
    int dropped = 52 - half->fraction + (exponent < 1 ? 1 - exponent : 0); // denormals lose more bits
    if (dropped > 54)
        return sign;
    uint64_t kept = significand >> dropped, rest = significand - (kept << dropped),
             tie = 1ull << (dropped - 1);
    kept += rest > tie || (rest == tie && kept & 1);
    if (exponent >= 1)
        kept += (uint64_t)(exponent - 1) << half->fraction; // the hidden bit adds one
    return kept >= infinite ? sign | infinite : sign | (uint16_t)kept;
}

static bool is_nan_pattern(const struct half *half, uint16_t pattern)
{
    return (pattern & 0x7fff) > PATTERNS / 2 - (1 << half->fraction);
}

static uint16_t stored(cm_dtype dtype, double value)
{
    uint16_t pattern = 0xabcd;
    cm_store(&pattern, dtype, 0, value);
    return pattern;
}

static void expect_nearest(const struct half *half, double value)
{
    uint16_t got = stored(half->dtype, value), want = nearest_pattern(half, value);
    if (got != want)
        ck_abort_msg("%s: %a is stored as %04x, nearest is %04x", cm_dtype_name(half->dtype), value, got,
                     want);
}

START_TEST(patterns_round_trip)
{
    const struct half *half = &halves[_i];
    for (uint32_t n = 0; n < PATTERNS; n++) {
        uint16_t pattern = (uint16_t)n;
        int exponent = (pattern & 0x7fff) >> half->fraction, fraction = pattern & ((1 << half->fraction) - 1);
        double value = cm_load(&pattern, half->dtype, 0), want = INFINITY;
        if (exponent < 0x7fff >> half->fraction)
            want = ldexp(exponent ? fraction + (1 << half->fraction) : fraction,
                         (exponent ? exponent : 1) - half->bias - half->fraction);
        uint16_t back = stored(half->dtype, value);
        bool nan = is_nan_pattern(half, pattern);
        if (nan ? !isnan(value) || !is_nan_pattern(half, back)
                : back != pattern || fabs(value) != want || (signbit(value) != 0) != pattern >> 15)
            ck_abort_msg("%04x is %a and goes back to %04x", pattern, value, back);
    }
}
END_TEST

// Both sides of each tie, and the tie itself; the last tie is the one between the largest value and infinity.
START_TEST(ties_go_to_even)
{
    const struct half *half = &halves[_i];
    int infinite = PATTERNS / 2 - (1 << half->fraction);
    for (int n = 0; n < infinite; n++) {
        uint16_t low = (uint16_t)n, high = (uint16_t)(n + 1);
        double below = cm_load(&low, half->dtype, 0), above = cm_load(&high, half->dtype, 0);
        if (n + 1 == infinite) // as if the exponent went on
            above = ldexp(1, half->bias + 1);
        double middle = below + (above - below) / 2;
        for (int sign = -1; sign <= 1; sign += 2) {
            uint16_t minus = sign < 0 ? 0x8000 : 0, even = n & 1 ? high : low;
            if (stored(half->dtype, sign * middle) != (minus | even) ||
                stored(half->dtype, sign * nextafter(middle, 0)) != (minus | low) ||
                stored(half->dtype, sign * nextafter(middle, INFINITY)) != (minus | high))
                ck_abort_msg("near the tie %a between %04x and %04x", sign * middle, low, high);
            expect_nearest(half, sign * middle);
            expect_nearest(half, sign * (below + (above - below) * 0x1.fffffp-2));
            expect_nearest(half, sign * (below + (above - below) * 0x1.00001p-1));
        }
    }
}
END_TEST

START_TEST(stores_the_nearest)
{
    static const double special[] = {0,        DBL_MIN,  DBL_TRUE_MIN, DBL_MAX,    FLT_MAX,    FLT_MIN,
                                     65504,    65519.9,  65520,        INFINITY,   0x1p-24,    0x1p-25,
                                     0x1p-133, 0x1p-134, 0x1.01p-134,  0x1.ffp127, 0x1.fefp127};
    const struct half *half = &halves[_i];
    uint64_t bits = 0x243f6a8885a308d3;
    for (size_t n = 0; n < sizeof special / sizeof *special; n++) {
        expect_nearest(half, special[n]);
        expect_nearest(half, -special[n]);
    }
    ck_assert(is_nan_pattern(half, stored(half->dtype, NAN)));
    for (int n = 0; n < 400000; n++) { // any exponent of the format, and beyond both ends
        bits = bits * 6364136223846793005u + 1442695040888963407u;
        double fraction = 1 + (double)(bits >> 12) * 0x1p-52;
        expect_nearest(half, ldexp(fraction, (int)(bits % 300) - 150));
    }
}
END_TEST

#ifdef HAVE_FLOAT16 // the same question to the compiler
START_TEST(agrees_with_the_compiler)
{
    for (uint32_t n = 0; n < PATTERNS; n++) {
        uint16_t pattern = (uint16_t)n, got;
        _Float16 half;
        memcpy(&half, &pattern, 2);
        double value = cm_load(&pattern, CM_F16, 0), middle = value + cm_dtype_ulp(CM_F16, value) / 2;
        if (isnan(value) ? !isnan((double)half) : value != (double)half)
            ck_abort_msg("%04x is %a, for the compiler %a", pattern, value, (double)half);
        const double near[] = {middle, nextafter(middle, -INFINITY), nextafter(middle, INFINITY)};
        for (int m = 0; m < 3 && !isnan(value); m++) {
            half = (_Float16)near[m];
            memcpy(&got, &half, 2);
            if (stored(CM_F16, near[m]) != got)
                ck_abort_msg("%a is %04x, for the compiler %04x", near[m], stored(CM_F16, near[m]), got);
        }
    }
}
END_TEST
#endif

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static bool is_same(double a, double b)
{
    return (isnan(a) && isnan(b)) || (a == b && signbit(a) == signbit(b));
}

// A kernel's conversion of one fp32 pattern; NaNs need not have the same bits.
static void expect_same_narrowing(uint32_t bits)
{
    float value = float_of(bits);
    uint16_t bf16 = cm_bf16_from_float(value), f16 = cm_f16_from_float(value);
    if (value != value) {
        if (!is_nan_pattern(&halves[0], bf16) || !is_nan_pattern(&halves[1], f16))
            ck_abort_msg("NaN %08x becomes bf16 %04x, f16 %04x", bits, bf16, f16);
    } else if (bf16 != stored(CM_BF16, value) || f16 != stored(CM_F16, value)) {
        ck_abort_msg("%a: bf16 %04x, expected %04x; f16 %04x, expected %04x", (double)value, bf16,
                     stored(CM_BF16, value), f16, stored(CM_F16, value));
    }
}

// Upper halves of fp32 with the lower ones around each tie of bf16; upper 19 bits with those of a normal f16;
// and the ties between denormal f16.
START_TEST(kernels_narrow_alike)
{
    static const uint32_t around[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff}, tie = 0x1000;
    for (uint32_t upper = 0; upper < PATTERNS; upper++)
        for (size_t n = 0; n < sizeof around / sizeof *around; n++)
            expect_same_narrowing(upper << 16 | around[n]);
    for (uint32_t upper = 0; upper < 1u << 19; upper++)
        for (uint32_t lower = tie - 1; lower <= tie + 1; lower++)
            expect_same_narrowing(upper << 13 | lower);
    for (int n = 0; n < 1024; n++) {
        float middle = ((float)n + 0.5f) * 0x1p-24f;
        uint32_t bits;
        memcpy(&bits, &middle, 4);
        for (uint32_t lower = bits - 1; lower <= bits + 1; lower++) {
            expect_same_narrowing(lower);
            expect_same_narrowing(lower | 1u << 31);
        }
    }
}
END_TEST

START_TEST(kernels_widen_alike)
{
    for (uint32_t n = 0; n < PATTERNS; n++) {
        uint16_t pattern = (uint16_t)n;
        double bf16 = cm_bf16_to_float(pattern), f16 = cm_f16_to_float(pattern);
        if (!is_same(bf16, cm_load(&pattern, CM_BF16, 0)) || !is_same(f16, cm_load(&pattern, CM_F16, 0)))
            ck_abort_msg("%04x is %a as bf16 and %a as f16", pattern, bf16, f16);
    }
}
END_TEST

START_TEST(reference_reads_alike)
{
    uint16_t *patterns = malloc(2 * PATTERNS);
    double *row = malloc(PATTERNS * sizeof *row);
    cm_dtype dtype = halves[_i].dtype;
    cm_tensor tensor;
    ck_assert(patterns && row);
    for (uint32_t n = 0; n < PATTERNS; n++)
        patterns[n] = (uint16_t)n;
    cm_tensor_init(&tensor, dtype, 1, (int64_t[]){PATTERNS}, patterns);
    cm_row(&tensor.dl, NULL, row);
    for (uint32_t n = 0; n < PATTERNS; n++) {
        double want = cm_load(patterns, dtype, n);
        if (!is_same(row[n], want))
            ck_abort_msg("%04x is %a in the reference, expected %a", n, row[n], want);
        if (isfinite(want) && cm_ulp(tensor.dl.dtype, want) != cm_dtype_ulp(dtype, want))
            ck_abort_msg("ulp of %a: %a in the reference, %a in the harness", want,
                         cm_ulp(tensor.dl.dtype, want), cm_dtype_ulp(dtype, want));
    }
    free(patterns);
    free(row);
}
END_TEST

START_TEST(ulp_is_the_next_value)
{
    for (int h = 0; h < 2; h++)
        for (int n = 0; n + 1 < PATTERNS / 2 - (1 << halves[h].fraction); n++) {
            uint16_t low = (uint16_t)n, high = (uint16_t)(n + 1);
            double value = cm_load(&low, halves[h].dtype, 0), next = cm_load(&high, halves[h].dtype, 0);
            if (cm_dtype_ulp(halves[h].dtype, value) != next - value ||
                cm_dtype_ulp(halves[h].dtype, -value) != next - value)
                ck_abort_msg("%s: ulp of %a", cm_dtype_name(halves[h].dtype), value);
        }
    for (uint32_t upper = 0; upper < 0x7f80; upper++) {
        float value = float_of(upper << 16 | 0x1234);
        if (cm_dtype_ulp(CM_F32, value) != (double)nextafterf(value, INFINITY) - (double)value)
            ck_abort_msg("f32: ulp of %a", (double)value);
    }
    for (int exponent = -1074; exponent < 1023; exponent++) {
        const double power = ldexp(1, exponent), near[] = {power, nextafter(power, 0), power * 1.75};
        for (int n = 0; n < 3; n++)
            if (cm_dtype_ulp(CM_F64, -near[n]) != nextafter(near[n], INFINITY) - near[n])
                ck_abort_msg("f64: ulp of %a", near[n]);
    }
    ck_assert(cm_dtype_ulp(CM_F32, 0) == 0x1p-149 && cm_dtype_ulp(CM_F16, NAN) == 0x1p-24);
    ck_assert(cm_dtype_ulp(CM_I8, 3) == 1 && cm_dtype_ulp(CM_I32, -1e9) == 1);
}
END_TEST

START_TEST(wide_floats_keep_their_bits)
{
    uint64_t bits = 1;
    for (int n = 0; n < 100000; n++) {
        double value, back;
        float narrow, stored_narrow;
        bits = bits * 6364136223846793005u + 1442695040888963407u;
        memcpy(&value, &bits, 8);
        cm_store(&back, CM_F64, 0, value);
        if (memcmp(&value, &back, 8) || (!isnan(value) && cm_load(&back, CM_F64, 0) != value))
            ck_abort_msg("f64 %a became %a", value, back);
        value = float_of((uint32_t)(bits >> 32));
        narrow = (float)value;
        cm_store(&stored_narrow, CM_F32, 0, value);
        if (isnan(value) ? !isnan(stored_narrow) : memcmp(&narrow, &stored_narrow, 4) != 0)
            ck_abort_msg("f32 %a became %a", value, (double)stored_narrow);
    }
    float over, denormal;
    cm_store(&over, CM_F32, 0, 0x1.ffffffp127); // the tie between FLT_MAX and infinity
    cm_store(&denormal, CM_F32, 0, 0x1.8p-149);
    ck_assert(isinf(over) && denormal == 0x1p-148f);
}
END_TEST

// Nearest even, then saturation; NaN is 0.
static const struct integer {
    double value;
    int32_t i32, i8, i4;
} integers[] = {
    {0, 0, 0, 0},
    {2.5, 2, 2, 2},
    {3.5, 4, 4, 4},
    {-2.5, -2, -2, -2},
    {-0.5, 0, 0, 0},
    {6.6, 7, 7, 7},
    {7.5, 8, 8, 7},
    {-8.5, -8, -8, -8},
    {-8.51, -9, -9, -8},
    {126.5, 126, 126, 7},
    {127.5, 128, 127, 7},
    {-128.5, -128, -128, -8},
    {-129, -129, -128, -8},
    {2147483646.5, 2147483646, 127, 7},
    {2147483647.5, INT32_MAX, 127, 7},
    {-2147483648.5, INT32_MIN, -128, -8},
    {1e300, INT32_MAX, 127, 7},
    {-1e300, INT32_MIN, -128, -8},
    {(double)INFINITY, INT32_MAX, 127, 7},
    {-(double)INFINITY, INT32_MIN, -128, -8},
    {(double)NAN, 0, 0, 0},
};

START_TEST(integers_saturate)
{
    const struct integer *row = &integers[_i];
    int32_t i32;
    int8_t i8;
    uint8_t i4 = 0xff;
    cm_store(&i32, CM_I32, 0, row->value);
    cm_store(&i8, CM_I8, 0, row->value);
    cm_store(&i4, CM_I4, 0, row->value);
    ck_assert_int_eq(i32, row->i32);
    ck_assert_int_eq(i8, row->i8);
    ck_assert(cm_load(&i4, CM_I4, 0) == row->i4);
    ck_assert_int_eq(i4 >> 4, 15); // the neighbour
}
END_TEST

START_TEST(integers_round_trip)
{
    for (int value = -128; value < 128; value++) {
        int8_t bytes[3] = {1, 2, 3};
        cm_store(bytes, CM_I8, 1, value);
        ck_assert(bytes[0] == 1 && bytes[1] == value && bytes[2] == 3);
        ck_assert(cm_load(bytes, CM_I8, 1) == value);
    }
    for (int low = -8; low < 8; low++)
        for (int high = -8; high < 8; high++) {
            uint8_t bytes[3] = {0x5a, 0x5a, 0x5a};
            cm_store(bytes, CM_I4, 3, high); // element 2n lies in the low nibble
            cm_store(bytes, CM_I4, 2, low);
            ck_assert_uint_eq(bytes[1], (unsigned)((high & 15) << 4 | (low & 15)));
            ck_assert(bytes[0] == 0x5a && bytes[2] == 0x5a);
            ck_assert(cm_load(bytes, CM_I4, 2) == low && cm_load(bytes, CM_I4, 3) == high);
        }
}
END_TEST

START_TEST(names_and_codes)
{
    for (int d = 0; d < CM_DTYPE_COUNT; d++) {
        cm_dtype parsed, found;
        DLDataType dl = cm_dtype_to_dl((cm_dtype)d);
        ck_assert(cm_dtype_parse(cm_dtype_name((cm_dtype)d), &parsed) && (int)parsed == d);
        ck_assert(cm_dtype_from_dl(dl, &found) && (int)found == d);
        ck_assert_int_eq(cm_dtype_bits((cm_dtype)d), dl.bits);
        ck_assert_int_eq(cm_dtype_is_float((cm_dtype)d), d <= CM_BF16);
        ck_assert_int_eq(cm_dtype_precision((cm_dtype)d), cm_significand_bits(dl));
        dl.lanes = 2;
        ck_assert(!cm_dtype_from_dl(dl, &found));
    }
    cm_dtype ignored;
    ck_assert(!cm_dtype_parse("bf", &ignored) && !cm_dtype_parse("", &ignored) &&
              !cm_dtype_parse("F32", &ignored));
    ck_assert(!cm_dtype_from_dl((DLDataType){kDLUInt, 8, 1}, &ignored));
    ck_assert(!cm_dtype_from_dl((DLDataType){kDLFloat, 8, 1}, &ignored));
}
END_TEST

Suite *cm_unit_dtype(void)
{
    Suite *suite = suite_create("dtype");
    TCase *half = tcase_create("16 bits"), *other = tcase_create("others");
    tcase_set_timeout(half, 60);
    tcase_set_timeout(other, 60);
    tcase_add_loop_test(half, patterns_round_trip, 0, 2);
    tcase_add_loop_test(half, ties_go_to_even, 0, 2);
    tcase_add_loop_test(half, stores_the_nearest, 0, 2);
#ifdef HAVE_FLOAT16
    tcase_add_test(half, agrees_with_the_compiler);
#endif
    tcase_add_test(half, kernels_narrow_alike);
    tcase_add_test(half, kernels_widen_alike);
    tcase_add_loop_test(half, reference_reads_alike, 0, 2);
    tcase_add_test(other, ulp_is_the_next_value);
    tcase_add_test(other, wide_floats_keep_their_bits);
    tcase_add_loop_test(other, integers_saturate, 0, (int)(sizeof integers / sizeof *integers));
    tcase_add_test(other, integers_round_trip);
    tcase_add_test(other, names_and_codes);
    suite_add_tcase(suite, half);
    suite_add_tcase(suite, other);
    return suite;
}
