// SPDX-License-Identifier: Apache-2.0
// Computation of moe_forward in double. Beside each value stand the variance and the worst case of the error
// that the op's rounding points allow. Errors that share an origin (W h and A h have those of h) are added as
// if they were independent.
#include "reference/moe_forward.h"

#include <math.h>
#include <stdlib.h>

static struct moe_vector vector_at(double **memory, int64_t count)
{
    // of a zeroed block: [count] values, magnitudes, errors of three numbers each
    struct moe_vector vector = {*memory, *memory + count, (cm_error_size *)(*memory + 2 * count)};
    *memory += 5 * count;
    return vector;
}

struct workspace {
    double *memory, *row, *magnitude; // magnitude: [H] of y
    double *flip_x, *flip_h;
    struct moe_vector x, v, gate, up, h, down;
    struct moe_vector x_codes, h_codes; // with act_quant: what W sees
    struct moe_input x_input;           // of the token in hand
};

static bool workspace_open(struct workspace *space, const struct moe_layer *layer)
{
    int64_t D = layer->shared.gate.weight ? layer->shared.width : 0, r = layer->r > 0 ? layer->r : 1;
    int64_t width = layer->routed.width > D ? layer->routed.width : D;
    int64_t longest = layer->H > width ? layer->H : width;
    longest = longest > r ? longest : r;
    double *memory =
        calloc((size_t)(5 * (3 * layer->H + r + 4 * width) + 2 * layer->H + width + longest), sizeof *memory);
    *space = (struct workspace){.memory = memory};
    if (!memory)
        return false;
    space->x = vector_at(&memory, layer->H);
    space->down = vector_at(&memory, layer->H);
    space->v = vector_at(&memory, r);
    space->gate = vector_at(&memory, width);
    space->up = vector_at(&memory, width);
    space->h = vector_at(&memory, width);
    space->x_codes = vector_at(&memory, layer->H);
    space->h_codes = vector_at(&memory, width);
    space->magnitude = memory;
    space->flip_x = memory + layer->H;
    space->flip_h = memory + 2 * layer->H;
    space->row = memory + 2 * layer->H + width;
    return true;
}

// What the rounding points of this call are.
struct contract {
    bool model;                // accuracy MODEL: intermediates are rounded to the dtype of x
    DLDataType dtype;          // of x
    bool products, v_products; // a product of weight and input, of adapter and input, does not fit fp32
    bool router_products;      // the same of the shared expert's router
};

static void round_point(const struct contract *contract, double value, cm_error_size *error)
{
    if (!contract->model)
        return;
    error->variance += cm_rounding_variance(contract->dtype, value);
    error->worst += cm_ulp(contract->dtype, value) / 2;
    if (cm_is_small(value))
        cm_error_add(error, CM_FP32_LEAST);
}

// Adds an error that is multiplied by `factor`.
static void add_error(cm_error_size *to, double factor, cm_error_size error)
{
    to->variance += factor * factor * error.variance;
    to->order += factor * factor * error.order;
    to->worst += fabs(factor) * error.worst;
}

// sum of row * in, with the errors of `in`. Both have n elements.
static cm_sum dot(const double *row, const struct moe_vector *in, int64_t n)
{
    cm_sum sum = {0};
    for (int64_t i = 0; i < n; i++) {
        cm_sum_product(&sum, row[i], in->value[i]);
        add_error(&sum.inherited, row[i], in->error[i]);
    }
    return sum;
}

// Adds the error of weights that are rounded after their scale was multiplied in.
static void add_dequantisation(const struct contract *contract, const double *row,
                               const struct moe_vector *in, int64_t n, cm_sum *sum)
{
    for (int64_t i = 0; i < n; i++) {
        double x = in->value[i], product = row[i] * x;
        sum->inherited.variance += CM_FP32_VARIANCE * product * product;
        sum->inherited.worst += CM_FP32_UNIT * fabs(product);
        if (contract->model) {
            sum->inherited.variance += x * x * cm_rounding_variance(contract->dtype, row[i]);
            sum->inherited.worst += fabs(x) * cm_ulp(contract->dtype, row[i]) / 2;
        }
    }
}

// Adds what a row shares: the error of its scale, and half a step of the code that matters most.
static void add_scale(const struct moe_input *in, const double *row, int64_t n, cm_sum *sum)
{
    double most = 0;
    for (int64_t i = 0; i < n; i++)
        most = fmax(most, fabs(row[i]) * in->flip[i]);
    sum->inherited.variance += most * most;
    add_error(&sum->inherited, sum->value, in->scale);
}

// out[n_out] = W in[n_in] + bias + s B (A in), with errors.
static void project(const struct moe_layer *layer, const struct moe_projection *p, int64_t expert,
                    int64_t adapter, int64_t rank, double s, const struct contract *contract,
                    struct workspace *space, const struct moe_input *in, int64_t n_in, struct moe_vector *out,
                    int64_t n_out)
{
    struct moe_vector *v = &space->v;
    if (!p->a)
        rank = 0;
    for (int64_t j = 0; j < rank; j++) {
        moe_row(p->a, adapter, expert, j, space->row);
        cm_sum sum = dot(space->row, in->plain, n_in);
        v->value[j] = sum.value;
        v->magnitude[j] = sum.magnitude;
        v->error[j] = cm_sum_error(&sum, contract->v_products);
        round_point(contract, sum.value, &v->error[j]);
    }
    for (int64_t o = 0; o < n_out; o++) {
        moe_weight_row(layer, p, expert, o, space->row);
        cm_sum base = dot(space->row, in->base, n_in);
        if (p->scale)
            add_dequantisation(contract, space->row, in->base, n_in, &base);
        if (in->flip)
            add_scale(in, space->row, n_in, &base);
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
            if (cm_is_small(delta) || cm_is_small(value))
                cm_error_add(&error, 2 * CM_FP32_LEAST);
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
// At the end of fp32's range, g < -87.3, exp(-g) overflows or its argument is clamped, and sigma, which is
// below CM_FP32_LEAST, becomes 0 or up to CM_FP32_LEAST. That times |g| |u| is the error of h; and silu and h
// may be flushed themselves: CM_FP32_LEAST (|u| (|g| + 1) + 1).
static void activate(const struct moe_vector *gate, const struct moe_vector *up, struct moe_vector *h,
                     int64_t width)
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
        if (g * u != 0 &&
            (sigma < CM_FP32_SMALL || fabs(silu) < CM_FP32_SMALL || fabs(value) < CM_FP32_SMALL))
            cm_error_add(&error, CM_FP32_LEAST * (fabs(u) * (fabs(g) + 1) + 1));
        h->value[i] = value;
        h->magnitude[i] = fabs(value);
        h->error[i] = error;
    }
}

// What down sees. Only W of an op that quantises sees h before it is rounded to the dtype of x.
static struct moe_input finish_h(const struct moe_layer *layer, const struct contract *contract,
                                 struct workspace *space, int64_t width)
{
    struct moe_input input = {.plain = &space->h, .base = &space->h};
    bool rounded = layer->act_quant && layer->from_model;
    if (rounded)
        moe_round(contract->dtype, &space->h, width);
    if (layer->act_quant)
        input = moe_quantise(&space->h, width, &space->h_codes, space->flip_h);
    for (int64_t i = 0; i < width && !rounded; i++)
        round_point(contract, space->h.value[i], &space->h.error[i]);
    return input;
}

static void ffn(const struct moe_layer *layer, const struct moe_ffn *ffn, int64_t expert, int64_t adapter,
                int64_t rank, double s, const uint64_t omit, const int lora_terms[3],
                const struct contract *contract, struct workspace *space)
{
    int64_t ranks[3], H = layer->H;
    for (int p = 0; p < 3; p++)
        ranks[p] = omit >> lora_terms[p] & 1 ? 0 : rank;
    struct moe_projection gate = ffn->gate, up = ffn->up, down = ffn->down;
    if (omit >> MOE_BIAS & 1)
        gate.bias = up.bias = down.bias = NULL;
    project(layer, &gate, expert, adapter, ranks[0], s, contract, space, &space->x_input, H, &space->gate,
            ffn->width);
    project(layer, &up, expert, adapter, ranks[1], s, contract, space, &space->x_input, H, &space->up,
            ffn->width);
    activate(&space->gate, &space->up, &space->h, ffn->width);
    struct moe_input h = finish_h(layer, contract, space, ffn->width);
    struct contract second = *contract; // h is rounded to fp32 at least, so its products are rounded too
    second.products = !contract->model || contract->products;
    second.v_products = !contract->model || contract->v_products;
    project(layer, &down, expert, adapter, ranks[2], s, &second, space, &h, ffn->width, &space->down, H);
}

// A factor with its own error.
struct weight {
    double value;
    cm_error_size error;
};

// Adds weight * down to the running sums of one token.
static void combine(cm_sum *y, double *magnitude, const struct moe_vector *down, struct weight weight,
                    int64_t H)
{
    for (int64_t o = 0; o < H; o++) {
        cm_sum_product(&y[o], weight.value, down->value[o]);
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
    add_error(&weight.error, w * (1 - w), cm_sum_error(&logit, contract->router_products));
    weight.error.variance += w * w * CM_FP32_VARIANCE * (4 * (1 - w) * (1 - w) + 2);
    weight.error.worst += 4 * CM_FP32_UNIT * w;
    if (w < CM_FP32_SMALL) // as in activate
        cm_error_add(&weight.error, CM_FP32_LEAST);
    return weight;
}

cm_status moe_forward_reference(const cm_call *call, uint64_t omit, cm_accuracy accuracy, cm_want *want)
{
    static const int routed_terms[3] = {MOE_LORA_GATE, MOE_LORA_UP, MOE_LORA_DOWN};
    static const int shared_terms[3] = {MOE_SHARED_LORA, MOE_SHARED_LORA, MOE_SHARED_LORA};
    struct moe_layer layer;
    cm_status status = moe_open(call, &layer);
    if (status != CM_OK)
        return status;
    int x_bits = cm_significand_bits(layer.hidden->dtype), a_bits = 0, router_bits = 0;
    int w_bits = layer.routed.gate.scale ? 24 : cm_significand_bits(layer.routed.gate.weight->dtype);
    const DLTensor *const adapters[] = {layer.routed.gate.a, layer.routed.up.a, layer.routed.down.a,
                                        layer.shared.gate.a, layer.shared.up.a, layer.shared.down.a};
    for (int n = 0; n < 6; n++)
        if (adapters[n])
            a_bits = cm_significand_bits(adapters[n]->dtype);
    if (layer.shared_router)
        router_bits = cm_significand_bits(layer.shared_router->dtype);
    struct contract contract = {
        .model = accuracy == CM_ACCURACY_MODEL,
        .dtype = layer.hidden->dtype,
        .products = layer.act_quant || x_bits + w_bits > 24,
        .v_products = x_bits + a_bits > 24,
        .router_products = x_bits + router_bits > 24,
    };
    int64_t H = layer.H;
    struct workspace space;
    cm_sum *y = malloc((size_t)(H + 1) * sizeof *y);
    if (!workspace_open(&space, &layer) || !y) {
        status = CM_NO_MEMORY;
        goto done;
    }
    int output_argument = 0; // the last one
    while (call->op->arguments[output_argument + 1].name)
        output_argument++;
    cm_want *output = &want[output_argument];
    for (int64_t t = 0; t < layer.T; t++) {
        int64_t adapter = moe_adapter(&layer, t), rank = moe_rank(&layer, adapter);
        double s = moe_scaling(&layer, adapter);
        double *magnitude = space.magnitude;
        cm_row(layer.hidden, &t, space.x.value);
        space.x_input = (struct moe_input){.plain = &space.x, .base = &space.x};
        if (layer.act_quant)
            space.x_input = moe_quantise(&space.x, H, &space.x_codes, space.flip_x);
        for (int64_t o = 0; o < H; o++) {
            y[o] = (cm_sum){0};
            magnitude[o] = 0;
        }
        if (layer.shared.gate.weight && !(omit >> MOE_SHARED & 1)) {
            ffn(&layer, &layer.shared, -1, adapter, rank, s, omit, shared_terms, &contract, &space);
            combine(y, magnitude, &space.down, shared_weight(&layer, &contract, &space), H);
        }
        for (int64_t j = 0; j < layer.k; j++) {
            int64_t expert = moe_expert(&layer, t, j);
            if (expert < 0)
                continue;
            ffn(&layer, &layer.routed, expert, adapter, rank, s, omit, routed_terms, &contract, &space);
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
