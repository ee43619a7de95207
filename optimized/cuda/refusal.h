// SPDX-License-Identifier: Apache-2.0
// What a kernel finds wrong with values that only the device can read, as one word: the argument's number in
// the upper byte, the element (row-major) below. On the emulated device the launch returns it; on a GPU it
// lies in host memory that the device sees, and synchronize returns it. The kernel that says it sees to it
// that nothing is written.
#ifndef CM_CUDA_REFUSAL_H
#define CM_CUDA_REFUSAL_H

#include <stdint.h>
#include <stdio.h>

enum cm_refused { CM_REFUSED_NOTHING, CM_REFUSED_TOPK_IDS, CM_REFUSED_TOKEN_ADAPTER, CM_REFUSED_LORA_RANK };
enum { CM_REFUSED_SHIFT = 56 };

static inline void cm_refusal_print(uint64_t word, char *text, size_t size)
{
    static const char *const names[] = {"nothing", "topk_ids", "token_adapter", "lora_rank"};
    snprintf(text, size, "`%s`: element %lld is outside its range", names[word >> CM_REFUSED_SHIFT],
             (long long)(word & ((1ull << CM_REFUSED_SHIFT) - 1)));
}

#endif
