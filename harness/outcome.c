// SPDX-License-Identifier: Apache-2.0
#include "harness/outcome.h"

#include <string.h>

static const char *const names[CM_VERDICT_COUNT] = {
    [CM_PASS] = "PASS",   [CM_FAIL] = "FAIL",       [CM_SKIP] = "SKIP",       [CM_ERROR] = "ERROR",
    [CM_CRASH] = "CRASH", [CM_TIMEOUT] = "TIMEOUT", [CM_VACUOUS] = "VACUOUS",
};

const char *cm_verdict_name(cm_verdict verdict)
{
    return (unsigned)verdict < CM_VERDICT_COUNT ? names[verdict] : "?";
}

bool cm_verdict_parse(const char *name, cm_verdict *verdict)
{
    for (int n = 0; n < CM_VERDICT_COUNT; n++) {
        if (!strcmp(name, names[n])) {
            *verdict = (cm_verdict)n;
            return true;
        }
    }
    return false;
}

void cm_outcome_use(cm_outcome *outcome, cm_details *details)
{
    outcome->gains = details->gains;
    outcome->tiles = &details->tiles;
}

bool cm_verdict_is_bad(cm_verdict verdict)
{
    return verdict != CM_PASS && verdict != CM_SKIP;
}
