// SPDX-License-Identifier: Apache-2.0
// Safetensors as files: wrong kinds under the right name, lengths, shards, look-up, untouched data, damage.
#include "fixtures/safetensors.h"
#include "suites/unit/loaders.h"
#include "suites/unit/write_safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_NAME "x.safetensors"

static double ramp(int seed, int64_t row, int64_t column)
{
    return seed + (double)(row * 8 + column);
}

static void expect_refusal(const char *path, const char *start, const char *part)
{
    cm_safetensors file;
    cm_error error = {0};
    cm_status status = cm_safetensors_open(path, &file, &error);
    cm_unit_expect(status, &error, CM_BAD_FILE, start, part);
    cm_safetensors_close(&file); // harmless after a refusal
}

#define BYTES(text) text, sizeof(text) - 1

static const struct signature {
    const char *bytes;
    size_t size;
    size_t padding; // zero bytes behind
    const char *part;
} signatures[] = {
    {BYTES("PK\3\4\0\0\10\10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\20\0\0\0archive/data.pkl"), 200,
     "a PyTorch checkpoint (torch.save), not safetensors; convert it with safetensors.torch.save_file"},
    {BYTES("PK\3\4\0\0\10\10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\15\0\0\0archive/data/0"), 200,
     "a PyTorch checkpoint"},
    {BYTES("PK\3\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\7\0\0\0arr.npy"), 200, "a zip archive"},
    {BYTES("PK\3\4"), 0, "a zip archive"},
    {BYTES("PK\5\6"), 18, "a zip archive"},
    {BYTES("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e"), 0,
     "a PyTorch checkpoint (torch.save)"},
    {BYTES("\x80\x04\x95\x01\x02\x03\x04\x05\x06"), 0, "pickle"},
    {BYTES("GGUF\3\0\0\0"), 40, "a GGUF file"},
    {BYTES("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"), 0,
     "a Git LFS pointer of 65 bytes, not the file itself; run git lfs pull"},
    {BYTES("<!DOCTYPE html><html>"), 0, "an HTML page (a failed download)"},
    {BYTES("\n <HTML><body>"), 0, "an HTML page"},
    {BYTES("{\n  \"architectures\": []}"), 0, "JSON text"},
    {BYTES("{}"), 0, "JSON text"},
    {BYTES("\x1f\x8b\x08\0\0\0\0\0\0\3"), 20, "a gzip file"},
    {BYTES("\x1f\x8b\x08\0\0\0\0\0\0\3"), 600000, "a gzip file"}, // its "header length" 559903 fits
    {BYTES("\x93NUMPY\1\0"), 100, "a NumPy array"},
    {BYTES(""), 8, "all zero bytes (truncated download)"},
    {BYTES(""), 128, "all zero bytes"},
    {BYTES("\0\0\0\0\0\0\0\0x"), 0, "not JSON"},
    {BYTES(""), 0, "0 bytes, too small"},
    {BYTES("abc"), 0, "3 bytes, too small"},
    {BYTES("abcdefgh"), 0, "header length 7523094288207667809 is over 100000000"},
    {BYTES("\1\xe1\xf5\5\0\0\0\0{}"), 0, "header length 100000001 is over 100000000"},
    {BYTES("\0\xe1\xf5\5\0\0\0\0{}"), 0, "header length 100000000 reaches beyond the file of 10 bytes"},
    {BYTES("\x80\2\0\0\0\0\0\0{\"a\""), 0, "header length 640 reaches beyond"}, // no pickle
    {BYTES("\3\0\0\0\0\0\0\0{}"), 0, "header length 3 reaches beyond the file of 10 bytes"},
};

START_TEST(names_wrong_files)
{
    const struct signature *row = &signatures[_i];
    char *bytes = cm_new(row->size + row->padding, 1);
    memcpy(bytes, row->bytes, row->size);
    cm_write_bytes(FILE_NAME, bytes, row->size + row->padding);
    free(bytes);
    expect_refusal(FILE_NAME, FILE_NAME ": ", row->part);
}
END_TEST

// Header lengths that look like signatures: 640 is 80 02, 559903 is 1F 8B 08, 123 is '{'.
START_TEST(accepts_lengths_like_signatures)
{
    static const size_t lengths[] = {640, 559903, 123};
    cm_safetensors file;
    cm_error error = {0};
    char *header = cm_new(lengths[_i], 1);
    memset(header, ' ', lengths[_i]);
    memcpy(header, "{}", 2);
    cm_write_header(FILE_NAME, header, lengths[_i], 0);
    free(header);
    cm_unit_expect(cm_safetensors_open(FILE_NAME, &file, &error), &error, CM_OK, NULL, NULL);
    cm_safetensors_close(&file);
}
END_TEST

START_TEST(finds_by_name)
{
    cm_writer writer = {0};
    cm_safetensors file;
    cm_error error = {0};
    char text[32];
    cm_dtype dtype;
    cm_writer_add(&writer, "odd", CM_I8, 1, (int64_t[]){3}, ramp, 0); // what follows is unaligned
    cm_writer_add(&writer, "z", CM_F32, 2, (int64_t[]){2, 3}, ramp, 10);
    cm_writer_add(&writer, "a", CM_BF16, 2, (int64_t[]){1, 2}, ramp, 20);
    cm_writer_save(&writer, FILE_NAME);
    cm_unit_expect(cm_safetensors_open(FILE_NAME, &file, &error), &error, CM_OK, NULL, NULL);
    ck_assert_uint_eq(file.count, 3);
    ck_assert_str_eq(file.tensors[0].name, "a");
    const cm_safetensors_tensor *z = cm_safetensors_find(&file, "z");
    ck_assert_ptr_nonnull(z);
    ck_assert_str_eq(z->file, FILE_NAME);
    ck_assert(cm_safetensors_dtype(z, &dtype) && dtype == CM_F32);
    ck_assert_uint_eq(z->bytes, 24);
    ck_assert_str_eq(cm_safetensors_shape(z, text, sizeof text), "[2,3]");
    ck_assert(cm_load(z->data, CM_F32, 4) == 10 + 8 + 1);
    ck_assert(cm_load(cm_safetensors_find(&file, "a")->data, CM_BF16, 1) == 21);
    ck_assert_ptr_null(cm_safetensors_find(&file, "zz"));
    ck_assert_ptr_null(cm_safetensors_find(&file, ""));
    cm_safetensors_close(&file);
    ck_assert_ptr_null(cm_safetensors_find(&file, "z"));
    cm_safetensors_close(&file);
}
END_TEST

START_TEST(refuses_what_is_no_file)
{
    expect_refusal("absent.safetensors", "absent.safetensors: ", "No such file");
    mkdir("empty", 0700);
    expect_refusal("empty", "empty: ", "neither model.safetensors nor model.safetensors.index.json");
    cm_write_text("empty/pytorch_model.bin", "x");
    expect_refusal("empty", "empty: ", "only pytorch_model.bin; convert it");
    ck_assert_int_eq(mkfifo("pipe", 0600), 0);
    expect_refusal("pipe", "pipe: ", "not a regular file");
}
END_TEST

static void write_shard(const char *path, const char *name, int seed)
{
    cm_writer writer = {0};
    cm_writer_add(&writer, name, CM_F32, 1, (int64_t[]){4}, ramp, seed);
    cm_writer_save(&writer, path);
}

#define INDEX "m/model.safetensors.index.json"

START_TEST(joins_shards)
{
    cm_safetensors model;
    cm_error error = {0};
    mkdir("m", 0700);
    write_shard("m/1.safetensors", "b", 100);
    write_shard("m/2.safetensors", "a", 200);
    cm_write_text(INDEX, "{\"metadata\":{\"total_size\":32},\"weight_map\":{\"b\":\"1.safetensors\",\"a\":"
                         "\"2.safetensors\"}}");
    cm_unit_expect(cm_safetensors_open("m", &model, &error), &error, CM_OK, NULL, NULL);
    ck_assert_uint_eq(model.count, 2);
    ck_assert(cm_load(cm_safetensors_find(&model, "b")->data, CM_F32, 0) == 100);
    ck_assert_str_eq(cm_safetensors_find(&model, "a")->file, "m/2.safetensors");
    cm_safetensors_close(&model);

    write_shard("m/model.safetensors", "c", 0); // the single file comes first
    cm_unit_expect(cm_safetensors_open("m", &model, &error), &error, CM_OK, NULL, NULL);
    ck_assert_uint_eq(model.count, 1);
    cm_safetensors_close(&model);
}
END_TEST

static const struct {
    const char *index, *start, *part;
} bad_indexes[] = {
    {"[]", INDEX ": ", "an array, expected an object"},
    {"{", INDEX ": ", "line 1"},
    {"{}", INDEX ": ", "weight_map is nothing"},
    {"{\"weight_map\":{}}", INDEX ": ", "weight_map is empty"},
    {"{\"weight_map\":{\"a\":1}}", INDEX ": ", "\"a\" is not the name of a file beside it"},
    {"{\"weight_map\":{\"a\":\"../1.safetensors\"}}", INDEX ": ",
     "\"a\" is not the name of a file beside it"},
    {"{\"weight_map\":{\"a\":\"3.safetensors\"}}", "m/3.safetensors: ", "No such file"},
    {"{\"weight_map\":{\"a\":\"1.safetensors\"}}", INDEX ": ", "tensor \"a\" is not in 1.safetensors"},
    {"{\"weight_map\":{\"b\":\"1.safetensors\",\"b\":\"2.safetensors\"}}", INDEX ": ", "duplicate"},
    {"{\"weight_map\":{\"b\":\"1.safetensors\",\"a\":\"4.safetensors\"}}", "m/",
     "tensor \"b\" is also in m/"},
};

START_TEST(refuses_index)
{
    mkdir("m", 0700);
    write_shard("m/1.safetensors", "b", 100);
    write_shard("m/2.safetensors", "a", 200);
    write_shard("m/4.safetensors", "b", 300);
    cm_write_text(INDEX, bad_indexes[_i].index);
    expect_refusal("m", bad_indexes[_i].start, bad_indexes[_i].part);
}
END_TEST

// A sparse file of 1 GiB with 4000 tensors: after opening, hardly any page of its data may be resident.
START_TEST(leaves_data_alone)
{
    enum { COUNT = 4000, EACH = 1 << 18 };
    cm_safetensors file;
    cm_error error = {0};
    FILE *stream = fopen("header", "w+");
    for (long n = 0; n < COUNT; n++)
        fprintf(stream,
                "%s\"model.layers.%ld.weight\":{\"dtype\":\"U8\",\"shape\":[%d],\"data_offsets\":[%ld,%ld]}",
                n ? "," : "{", n, EACH, n * EACH, (n + 1) * EACH);
    fputc('}', stream);
    long size = ftell(stream);
    char *header = cm_new((size_t)size, 1);
    rewind(stream);
    ck_assert_uint_eq(fread(header, 1, (size_t)size, stream), (size_t)size);
    fclose(stream);
    cm_write_header(FILE_NAME, header, (size_t)size, 0);
    free(header);
    ck_assert_int_eq(truncate(FILE_NAME, 8 + size + (off_t)COUNT * EACH), 0);

    cm_unit_expect(cm_safetensors_open(FILE_NAME, &file, &error), &error, CM_OK, NULL, NULL);
    ck_assert_uint_eq(file.count, COUNT);
    size_t page = (size_t)sysconf(_SC_PAGESIZE), resident = 0, pages = (size_t)COUNT * EACH / page - 1;
    const char *data = cm_safetensors_find(&file, "model.layers.0.weight")->data;
    unsigned char *map = cm_new(pages, 1);
    ck_assert_int_eq(mincore((void *)(((uintptr_t)data + page) / page * page), pages * page, map), 0);
    for (size_t n = 0; n < pages; n++)
        resident += map[n] & 1;
    free(map);
    ck_assert_msg(resident < pages / 100, "%zu of %zu pages were read", resident, pages);
    cm_safetensors_close(&file);
}
END_TEST

// Flips bits of the length and the header, cuts and extends: either a sentence or tensors that can be read.
START_TEST(survives_damage)
{
    cm_writer writer = {0};
    char original[4096], bytes[4096];
    uint64_t state = 1; // MMIX generator: the same damage on every machine
    int opened = 0;
    for (int n = 0; n < 4; n++) {
        char name[2] = {(char)('a' + n), 0};
        cm_writer_add(&writer, name, n % 2 ? CM_F32 : CM_BF16, 2, (int64_t[]){2, n + 1}, ramp, n);
    }
    cm_writer_save(&writer, FILE_NAME);
    FILE *stream = fopen(FILE_NAME, "rb");
    size_t size = fread(original, 1, sizeof original, stream);
    fclose(stream);
    for (int round = 0; round < 2000; round++) {
        memcpy(bytes, original, size);
        size_t used = size;
        for (int flips = round % 3; flips >= 0; flips--) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            bytes[(state >> 33) % size] ^= (char)(1 << (state >> 61));
        }
        if (round % 7 == 0)
            used = (state >> 17) % size;
        cm_write_bytes(FILE_NAME, bytes, used);

        cm_safetensors file;
        cm_error error = {0};
        cm_status status = cm_safetensors_open(FILE_NAME, &file, &error);
        ck_assert(status == CM_OK || error.message[0]);
        opened += status == CM_OK;
        unsigned sum = 0;
        for (size_t n = 0; n < file.count; n++)
            for (size_t at = 0; at < file.tensors[n].bytes; at++)
                sum += ((const unsigned char *)file.tensors[n].data)[at];
        ck_assert_uint_le(sum, 255u * sizeof bytes);
        cm_safetensors_close(&file);
    }
    ck_assert_int_gt(opened, 10); // damage to values and names is none
    ck_assert_int_lt(opened, 1900);
}
END_TEST

TCase *cm_unit_safetensors_files(void)
{
    TCase *test = tcase_create("safetensors files");
    tcase_add_checked_fixture(test, cm_unit_enter_directory, cm_unit_leave_directory);
    tcase_set_timeout(test, 60);
    tcase_add_loop_test(test, names_wrong_files, 0, (int)(sizeof signatures / sizeof *signatures));
    tcase_add_loop_test(test, accepts_lengths_like_signatures, 0, 3);
    tcase_add_test(test, finds_by_name);
    tcase_add_test(test, refuses_what_is_no_file);
    tcase_add_test(test, joins_shards);
    tcase_add_loop_test(test, refuses_index, 0, (int)(sizeof bad_indexes / sizeof *bad_indexes));
    tcase_add_test(test, leaves_data_alone);
    tcase_add_test(test, survives_damage);
    return test;
}
