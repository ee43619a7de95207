// SPDX-License-Identifier: Apache-2.0
// oneDNN's own AMX kernels, bf16 and int8 (u8 and s8 activations), against plain loops. A program of its own
// that knows nothing of the emulator. Exit status: 0 right, 1 wrong or not by AMX, 77 the code around
// oneDNN's tiles can't run here.
#include <dnnl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRY(expression)                                                                                      \
    do {                                                                                                     \
        if ((expression) != dnnl_success) {                                                                  \
            printf("failed: %s\n", #expression);                                                             \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

static unsigned random_state = 1;

static int draw(int below)
{
    random_state = random_state * 1664525 + 1013904223;
    return (int)((random_state >> 8) % (unsigned)below);
}

static uint16_t to_bf16(float number) // the draws below are exact
{
    uint32_t bits;
    memcpy(&bits, &number, 4);
    return (uint16_t)(bits >> 16);
}

static float from_bf16(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float number;
    memcpy(&number, &bits, 4);
    return number;
}

static double element(const void *data, dnnl_data_type_t type, int at)
{
    switch (type) {
    case dnnl_bf16:
        return from_bf16(((const uint16_t *)data)[at]);
    case dnnl_u8:
        return ((const uint8_t *)data)[at];
    case dnnl_s8:
        return ((const int8_t *)data)[at];
    default:
        return 0;
    }
}

static void *fill(dnnl_data_type_t type, int count)
{
    static const float scales[4] = {0x1p-12F, 0x1p-7F, 0x1p-3F, 1.0F}; // so that sums are rounded
    uint8_t *data = malloc((size_t)count * 2);
    for (int at = 0; at < count; at++)
        if (type == dnnl_bf16)
            ((uint16_t *)(void *)data)[at] = to_bf16((float)(draw(255) - 127) * scales[draw(4)]);
        else
            data[at] = (uint8_t)draw(256); // full range, -128 included
    return data;
}

// x [m, k] w [k, n] = y [m, n]; w in whatever layout oneDNN wants.
static int check(dnnl_engine_t engine, dnnl_stream_t stream, dnnl_data_type_t x_type, dnnl_data_type_t w_type,
                 dnnl_data_type_t y_type, int m, int n, int k)
{
    dnnl_memory_desc_t x, w, plain, y;
    dnnl_matmul_desc_t operation;
    dnnl_primitive_desc_t description, move_description;
    dnnl_primitive_t product, move;
    dnnl_memory_t x_memory, w_memory, plain_memory, y_memory;
    const char *name;
    TRY(dnnl_memory_desc_init_by_tag(&x, 2, (dnnl_dims_t){m, k}, x_type, dnnl_ab));
    TRY(dnnl_memory_desc_init_by_tag(&plain, 2, (dnnl_dims_t){k, n}, w_type, dnnl_ab));
    TRY(dnnl_memory_desc_init_by_tag(&w, 2, (dnnl_dims_t){k, n}, w_type, dnnl_format_tag_any));
    TRY(dnnl_memory_desc_init_by_tag(&y, 2, (dnnl_dims_t){m, n}, y_type, dnnl_ab));
    TRY(dnnl_matmul_desc_init(&operation, &x, &w, NULL, &y));
    TRY(dnnl_primitive_desc_create(&description, &operation, NULL, engine, NULL));
    TRY(dnnl_primitive_desc_query(description, dnnl_query_impl_info_str, 0, (void *)&name));
    printf("%s  m%d n%d k%d: ", name, m, n, k);
    int wrong = strstr(name, "amx") ? 0 : 1;
    w = *dnnl_primitive_desc_query_md(description, dnnl_query_weights_md, 0);

    void *x_data = fill(x_type, m * k), *w_data = fill(w_type, k * n);
    float *y_data = malloc(sizeof *y_data * (size_t)(m * n)); // fp32 or s32
    memset(y_data, 0xff, sizeof *y_data * (size_t)(m * n));
    TRY(dnnl_memory_create(&x_memory, &x, engine, x_data));
    TRY(dnnl_memory_create(&plain_memory, &plain, engine, w_data));
    TRY(dnnl_memory_create(&w_memory, &w, engine, DNNL_MEMORY_ALLOCATE));
    TRY(dnnl_memory_create(&y_memory, &y, engine, y_data));
    TRY(dnnl_reorder_primitive_desc_create(&move_description, &plain, engine, &w, engine, NULL));
    TRY(dnnl_primitive_create(&move, move_description));
    TRY(dnnl_primitive_create(&product, description));
    const dnnl_exec_arg_t moves[] = {{DNNL_ARG_FROM, plain_memory}, {DNNL_ARG_TO, w_memory}};
    const dnnl_exec_arg_t factors[] = {
        {DNNL_ARG_SRC, x_memory}, {DNNL_ARG_WEIGHTS, w_memory}, {DNNL_ARG_DST, y_memory}};
    TRY(dnnl_primitive_execute(move, stream, 2, moves));
    TRY(dnnl_primitive_execute(product, stream, 3, factors));
    TRY(dnnl_stream_wait(stream));

    double worst = 0;
    for (int row = 0; row < m; row++)
        for (int column = 0; column < n; column++) {
            double sum = 0, magnitude = 0, got;
            int32_t integer;
            memcpy(&integer, y_data + row * n + column, 4);
            got = y_type == dnnl_s32 ? integer : y_data[row * n + column];
            for (int at = 0; at < k; at++) {
                double term =
                    element(x_data, x_type, row * k + at) * element(w_data, w_type, at * n + column);
                sum += term;
                magnitude += fabs(term);
            }
            // fp32: k roundings at most, in any order of summation; integers: none
            double bound = y_type == dnnl_s32 ? 0 : (k + 2) * 0x1p-24 * magnitude;
            wrong += !(fabs(got - sum) <= bound);
            if (fabs(got - sum) > worst)
                worst = fabs(got - sum);
        }
    printf("%d of %d wrong, max error %.3g\n", wrong, m * n, worst);
    dnnl_primitive_destroy(product);
    dnnl_primitive_destroy(move);
    dnnl_primitive_desc_destroy(description);
    dnnl_primitive_desc_destroy(move_description);
    dnnl_memory_destroy(x_memory);
    dnnl_memory_destroy(w_memory);
    dnnl_memory_destroy(plain_memory);
    dnnl_memory_destroy(y_memory);
    free(x_data);
    free(w_data);
    free(y_data);
    return wrong;
}

int main(void)
{
    static const int shapes[][3] = {{64, 96, 160}, {33, 50, 96}, {40, 50, 72}, {33, 128, 512}, {48, 33, 64}};
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    int wrong = 0;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512vnni") || !__builtin_cpu_supports("avx512bf16")) {
        puts("no AVX-512 with BF16 and VNNI, which oneDNN's AMX code uses around the tiles");
        return 77;
    }
    TRY(dnnl_engine_create(&engine, dnnl_cpu, 0));
    TRY(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
    for (size_t at = 0; at < sizeof shapes / sizeof *shapes; at++) {
        int m = shapes[at][0], n = shapes[at][1], k = shapes[at][2];
        wrong += check(engine, stream, dnnl_bf16, dnnl_bf16, dnnl_f32, m, n, k);
        wrong += check(engine, stream, dnnl_u8, dnnl_s8, dnnl_s32, m, n, k);
        wrong += check(engine, stream, dnnl_s8, dnnl_s8, dnnl_s32, m, n, k);
    }
    dnnl_stream_destroy(stream);
    dnnl_engine_destroy(engine);
    return wrong != 0;
}
