// SPDX-License-Identifier: Apache-2.0
// The contract as C++17. The header itself is held to -pedantic; the descriptor's designators are an
// extension before C++20.
#include "harness/checkmoe.h"

#pragma GCC diagnostic ignored "-Wpedantic"         // clang
#pragma GCC diagnostic ignored "-Wc++20-extensions" // gcc
#define CONTRACT(name) contract_cpp_##name
#include "suites/unit/contract/contract.h"
