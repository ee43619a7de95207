// SPDX-License-Identifier: Apache-2.0
// Two kernels that load well and are wrong: by_segment takes the scaling of the segment's number in place of
// its adapter's, and abort ends its process. f32 only.
#include <checkmoe.h>
#include <stdio.h>
#include <stdlib.h>

static const int32_t *whole(const cm_call *call, const char *name)
{
    return call->host->argument(call, name)->data;
}

static bool supports(const cm_call *call, char *reason, size_t size)
{
    static const char *const names[] = {"v", "lora_b", "y"};
    for (int n = 0; n < 3; n++)
        if (call->host->argument(call, names[n])->dtype.bits != 32) {
            snprintf(reason, size, "only f32 is implemented");
            return false;
        }
    return true;
}

static cm_status run_by_segment(const cm_call *call, void *state)
{
    (void)state;
    cm_status status = call->host->validate(call);
    if (status != CM_OK)
        return status;
    const DLTensor *v = call->host->argument(call, "v"), *b = call->host->argument(call, "lora_b");
    const DLTensor *y = call->host->argument(call, "y");
    const int32_t *offset = whole(call, "segment_offset"), *adapter = whole(call, "segment_adapter");
    const float *scaling = call->host->argument(call, "lora_scaling")->data;
    const int32_t *slices = whole(call, "slice_offset"), *rank = whole(call, "lora_rank");
    bool accumulate = call->host->attribute(call, "accumulate") != 0;
    int64_t L = call->host->dim(call, 'L');
    for (int64_t p = 0; p <= L; p++) {
        int32_t a = adapter[p], live = a < 0 ? 0 : rank[a];
        float s = p < L ? scaling[p] : 1; // scaling[a] is right
        for (int32_t i = offset[p]; i < offset[p + 1]; i++) {
            int64_t t = whole(call, "permutation")[i], slice = 0;
            for (int64_t n = 0; n < call->host->dim(call, 'N'); n++) {
                float *out = (float *)y->data + t * y->strides[0] + n, sum = 0;
                while (slice + 1 < call->host->dim(call, 'S') && n >= slices[slice + 1])
                    slice++;
                for (int32_t j = 0; j < live; j++)
                    sum += ((float *)b->data)[a * b->strides[0] + n * b->strides[1] + j] *
                           ((float *)v->data)[t * v->strides[0] + slice * v->strides[1] + j];
                *out = (accumulate ? *out : 0) + s * sum;
            }
        }
    }
    return CM_OK;
}

static cm_status run_abort(const cm_call *call, void *state)
{
    (void)call, (void)state;
    fprintf(stderr, "a stranger's assertion\n");
    abort();
}

#define KERNEL(target)                                                                                       \
    {                                                                                                        \
        .size = sizeof(cm_kernel), .name = "sgmv_expand/" #target, .file = __FILE__, .line = __LINE__,       \
        .accuracy = CM_ACCURACY_SINGLE, .supports = supports, .run = run_##target                            \
    }
static const cm_kernel by_segment = KERNEL(by_segment), aborting = KERNEL(abort);

const cm_kernel *const *checkmoe_plugin_1(uint32_t abi_version);
const cm_kernel *const *checkmoe_plugin_1(uint32_t abi_version)
{
    static const cm_kernel *const kernels[] = {&by_segment, &aborting, NULL};
    return abi_version == CM_ABI_VERSION ? kernels : NULL;
}
