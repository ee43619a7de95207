// SPDX-License-Identifier: Apache-2.0
// Which kernels compute which parts of a call: one on the device for the slots below num_gpu_experts, and one
// of the host for each partition of I of the others.
#ifndef CM_SPLIT_PLAN_H
#define CM_SPLIT_PLAN_H

#include "optimized/split/half.h"

struct cm_split_pair {
    const cm_side *side;           // of the device half
    const cm_kernel *gpu;          // a kernel of that device, or one of the host that stands in for it
    const cm_kernel *const *hosts; // the first that supports a partition is taken; ends with NULL
};

enum { CM_SPLIT_ROLES_ALL = ~0u, CM_SPLIT_MOST_PARTS = 64 };

struct cm_split {
    const struct cm_split_pair *pair;
    int64_t dims[CM_DIM_COUNT]; // of prepare; L and r of the last update
    int64_t gpu_experts, partitions;
    int32_t *map;                           // [E]: expert of a slot; NULL: the slot
    struct cm_cut placed[CM_MAX_ARGUMENTS]; // the host's slots, copied in the order of the map
    bool present[CM_MAX_ARGUMENTS];         // arguments that prepare and update saw
    bool updated;
    struct cm_split_half *gpu;                        // NULL: no expert is there
    struct cm_split_half *parts[CM_SPLIT_MOST_PARTS]; // of the host
    int part_count;
    pthread_mutex_t lock;
};

// What the attributes say; false: nonsense, see `reason`.
static bool cm_split_options(const cm_call *call, int64_t *gpu_experts, int64_t *partitions, char *reason,
                             size_t size)
{
    double experts = call->host->attribute(call, "num_gpu_experts");
    double parts = call->host->attribute(call, "cpu_partitions");
    int64_t E = call->host->dim(call, 'E');
    if (experts == -1) // unset
        experts = 0;
    if (!(experts >= 0 && experts <= (double)E) || experts != (double)(int64_t)experts) {
        snprintf(reason, size, "num_gpu_experts is %g; 0..%lld are possible, or -1 for unset, which is 0",
                 experts, (long long)E);
        return false;
    }
    if (!(parts >= 1 && parts <= CM_SPLIT_MOST_PARTS) || parts != (double)(int64_t)parts) {
        snprintf(reason, size, "cpu_partitions is %g; 1..%d are possible", parts, CM_SPLIT_MOST_PARTS);
        return false;
    }
    *gpu_experts = (int64_t)experts;
    *partitions = (int64_t)parts;
    return true;
}

static void cm_split_close(struct cm_split *split)
{
    if (!split)
        return;
    if (split->gpu)
        cm_half_close(split->gpu);
    free(split->gpu);
    for (int p = 0; p < split->part_count; p++) {
        cm_half_close(split->parts[p]);
        free(split->parts[p]);
    }
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++)
        cm_cut_close(&split->placed[n]);
    free(split->map);
    pthread_mutex_destroy(&split->lock);
    free(split);
}

static bool cm_split_leaves_out(const struct cm_split_half *half, const char *name)
{
    return !strcmp(name, "expert_map") || (!strncmp(name, "shared_", 7) && !half->shared) ||
           (!strcmp(name, "bias_down") && !half->lead);
}

// Without matrices of an adapter there are no adapters: the shared expert's may be all that there are.
static void cm_split_drop_ranks(struct cm_split_half *half)
{
    const cm_argument *arguments = half->call.op->arguments;
    for (int n = 0; arguments[n].name; n++)
        if (half->arguments[n] && strchr(arguments[n].shape, 'r'))
            return;
    half->arguments[cm_half_index(&half->call, "token_adapter")] = NULL;
    half->arguments[cm_half_index(&half->call, "lora_rank")] = NULL;
    half->arguments[cm_half_index(&half->call, "lora_scaling")] = NULL;
}

// The half's view of the call: arguments of some roles (bits) as parts of the caller's or of what was placed.
static void cm_split_view(const struct cm_split *split, struct cm_split_half *half, const cm_call *outer,
                          unsigned roles)
{
    static const cm_host services = {.abi_version = CM_ABI_VERSION,
                                     .argument = cm_half_argument,
                                     .attribute = cm_half_attribute,
                                     .dim = cm_half_dim,
                                     .fail = cm_half_fail,
                                     .validate = cm_half_validate,
                                     .scratch = cm_half_scratch,
                                     .enter_device = cm_half_enter,
                                     .leave_device = cm_half_leave,
                                     .path = cm_half_path};
    half->outer = outer;
    half->call = (cm_call){.size = sizeof(cm_call),
                           .op = outer->op,
                           .host = &services,
                           .arguments = half->arguments,
                           .attributes = half->attributes,
                           .dims = half->dims,
                           .device = half->side ? kDLCUDA : kDLCPU,
                           .stream = outer->stream,
                           .threads = outer->threads};
    for (int n = 0; outer->op->attributes[n].name; n++)
        half->attributes[n] = outer->attributes[n];
    for (int d = 0; d < CM_DIM_COUNT; d++)
        half->dims[d] = outer->dims[d];
    half->dims[strchr(CM_DIM_LETTERS, 'E') - CM_DIM_LETTERS] = half->part.experts;
    half->dims[strchr(CM_DIM_LETTERS, 'I') - CM_DIM_LETTERS] = half->part.width;
    for (int n = 0; outer->op->arguments[n].name; n++) {
        const cm_argument *argument = &outer->op->arguments[n];
        const DLTensor *from = outer->arguments[n];
        struct cm_part part = half->part;
        if (!(roles & 1u << argument->role))
            continue;
        half->arguments[n] = NULL;
        if (!from || cm_split_leaves_out(half, argument->name))
            continue;
        if (!half->side && split->placed[n].memory) {
            from = &split->placed[n].tensor;
            part.first = 0;
        }
        cm_cut_view(&half->cuts[n], from, argument->shape, &part);
        half->cuts[n].tensor.device.device_type = half->call.device;
        half->arguments[n] = &half->cuts[n].tensor;
        if (argument->role == CM_OUTPUT)
            half->cuts[n].tensor.dtype = (DLDataType){kDLFloat, 32, 1};
    }
    cm_split_drop_ranks(half);
}

static struct cm_split_half *cm_split_half_open(struct cm_split *split, const cm_call *call,
                                                const struct cm_part *part, bool on_gpu, bool lead,
                                                char *reason, size_t size)
{
    struct cm_split_half *half = calloc(1, sizeof *half);
    const cm_kernel *only[] = {split->pair->gpu, NULL};
    if (!half) {
        snprintf(reason, size, "no memory for the state");
        return NULL;
    }
    half->part = *part;
    half->lead = lead;
    half->shared = on_gpu || (lead && split->gpu_experts == 0);
    half->side = on_gpu ? split->pair->side : NULL;
    half->lock = &split->lock;
    cm_split_view(split, half, call, CM_SPLIT_ROLES_ALL);
    // Views of slices have their element's alignment, and an emulated processor is no help.
    for (const cm_kernel *const *kernel = on_gpu ? only : split->pair->hosts; *kernel; kernel++)
        if (!half->kernel &&
            (on_gpu || ((*kernel)->alignment == 0 && !((*kernel)->emulated && (*kernel)->emulated()))) &&
            (!(*kernel)->supports || (*kernel)->supports(&half->call, reason, size)))
            half->kernel = *kernel;
    if (!half->kernel) {
        free(half);
        return NULL;
    }
    return half;
}

// The halves of a call, without values. NULL: see `reason`.
static struct cm_split *cm_split_open(const struct cm_split_pair *pair, const cm_call *call, char *reason,
                                      size_t size)
{
    struct cm_split *split = calloc(1, sizeof *split);
    int64_t E = call->host->dim(call, 'E'), I = call->host->dim(call, 'I');
    int64_t group = call->host->dim(call, 'G');
    if (!split || pthread_mutex_init(&split->lock, NULL)) {
        free(split);
        snprintf(reason, size, "no memory for the state");
        return NULL;
    }
    split->pair = pair;
    memcpy(split->dims, call->dims, sizeof split->dims);
    bool fits = cm_split_options(call, &split->gpu_experts, &split->partitions, reason, size);
    if (fits && split->partitions > 1 && call->host->attribute(call, "act_quant") != 0) {
        snprintf(reason, size, "act_quant needs whole rows of h: one partition");
        fits = false;
    }
    fits = fits && (!pair->side->available || pair->side->available(reason, size));
    if (fits && split->gpu_experts > 0) {
        struct cm_part part = {0, split->gpu_experts, 0, I, group};
        split->gpu = cm_split_half_open(split, call, &part, true, true, reason, size);
        fits = split->gpu != NULL;
    }
    // Borders of partitions are borders of groups, and of bytes.
    int64_t unit = group > 0 ? group : 1, experts = E - split->gpu_experts;
    unit *= call->host->argument(call, "w_gate")->dtype.bits < 8 && unit % 2 ? 2 : 1;
    int64_t units = (I + unit - 1) / unit;
    for (int64_t p = 0; fits && experts > 0 && p < split->partitions; p++) {
        int64_t begin = units * p / split->partitions * unit,
                end = units * (p + 1) / split->partitions * unit;
        end = end > I ? I : end;
        struct cm_part part = {split->gpu_experts, experts, begin, end - begin, group};
        if (begin == end)
            continue;
        split->parts[split->part_count] =
            cm_split_half_open(split, call, &part, false, split->part_count == 0, reason, size);
        fits = split->parts[split->part_count] != NULL;
        split->part_count += fits;
    }
    if (fits)
        return split;
    cm_split_close(split);
    return NULL;
}

static bool cm_split_supports(const struct cm_split_pair *pair, const cm_call *call, char *reason,
                              size_t size)
{
    struct cm_split *split = cm_split_open(pair, call, reason, size);
    cm_split_close(split);
    return split != NULL;
}

static cm_status cm_split_check(const struct cm_split_pair *pair, const cm_call *call,
                                struct cm_split **split)
{
    char reason[200] = "";
    int64_t experts, partitions;
    cm_status status = call->host->validate(call);
    if (status != CM_OK)
        return status;
    if (!cm_split_options(call, &experts, &partitions, reason, sizeof reason))
        return call->host->fail(call, CM_BAD_VALUE, "%s", reason);
    *split = cm_split_open(pair, call, reason, sizeof reason);
    return *split ? CM_OK : call->host->fail(call, CM_UNSUPPORTED, "%s", reason);
}

#endif
