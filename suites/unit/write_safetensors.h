// SPDX-License-Identifier: Apache-2.0
// Writes files for the tests of the loaders: well-formed safetensors, and any bytes at all.
#ifndef CM_WRITE_SAFETENSORS_H
#define CM_WRITE_SAFETENSORS_H

#include "harness/dtype.h"

// Collects tensors; the file is written by cm_writer_save, which also empties the writer. Zero-initialise.
typedef struct cm_writer {
    char *header; // JSON without the last brace
    char *data;
    size_t header_size, data_size;
    int count;
} cm_writer;

// value(seed, row, column) makes the elements; ndim 1 has column 0, and the rows of ndim 3 are counted
// through.
typedef double (*cm_writer_value)(int seed, int64_t row, int64_t column);

void cm_writer_add(cm_writer *writer, const char *name, cm_dtype dtype, int ndim, const int64_t *shape,
                   cm_writer_value value, int seed);
void cm_writer_save(cm_writer *writer, const char *path);

// A matrix that lies somewhere.
typedef struct cm_piece {
    char *name;
    cm_dtype dtype;
    int64_t rows, columns;
    const void *data; // row-major
} cm_piece;

// A well-formed file of them, in this order; nothing is copied. A disk that is full ends the test.
void cm_write_pieces(const char *path, const cm_piece *pieces, size_t count);

// The header's length, the header, and `data_size` bytes 0, 1, 2, ...
void cm_write_header(const char *path, const char *header, size_t header_size, size_t data_size);
void cm_write_text(const char *path, const char *text);
void cm_write_bytes(const char *path, const void *bytes, size_t size);

#endif
