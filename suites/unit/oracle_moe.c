// SPDX-License-Identifier: Apache-2.0
// The oracle's moe_forward: slots sorted by expert and adapter; W + s B A is one matrix, unless W sees
// quantised rows that A does not see.
#include "suites/unit/oracle_parts.h"

#include "harness/op.h"

#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#undef I // of complex.h: here it is the width of an expert

static double attribute(const cm_pristine *pristine, const char *name)
{
    for (int n = 0; pristine->test_case.op->attributes[n].name; n++)
        if (!strcmp(pristine->test_case.op->attributes[n].name, name))
            return pristine->test_case.attributes[n];
    cm_broken("no attribute %s", name);
}

static double rounded(cm_dtype dtype, double value)
{
    char storage[8];
    cm_store(storage, dtype, 0, value);
    return cm_load(storage, dtype, 0);
}

// W'[out,in] += s B[out,:rank] A[:rank,in]; B's rows are r apart.
static void merge(double *weight, int64_t out, int64_t in, const double *a, const double *b, int64_t rank,
                  int64_t r, double s)
{
    if (rank > 0)
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)out, (blasint)in, (blasint)rank, s, b,
                    (blasint)r, a, (blasint)in, 1, weight, (blasint)in);
}

struct layer {
    const cm_pristine *pristine;
    int64_t T, k, H, r;
    double *hidden, *rank, *scaling; // [T,H], [L], [L]
};

// Weight of the shared expert for a token: sigmoid of its router, or 1.
static double shared_weight(const struct layer *layer, int64_t t)
{
    const DLTensor *router = cm_oracle_argument(layer->pristine, "shared_router");
    if (!router)
        return 1;
    double *row = cm_oracle_load(router, 1, (int64_t[]){0});
    double logit = cblas_ddot((blasint)layer->H, row, 1, layer->hidden + t * layer->H, 1);
    free(row);
    return logit < 0 ? exp(logit) / (1 + exp(logit)) : 1 / (1 + exp(-logit));
}

// All slots that contribute, in the order of their groups.
static struct cm_oracle_slot *slots_of(const struct layer *layer, int64_t *count)
{
    const cm_pristine *pristine = layer->pristine;
    const DLTensor *assigned = cm_oracle_argument(pristine, "token_adapter");
    const DLTensor *map = cm_oracle_argument(pristine, "expert_map");
    struct cm_oracle_slot *slots = cm_new((size_t)(layer->T * (layer->k + 1)), sizeof *slots);
    *count = 0;
    for (int64_t t = 0; t < layer->T; t++) {
        int64_t adapter = assigned ? (int64_t)cm_tensor_get(assigned, t) : -1;
        if (cm_oracle_argument(pristine, "shared_gate"))
            slots[(*count)++] = (struct cm_oracle_slot){-1, adapter, t, shared_weight(layer, t)};
        for (int64_t n = t * layer->k; n < (t + 1) * layer->k; n++) {
            int64_t expert = (int64_t)cm_tensor_get(cm_oracle_argument(pristine, "topk_ids"), n);
            double weight = cm_tensor_get(cm_oracle_argument(pristine, "topk_weights"), n);
            if (expert >= 0 && map)
                expert = (int64_t)cm_tensor_get(map, expert);
            if (expert >= 0)
                slots[(*count)++] = (struct cm_oracle_slot){expert, adapter, t, weight};
        }
    }
    qsort(slots, (size_t)*count, sizeof *slots, cm_oracle_slot_order);
    return slots;
}

// A weight [out,in] of the group's expert: integers are multiplied by the scales of their row and group.
static double *load_weight(const struct layer *layer, const struct cm_oracle_slot *group, const char *name,
                           int64_t in, int64_t out)
{
    char scale_name[48];
    snprintf(scale_name, sizeof scale_name, "%s_scale", name);
    int leads = group->expert < 0 ? 0 : 1;
    double *weight = cm_oracle_load(cm_oracle_argument(layer->pristine, name), leads, &group->expert);
    const DLTensor *scales = cm_oracle_argument(layer->pristine, scale_name);
    if (!scales)
        return weight;
    int64_t groups = scales->shape[scales->ndim - 1], size = cm_oracle_dim(layer->pristine, 'G');
    double *scale = cm_oracle_load(scales, leads, &group->expert);
    for (int64_t n = 0; n < out * in; n++)
        weight[n] *= scale[n / in * groups + (size > 0 ? n % in / size : 0)];
    free(scale);
    return weight;
}

// What W sees of x[n,in]: with act_quant the multiple of amax/127 of the row that is nearest, ties to even.
static double *seen(const struct layer *layer, const double *x, int64_t n, int64_t in)
{
    double *rows = cm_new((size_t)(n * in), sizeof *rows);
    memcpy(rows, x, (size_t)(n * in) * sizeof *rows);
    for (int64_t row = 0; attribute(layer->pristine, "act_quant") != 0 && row < n; row++) {
        size_t place = in > 0 ? cblas_idamax((blasint)in, x + row * in, 1) : 0;
        double amax = in > 0 ? fabs(x[row * in + (int64_t)place]) : 0;
        for (int64_t i = row * in; i < (row + 1) * in && amax > 0; i++)
            rows[i] = rint(x[i] * 127 / amax) * amax / 127;
    }
    return rows;
}

// x[n,in] W^T + bias + s x A^T B^T, with A and B of the group's adapter; free with free(). Without act_quant
// W + s B A is one matrix.
static double *project(const struct layer *layer, const struct cm_oracle_slot *group, int64_t n,
                       const char *name, const double *x, int64_t in, int64_t out)
{
    bool merged = attribute(layer->pristine, "act_quant") == 0;
    char weight_name[32], bias_name[32], a_name[32], b_name[32];
    bool shared = group->expert < 0;
    snprintf(weight_name, sizeof weight_name, "%s%s", shared ? "shared_" : "w_", name);
    snprintf(bias_name, sizeof bias_name, "%s%s", shared ? "shared_bias_" : "bias_", name);
    snprintf(a_name, sizeof a_name, "%slora_a_%s", shared ? "shared_" : "", name);
    snprintf(b_name, sizeof b_name, "%slora_b_%s", shared ? "shared_" : "", name);
    const DLTensor *bias = cm_oracle_argument(layer->pristine, bias_name);
    const DLTensor *a = cm_oracle_argument(layer->pristine, a_name),
                   *b = cm_oracle_argument(layer->pristine, b_name);
    int64_t lead[] = {group->adapter, group->expert};
    double *weight = load_weight(layer, group, weight_name, in, out), *delta = weight;
    if (!merged)
        delta = cm_new((size_t)(out * in), sizeof *delta);
    if (a && b && group->adapter >= 0) {
        double *a_values = cm_oracle_load(a, shared ? 1 : 2, lead),
               *b_values = cm_oracle_load(b, shared ? 1 : 2, lead);
        merge(delta, out, in, a_values, b_values, (int64_t)layer->rank[group->adapter], layer->r,
              layer->scaling[group->adapter]);
        free(a_values);
        free(b_values);
    }
    double *y = cm_new((size_t)(n * out), sizeof *y);
    double *bias_values = bias ? cm_oracle_load(bias, shared ? 0 : 1, &group->expert) : NULL;
    for (int64_t row = 0; bias_values && row < n; row++)
        memcpy(y + row * out, bias_values, (size_t)out * sizeof *y);
    double *rows = seen(layer, x, n, in);
    cm_oracle_multiply_add(n, out, in, 1, rows, in, weight, in, y, out);
    if (!merged) {
        cm_oracle_multiply_add(n, out, in, 1, x, in, delta, in, y, out);
        free(delta);
    }
    free(rows);
    free(bias_values);
    free(weight);
    return y;
}

// Adds what n slots of one expert and adapter contribute to y[T,H].
static void add_group(const struct layer *layer, const struct cm_oracle_slot *group, int64_t n, double *y)
{
    int64_t H = layer->H, width = cm_oracle_dim(layer->pristine, group->expert < 0 ? 'D' : 'I');
    double *x = cm_new((size_t)(n * H), sizeof *x);
    for (int64_t row = 0; row < n; row++)
        memcpy(x + row * H, layer->hidden + group[row].token * H, (size_t)H * sizeof *x);
    double *gate = project(layer, group, n, "gate", x, H, width);
    double *up = project(layer, group, n, "up", x, H, width);
    for (int64_t i = 0; i < n * width; i++) {
        double g = gate[i], small = exp(-fabs(g)); // both branches lose no digit
        up[i] *= g < 0 ? g * small / (1 + small) : g / (1 + small);
        if (attribute(layer->pristine, "act_quant") != 0 &&
            attribute(layer->pristine, "act_quant_source") != 0)
            up[i] = rounded(layer->pristine->test_case.dtypes['x'], up[i]);
    }
    double *down = project(layer, group, n, "down", up, width, H);
    for (int64_t row = 0; row < n; row++)
        cblas_daxpy((blasint)H, group[row].weight, down + row * H, 1, y + group[row].token * H, 1);
    free(x);
    free(gate);
    free(up);
    free(down);
}

void cm_oracle_moe_forward(const cm_pristine *pristine, double *const outputs[])
{
    const DLTensor *rank = cm_oracle_argument(pristine, "lora_rank"),
                   *scaling = cm_oracle_argument(pristine, "lora_scaling");
    struct layer layer = {.pristine = pristine,
                          .T = cm_oracle_dim(pristine, 'T'),
                          .k = cm_oracle_dim(pristine, 'k'),
                          .H = cm_oracle_dim(pristine, 'H'),
                          .r = cm_oracle_dim(pristine, 'r'),
                          .hidden = cm_oracle_load(cm_oracle_argument(pristine, "hidden"), 0, NULL),
                          .rank = rank ? cm_oracle_load(rank, 0, NULL) : NULL,
                          .scaling = scaling ? cm_oracle_load(scaling, 0, NULL) : NULL};
    double *y = outputs[cm_op_argument_index(pristine->test_case.op, "output")];
    int64_t count;
    struct cm_oracle_slot *slots = slots_of(&layer, &count);
    memset(y, 0, (size_t)(layer.T * layer.H) * sizeof *y);
    for (int64_t begin = 0, end; begin < count; begin = end) {
        for (end = begin + 1; end < count && slots[end].expert == slots[begin].expert &&
                              slots[end].adapter == slots[begin].adapter;)
            end++;
        add_group(&layer, slots + begin, end - begin, y);
    }
    free(slots);
    free(layer.hidden);
    free(layer.rank);
    free(layer.scaling);
}
