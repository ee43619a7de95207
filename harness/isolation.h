// SPDX-License-Identifier: Apache-2.0
// The second part of the check isolation: what is addressed does reach the outputs that depend on it.
#ifndef CM_ISOLATION_H
#define CM_ISOLATION_H

#include "harness/stage.h"

// `clean` holds the outputs of a run on the trial's own values. Adds to outcome->compared.
cm_verdict cm_isolation_carry(const cm_trial *trial, const cm_stage *clean);

#endif
