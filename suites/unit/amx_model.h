// SPDX-License-Identifier: Apache-2.0
// The second implementation of tiles that the emulator is held against: one element at a time, floating point
// by integer arithmetic. Shares nothing with the emulator.
#ifndef CM_UNIT_AMX_MODEL_H
#define CM_UNIT_AMX_MODEL_H

#include <stdbool.h>
#include <stdint.h>

enum { MODEL_FINE, MODEL_UD, MODEL_GP };
enum { MODEL_BF16, MODEL_FP16, MODEL_SS, MODEL_SU, MODEL_US, MODEL_UU, MODEL_DOTS };

struct model {
    int palette, start, rows[8], columns[8]; // columns in bytes
    uint8_t bytes[8][1024];
};

int model_configure(struct model *model, const uint8_t *config);
void model_describe(const struct model *model, uint8_t *config);
int model_zero(struct model *model, int tile);
int model_load(struct model *model, int tile, const uint8_t *from, int64_t stride);
int model_store(struct model *model, int tile, uint8_t *to, int64_t stride);
int model_dot(struct model *model, int kind, int c, int a, int b);

// fp32 bits of a * b + c: denormals are zero, rounded once to nearest even, tiny results flushed; a NaN is
// 7fc00000.
uint32_t model_fma(uint32_t a, uint32_t b, uint32_t c);
uint32_t model_widen_half(uint16_t bits);
bool model_is_nan(uint32_t bits);

#endif
