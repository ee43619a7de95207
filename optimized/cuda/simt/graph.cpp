// SPDX-License-Identifier: Apache-2.0
#include "optimized/cuda/simt/graph.h"

#include <stdio.h>

namespace cm_simt
{

struct Recorded {
    Launch launch;
    std::shared_ptr<void> closure; // a copy of the launch's own
};

struct Graph {
    std::vector<Recorded> launches;
    char fault[200]; // why it can't be replayed; "": it can
};

static thread_local Graph *current; // what this thread captures into; also the stream's name

bool captures(void)
{
    return current != nullptr;
}

cm_status forbid(const cm_call *call, const char *what)
{
    if (!current)
        return CM_OK;
    if (!current->fault[0])
        snprintf(current->fault, sizeof current->fault, "forbidden while capturing: %s", what);
    return call->host->fail(call, CM_DEVICE_FAULT, "forbidden while capturing: %s", what);
}

cm_status record(const cm_call *call, const Launch &launch, std::shared_ptr<void> closure)
{
    if (call->stream != current)
        return forbid(call, "a launch on another stream than the captured one");
    current->launches.push_back(Recorded{launch, closure});
    current->launches.back().launch.closure = closure.get();
    return CM_OK;
}

cm_status capture(void **stream, char *reason, size_t size)
{
    if (current) {
        snprintf(reason, size, "this thread captures already");
        return CM_BAD_STATE;
    }
    *stream = current = new Graph();
    return CM_OK;
}

cm_status conclude(void *stream, void **graph, char *reason, size_t size)
{
    Graph *made = current;
    *graph = nullptr;
    if (!made || stream != made) {
        snprintf(reason, size, "this thread does not capture that stream");
        return CM_BAD_STATE;
    }
    current = nullptr;
    if (made->fault[0]) {
        snprintf(reason, size, "%s", made->fault);
        delete made;
        return CM_DEVICE_FAULT;
    }
    *graph = made;
    return CM_OK;
}

cm_status replay(const cm_call *call, void *graph)
{
    cm_status status = forbid(call, "a replay");
    for (const Recorded &recorded : static_cast<Graph *>(graph)->launches) {
        Launch launch = recorded.launch;
        launch.schedule = next_schedule();
        if (status == CM_OK)
            status = launch_now(call, launch);
    }
    return status;
}

void forget(void *graph)
{
    delete static_cast<Graph *>(graph);
}

} // namespace cm_simt
