// SPDX-License-Identifier: Apache-2.0
// Tiny models and adapters in the working directory, in each family's names, with values that a test can
// predict; and the layer that is opened from them.
#ifndef CM_TINY_LAYER_H
#define CM_TINY_LAYER_H

#include "fixtures/layer.h"
#include "suites/unit/write_safetensors.h"

enum { H = 6, I = 5, E = 4, K = 2, D = 7 };
enum { GATE, UP, DOWN };
enum { QWEN3, MIXTRAL, DEEPSEEK, QWEN2, FAMILIES };

typedef struct cm_tiny_family {
    const char *config; // without the common keys
    const char *experts, *shared;
    const char *projections[3];
    bool gated;
    int first_moe;
} cm_tiny_family;

extern const cm_tiny_family cm_tiny_families[FAMILIES];

// One deviation from a good model.
typedef struct cm_tiny_change {
    const char *skip; // tensor that is left out
    const char *odd;  // tensor that gets `dtype` and `shape`, or is added
    cm_dtype dtype;
    int64_t shape[2];
} cm_tiny_change;

extern const cm_tiny_change cm_tiny_no_change;

// Whole numbers of at most 7 bits: exact in every dtype.
double cm_tiny_pattern(int seed, int64_t row, int64_t column);
double cm_tiny_zero(int seed, int64_t row, int64_t column);

// model/: 3 layers in f32. Seeds: 100 layer + 10 projection + expert; 8 in place of the expert for the shared
// one, 100 layer + 50 for its router.
void cm_tiny_model(const cm_tiny_family *family, const cm_tiny_change *change);
int64_t cm_tiny_shared_width(const cm_tiny_family *family);

// adapter/: A has the pattern of 1000 + seed, B the values of 2000 + seed; r 4 and alpha 8 (scale 2) unless
// `more` (JSON fields after a comma) says otherwise.
void cm_tiny_add_pair(cm_writer *writer, const char *path, int64_t rank, int64_t in, int64_t out,
                      cm_dtype dtype, cm_writer_value b_value, int seed);
void cm_tiny_save_adapter(cm_writer *writer, const char *more);
// Layer 1 of QWEN3: gate and up of all experts but 2; rank 4, but rank 2 for gate of expert 0. Seed: 10
// projection
// + expert.
void cm_tiny_adapter(const char *more, cm_dtype dtype, cm_writer_value b_value);
#define SAME_SCALE ",\"alpha_pattern\":{\"experts.0.gate_proj\":4}"

cm_source cm_tiny_open(int layer, const char *adapter, const char *recorded);
void cm_tiny_expect_refusal(int layer, const char *adapter, const char *recorded, cm_status want,
                            const char *start, const char *part);
int64_t cm_tiny_dim(const cm_source *source, char letter);

// Fills a tensor of the shape in letters whose rows have slack behind them, and sees that the slack is left
// alone; free(tensor->dl.data).
void cm_tiny_fill(const cm_source *source, const char *name, cm_dtype dtype, const char *letters,
                  cm_tensor *tensor);
// Matrix number `matrix` is factor times the pattern of `seed` on [rows, columns] and 0 elsewhere.
void cm_tiny_expect_matrix(const cm_tensor *tensor, int64_t matrix, int64_t rows, int64_t columns, int seed,
                           double factor);

#endif
