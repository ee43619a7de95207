// SPDX-License-Identifier: Apache-2.0
// What the two files of the op suite share.
#ifndef CM_UNIT_OP_H
#define CM_UNIT_OP_H

#include <check.h>

enum { CM_UNIT_OPS = 7, CM_UNIT_INDEXED_OPS = 5 }; // the first ones have indices

// One case of each op; every dimension differs from its neighbours.
extern const struct cm_unit_valid {
    const char *op, *name;
} cm_unit_valid[CM_UNIT_OPS];

Suite *cm_unit_op(void);
TCase *cm_unit_op_tables(void);

#endif
