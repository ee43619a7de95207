// SPDX-License-Identifier: Apache-2.0
// Graphs of the emulated device: launches recorded with their arguments, to be replayed in their order on
// what memory then holds. While a thread captures, its device runs nothing; what a GPU could not record then
// (a wait, an allocation, a launch on another stream) is a fault, and spoils the graph.
#ifndef CM_SIMT_GRAPH_H
#define CM_SIMT_GRAPH_H

#include "optimized/cuda/simt/launch.h"

namespace cm_simt
{

// The functions of cm_side.
cm_status capture(void **stream, char *reason, size_t reason_size);
cm_status conclude(void *stream, void **graph, char *reason, size_t reason_size);
cm_status replay(const cm_call *call, void *graph);
void forget(void *graph);

} // namespace cm_simt

#endif
