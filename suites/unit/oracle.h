// SPDX-License-Identifier: Apache-2.0
// A second implementation of every op, in double precision on OpenBLAS, to hold the references against. Slots
// are sorted by expert and adapter, LoRA is merged into the weights (W + s B A), and whole groups are
// multiplied at once. It shares no code with reference/.
#ifndef CM_UNIT_ORACLE_H
#define CM_UNIT_ORACLE_H

#include "harness/pristine.h"

// outputs[n] gets all elements of output argument n, row-major; other entries are not looked at.
cm_status cm_oracle(const cm_pristine *pristine, double *const outputs[]);

// NULL: the case does not have it, or the op does not.
const DLTensor *cm_oracle_argument(const cm_pristine *pristine, const char *name);

// Gives the case an argument that no generator makes (a bias, a gate of the shared expert): nearly normal
// values of s.d. about 0.8 * 2^gain. False: the op's dimensions leave no room for it.
bool cm_oracle_add_argument(cm_pristine *pristine, const char *name, int gain);

// For tests: opens a case with its values; fails the test when it can't.
void cm_oracle_open_case(const cm_op *op, const char *text, cm_pristine *pristine);
// The reference without some terms, in arrays that close_wants frees.
void cm_oracle_want(const cm_pristine *pristine, uint64_t omit, cm_accuracy accuracy,
                    cm_want wants[CM_MAX_ARGUMENTS]);
void cm_oracle_close_wants(cm_want wants[CM_MAX_ARGUMENTS]);
// All terms of an op that are an adapter's, as bits.
uint64_t cm_oracle_lora_terms(const cm_op *op);

// With AddressSanitizer everything is some ten times slower: tests take fewer cases.
#if defined(__SANITIZE_ADDRESS__)
#define CM_UNIT_SLOW 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CM_UNIT_SLOW 1
#endif
#endif
#ifndef CM_UNIT_SLOW
#define CM_UNIT_SLOW 0
#endif

#endif
