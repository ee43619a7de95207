// SPDX-License-Identifier: Apache-2.0
// How much of an output each term of its op makes up: for a real adapter, whether there is anything to see.
#ifndef CM_TERMS_H
#define CM_TERMS_H

#include "harness/pristine.h"

#include <stdio.h>

// ||want - want(without the terms in `omit`)|| / ||want|| of one output argument, in double.
cm_status cm_terms_share(cm_pristine *pristine, uint64_t omit, int argument, double *share, cm_error *error);
// One line per term that changes an output, and one for all adapter terms together: the natural share.
cm_status cm_terms_print(cm_pristine *pristine, FILE *out, cm_error *error);

#endif
