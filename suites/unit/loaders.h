// SPDX-License-Identifier: Apache-2.0
// What the tests of the loaders share: a directory of their own, and what a refusal must look like.
#ifndef CM_UNIT_LOADERS_H
#define CM_UNIT_LOADERS_H

#include "harness/status.h"

#include <check.h>

Suite *cm_unit_loaders(void);

// A new directory becomes the working directory of each test, and is removed behind it.
void cm_unit_enter_directory(void);
void cm_unit_leave_directory(void);

// Asserts status, and a sentence that begins with `start` and has `part` in it (NULL: anything).
void cm_unit_expect(cm_status got, const cm_error *error, cm_status want, const char *start,
                    const char *part);

// A path below fixtures/; NULL: the tests do not know where that is. Free with free().
char *cm_unit_fixture(const char *path);

TCase *cm_unit_safetensors_files(void);
TCase *cm_unit_safetensors_headers(void);
TCase *cm_unit_scan(void);
TCase *cm_unit_config(void);
TCase *cm_unit_peft(void);
TCase *cm_unit_layer(void);
TCase *cm_unit_fused(void);
TCase *cm_unit_fused_bad(void);
TCase *cm_unit_foreign(void);
TCase *cm_unit_recorded(void);

#endif
