// SPDX-License-Identifier: Apache-2.0
// moe_forward: a layer of routed and shared experts with per-token LoRA on gate, up and down.
//   y_t = shared(x_t) + sum_j w_tj down_e( silu(gate_e(x_t)) * up_e(x_t) ),  e = topk_ids[t,j], -1: nothing
//   p(x) = W x + bias + s_a B_a (A_a x),  a = token_adapter[t], -1: none
// Beside each value stand the variance and the worst case of the error that the op's rounding points allow.
// Errors that share an origin (W h and A h have those of h) are added as if they were independent.
#include "reference/moe_forward.h"

#include <math.h>
#include <stdlib.h>

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
              .exact_scale = in[0] == 'H' ? 0 : -6},                                                         \
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
                 .exact_scale = scale},                                                                      \
        .meaning = "LoRA B of the " projection " projection; columns from the adapter's rank on are padding" \
    }

#define MATRIX(id, dims, in, sign, nonzeros, scale, partner, text)                                           \
    {                                                                                                        \
        .name = id, .role = CM_WEIGHT, .dtypes = WEIGHTS, .dtype_variable = 'w', .shape = dims,              \
        .optional = partner != NULL, .with = partner, .meaning = text, .fill = {                             \
            .kind = "matrix",                                                                                \
            .fan_in = in,                                                                                    \
            .aligned = sign,                                                                                 \
            .exact_nonzeros = nonzeros,                                                                      \
            .exact_scale = scale                                                                             \
        }                                                                                                    \
    }

#define SCALE(id, dims, of)                                                                                  \
    {                                                                                                        \
        .name = id, .role = CM_WEIGHT, .dtypes = F32, .shape = dims, .optional = true,                       \
        .fill = {.kind = "absent"}, .meaning = "scales of an integer " of ", one per group of G"             \
    }

#define BIAS(id, dims, of)                                                                                   \
    {                                                                                                        \
        .name = id, .role = CM_WEIGHT, .dtypes = FLOATS, .dtype_variable = 'w', .shape = dims,               \
        .optional = true, .fill = {.kind = "absent"}, .meaning = "bias of " of                               \
    }

// clang-format off
static const cm_argument arguments[] = {
    {.name = "hidden", .role = CM_INPUT, .dtypes = FLOATS, .dtype_variable = 'x', .shape = "T H",
     .fill = {.kind = "dense", .aligned = 'H'}, .meaning = "activations x"},
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
    MATRIX("w_gate", "E I H", 'H', 'H', 2, 6, NULL, "gate of the routed experts"),
    MATRIX("w_up", "E I H", 'H', 0, 2, 0, NULL, "up of the routed experts"),
    MATRIX("w_down", "E H I", 'I', 0, 1, -6, NULL, "down of the routed experts"),
    SCALE("w_gate_scale", "E I H/G", "w_gate"),
    SCALE("w_up_scale", "E I H/G", "w_up"),
    SCALE("w_down_scale", "E H I/G", "w_down"),
    BIAS("bias_gate", "E I", "w_gate"),
    BIAS("bias_up", "E I", "w_up"),
    BIAS("bias_down", "E H", "w_down, added before the router weight multiplies"),
    LORA("lora_", "gate", "E ", "H", "I", 'H', 6, ""),
    LORA("lora_", "up", "E ", "H", "I", 0, 0, ""),
    LORA("lora_", "down", "E ", "I", "H", 0, 0, ""),
    MATRIX("shared_gate", "D H", 'H', 'H', 2, 6, "shared_up", "gate of the shared expert"),
    MATRIX("shared_up", "D H", 'H', 0, 2, 0, "shared_down", "up of the shared expert"),
    MATRIX("shared_down", "H D", 'D', 0, 1, -6, "shared_gate", "down of the shared expert"),
    SCALE("shared_gate_scale", "D H/G", "shared_gate"),
    SCALE("shared_up_scale", "D H/G", "shared_up"),
    SCALE("shared_down_scale", "H D/G", "shared_down"),
    {.name = "shared_router", .role = CM_WEIGHT, .dtypes = FLOATS, .dtype_variable = 'w', .shape = "1 H",
     .optional = true, .with = "shared_gate", .fill = {.kind = "absent"}, .meaning = "the shared expert is multiplied by sigmoid of this row times x"},
    LORA("shared_lora_", "gate", "", "H", "D", 'H', 6, " shared_gate"),
    LORA("shared_lora_", "up", "", "H", "D", 0, 0, " shared_gate"),
    LORA("shared_lora_", "down", "", "D", "H", 0, 0, " shared_gate"),
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
    {"act_quant_source", 0, 0, 1, source_words, "precision from which h is quantised"},
    {0},
};

static const cm_rounding roundings[] = {
    {"sums", 0, true, "every sum is formed in fp32, in any order"},
    {"activation", 0, true, "exp within 2 ulp, then addition, division and product in fp32"},
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

static const cm_symmetry symmetries[] = {
    {"tokens permuted", CM_SYMMETRY_PERMUTE, 'T', NULL, 0},
    {"experts permuted", CM_SYMMETRY_PERMUTE, 'E', NULL, 0},
    {"adapters permuted", CM_SYMMETRY_PERMUTE, 'L', NULL, 0},
    {"slots permuted", CM_SYMMETRY_PERMUTE, 'k', NULL, 0},
    {"hidden units permuted", CM_SYMMETRY_PERMUTE, 'I', NULL, 0},
    {"model units permuted", CM_SYMMETRY_PERMUTE, 'H', NULL, 0},
    {"shared units permuted", CM_SYMMETRY_PERMUTE, 'D', NULL, 0},
    {"down scaled", CM_SYMMETRY_SCALE, 0, "w_down bias_down lora_b_down shared_down shared_lora_b_down", 0},
    {"scaling 0 is base", CM_SYMMETRY_OMIT, 0, "lora_scaling",
     1 << MOE_LORA_GATE | 1 << MOE_LORA_UP | 1 << MOE_LORA_DOWN | 1 << MOE_SHARED_LORA},
    {0},
};

// Values with the variance and the worst case of their error, and the size of what they were summed from.
struct vector {
    double *value, *magnitude;
    cm_error_size *error;
};

static struct vector vector_at(double **memory, int64_t count)
{
    struct vector vector = {*memory, *memory + count, (cm_error_size *)(*memory + 2 * count)};
    *memory += 5 * count;
    return vector;
}

struct workspace {
    double *memory, *row, *magnitude; // magnitude: [H] of y
    struct vector x, v, gate, up, h, down;
};

static bool workspace_open(struct workspace *space, const struct moe_layer *layer)
{
    int64_t D = layer->shared.gate.weight ? layer->shared.width : 0, r = layer->r > 0 ? layer->r : 1;
    int64_t width = layer->routed.width > D ? layer->routed.width : D;
    int64_t longest = layer->H > width ? layer->H : width;
    longest = longest > r ? longest : r;
    double *memory =
        calloc((size_t)(5 * (2 * layer->H + r + 3 * width) + layer->H + longest), sizeof *memory);
    *space = (struct workspace){.memory = memory};
    if (!memory)
        return false;
    space->x = vector_at(&memory, layer->H);
    space->down = vector_at(&memory, layer->H);
    space->v = vector_at(&memory, r);
    space->gate = vector_at(&memory, width);
    space->up = vector_at(&memory, width);
    space->h = vector_at(&memory, width);
    space->magnitude = memory;
    space->row = memory + layer->H;
    return true;
}

// What the rounding points of this call are.
struct contract {
    bool model;                // accuracy MODEL: intermediates are rounded to the dtype of x
    DLDataType dtype;          // of x
    bool products, v_products; // a product of weight and input, of adapter and input, does not fit fp32
};

static void round_point(const struct contract *contract, double value, cm_error_size *error)
{
    if (!contract->model)
        return;
    error->variance += cm_rounding_variance(contract->dtype, value);
    error->worst += cm_ulp(contract->dtype, value) / 2;
}

// Adds an error that is multiplied by `factor`.
static void add_error(cm_error_size *to, double factor, cm_error_size error)
{
    to->variance += factor * factor * error.variance;
    to->order += factor * factor * error.order;
    to->worst += fabs(factor) * error.worst;
}

// sum of row * in, with the errors of `in`. Both have n elements.
static cm_sum dot(const double *row, const struct vector *in, int64_t n)
{
    cm_sum sum = {0};
    for (int64_t i = 0; i < n; i++) {
        cm_sum_add(&sum, row[i] * in->value[i]);
        add_error(&sum.inherited, row[i], in->error[i]);
    }
    return sum;
}

// out[n_out] = W in[n_in] + bias + s B (A in), with errors.
static void project(const struct moe_projection *p, int64_t expert, int64_t adapter, int64_t rank, double s,
                    const struct contract *contract, struct workspace *space, const struct vector *in,
                    int64_t n_in, struct vector *out, int64_t n_out)
{
    struct vector *v = &space->v;
    if (!p->a)
        rank = 0;
    for (int64_t j = 0; j < rank; j++) {
        moe_row(p->a, adapter, expert, j, space->row);
        cm_sum sum = dot(space->row, in, n_in);
        v->value[j] = sum.value;
        v->magnitude[j] = sum.magnitude;
        v->error[j] = cm_sum_error(&sum, contract->v_products);
        round_point(contract, sum.value, &v->error[j]);
    }
    for (int64_t o = 0; o < n_out; o++) {
        moe_row(p->weight, -1, expert, o, space->row);
        cm_sum base = dot(space->row, in, n_in);
        if (p->bias)
            cm_sum_add(&base, expert < 0 ? cm_element(p->bias, o) : cm_element2(p->bias, expert, o));
        cm_error_size error = cm_sum_error(&base, contract->products);
        double value = base.value, magnitude = base.magnitude;
        if (rank > 0) {
            round_point(contract, base.value, &error);
            moe_row(p->b, adapter, expert, o, space->row);
            cm_sum lora = dot(space->row, v, rank);
            double delta = s * lora.value;
            value += delta;
            add_error(&error, s, cm_sum_error(&lora, true));
            error.variance += CM_FP32_VARIANCE * (delta * delta + value * value);
            error.worst += CM_FP32_UNIT * (fabs(delta) + fabs(value));
            for (int64_t j = 0; j < rank; j++)
                magnitude += fabs(s * space->row[j]) * v->magnitude[j];
        }
        round_point(contract, value, &error);
        out->value[o] = value;
        out->magnitude[o] = magnitude;
        out->error[o] = error;
    }
}

// h = silu(g) u; silu(g) = g / (1 + exp(-g)), silu' = sigma (1 + g (1 - sigma)).
// The relative variance of exp, addition, division and product: (e/(1+e))^2 4 + 3 fp32 roundings.
static void activate(const struct contract *contract, const struct vector *gate, const struct vector *up,
                     struct vector *h, int64_t width)
{
    for (int64_t i = 0; i < width; i++) {
        double g = gate->value[i], u = up->value[i];
        double e = exp(-g), sigma = 1 / (1 + e), silu = g * sigma;
        double slope = sigma * (1 + g * (1 - sigma)), tail = 1 - sigma;
        double value = silu * u, gate_worst = gate->error[i].worst;
        cm_error_size error = {.variance = value * value * CM_FP32_VARIANCE * (4 * tail * tail + 3),
                               .worst = 6 * CM_FP32_UNIT * fabs(value) + gate_worst * gate_worst * fabs(u) +
                                        1.1 * gate_worst * up->error[i].worst};
        add_error(&error, slope * u, gate->error[i]);
        add_error(&error, silu, up->error[i]);
        round_point(contract, value, &error);
        h->value[i] = value;
        h->magnitude[i] = fabs(value);
        h->error[i] = error;
    }
}

static void ffn(const struct moe_ffn *ffn, int64_t expert, int64_t adapter, int64_t rank, double s,
                const uint64_t omit, const int lora_terms[3], const struct contract *contract,
                struct workspace *space, int64_t H)
{
    int64_t ranks[3];
    for (int p = 0; p < 3; p++)
        ranks[p] = omit >> lora_terms[p] & 1 ? 0 : rank;
    struct moe_projection gate = ffn->gate, up = ffn->up, down = ffn->down;
    if (omit >> MOE_BIAS & 1)
        gate.bias = up.bias = down.bias = NULL;
    project(&gate, expert, adapter, ranks[0], s, contract, space, &space->x, H, &space->gate, ffn->width);
    project(&up, expert, adapter, ranks[1], s, contract, space, &space->x, H, &space->up, ffn->width);
    activate(contract, &space->gate, &space->up, &space->h, ffn->width);
    struct contract second = *contract; // h is rounded to fp32 at least, so its products are rounded too
    second.products = !contract->model || contract->products;
    second.v_products = !contract->model || contract->v_products;
    project(&down, expert, adapter, ranks[2], s, &second, space, &space->h, ffn->width, &space->down, H);
}

// A factor with its own error.
struct weight {
    double value;
    cm_error_size error;
};

// Adds weight * down to the running sums of one token.
static void combine(cm_sum *y, double *magnitude, const struct vector *down, struct weight weight, int64_t H)
{
    for (int64_t o = 0; o < H; o++) {
        cm_sum_add(&y[o], weight.value * down->value[o]);
        add_error(&y[o].inherited, weight.value, down->error[o]);
        add_error(&y[o].inherited, down->value[o], weight.error);
        magnitude[o] += fabs(weight.value) * down->magnitude[o];
    }
}

// 1, or sigmoid(l) of the logit l = router x: its slope is w (1 - w), exp is good to 2 ulp, addition and
// division round once each.
static struct weight shared_weight(const struct moe_layer *layer, const struct contract *contract,
                                   struct workspace *space)
{
    struct weight weight = {.value = 1};
    if (!layer->shared_router)
        return weight;
    cm_row(layer->shared_router, (int64_t[]){0}, space->row);
    cm_sum logit = dot(space->row, &space->x, layer->H);
    double w = 1 / (1 + exp(-logit.value));
    weight.value = w;
    add_error(&weight.error, w * (1 - w), cm_sum_error(&logit, contract->products));
    weight.error.variance += w * w * CM_FP32_VARIANCE * (4 * (1 - w) * (1 - w) + 2);
    weight.error.worst += 4 * CM_FP32_UNIT * w;
    return weight;
}

static cm_status reference(const cm_call *call, uint64_t omit, cm_accuracy accuracy, cm_want *want)
{
    static const int routed_terms[3] = {MOE_LORA_GATE, MOE_LORA_UP, MOE_LORA_DOWN};
    static const int shared_terms[3] = {MOE_SHARED_LORA, MOE_SHARED_LORA, MOE_SHARED_LORA};
    struct moe_layer layer;
    cm_status status = moe_open(call, &layer);
    if (status != CM_OK)
        return status;
    int x_bits = cm_significand_bits(layer.hidden->dtype), a_bits = 0;
    const DLTensor *const adapters[] = {layer.routed.gate.a, layer.routed.up.a, layer.routed.down.a,
                                        layer.shared.gate.a, layer.shared.up.a, layer.shared.down.a};
    for (int n = 0; n < 6; n++)
        if (adapters[n])
            a_bits = cm_significand_bits(adapters[n]->dtype);
    struct contract contract = {
        .model = accuracy == CM_ACCURACY_MODEL,
        .dtype = layer.hidden->dtype,
        .products = x_bits + cm_significand_bits(layer.routed.gate.weight->dtype) > 24,
        .v_products = x_bits + a_bits > 24,
    };
    int64_t H = layer.H;
    struct workspace space;
    cm_sum *y = malloc((size_t)(H + 1) * sizeof *y);
    if (!workspace_open(&space, &layer) || !y) {
        status = CM_NO_MEMORY;
        goto done;
    }
    cm_want *output = &want[sizeof arguments / sizeof *arguments - 2]; // the last argument
    for (int64_t t = 0; t < layer.T; t++) {
        int64_t adapter = moe_adapter(&layer, t), rank = moe_rank(&layer, adapter);
        double s = moe_scaling(&layer, adapter);
        double *magnitude = space.magnitude;
        cm_row(layer.hidden, &t, space.x.value);
        for (int64_t o = 0; o < H; o++) {
            y[o] = (cm_sum){0};
            magnitude[o] = 0;
        }
        if (layer.shared.gate.weight && !(omit >> MOE_SHARED & 1)) {
            ffn(&layer.shared, -1, adapter, rank, s, omit, shared_terms, &contract, &space, H);
            combine(y, magnitude, &space.down, shared_weight(&layer, &contract, &space), H);
        }
        for (int64_t j = 0; j < layer.k; j++) {
            int64_t expert = cm_index2(layer.ids, t, j);
            if (expert < 0)
                continue;
            ffn(&layer.routed, expert, adapter, rank, s, omit, routed_terms, &contract, &space, H);
            combine(y, magnitude, &space.down, (struct weight){.value = cm_element2(layer.weights, t, j)}, H);
        }
        for (int64_t o = 0; o < H; o++)
            cm_want_set(output, t * H + o, y[o].value, magnitude[o], cm_sum_error(&y[o], true));
    }
done:
    free(space.memory);
    free(y);
    return status;
}

const cm_op cm_moe_forward = {
    .name = "moe_forward",
    .formula = "y = shared(x) + sum_j w_j down_e(silu(gate_e(x)) up_e(x)), p(x) = W x + s B A x",
    .arguments = arguments,
    .attributes = attributes,
    .roundings = roundings,
    .terms = terms,
    .symmetries = symmetries,
    .reference = reference,
    .exact = moe_forward_exact,
    .addressed = moe_forward_addressed,
    .counts = moe_forward_counts,
};
