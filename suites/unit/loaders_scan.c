// SPDX-License-Identifier: Apache-2.0
// The scanner of safetensors headers against jansson, on headers of random content and on mutations of them:
// both must take the same ones and read the same from them. Each text stands in memory of its exact size, so
// that a sanitizer sees a read behind it.
#include "fixtures/safetensors_scan.h"
#include "suites/unit/loaders.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADERS = 2000, MUTATIONS = 20, MOST_TENSORS = 6 };

static uint64_t state;

static uint32_t below(uint32_t end)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((state >> 33) % end);
}

#define ANY(list) list[below(sizeof(list) / sizeof *(list))]

static const char *const dtypes[] = {"F32", "BF16", "I64",       "F8_E4M3", "F4",
                                     "F16", "BOOL", "\\u004632", "f32",     "F32\\u0000"};
static const char *const pieces[] = {
    "model.layers.",    "a",   "\\u00e9", "\xc3\xa9", "\\ud83d\\ude00", "0",      "\\\"", "\\\\",
    "\xf0\x9f\x98\x80", "\\/", "\\n",     " ",        "\\u0061",        "weight", "\x7f", "\xe2\x82\xac"};
static const char *const spaces[] = {"", "", "", "", " ", "\n", "\t ", "\r"};
static const char *const extras[] = {"{}",
                                     "[]",
                                     "[1,{\"x\":null}]",
                                     "true",
                                     "false",
                                     "-0.5e-3",
                                     "1E+2",
                                     "\"\\b\"",
                                     "-7",
                                     "[[[2.5]]]",
                                     "{\"x\":1,\"y\":{\"x\":[\"\"]}}"};
static const char *const integers[] = {"0", "1", "48", "2048", "9007199254740993", "9223372036854775807",
                                       "-0"};

static void put_integers(FILE *out, uint32_t count)
{
    fprintf(out, "%s[", ANY(spaces));
    for (uint32_t n = 0; n < count; n++)
        fprintf(out, "%s%s%s%s", n ? "," : "", ANY(spaces), ANY(integers), ANY(spaces));
    fprintf(out, "]");
}

static void put_string(FILE *out, uint32_t count)
{
    fprintf(out, "%s\"", ANY(spaces));
    for (uint32_t n = 0; n < count; n++)
        fputs(ANY(pieces), out);
    fprintf(out, "\"%s", ANY(spaces));
}

static void put_entry(FILE *out)
{
    uint32_t turn = below(3);
    fprintf(out, ":%s{", ANY(spaces));
    for (uint32_t n = 0; n < 3; n++) {
        fprintf(out, "%s%s", n ? "," : "", ANY(spaces));
        switch ((n + turn) % 3) {
        case 0:
            fprintf(out, "\"dtype\":\"%s\"", dtypes[below(below(4) ? 7 : 10)]);
            break;
        case 1:
            fprintf(out, "\"shape\":");
            put_integers(out, below(5));
            break;
        case 2:
            fprintf(out, "\"data_offsets\"%s:", ANY(spaces));
            put_integers(out, below(8) ? 2 : below(4));
        }
    }
    for (uint32_t n = below(8) ? 0 : 1 + below(3); n > 0; n--)
        fprintf(out, ",\"%s\":%s", ANY(pieces), ANY(extras));
    fprintf(out, "}");
}

static char *random_header(size_t *length)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, length);
    bool metadata = below(3) == 0;
    ck_assert_ptr_nonnull(out);
    fprintf(out, "%s{%s", ANY(spaces), ANY(spaces));
    if (metadata) {
        fprintf(out, "\"__metadata__\":{");
        for (uint32_t n = 0, count = below(3); n < count; n++) {
            fputs(n ? "," : "", out);
            put_string(out, below(4));
            fputs(":", out);
            put_string(out, below(3));
        }
        fprintf(out, "}");
    }
    for (uint32_t n = 0, count = below(MOST_TENSORS); n < count; n++) {
        fputs(n || metadata ? "," : "", out);
        put_string(out, 1 + below(4));
        put_entry(out);
    }
    fprintf(out, "%s}%s", ANY(spaces), ANY(spaces));
    ck_assert_int_eq(fclose(out), 0);
    return text;
}

static const char *const tokens[] = {"{",
                                     "}",
                                     "[",
                                     "]",
                                     ",",
                                     ":",
                                     "\"",
                                     "\\",
                                     "0",
                                     "-",
                                     ".",
                                     "e9",
                                     "e999",
                                     "00",
                                     "null",
                                     "\\ud800",
                                     "\xff",
                                     "\xc0\x80",
                                     "\xed\xa0\x80",
                                     "\xf4\x90\x80\x80",
                                     "\xe2\x82",
                                     "\x01",
                                     "\\u0000",
                                     "99999999999999999999",
                                     "\"dtype\":\"F32\"",
                                     "\\x",
                                     "NaN",
                                     "//"};

// A copy with one change: a byte, a piece out, a token in, a piece twice, or the end cut off.
static char *mutated(const char *text, size_t length, size_t *size)
{
    char *out = NULL;
    FILE *file = open_memstream(&out, size);
    size_t at = below((uint32_t)length), count = 1 + below(12);
    count = count > length - at ? length - at : count;
    ck_assert_ptr_nonnull(file);
    fwrite(text, 1, at, file);
    switch (below(6)) {
    case 0:
        fputc((int)below(256), file);
        fwrite(text + at + 1, 1, length - at - 1, file);
        break;
    case 1:
        fputc(text[at] ^ 1 << below(8), file);
        fwrite(text + at + 1, 1, length - at - 1, file);
        break;
    case 2:
        fwrite(text + at + count, 1, length - at - count, file);
        break;
    case 3:
        fputs(ANY(tokens), file);
        fwrite(text + at, 1, length - at, file);
        break;
    case 4:
        fwrite(text + at, 1, count, file);
        fwrite(text + at, 1, length - at, file);
        break;
    default: // cut off
        break;
    }
    ck_assert_int_eq(fclose(file), 0);
    return out;
}

static bool is_integers(const json_t *array)
{
    bool good = json_is_array(array);
    for (size_t n = 0; n < json_array_size(array); n++)
        good = good && json_is_integer(json_array_get(array, n)) &&
               json_integer_value(json_array_get(array, n)) >= 0;
    return good;
}

static bool is_dtype(const json_t *word)
{
    static const char all[] =
        " BOOL F4 F6_E2M3 F6_E3M2 U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ "
        "I16 U16 F16 BF16 I32 U32 F32 C64 F64 I64 U64 ";
    const char *text = json_string_value(word);
    if (!text || strlen(text) != json_string_length(word) || strchr(text, ' ') || !*text)
        return false;
    char *padded = cm_text(" %s ", text);
    bool known = strstr(all, padded) != NULL;
    free(padded);
    return known;
}

// What the format asks of one entry of a tree.
static bool is_entry(const char *name, json_t *value)
{
    const char *key;
    json_t *item;
    bool strings = json_is_object(value);
    if (strcmp(name, "__metadata__"))
        return *name && is_dtype(json_object_get(value, "dtype")) &&
               is_integers(json_object_get(value, "shape")) &&
               is_integers(json_object_get(value, "data_offsets")) &&
               json_array_size(json_object_get(value, "data_offsets")) == 2;
    json_object_foreach(value, key, item) strings = strings && json_is_string(item);
    return strings;
}

static void expect_same(const cm_safetensors_tensor *tensor, const uint64_t offsets[2], const json_t *value)
{
    const json_t *shape = json_object_get(value, "shape"), *range = json_object_get(value, "data_offsets");
    ck_assert_ptr_nonnull(value);
    ck_assert_str_eq(tensor->dtype, json_string_value(json_object_get(value, "dtype")));
    ck_assert_uint_eq((size_t)tensor->ndim, json_array_size(shape));
    for (int d = 0; d < tensor->ndim; d++)
        ck_assert_int_eq(tensor->shape[d], json_integer_value(json_array_get(shape, (size_t)d)));
    for (size_t n = 0; n < 2; n++)
        ck_assert_uint_eq(offsets[n], (uint64_t)json_integer_value(json_array_get(range, n)));
}

// True: both take the text, and read the same.
static bool compare(const char *text, size_t length)
{
    cm_safetensors_header header;
    cm_error error = {0};
    json_error_t why;
    uint64_t(*offsets)[2];
    char *exact = malloc(length + !length);
    ck_assert_ptr_nonnull(exact);
    memcpy(exact, text, length);
    cm_status status = cm_safetensors_scan("x", exact, length, &header, &offsets, &error);
    json_t *tree = json_loadb(exact, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why), *value;
    const char *name;
    bool good = json_is_object(tree) && !memchr(exact, 0, length); // jansson overlooks one behind a number
    size_t count = json_object_size(tree) - (json_object_get(tree, "__metadata__") != NULL);
    json_object_foreach(tree, name, value) good = good && is_entry(name, value);
    ck_assert_msg(good == (status == CM_OK), "jansson says \"%s\", the scanner \"%s\" of %.*s",
                  good   ? ""
                  : tree ? "not of the format"
                         : why.text,
                  error.message, (int)length, exact);
    if (good) {
        ck_assert_uint_eq(header.count, count);
        for (size_t n = 0; n < count; n++)
            expect_same(&header.tensors[n], offsets[n], json_object_get(tree, header.tensors[n].name));
    } else {
        ck_assert_int_eq(status, CM_BAD_FILE);
        ck_assert_msg(!strncmp(error.message, "x: ", 3) && strstr(error.message, " (byte "), "%s",
                      error.message);
    }
    json_decref(tree);
    cm_safetensors_header_free(&header);
    free(offsets);
    free(exact);
    return good;
}

START_TEST(agrees_with_a_tree)
{
    int taken[2] = {0}, total[2] = {0};
    state = (uint64_t)_i + 1;
    for (int n = 0; n < HEADERS; n++) {
        size_t length, size;
        char *text = random_header(&length);
        taken[0] += compare(text, length);
        total[0]++;
        for (int m = 0; m < MUTATIONS; m++) {
            char *change = mutated(text, length, &size);
            taken[1] += compare(change, size);
            total[1]++;
            free(change);
        }
        free(text);
    }
    if (getenv("CM_VERBOSE"))
        fprintf(stderr, "headers: %d of %d taken, mutated %d of %d; jansson agrees on all\n", taken[0],
                total[0], taken[1], total[1]);
    for (int n = 0; n < 2; n++) // both kinds are there
        ck_assert(taken[n] > total[n] / 20 && taken[n] < total[n] * 9 / 10);
}
END_TEST

// At the limits: a name of a MiB, keys in any number of objects, nesting.
START_TEST(holds_at_its_limits)
{
    static const struct {
        const char *head, *piece, *tail;
        int count;
        bool good;
    } rows[] = {
        {"{\"", "long", "\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 1 << 18, true},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4],\"shape\":[1", ",1", "]}}", 1 << 16, true},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4", ",4", "]}}", 1 << 16, false},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4],\"x\":{\"b\":1", ",\"b\":1", "}}}", 2,
         false},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]", ",\"x\":{\"b\":1,\"c\":{\"b\":1}}",
         "}}", 1, true},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]", ",\"x\":{\"\\u0062\":1,\"b\":1}",
         "}}", 1, false},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4],\"x\":9", "9", ".5}}", 4000, false},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4],\"x\":0.", "9", "}}", 4000, true},
    };
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    ck_assert_ptr_nonnull(out);
    fputs(rows[_i].head, out);
    for (int n = 0; n < rows[_i].count; n++)
        fputs(rows[_i].piece, out);
    fputs(rows[_i].tail, out);
    ck_assert_int_eq(fclose(out), 0);
    ck_assert_int_eq(compare(text, length), rows[_i].good);
    free(text);
}
END_TEST

START_TEST(refuses_deep_nesting)
{
    for (int deep = 0; deep < 2; deep++) {
        int levels = deep ? 5000 : 120;
        cm_safetensors_header header;
        uint64_t(*offsets)[2];
        cm_error error = {0};
        char *brackets = cm_new((size_t)levels + 1, 1), *closing = cm_new((size_t)levels + 1, 1);
        memset(brackets, '[', (size_t)levels);
        memset(closing, ']', (size_t)levels);
        char *text = cm_text("{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4],\"x\":%s%s}}",
                             brackets, closing);
        cm_status status = cm_safetensors_scan("x", text, strlen(text), &header, &offsets, &error);
        cm_unit_expect(status, &error, deep ? CM_BAD_FILE : CM_OK, deep ? "x: " : NULL,
                       deep ? "nested deeper than 128 levels (byte " : NULL);
        cm_safetensors_header_free(&header);
        free(offsets);
        free(brackets);
        free(closing);
        free(text);
    }
}
END_TEST

TCase *cm_unit_scan(void)
{
    TCase *test = tcase_create("header scanner");
    tcase_set_timeout(test, 120);
    tcase_add_loop_test(test, agrees_with_a_tree, 0, 2);
    tcase_add_loop_test(test, holds_at_its_limits, 0, 8);
    tcase_add_test(test, refuses_deep_nesting);
    return test;
}
