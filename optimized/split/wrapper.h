// SPDX-License-Identifier: Apache-2.0
// A layer of which slots below num_gpu_experts are computed by a kernel on a device, the others by a kernel
// of the host, in partitions of I. Both are any kernels of moe_forward; they return fp32, and the sum is made
// here, on the host, where all arguments lie: device half first, then the partitions, rounded once.
//   weights    the device has a copy of its slots; the host's are views, or copies where a map places them
//   topk_ids   each side has a copy in which slots of the other are -1; the caller's are only read
//   LoRA       is cut and placed as its weights are
//   shared     the shared expert goes with the device half if there is one, else with the first partition
// Limits: act_quant needs whole rows of h, one partition. Memory on the device: its slots and their LoRA,
// and inputs and the output of a call.
#ifndef CM_SPLIT_WRAPPER_H
#define CM_SPLIT_WRAPPER_H

#include "optimized/cuda/simt/beside.h"
#include "optimized/split/cores.h"
#include "optimized/split/plan.h"

// Puts what one side needs of a role where it needs it: on the device, or into the order of the map.
static cm_status cm_split_place(struct cm_split *split, const cm_call *call, cm_role role)
{
    struct cm_split_half *gpu = split->gpu;
    int64_t E = call->host->dim(call, 'E'), I = call->host->dim(call, 'I');
    struct cm_part host = {split->gpu_experts, E - split->gpu_experts, 0, I, call->host->dim(call, 'G')};
    cm_status status = CM_OK;
    for (int n = 0; call->op->arguments[n].name && status == CM_OK; n++) {
        const cm_argument *argument = &call->op->arguments[n];
        const DLTensor *from = call->arguments[n];
        if (argument->role != role)
            continue;
        split->present[n] = from != NULL;
        cm_cut_close(&split->placed[n]);
        if (from && split->map && split->part_count > 0 && strchr(argument->shape, 'E') &&
            strcmp(argument->name, "expert_map") != 0 &&
            !cm_cut_copy(&split->placed[n], from, argument->shape, &host, split->map))
            return call->host->fail(call, CM_NO_MEMORY, "no memory to place %s", argument->name);
        if (!gpu || !gpu->arguments[n])
            continue;
        struct cm_cut *cut = &gpu->cuts[n];
        const DLTensor own_ids = cut->tensor; // topk_ids are masked already
        if (!cm_cut_copy(cut, argument->index_into == 'E' ? &own_ids : from, argument->shape, &gpu->part,
                         split->map))
            return call->host->fail(call, CM_NO_MEMORY, "no memory to send %s", argument->name);
        void *memory = cut->memory;
        cut->tensor.device.device_type = kDLCUDA;
        status = cm_half_send(gpu, n, cut->bytes, true);
        free(memory);
        cut->memory = NULL;
    }
    return status;
}

// Argument `name` is the compact array `data` of the host.
static void cm_split_lay(struct cm_split_half *half, const char *name, void *data)
{
    struct cm_cut *cut = &half->cuts[cm_half_index(&half->call, name)];
    cm_cut_pack(cut, cut->strides);
    cut->tensor.data = data;
}

// A copy of topk_ids in which slots outside first..first+experts are -1, and the others count from `first`.
static int32_t *cm_split_mask(const cm_call *call, int64_t first, int64_t experts)
{
    const DLTensor *ids = call->host->argument(call, "topk_ids");
    int64_t T = call->host->dim(call, 'T'), k = call->host->dim(call, 'k');
    int32_t *masked = call->host->scratch(call, (size_t)(T * k) * sizeof *masked, sizeof *masked);
    for (int64_t n = 0; masked && n < T * k; n++) {
        int64_t id = cm_load_int(ids, n / k, n % k);
        bool mine = id >= first && id < first + experts;
        masked[n] = mine ? (int32_t)(id - first) : -1;
    }
    return masked;
}

// Makes the halves' calls of the caller's, taking values of some roles (bits) anew.
static cm_status cm_split_begin(struct cm_split *split, const cm_call *call, unsigned roles)
{
    static const cm_role order[] = {CM_INPUT, CM_WEIGHT, CM_ADAPTER};
    int64_t rest = call->host->dim(call, 'E') - split->gpu_experts;
    size_t result = (size_t)(call->host->dim(call, 'T') * call->host->dim(call, 'H')) * sizeof(float);
    struct cm_split_half *gpu = split->gpu;
    int32_t *gpu_ids = cm_split_mask(call, 0, split->gpu_experts);
    int32_t *host_ids = cm_split_mask(call, split->gpu_experts, rest);
    cm_status status = CM_OK;
    if (!gpu_ids || !host_ids)
        return call->host->fail(call, CM_NO_MEMORY, "no scratch memory");
    if (gpu) {
        cm_split_view(split, gpu, call, roles | 1u << CM_OUTPUT);
        cm_split_lay(gpu, "topk_ids", gpu_ids);
        cm_split_lay(gpu, "output", NULL);
        status = cm_half_send(gpu, cm_half_index(call, "output"), result, false);
    }
    for (size_t n = 0; n < sizeof order / sizeof *order && status == CM_OK; n++)
        if (roles & 1u << order[n])
            status = cm_split_place(split, call, order[n]);
    for (int p = 0; p < split->part_count && status == CM_OK; p++) {
        void *partial = call->host->scratch(call, result, sizeof(float));
        if (!partial)
            return call->host->fail(call, CM_NO_MEMORY, "no scratch memory");
        cm_split_view(split, split->parts[p], call, CM_SPLIT_ROLES_ALL);
        cm_split_lay(split->parts[p], "topk_ids", host_ids);
        cm_split_lay(split->parts[p], "output", partial);
    }
    return status;
}

enum { CM_SPLIT_HOST, CM_SPLIT_DEVICE, CM_SPLIT_BOTH };
static const cm_path cm_split_paths[] = {{"host", "no expert is on the device"},
                                         {"device", "all experts are on the device"},
                                         {"both", "the results of device and host are summed"},
                                         {0}};

enum cm_split_function { CM_SPLIT_PREPARE, CM_SPLIT_UPDATE, CM_SPLIT_RUN };

static cm_status cm_split_perform(struct cm_split_half *half, enum cm_split_function function)
{
    const cm_kernel *kernel = half->kernel;
    bool stands_in = half->side && kernel->device <= kDLCPU; // runs where the device's memory can be touched
    cm_status status = CM_OK;
    if (stands_in) {
        cm_half_enter(&half->call);
        cm_simt_open();
    }
    if (function == CM_SPLIT_PREPARE && kernel->prepare)
        status = kernel->prepare(&half->call, &half->state);
    else if (function == CM_SPLIT_UPDATE && kernel->update)
        status = kernel->update(&half->call, half->state);
    else if (function == CM_SPLIT_RUN)
        status = kernel->run(&half->call, half->state);
    if (stands_in) {
        cm_simt_close();
        cm_half_leave(&half->call);
    }
    return status;
}

// Waits for what the device half began.
static cm_status cm_split_finish(struct cm_split_half *gpu, cm_status status)
{
    char reason[200] = "";
    cm_status waited = CM_OK;
    if (gpu->side->synchronize)
        waited = gpu->side->synchronize(reason, sizeof reason);
    cm_half_drop_scratch(gpu);
    if (status == CM_OK && waited != CM_OK)
        status = gpu->outer->host->fail(gpu->outer, waited, "device half: %s", reason);
    return status;
}

static cm_status cm_split_perform_all(struct cm_split *split, enum cm_split_function function)
{
    cm_status status = CM_OK;
    if (split->gpu)
        status = cm_split_finish(split->gpu, cm_split_perform(split->gpu, function));
    for (int p = 0; p < split->part_count && status == CM_OK; p++)
        status = cm_split_perform(split->parts[p], function);
    return status;
}

static cm_status cm_split_prepare(const struct cm_split_pair *pair, const cm_call *call, void **state)
{
    const DLTensor *map = call->host->argument(call, "expert_map");
    struct cm_split *split = NULL;
    *state = NULL;
    cm_status status = cm_split_check(pair, call, &split);
    if (status != CM_OK)
        return status;
    if (map) {
        int64_t E = call->host->dim(call, 'E');
        split->map = malloc((size_t)E * sizeof *split->map);
        for (int64_t p = 0; split->map && p < E; p++)
            split->map[p] = cm_load_int(map, 0, p);
        if (!split->map)
            status = call->host->fail(call, CM_NO_MEMORY, "no memory for the map");
    }
    if (status == CM_OK)
        status = cm_split_begin(split, call, 1u << CM_INPUT | 1u << CM_WEIGHT | 1u << CM_ADAPTER);
    if (status == CM_OK)
        status = cm_split_perform_all(split, CM_SPLIT_PREPARE);
    if (status != CM_OK)
        cm_split_close(split);
    else
        *state = split;
    return status;
}

// A call of what prepare and, with `adapters`, update saw.
static cm_status cm_split_resume(const cm_call *call, const struct cm_split *split, bool adapters)
{
    static const char letters[] = "EHIDGLr"; // the last two are of adapters
    char reason[200];
    int64_t experts, partitions;
    cm_status status = call->host->validate(call);
    if (status != CM_OK)
        return status;
    if (!split)
        return call->host->fail(call, CM_BAD_STATE, "prepare was not called");
    if (!cm_split_options(call, &experts, &partitions, reason, sizeof reason))
        return call->host->fail(call, CM_BAD_VALUE, "%s", reason);
    bool same = experts == split->gpu_experts && partitions == split->partitions;
    for (const char *letter = letters; *letter && (adapters || *letter != 'L'); letter++) {
        int d = (int)(strchr(CM_DIM_LETTERS, *letter) - CM_DIM_LETTERS);
        same = same && call->dims[d] == split->dims[d];
    }
    for (int n = 0; call->op->arguments[n].name; n++) {
        cm_role role = call->op->arguments[n].role;
        if (role == CM_WEIGHT || (role == CM_ADAPTER && adapters))
            same = same && (call->arguments[n] != NULL) == split->present[n];
    }
    if (!same)
        return call->host->fail(call, CM_BAD_STATE, "prepare or update saw another layer");
    if (adapters && !split->updated)
        return call->host->fail(call, CM_BAD_STATE, "update was not called");
    return CM_OK;
}

static cm_status cm_split_update(const cm_call *call, void *state)
{
    struct cm_split *split = state;
    cm_status status = cm_split_resume(call, split, false);
    if (status != CM_OK)
        return status;
    split->updated = false;
    memcpy(split->dims, call->dims, sizeof split->dims);
    status = cm_split_begin(split, call, 1u << CM_INPUT | 1u << CM_ADAPTER);
    if (status == CM_OK)
        status = cm_split_perform_all(split, CM_SPLIT_UPDATE);
    split->updated = status == CM_OK;
    return status;
}

// Threads that partitions may share: the caller's limit, or one on each core.
static int cm_split_threads(const cm_call *call)
{
    return call->threads > 0 ? call->threads : cm_physical_cores();
}

// One of several that share the partitions.
struct cm_split_worker {
    struct cm_split *split;
    int number, workers, threads; // threads: of each partition, at least 1
    pthread_t thread;
    bool started;
};

static void *cm_split_work(void *self)
{
    const struct cm_split_worker *worker = self;
    for (int p = worker->number; p < worker->split->part_count; p += worker->workers) {
        struct cm_split_half *part = worker->split->parts[p];
        part->call.threads = worker->threads;
        part->status = cm_split_perform(part, CM_SPLIT_RUN);
    }
    return NULL;
}

static cm_status cm_split_run_host(struct cm_split *split, int threads)
{
    struct cm_split_worker team[CM_SPLIT_MOST_PARTS];
    int workers = threads < split->part_count ? threads : split->part_count;
    cm_status status = CM_OK;
    for (int w = workers - 1; w >= 0; w--) { // the first is this thread
        team[w] = (struct cm_split_worker){.split = split,
                                           .number = w,
                                           .workers = workers,
                                           .threads = threads / workers + (w < threads % workers)};
        team[w].started = w > 0 && !pthread_create(&team[w].thread, NULL, cm_split_work, &team[w]);
        if (!team[w].started)
            cm_split_work(&team[w]);
    }
    for (int w = 1; w < workers; w++)
        if (team[w].started)
            pthread_join(team[w].thread, NULL);
    for (int p = 0; p < split->part_count && status == CM_OK; p++)
        status = split->parts[p]->status;
    return status;
}

// output = device half + partitions in their order, all in host memory, rounded once.
static void cm_split_meet(const struct cm_split *split, const cm_call *call, const float *from_gpu)
{
    const DLTensor *output = call->host->argument(call, "output");
    int64_t T = call->host->dim(call, 'T'), H = call->host->dim(call, 'H');
    int n = cm_half_index(call, "output");
    for (int64_t t = 0; t < T; t++)
        for (int64_t o = 0; o < H; o++) {
            float sum = from_gpu ? from_gpu[t * H + o] : 0;
            for (int p = 0; p < split->part_count; p++)
                sum += ((const float *)split->parts[p]->cuts[n].tensor.data)[t * H + o];
            cm_store_float(output, (char *)cm_row_at(output, 0, 0, t), o, sum);
        }
}

static cm_status cm_split_run(const cm_call *call, void *state)
{
    struct cm_split *split = state;
    cm_status status = cm_split_resume(call, split, true), begun = CM_OK;
    if (status == CM_OK)
        status = cm_split_begin(split, call, 1u << CM_INPUT);
    if (status != CM_OK)
        return status;
    struct cm_split_half *gpu = split->gpu;
    call->host->path(call, !gpu ? CM_SPLIT_HOST : split->part_count > 0 ? CM_SPLIT_BOTH : CM_SPLIT_DEVICE);
    size_t result = (size_t)(call->host->dim(call, 'T') * call->host->dim(call, 'H')) * sizeof(float);
    float *from_gpu = gpu ? call->host->scratch(call, result, sizeof(float)) : NULL;
    char reason[200] = "";
    if (gpu && !from_gpu)
        return call->host->fail(call, CM_NO_MEMORY, "no scratch memory");
    if (gpu)
        begun = cm_split_perform(gpu, CM_SPLIT_RUN); // a real device works while the host does
    if (begun == CM_OK)
        status = cm_split_run_host(split, cm_split_threads(call));
    if (gpu)
        status = cm_split_finish(gpu, begun != CM_OK ? begun : status);
    if (gpu && status == CM_OK) {
        int n = cm_half_index(call, "output");
        status = gpu->side->copy_out(from_gpu, gpu->remote[n], result, reason, sizeof reason);
        if (status != CM_OK)
            call->host->fail(call, status, "the device half's result: %s", reason);
    }
    if (status == CM_OK)
        cm_split_meet(split, call, from_gpu);
    return status;
}

static void cm_split_release(void *state)
{
    cm_split_close(state);
}

#endif
