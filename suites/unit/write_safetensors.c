// SPDX-License-Identifier: Apache-2.0
#include "suites/unit/write_safetensors.h"

#include "harness/status.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const words[CM_DTYPE_COUNT] = {
    [CM_F64] = "F64",   [CM_F32] = "F32", [CM_F16] = "F16",
    [CM_BF16] = "BF16", [CM_I32] = "I32", [CM_I8] = "I8",
};

static void grow(char **memory, size_t size)
{
    *memory = realloc(*memory, size);
    if (!*memory)
        cm_broken("out of memory for a test file");
}

static void append_header(cm_writer *writer, const char *text)
{
    size_t length = strlen(text);
    grow(&writer->header, writer->header_size + length + 1);
    memcpy(writer->header + writer->header_size, text, length + 1);
    writer->header_size += length;
}

void cm_writer_add(cm_writer *writer, const char *name, cm_dtype dtype, int ndim, const int64_t *shape,
                   cm_writer_value value, int seed)
{
    int64_t rows = ndim ? shape[0] : 1, columns = ndim > 1 ? shape[ndim - 1] : 1;
    for (int d = 1; d < ndim - 1; d++)
        rows *= shape[d];
    size_t bytes = (size_t)(rows * columns) * (size_t)cm_dtype_bits(dtype) / 8;
    char *text =
        cm_text("%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", writer->count++ ? "," : "{", name, words[dtype]);
    append_header(writer, text);
    free(text);
    for (int d = 0; d < ndim; d++) {
        text = cm_text("%s%lld", d ? "," : "", (long long)shape[d]);
        append_header(writer, text);
        free(text);
    }
    text = cm_text("],\"data_offsets\":[%zu,%zu]}", writer->data_size, writer->data_size + bytes);
    append_header(writer, text);
    free(text);

    grow(&writer->data, writer->data_size + bytes + 1);
    for (int64_t n = 0; n < rows * columns; n++)
        cm_store(writer->data + writer->data_size, dtype, n, value(seed, n / columns, n % columns));
    writer->data_size += bytes;
}

static void put(const char *path, const void *head, size_t head_size, const void *header, size_t header_size,
                const void *data, size_t data_size)
{
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(head, 1, head_size, file) != head_size ||
        fwrite(header, 1, header_size, file) != header_size ||
        fwrite(data, 1, data_size, file) != data_size || fclose(file))
        cm_broken("%s: cannot be written (%s)", path, strerror(errno));
}

static void length_bytes(uint64_t length, unsigned char bytes[8])
{
    for (int n = 0; n < 8; n++)
        bytes[n] = (unsigned char)(length >> (8 * n));
}

void cm_writer_save(cm_writer *writer, const char *path)
{
    unsigned char head[8];
    append_header(writer, writer->count ? "}" : "{}");
    length_bytes(writer->header_size, head);
    put(path, head, sizeof head, writer->header, writer->header_size, writer->data ? writer->data : "",
        writer->data_size);
    free(writer->header);
    free(writer->data);
    *writer = (cm_writer){0};
}

static size_t piece_bytes(const cm_piece *piece)
{
    return (size_t)(piece->rows * piece->columns) * (size_t)cm_dtype_bits(piece->dtype) / 8;
}

void cm_write_pieces(const char *path, const cm_piece *pieces, size_t count)
{
    char *header = NULL;
    unsigned char head[8];
    size_t size = 0, begin = 0;
    FILE *text = open_memstream(&header, &size), *file = fopen(path, "wb");
    bool good = text && file;
    for (size_t n = 0; good && n < count; begin += piece_bytes(&pieces[n++]))
        fprintf(text, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%lld,%lld],\"data_offsets\":[%zu,%zu]}",
                n ? "," : "{", pieces[n].name, words[pieces[n].dtype], (long long)pieces[n].rows,
                (long long)pieces[n].columns, begin, begin + piece_bytes(&pieces[n]));
    good = good && fprintf(text, "}") > 0 && fclose(text) == 0;
    length_bytes(size, head);
    good = good && fwrite(head, 1, sizeof head, file) == sizeof head && fwrite(header, 1, size, file) == size;
    for (size_t n = 0; good && n < count; n++)
        good = fwrite(pieces[n].data, 1, piece_bytes(&pieces[n]), file) == piece_bytes(&pieces[n]);
    if (!good || fclose(file))
        cm_broken("%s: cannot be written (%s)", path, strerror(errno));
    free(header);
}

void cm_write_header(const char *path, const char *header, size_t header_size, size_t data_size)
{
    unsigned char head[8];
    char *data = cm_new(data_size, 1);
    for (size_t n = 0; n < data_size; n++)
        data[n] = (char)n;
    length_bytes(header_size, head);
    put(path, head, sizeof head, header, header_size, data, data_size);
    free(data);
}

void cm_write_text(const char *path, const char *text)
{
    cm_write_bytes(path, text, strlen(text));
}

void cm_write_bytes(const char *path, const void *bytes, size_t size)
{
    put(path, bytes, size, "", 0, "", 0);
}
