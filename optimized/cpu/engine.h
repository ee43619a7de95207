// SPDX-License-Identifier: Apache-2.0
// moe_forward for CPUs: weights and adapters packed once, slots sorted by expert and adapter, column panels
// of all active experts divided among threads. A target brings its products (products.h) and says in its
// `supports` whether they run here; the rest of a kernel is four calls of this.
//
// Limits: activations and adapters bf16; weights bf16, int8 or int4 with a scale per row or per group; silu;
// weights on the output. The output is any float.
// Error: with rows of bf16, v = A x and h are rounded to bf16. With quantised rows nothing is, since it would
// move codes of h: LoRA's products of v and h are those of fp32. Products of integers are exact, all else is
// fp32. bf16 denormals count as zero.
// A token's result depends neither on the other tokens nor on the number of threads.
#ifndef CM_CPU_ENGINE_H
#define CM_CPU_ENGINE_H

#include "optimized/cpu/products.h"
#include "optimized/view.h"

// `quantised`: what the kernel demands of act_quant. The two differ in accuracy: MODEL and SINGLE.
bool cm_engine_supports(const cm_call *call, bool quantised, char *reason, size_t size);
// As in cm_kernel; all of them validate first, and refuse what the kernel's `supports` refuses.
typedef bool cm_engine_supported(const cm_call *call, char *reason, size_t size);
cm_status cm_engine_prepare(const cm_call *call, cm_engine_supported *supports, void **state);
cm_status cm_engine_update(const cm_call *call, cm_engine_supported *supports, void *state);
cm_status cm_engine_run(const cm_call *call, cm_engine_supported *supports,
                        const struct cm_products *products, const void *state);
void cm_engine_release(void *state);

#endif
