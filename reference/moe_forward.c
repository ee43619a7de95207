// SPDX-License-Identifier: Apache-2.0
// moe_forward: a layer of routed and shared experts with per-token LoRA on gate, up and down.
//   y_t = shared(x_t) + sum_j w_tj down_e( silu(gate_e(x_t)) * up_e(x_t) ),  e = topk_ids[t,j], -1: nothing
//   p(x) = W x + bias + s_a B_a (A_a x),  a = token_adapter[t], -1: none
// With a map, e = expert_map[topk_ids[t,j]] for weights, biases and LoRA alike.
// Integer weights are multiplied by the scale of their row and group. With act_quant, W sees x and h as int8
// codes times amax/127 of their row, while A sees them as they are. This file is the op's table.
#include "reference/moe_forward.h"

#define FLOATS  (CM_DTYPE_BIT(CM_F32) | CM_DTYPE_BIT(CM_F16) | CM_DTYPE_BIT(CM_BF16))
#define WEIGHTS (FLOATS | CM_DTYPE_BIT(CM_I8) | CM_DTYPE_BIT(CM_I4))
#define F32     CM_DTYPE_BIT(CM_F32)
#define I32     CM_DTYPE_BIT(CM_I32)

// A and B of one projection. B's values are divided by s so that adapters of any scaling weigh the same.
#define LORA(prefix, projection, expert, in, out, sign, scale, partner)                                      \
    {.name = prefix "a_" projection,                                                                         \
     .role = CM_ADAPTER,                                                                                     \
     .dtypes = FLOATS,                                                                                       \
     .dtype_variable = 'a',                                                                                  \
     .shape = "L " expert "r " in,                                                                           \
     .optional = true,                                                                                       \
     .shareable = projection[0] == 'd' ? 0 : expert[0],                                                      \
     .with = prefix "b_" projection " lora_rank" partner,                                                    \
     .fill = {.kind = "matrix",                                                                              \
              .fan_in = in[0],                                                                               \
              .aligned = sign,                                                                               \
              .exact_nonzeros = 1,                                                                           \
              .exact_scale = in[0] == 'H' ? 0 : -6,                                                          \
              .peak = in[0] == 'H' ? CM_PEAK_COLUMN : CM_PEAK_NONE},                                         \
     .meaning = "LoRA A of the " projection " projection; rows from the adapter's rank on are padding"},     \
    {                                                                                                        \
        .name = prefix "b_" projection, .role = CM_ADAPTER, .dtypes = FLOATS, .dtype_variable = 'a',         \
        .shape = "L " expert out " r", .optional = true, .with = prefix "a_" projection partner,             \
        .shareable = projection[0] == 'd' ? expert[0] : 0,                                                   \
        .fill = {.kind = "matrix",                                                                           \
                 .fan_in = 'r',                                                                              \
                 .gain = -1,                                                                                 \
                 .divided_by = "lora_scaling",                                                               \
                 .within_rank = true,                                                                        \
                 .aligned = sign ? '1' : 0,                                                                  \
                 .exact_nonzeros = 1,                                                                        \
                 .exact_scale = scale,                                                                       \
                 .peak = in[0] == 'H' ? CM_PEAK_ROW : CM_PEAK_NONE},                                         \
        .meaning = "LoRA B of the " projection " projection; columns from the adapter's rank on are padding" \
    }

#define MATRIX(id, dims, in, sign, nonzeros, scale, part, partner, text)                                     \
    {                                                                                                        \
        .name = id, .role = CM_WEIGHT, .dtypes = WEIGHTS, .dtype_variable = 'w', .shape = dims,              \
        .optional = partner != NULL, .with = partner, .meaning = text, .fill = {                             \
            .kind = "matrix",                                                                                \
            .fan_in = in,                                                                                    \
            .aligned = sign,                                                                                 \
            .exact_nonzeros = nonzeros,                                                                      \
            .exact_scale = scale,                                                                            \
            .peak = part                                                                                     \
        }                                                                                                    \
    }

#define SCALE(id, dims, of)                                                                                  \
    {                                                                                                        \
        .name = id, .role = CM_WEIGHT, .dtypes = F32, .shape = dims, .optional = true, .scales = of,         \
        .fill = {.kind = "scale"}, .meaning = "scales of " of ", one per row and group of G"                 \
    }

#define BIAS(id, generator, dims, sign, scale, part, of)                                                     \
    {                                                                                                        \
        .name = id, .role = CM_WEIGHT, .dtypes = FLOATS, .dtype_variable = 'p', .shape = dims,               \
        .optional = true, .meaning = "bias of " of, .fill = {                                                \
            .kind = generator,                                                                               \
            .gain = -1,                                                                                      \
            .aligned = sign,                                                                                 \
            .exact_scale = scale,                                                                            \
            .words = "biased biased_gated",                                                                  \
            .peak = part                                                                                     \
        }                                                                                                    \
    }

// clang-format off
static const cm_argument arguments[] = {
    {.name = "hidden", .role = CM_INPUT, .dtypes = FLOATS, .dtype_variable = 'x', .shape = "T H",
     .fill = {.kind = "dense", .aligned = 'H', .peak = CM_PEAK_SOURCE}, .meaning = "activations x"},
    {.name = "topk_ids", .role = CM_INPUT, .dtypes = I32, .shape = "T k", .index_into = 'E', .index_min = -1,
     .fill = {.kind = "routing"}, .meaning = "experts of a token; -1: the slot contributes nothing; repeats allowed"},
    {.name = "topk_weights", .role = CM_INPUT, .dtypes = F32, .shape = "T k",
     .fill = {.kind = "router_weight"}, .meaning = "weight of each slot"},
    {.name = "token_adapter", .role = CM_INPUT, .dtypes = I32, .shape = "T", .optional = true, .index_into = 'L',
     .index_min = -1, .with = "lora_rank", .fill = {.kind = "assign"}, .meaning = "adapter of a token; -1: none"},
    {.name = "lora_rank", .role = CM_ADAPTER, .dtypes = I32, .shape = "L", .optional = true, .is_rank = true,
     .with = "lora_scaling", .fill = {.kind = "rank"}, .meaning = "rank of each adapter, 0..r"},
    {.name = "lora_scaling", .role = CM_ADAPTER, .dtypes = F32, .shape = "L", .optional = true,
     .with = "token_adapter", .fill = {.kind = "scaling"}, .meaning = "s of each adapter: alpha/r or alpha/sqrt(r)"},
    MATRIX("w_gate", "E I H", 'H', 'H', 2, 6, CM_PEAK_GATE, NULL, "gate of the routed experts"),
    MATRIX("w_up", "E I H", 'H', 0, 2, 0, CM_PEAK_BRIDGE, NULL, "up of the routed experts"),
    MATRIX("w_down", "E H I", 'I', 0, 1, -6, CM_PEAK_NONE, NULL, "down of the routed experts"),
    SCALE("w_gate_scale", "E I H/G", "w_gate"),
    SCALE("w_up_scale", "E I H/G", "w_up"),
    SCALE("w_down_scale", "E H I/G", "w_down"),
    BIAS("bias_gate", "gate_bias", "E I", '1', 6, CM_PEAK_ROW, "w_gate"),
    BIAS("bias_up", "bias", "E I", 0, 0, CM_PEAK_ROW, "w_up"),
    BIAS("bias_down", "bias", "E H", 0, 0, CM_PEAK_NONE, "w_down, added before the router weight multiplies"),
    LORA("lora_", "gate", "E ", "H", "I", 'H', 6, ""),
    LORA("lora_", "up", "E ", "H", "I", 0, 0, ""),
    LORA("lora_", "down", "E ", "I", "H", 0, 0, ""),
    MATRIX("shared_gate", "D H", 'H', 'H', 2, 6, CM_PEAK_GATE, "shared_up", "gate of the shared expert"),
    MATRIX("shared_up", "D H", 'H', 0, 2, 0, CM_PEAK_BRIDGE, "shared_down", "up of the shared expert"),
    MATRIX("shared_down", "H D", 'D', 0, 1, -6, CM_PEAK_NONE, "shared_gate", "down of the shared expert"),
    SCALE("shared_gate_scale", "D H/G", "shared_gate"),
    SCALE("shared_up_scale", "D H/G", "shared_up"),
    SCALE("shared_down_scale", "H D/G", "shared_down"),
    {.name = "shared_router", .role = CM_WEIGHT, .dtypes = FLOATS, .dtype_variable = 'p', .shape = "1 H",
     .optional = true, .with = "shared_gate",
     .fill = {.kind = "switch", .fan_in = 'H', .aligned = 'H', .exact_scale = 6, .words = "gated biased_gated", .peak = CM_PEAK_COLUMN}, .meaning = "the shared expert is multiplied by sigmoid of this row times x"},
    LORA("shared_lora_", "gate", "", "H", "D", 'H', 6, " shared_gate"),
    LORA("shared_lora_", "up", "", "H", "D", 0, 0, " shared_gate"),
    LORA("shared_lora_", "down", "", "D", "H", 0, 0, " shared_gate"),
    {.name = "expert_map", .role = CM_WEIGHT, .dtypes = I32, .shape = "E", .optional = true, .index_into = 'E',
     .self_map = true, .fill = {.kind = "expert_map", .words = "map_identity map_reversed map_shuffled map_replicated"},
     .meaning = "topk_ids are slots, and slot p holds expert expert_map[p], with base and LoRA; absent: expert p"},
    {.name = "output", .role = CM_OUTPUT, .dtypes = FLOATS, .dtype_variable = 'y', .shape = "T H",
     .compare = CM_COMPARE_BOUNDED, .meaning = "y"},
    {0},
};
// clang-format on

static const char *const activation_words[] = {"silu", "clamped_swiglu", NULL};
static const char *const quant_words[] = {"none", "int8_row", NULL};
static const char *const source_words[] = {"f32", "model", NULL};
static const cm_attribute attributes[] = {
    {"activation", 0, 0, 1, activation_words,
     "silu(g) u, or gpt-oss: g sigmoid(alpha g) (u + 1), g and u clamped"},
    {"activation_alpha", 1.702, 0, 16, NULL, "alpha of clamped_swiglu"},
    {"activation_limit", 7, 0, 1e6, NULL, "clamp of clamped_swiglu"},
    {"weight_on_input", 0, 0, 1, NULL, "the slot's weight multiplies x in place of the expert's output"},
    {"act_quant", 0, 0, 1, quant_words,
     "int8 per row (amax/127, nearest even) of x and h; LoRA sees them unquantised"},
    {"act_quant_source", 0, 0, 1, source_words,
     "h, before it is quantised: fp32, or rounded to the dtype of x, for A too"},
    {"num_gpu_experts", -1, -1, 1 << 20, NULL,
     "slots below it are computed by the CUDA side of a kernel that has two sides; -1: unset, that is 0"},
    {"cpu_partitions", 1, 1, 64, NULL,
     "parts of I that the CPU side of such a kernel computes by themselves and sums in fp32"},
    {0},
};

static const cm_rounding roundings[] = {
    {"sums", 0, true, "every sum is formed in fp32, in any order"},
    {"activation", 0, true, "exp within 2 ulp, then addition, division and product in fp32"},
    {"dequantised", 'x', false, "an integer weight times its scale; fp32 at least"},
    {"codes", 0, true, "with act_quant: amax/127 and x over it in fp32, so that codes near a tie may move"},
    {"v", 'x', false, "A x"},
    {"base", 'x', false, "W x, before the LoRA term is added"},
    {"projection", 'x', false, "gate, up and down with their LoRA term"},
    {"h", 'x', false, "silu(gate) up"},
    {"output", 'y', true, "y, once"},
    {0},
};

static const cm_term terms[] = {
    [MOE_LORA_GATE] = {"lora_gate", "LoRA on gate of the routed experts", "lora_b_gate", true},
    [MOE_LORA_UP] = {"lora_up", "LoRA on up of the routed experts", "lora_b_up", true},
    [MOE_LORA_DOWN] = {"lora_down", "LoRA on down of the routed experts", "lora_b_down", true},
    [MOE_SHARED] = {"shared", "the shared expert", "shared_down shared_lora_b_down", false},
    [MOE_SHARED_LORA] = {"shared_lora", "LoRA on the shared expert",
                         "shared_lora_b_gate shared_lora_b_up shared_lora_b_down", true},
    [MOE_BIAS] = {"bias", "all biases", "bias_gate bias_up bias_down", false},
    {0},
};

#define ALL_B "lora_b_gate lora_b_up lora_b_down shared_lora_b_gate shared_lora_b_up shared_lora_b_down"
static const cm_symmetry symmetries[] = {
    {.name = "tokens permuted", .kind = CM_SYMMETRY_PERMUTE, .letter = 'T'},
    {.name = "one batch is its split", .kind = CM_SYMMETRY_SPLIT, .letter = 'T'},
    {.name = "experts permuted", .kind = CM_SYMMETRY_PERMUTE, .letter = 'E'},
    {.name = "adapters permuted", .kind = CM_SYMMETRY_PERMUTE, .letter = 'L'},
    {.name = "tokens without adapter", .kind = CM_SYMMETRY_NONE, .letter = 'L'},
    {.name = "slots permuted", .kind = CM_SYMMETRY_PERMUTE, .letter = 'k'},
    {.name = "hidden units permuted", .kind = CM_SYMMETRY_PERMUTE, .letter = 'I'},
    {.name = "model units permuted", .kind = CM_SYMMETRY_PERMUTE, .letter = 'H'},
    {.name = "shared units permuted", .kind = CM_SYMMETRY_PERMUTE, .letter = 'D'},
    {.name = "down scaled",
     .kind = CM_SYMMETRY_SCALE,
     .arguments =
         "w_down w_down_scale bias_down lora_b_down shared_down shared_down_scale shared_lora_b_down"},
    {.name = "scaling 0 is base",
     .kind = CM_SYMMETRY_OMIT,
     .letter = 'L',
     .arguments = "lora_scaling",
     .terms = 1 << MOE_LORA_GATE | 1 << MOE_LORA_UP | 1 << MOE_LORA_DOWN | 1 << MOE_SHARED_LORA},
    {.name = "B doubled, scaling halved",
     .kind = CM_SYMMETRY_BALANCE,
     .arguments = ALL_B,
     .halved = "lora_scaling"},
    {.name = "linear in B of down",
     .kind = CM_SYMMETRY_LINEAR,
     .arguments = "lora_b_down shared_lora_b_down"},
    {0},
};

const cm_op cm_moe_forward = {
    .name = "moe_forward",
    .formula = "y = shared(x) + sum_j w_j down_e(silu(gate_e(x)) up_e(x)), p(x) = W x + s B A x",
    .arguments = arguments,
    .attributes = attributes,
    .roundings = roundings,
    .terms = terms,
    .symmetries = symmetries,
    .reference = moe_forward_reference,
    .exact = moe_forward_exact,
    .addressed = moe_forward_addressed,
    .counts = moe_forward_counts,
};
