// SPDX-License-Identifier: Apache-2.0
#include "harness/output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

cm_status cm_report_write(const cm_report *report, const cm_records *records, const char *path,
                          cm_error *error)
{
    cm_status status = CM_OK;
    struct stat file;
    bool regular = lstat(path, &file) != 0 || S_ISREG(file.st_mode);
    bool plain = !strcmp(path, "-"),
         direct = plain || !regular; // a device, pipe or link is written to, never replaced
    char *temporary = cm_text("%s.part-%d", path, (int)getpid());
    FILE *out = plain ? stdout : fopen(direct ? path : temporary, "w");
    if (!out) {
        status = cm_fail(error, CM_BAD_FILE,
                         "%s: cannot be written (%s); give --%s a path in a folder that exists", path,
                         strerror(errno), report->name);
        goto done;
    }
    status = report->write(records, out, error);
    bool failed = fflush(out) != 0 || ferror(out);
    if (!plain)
        failed = fclose(out) != 0 || failed;
    if (status == CM_OK && (failed || (!direct && rename(temporary, path) != 0)))
        status = cm_fail(error, CM_BAD_FILE, "%s: cannot be written (%s)", path, strerror(errno));
    if (status != CM_OK && !direct)
        unlink(temporary);
done:
    free(temporary);
    return status;
}
