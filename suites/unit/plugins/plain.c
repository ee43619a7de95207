// SPDX-License-Identifier: Apache-2.0
// sgmv_expand/plain: plain C, one file, f32 and bf16, no state. What someone writes who has read the header
// and the op's table ("checkmoe list --ops").
#include <checkmoe.h>
#include <stdio.h>
#include <string.h>

static float load(const DLTensor *tensor, int64_t offset)
{
    const char *data = (const char *)tensor->data + tensor->byte_offset;
    float value;
    if (tensor->dtype.bits == 32) {
        memcpy(&value, data + 4 * offset, 4);
    } else {
        uint16_t half;
        memcpy(&half, data + 2 * offset, 2);
        uint32_t bits = (uint32_t)half << 16;
        memcpy(&value, &bits, 4);
    }
    return value;
}

static void store(const DLTensor *tensor, int64_t offset, float value)
{
    char *data = (char *)tensor->data + tensor->byte_offset;
    if (tensor->dtype.bits == 32) {
        memcpy(data + 4 * offset, &value, 4);
    } else {
        uint32_t bits;
        memcpy(&bits, &value, 4);
        uint16_t half = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16); // to nearest even
        memcpy(data + 2 * offset, &half, 2);
    }
}

static int32_t whole(const DLTensor *vector, int64_t n)
{
    const int32_t *data = (const int32_t *)((const char *)vector->data + vector->byte_offset);
    return data[n * vector->strides[0]];
}

static bool supports(const cm_call *call, char *reason, size_t size)
{
    static const char *const names[] = {"v", "lora_b", "y"};
    for (int n = 0; n < 3; n++) {
        DLDataType dtype = call->host->argument(call, names[n])->dtype;
        if (dtype.code == kDLFloat && dtype.bits == 16) {
            snprintf(reason, size, "%s is f16; only f32 and bf16 are implemented", names[n]);
            return false;
        }
    }
    return true;
}

static cm_status run(const cm_call *call, void *state)
{
    const cm_host *host = call->host;
    (void)state;
    cm_status status = host->validate(call);
    if (status != CM_OK)
        return status;
    const DLTensor *v = host->argument(call, "v"), *b = host->argument(call, "lora_b");
    const DLTensor *y = host->argument(call, "y"), *slices = host->argument(call, "slice_offset");
    const DLTensor *permutation = host->argument(call, "permutation");
    const DLTensor *offset = host->argument(call, "segment_offset");
    const DLTensor *segment_adapter = host->argument(call, "segment_adapter");
    const DLTensor *ranks = host->argument(call, "lora_rank"),
                   *scaling = host->argument(call, "lora_scaling");
    int64_t segments = host->dim(call, 'L') + 1, S = host->dim(call, 'S'), N = host->dim(call, 'N');
    bool accumulate = host->attribute(call, "accumulate") != 0;
    for (int64_t p = 0; p < segments; p++) {
        int32_t a = whole(segment_adapter, p), rank = a < 0 ? 0 : whole(ranks, a);
        if (rank == 0 && accumulate)
            continue; // y stays as it is
        for (int32_t i = whole(offset, p); i < whole(offset, p + 1); i++) {
            int64_t t = whole(permutation, i), s = 0;
            for (int64_t n = 0; n < N; n++) {
                float sum = 0;
                while (s + 1 < S && n >= whole(slices, s + 1))
                    s++;
                for (int32_t j = 0; j < rank; j++)
                    sum += load(b, a * b->strides[0] + n * b->strides[1] + j * b->strides[2]) *
                           load(v, t * v->strides[0] + s * v->strides[1] + j * v->strides[2]);
                float result = rank ? load(scaling, a * scaling->strides[0]) * sum : 0;
                int64_t at = t * y->strides[0] + n * y->strides[1];
                store(y, at, accumulate ? load(y, at) + result : result);
            }
        }
    }
    return CM_OK;
}

static const cm_kernel plain = {
    .size = sizeof(cm_kernel),
    .name = "sgmv_expand/plain",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .supports = supports,
    .run = run,
};

const cm_kernel *const *checkmoe_plugin_1(uint32_t abi_version);
const cm_kernel *const *checkmoe_plugin_1(uint32_t abi_version)
{
    static const cm_kernel *const kernels[] = {&plain, NULL};
    return abi_version == CM_ABI_VERSION ? kernels : NULL;
}
