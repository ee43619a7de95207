// SPDX-License-Identifier: Apache-2.0
// The header of a safetensors file: one row per edge case of the format, refused with its sentence or
// accepted.
#include "fixtures/safetensors.h"
#include "suites/unit/loaders.h"
#include "suites/unit/write_safetensors.h"

#include <stdlib.h>
#include <string.h>

#define FILE_NAME "x.safetensors"
#define T(name, dtype, shape, offsets)                                                                       \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define DIM(dim) "{" T("a", "F32", "[" dim "]", "[0,8]") "}"

struct row {
    const char *header;
    size_t data;        // bytes behind the header
    const char *part;   // refused: of the message; accepted: first tensor
    size_t header_size; // 0: to the NUL
};

static const struct row refused[] = {
    {"{}", 4, "4 bytes after the last tensor", 0},
    {"[]", 0, "an array, expected an object", 0},
    {"null", 0, "not JSON", 0},
    {"{} x", 0, "not JSON", 0},
    {"{}\0", 0, "not JSON", 3},
    {"\xef\xbb\xbf{}", 0, "not JSON", 0},
    {"{\"\xff\":1}", 0, "not UTF-8", 0},
    {"{\"a\":3}", 0, "tensor \"a\" is an integer, expected an object", 0},
    // dtype
    {"{" T("a", "f32", "[2]", "[0,8]") "}", 8, "tensor \"a\": unknown dtype \"f32\"", 0},
    {"{" T("a", "F33", "[2]", "[0,8]") "}", 8, "unknown dtype \"F33\"", 0},
    {"{" T("a", "F32\\u0000", "[2]", "[0,8]") "}", 8, "unknown dtype", 0},
    {"{\"a\":{\"dtype\":3,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype is an integer", 0},
    // dimensions
    {DIM("-2"), 8, "shape[0] is -2, below 0", 0},
    {DIM("2.0"), 8, "shape[0] is a real number, expected an integer", 0},
    {DIM("2e0"), 8, "shape[0] is a real number", 0},
    {DIM("\"2\""), 8, "shape[0] is a string", 0},
    {DIM("18446744073709551616"), 8, "a number beyond 64 bits", 0},
    {DIM("9223372036854775808,4"), 8, "a number beyond 64 bits", 0},
    {DIM("02"), 8, "not JSON", 0},
    {DIM("NaN"), 8, "not JSON", 0},
    {DIM("2,"), 8, "not JSON", 0},
    {"{" T("a", "F32", "2", "[0,8]") "}", 8, "shape is an integer, expected an array", 0},
    // offsets and fields
    {"{" T("a", "F32", "[2]", "[8]") "}", 8, "1 data_offsets, expected begin and end", 0},
    {"{" T("a", "F32", "[2]", "[0,8,8]") "}", 8, "3 data_offsets", 0},
    {"{" T("a", "F32", "[2]", "[-1,8]") "}", 8, "data_offsets[0] is -1, below 0", 0},
    {"{" T("a", "F32", "[2]", "[0,8.0]") "}", 8, "data_offsets[1] is a real number", 0},
    {"{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype is nothing", 0},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, "shape is nothing", 0},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "data_offsets is nothing", 0},
    // duplicates
    {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
     "key \"dtype\" appears twice in one entry", 0},
    {"{" T("a", "F32", "[2]", "[0,8]") "," T("a", "F32", "[2]", "[0,8]") "}", 8, "tensor \"a\" appears twice",
     0},
    {"{" T("a", "F32", "[1]", "[0,4]") "," T("a", "F32", "[2]", "[0,8]") "}", 8, "tensor \"a\" appears twice",
     0},
    {"{" T("a long name with a \\\" in it", "F32", "[1]", "[0,4]") "," T("a long name with a \\\" in it",
                                                                         "F32", "[1]", "[4,8]") "}",
     8, "tensor \"a long name with a \\\" in it\" appears twice", 0},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "\"__metadata__\" appears twice", 0},
    {"{\"__metadata__\":{\"k\":\"1\",\"k\":\"1\"}}", 0, "key \"k\" appears twice", 0},
    // metadata
    {"{\"__metadata__\":null}", 0, "__metadata__ is null, expected an object", 0},
    {"{\"__metadata__\":[]}", 0, "__metadata__ is an array", 0},
    {"{\"__metadata__\":{\"k\":1}}", 0, "__metadata__ \"k\" is an integer, expected a string", 0},
    {"{\"__metadata__\":{\"k\":{}}}", 0, "__metadata__ \"k\" is an object", 0},
    // places
    {"{" T("a", "F32", "[1]", "[0,4]") "," T("b", "F32", "[1]", "[8,12]") "}", 12,
     "tensor \"b\" begins at 8, expected 4 (hole)", 0},
    {"{" T("a", "F32", "[2]", "[0,8]") "," T("b", "F32", "[2]", "[4,12]") "}", 12,
     "tensor \"b\" begins at 4, expected 8 (overlap)", 0},
    {"{" T("a", "F32", "[2]", "[0,8]") "," T("b", "F32", "[2]", "[0,8]") "}", 8, "expected 8 (overlap)", 0},
    {"{" T("a", "F32", "[1]", "[4,8]") "}", 8, "tensor \"a\" begins at 4, expected 0 (hole)", 0},
    {"{" T("b", "F32", "[2]", "[0,8]") "," T("a", "F32", "[1]", "[8,4]") "}", 8,
     "tensor \"a\" ends at 4, before its begin at 8", 0},
    // sizes
    {"{" T("a", "U8", "[4611686018427387904,4]", "[0,0]") "}", 0, "overflows 64 bits", 0},
    {"{" T("a", "U8", "[4611686018427387904,4,0]", "[0,0]") "}", 0, "overflows 64 bits", 0},
    {"{" T("a", "F32", "[4611686018427387904]", "[0,0]") "}", 0, "overflows 64 bits", 0},
    {"{" T("a", "F32", "[0,4611686018427387904]", "[0,4]") "}", 4, "needs 0 bytes, offsets give 4", 0},
    {"{" T("a", "F4", "[3]", "[0,2]") "}", 2, "shape [3] dtype F4 does not end at a byte", 0},
    {"{" T("a", "F32", "[2]", "[0,4]") "}", 4, "shape [2] dtype F32 needs 8 bytes, offsets give 4", 0},
    {"{" T("a", "F32", "[2]", "[0,4]") "}", 1, "needs 8 bytes, offsets give 4", 0}, // and truncated
    {DIM("2"), 9, "(1 bytes after the last tensor)", 0},
    {DIM("2"), 7, "(1 bytes missing: truncated", 0},
    {"{" T("a", "U8", "[9007199254740993]", "[0,9007199254740993]") "}", 1, "describes 9007199254741",
     0}, // 2^53+1
    // names
    {"{" T("", "F32", "[2]", "[0,8]") "}", 8, "empty name", 0},
    {"{" T("a\\u0000b", "F32", "[2]", "[0,8]") "}", 8, "a NUL character", 0},
    {"{" T("\\ud800", "F32", "[2]", "[0,8]") "}", 8, "not JSON", 0},
    {"{" T("\x01", "F32", "[2]", "[0,8]") "}", 8, "not JSON", 0},
};

static const struct row accepted[] = {
    {"{}", 0, NULL, 0},
    {" \n\t{}", 0, NULL, 0},
    {"{} \t\n ", 0, NULL, 0},
    {"{\"__metadata__\":{}}", 0, NULL, 0},
    {"{\"__metadata__\":{\"format\":\"pt\",\"x\":\"\\u0000\"}}", 0, NULL, 0},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"more\":[{}]}}", 8, "a", 0},
    {"{" T("b", "F32", "[1]", "[4,8]") "," T("a", "F32", "[1]", "[0,4]") "}", 8, "a", 0},
    {"{" T("a", "F32", "[0,4611686018427387904]", "[0,0]") "}", 0, "a", 0},
    {"{" T("a", "F4", "[4]", "[0,2]") "}", 2, "a", 0},
    {"{" T("a", "F32", "[0]", "[0,0]") "," T("b", "F32", "[1]", "[0,4]") "}", 4, "a", 0},
    {"{" T("a", "F32", "[1]", "[0,4]") "," T("b", "F32", "[3,0]", "[4,4]") "}", 4, "a", 0},
    {"{" T("a", "F32", "[]", "[0,4]") "}", 4, "a", 0},
    {"{" T("\\u00e9", "F32", "[]", "[0,4]") "}", 4, "\xc3\xa9", 0},
    {"{" T("a", "U8", "[1,1,1,1,1,1,1,1,3]", "[0,3]") "}", 3, "a", 0},
};

START_TEST(refuses)
{
    const struct row *row = &refused[_i];
    cm_safetensors file;
    cm_error error = {0};
    cm_write_header(FILE_NAME, row->header, row->header_size ? row->header_size : strlen(row->header),
                    row->data);
    cm_status status = cm_safetensors_open(FILE_NAME, &file, &error);
    cm_unit_expect(status, &error, CM_BAD_FILE, FILE_NAME ": ", row->part);
    ck_assert_uint_eq(file.count, 0);
    ck_assert_ptr_null(file.files);
}
END_TEST

START_TEST(accepts)
{
    const struct row *row = &accepted[_i];
    cm_safetensors file;
    cm_error error = {0};
    cm_write_header(FILE_NAME, row->header, strlen(row->header), row->data);
    cm_unit_expect(cm_safetensors_open(FILE_NAME, &file, &error), &error, CM_OK, NULL, NULL);
    size_t bytes = 0;
    for (size_t n = 0; n < file.count; n++)
        bytes += file.tensors[n].bytes;
    ck_assert_uint_eq(bytes, row->data);
    if (row->part)
        ck_assert_str_eq(file.tensors[0].name, row->part);
    else
        ck_assert_uint_eq(file.count, 0);
    cm_safetensors_close(&file);
}
END_TEST

// Every element type of the format, with 8 elements so that all sizes are whole bytes.
START_TEST(knows_all_dtypes)
{
    static const struct {
        const char *name;
        int bits;
    } types[] = {{"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
                 {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
                 {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
                 {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
                 {"I64", 64},        {"U64", 64}};
    int computed = 0;
    for (size_t n = 0; n < sizeof types / sizeof *types; n++) {
        cm_safetensors file;
        cm_error error = {0};
        cm_dtype dtype;
        char *header = cm_text("{" T("a", "%s", "[8]", "[0,%d]") "}", types[n].name, types[n].bits);
        cm_write_header(FILE_NAME, header, strlen(header), (size_t)types[n].bits);
        cm_unit_expect(cm_safetensors_open(FILE_NAME, &file, &error), &error, CM_OK, NULL, NULL);
        ck_assert_str_eq(file.tensors[0].dtype, types[n].name);
        ck_assert_int_eq(file.tensors[0].bits, types[n].bits);
        computed += cm_safetensors_dtype(&file.tensors[0], &dtype);
        cm_safetensors_close(&file);
        free(header);
    }
    ck_assert_int_eq(computed, 6); // f64, f32, f16, bf16, i32, i8
}
END_TEST

TCase *cm_unit_safetensors_headers(void)
{
    TCase *test = tcase_create("safetensors headers");
    tcase_add_checked_fixture(test, cm_unit_enter_directory, cm_unit_leave_directory);
    tcase_add_loop_test(test, refuses, 0, (int)(sizeof refused / sizeof *refused));
    tcase_add_loop_test(test, accepts, 0, (int)(sizeof accepted / sizeof *accepted));
    tcase_add_test(test, knows_all_dtypes);
    return test;
}
