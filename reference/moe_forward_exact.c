// SPDX-License-Identifier: Apache-2.0
// Proof that a case of moe_forward is exact: for each sum (A x, W x + s B v, the combine), base and LoRA
// terms together, sum |terms| is at most 2^bits of their lowest common bit. Then every partial sum in every
// order, and every rounding point down to `bits` (the significand of x's dtype, of y's for the combine), is
// exact. With act_quant the
// largest value of each quantised row is 127 times a power of two: its scale, every x over it, and which code
// that is, are exact, too.
#include "reference/moe_forward.h"

#include <math.h>
#include <stdlib.h>

struct proof {
    const struct moe_layer *layer;
    const cm_call *call;
    int bits;
    int64_t t, expert;
    double *row, *v, *x, *gate, *up, *down, *codes; // of the longest dimension each
};

static cm_status inexact(const struct proof *proof, const char *sum, int64_t row)
{
    return proof->call->host->fail(
        proof->call, CM_BAD_VALUE, "not exact in %d bits: %s, row %lld of token %lld, expert %lld",
        proof->bits, sum, (long long)row, (long long)proof->t, (long long)proof->expert);
}

// What W sees of a row.
static cm_status quantise(struct proof *proof, const char *name, const double *in, int64_t n)
{
    double amax = 0;
    int exponent;
    for (int64_t i = 0; i < n; i++)
        amax = fmax(amax, fabs(in[i]));
    if (amax != 0 && frexp(amax, &exponent) != 127.0 / 128)
        return inexact(proof, name, 0);
    for (int64_t i = 0; i < n; i++)
        proof->codes[i] = amax == 0 ? 0 : nearbyint(127 * in[i] / amax) * (amax / 127);
    return CM_OK;
}

static cm_status project(struct proof *proof, const struct moe_projection *p, const char *name,
                         int64_t adapter, const double *in, int64_t n_in, double *out, int64_t n_out)
{
    int64_t rank = p->a ? moe_rank(proof->layer, adapter) : 0;
    double s = moe_scaling(proof->layer, adapter);
    const double *seen = proof->layer->act_quant ? proof->codes : in; // by W
    for (int64_t j = 0; j < rank; j++) {
        cm_exact sum = {0};
        proof->v[j] = 0;
        moe_row(p->a, adapter, proof->expert, j, proof->row);
        for (int64_t i = 0; i < n_in; i++) {
            cm_exact_add(&sum, proof->row[i] * in[i]);
            proof->v[j] += proof->row[i] * in[i];
        }
        if (!cm_exact_fits(&sum, proof->bits))
            return inexact(proof, "A x", j);
    }
    for (int64_t o = 0; o < n_out; o++) {
        cm_exact sum = {0};
        out[o] = 0;
        moe_weight_row(proof->layer, p, proof->expert, o, proof->row);
        for (int64_t i = 0; i < n_in; i++) {
            cm_exact_add(&sum, proof->row[i] * seen[i]);
            out[o] += proof->row[i] * seen[i];
        }
        if (p->bias) {
            cm_exact_add(&sum, cm_element2(p->bias, proof->expert, o));
            out[o] += cm_element2(p->bias, proof->expert, o);
        }
        if (rank > 0) {
            moe_row(p->b, adapter, proof->expert, o, proof->row);
            for (int64_t j = 0; j < rank; j++) {
                // s is a power of two: whether it multiplies v, B or the sum, the same bits are set.
                cm_exact_add(&sum, s * proof->row[j] * proof->v[j]);
                out[o] += s * proof->row[j] * proof->v[j];
            }
        }
        if (!cm_exact_fits(&sum, proof->bits))
            return inexact(proof, name, o);
    }
    return CM_OK;
}

// Adds weight * FFN(x) to the sums of one token.
static cm_status ffn(struct proof *proof, const struct moe_ffn *ffn, int64_t adapter, double weight,
                     cm_exact *y)
{
    cm_status status = CM_OK;
    if (proof->layer->act_quant)
        status = quantise(proof, "largest value of x", proof->x, proof->layer->H);
    if (status == CM_OK)
        status =
            project(proof, &ffn->gate, "gate", adapter, proof->x, proof->layer->H, proof->gate, ffn->width);
    if (status == CM_OK)
        status = project(proof, &ffn->up, "up", adapter, proof->x, proof->layer->H, proof->up, ffn->width);
    for (int64_t i = 0; status == CM_OK && i < ffn->width; i++) {
        if (proof->gate[i] != 0 && proof->gate[i] < 40) // exp(-40) < 2^-53: from there on silu(g) = g
            return inexact(proof, "silu of a gate that is neither 0 nor at least 40", i);
        cm_exact h = {0};
        cm_exact_add(&h, proof->gate[i] * proof->up[i]);
        if (!cm_exact_fits(&h, proof->bits))
            return inexact(proof, "h", i);
        proof->gate[i] *= proof->up[i];
    }
    if (status == CM_OK && proof->layer->act_quant)
        status = quantise(proof, "largest value of h", proof->gate, ffn->width);
    if (status == CM_OK)
        status = project(proof, &ffn->down, "down", adapter, proof->gate, ffn->width, proof->down,
                         proof->layer->H);
    for (int64_t o = 0; status == CM_OK && o < proof->layer->H; o++)
        cm_exact_add(&y[o], weight * proof->down[o]);
    return status;
}

// sigmoid of 0 is 1/2, of 40 and more 1 to the last bit.
static cm_status shared_weight(struct proof *proof, double *weight)
{
    cm_exact sum = {0};
    double logit = 0;
    *weight = 1;
    if (!proof->layer->shared_router)
        return CM_OK;
    cm_row(proof->layer->shared_router, (int64_t[]){0}, proof->row);
    for (int64_t i = 0; i < proof->layer->H; i++) {
        cm_exact_add(&sum, proof->row[i] * proof->x[i]);
        logit += proof->row[i] * proof->x[i];
    }
    if (!cm_exact_fits(&sum, proof->bits) || (logit != 0 && logit < 40))
        return inexact(proof, "router of the shared expert", 0);
    if (logit == 0)
        *weight = 0.5;
    return CM_OK;
}

cm_status moe_forward_exact(const cm_call *call)
{
    struct moe_layer layer;
    cm_status status = moe_open(call, &layer);
    if (status != CM_OK)
        return status;
    int64_t H = layer.H,
            width = layer.routed.width > layer.shared.width ? layer.routed.width : layer.shared.width;
    int64_t longest = H > width ? H : width;
    longest = longest > layer.r ? longest : layer.r;
    int x_bits = cm_significand_bits(layer.hidden->dtype);
    int output_bits = cm_significand_bits(cm_arg(call, "output")->dtype);
    double *memory = calloc((size_t)(7 * longest), sizeof *memory);
    cm_exact *y = calloc((size_t)H, sizeof *y);
    if (!memory || !y) {
        status = CM_NO_MEMORY;
        goto done;
    }
    struct proof proof = {.layer = &layer,
                          .call = call,
                          .bits = x_bits,
                          .row = memory,
                          .v = memory + longest,
                          .x = memory + 2 * longest,
                          .gate = memory + 3 * longest,
                          .up = memory + 4 * longest,
                          .down = memory + 5 * longest,
                          .codes = memory + 6 * longest};
    for (proof.t = 0; proof.t < layer.T && status == CM_OK; proof.t++) {
        int64_t adapter = moe_adapter(&layer, proof.t);
        proof.bits = x_bits;
        cm_row(layer.hidden, &proof.t, proof.x);
        for (int64_t o = 0; o < H; o++)
            y[o] = (cm_exact){0};
        proof.expert = -1;
        double weight = 1;
        if (layer.shared.gate.weight && (status = shared_weight(&proof, &weight)) == CM_OK)
            status = ffn(&proof, &layer.shared, adapter, weight, y);
        for (int64_t j = 0; j < layer.k && status == CM_OK; j++) {
            proof.expert = moe_expert(&layer, proof.t, j);
            if (proof.expert >= 0)
                status = ffn(&proof, &layer.routed, adapter, cm_element2(layer.weights, proof.t, j), y);
        }
        proof.bits = output_bits;
        for (int64_t o = 0; o < H && status == CM_OK; o++)
            if (!cm_exact_fits(&y[o], proof.bits))
                status = inexact(&proof, "output", o);
    }
done:
    free(memory);
    free(y);
    return status;
}
