// SPDX-License-Identifier: Apache-2.0
#include "harness/record.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cm_record_id(const cm_record *record, char id[CM_RECORD_ID])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    char threads[32] = ""; // of a measurement: each number of threads is a series of its own
    for (int n = 0; n < record->outcome.metric_count && n < CM_MAX_METRICS; n++)
        if (!strcmp(record->outcome.metrics[n].name, "threads"))
            snprintf(threads, sizeof threads, "\n%g threads", record->outcome.metrics[n].value);
    char *text =
        cm_text("%s\n%s\n%s\n%s%s", record->fault ? record->fault : "", record->kernel ? record->kernel : "",
                record->case_name ? record->case_name : "", record->check ? record->check : "", threads);
    if (!EVP_Digest(text, strlen(text), digest, NULL, EVP_sha256(), NULL))
        cm_broken("libcrypto has no SHA-256");
    free(text);
    for (int n = 0; n < (CM_RECORD_ID - 1) / 2; n++)
        snprintf(id + 2 * n, 3, "%02x", digest[n]);
}
