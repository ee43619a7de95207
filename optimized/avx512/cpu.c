// SPDX-License-Identifier: Apache-2.0
// Whether the avx512 kernels can run here: built with the instructions, on a processor and a system that
// have them. Compiled for any processor, as it decides.
#include "optimized/avx512/lanes.h"
#include "optimized/avx512/multiply.h"

#include <stdio.h>

static bool cpu_has_instructions(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bf16");
#else
    return false;
#endif
}

bool cm_avx512_available(char *reason, size_t size)
{
    if (!cm_avx512_built) {
        snprintf(reason, size, "built without AVX512-BF16");
        return false;
    }
    if (!cpu_has_instructions()) {
        snprintf(reason, size, "this CPU has no AVX512-BF16");
        return false;
    }
    return true;
}

bool cm_avx512_moe_available(char *reason, size_t size)
{
    if (!cm_avx512_available(reason, size))
        return false;
    bool here = false;
#if defined(__x86_64__)
    here = cm_avx512_moe_built && __builtin_cpu_supports("avx512vnni");
#endif
    if (!here)
        snprintf(reason, size,
                 cm_avx512_moe_built ? "this CPU has no AVX512-VNNI" : "built without AVX512-VNNI");
    return here;
}
