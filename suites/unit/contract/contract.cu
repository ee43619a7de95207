// SPDX-License-Identifier: Apache-2.0
// The contract as CUDA C++: the text that C compiles, unchanged.
#define CONTRACT(name) contract_cuda_##name
#include "suites/unit/contract/contract.h"
