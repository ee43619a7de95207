// SPDX-License-Identifier: Apache-2.0
// The contract as C11, and the comparison: every language must see the same layout and a usable descriptor.
#define CONTRACT(name) contract_c_##name
#include "suites/unit/contract/contract.h"

#include <stdio.h>
#include <string.h>

#define DECLARE(language)                                                                                    \
    extern const cm_kernel contract_##language##_kernel;                                                     \
    extern const size_t contract_##language##_layout[];                                                      \
    extern const size_t contract_##language##_layout_count;
DECLARE(cpp)
#ifdef CM_CUDA
DECLARE(cuda)
#endif

// Prints what differs from C; returns the number of differences.
static int compare(const char *language, const cm_kernel *kernel, const size_t *layout, size_t count)
{
    int differences = 0;
    if (count != contract_c_layout_count) {
        printf("%s: %zu entries, C has %zu\n", language, count, contract_c_layout_count);
        return 1;
    }
    for (size_t n = 0; n < count; n++)
        if (layout[n] != contract_c_layout[n]) {
            printf("%s: entry %zu of the layout is %zu, in C %zu\n", language, n, layout[n],
                   contract_c_layout[n]);
            differences++;
        }
    if (kernel->size != sizeof(cm_kernel) || strcmp(kernel->name, contract_c_kernel.name) != 0 ||
        kernel->alignment != contract_c_kernel.alignment || !kernel->nondeterministic ||
        kernel->trusts_caller || !kernel->supports(NULL, NULL, 0)) {
        printf("%s: the descriptor does not read back\n", language);
        differences++;
    }
    printf("%-4s cm_kernel %zu, cm_op %zu, cm_call %zu, cm_host %zu bytes; %zu entries, %d differ\n",
           language, kernel->size, sizeof(cm_op), sizeof(cm_call), sizeof(cm_host), count, differences);
    return differences;
}

int main(void)
{
    int differences = compare("C", &contract_c_kernel, contract_c_layout, contract_c_layout_count);
    differences += compare("C++", &contract_cpp_kernel, contract_cpp_layout, contract_cpp_layout_count);
#ifdef CM_CUDA
    differences += compare("CUDA", &contract_cuda_kernel, contract_cuda_layout, contract_cuda_layout_count);
#endif
    return differences != 0;
}
