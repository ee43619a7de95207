// SPDX-License-Identifier: Apache-2.0
// A GPU by the CUDA runtime: whether there is one, and its memory.
#include "optimized/cuda/arrays.h"

static cm_status explain(cudaError_t error, char *reason, size_t size)
{
    if (error == cudaSuccess)
        return CM_OK;
    snprintf(reason, size, "%s", cudaGetErrorString(error));
    cudaGetLastError(); // said: no later launch shall say it again
    return error == cudaErrorMemoryAllocation ? CM_NO_MEMORY : CM_DEVICE_FAULT;
}

volatile uint64_t *cm_cuda_refused;

// Host memory that kernels reach by the same address.
static void open_refusals(void)
{
    void *memory = nullptr;
    if (!cm_cuda_refused && cudaHostAlloc(&memory, sizeof(uint64_t), cudaHostAllocPortable) == cudaSuccess) {
        cm_cuda_refused = static_cast<volatile uint64_t *>(memory);
        *cm_cuda_refused = 0;
    }
}

// Without a driver its version is 0 and the number of devices is not touched.
static bool available(char *reason, size_t size)
{
    int driver = 0, runtime = 0, count = 0, major = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    cudaError_t error = cudaGetDeviceCount(&count);
    if (driver == 0)
        snprintf(reason, size, "there is no NVIDIA driver");
    else if (error == cudaErrorInsufficientDriver)
        snprintf(reason, size, "the NVIDIA driver is too old: it is for CUDA %d.%d, this program for %d.%d",
                 driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    else if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0))
        snprintf(reason, size, "there is an NVIDIA driver, but no device");
    else if (error != cudaSuccess)
        snprintf(reason, size, "CUDA: %s", cudaGetErrorString(error));
    else if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) != cudaSuccess || major < 8)
        snprintf(reason, size, "the GPU has compute capability %d, 8 is the least", major);
    else if (open_refusals(); !cm_cuda_refused)
        snprintf(reason, size, "CUDA: no host memory for the device to write to");
    else
        return true;
    return false;
}

// The harness's own memory and copies, also while this thread captures: the graph does not depend on them.
// What a kernel allocates stays forbidden.
struct Aside {
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    Aside()
    {
        cudaThreadExchangeStreamCaptureMode(&mode);
    }
    ~Aside()
    {
        cudaThreadExchangeStreamCaptureMode(&mode);
    }
};

static cm_status allocate(size_t bytes, void **memory, char *reason, size_t size)
{
    Aside aside;
    return explain(cudaMalloc(memory, bytes), reason, size);
}

static void release(void *memory)
{
    if (cudaFree(memory) != cudaSuccess)
        cudaGetLastError(); // a faulty launch before: synchronize has said so
}

static cm_status copy_in(void *device, const void *host, size_t bytes, char *reason, size_t size)
{
    Aside aside;
    return explain(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice), reason, size);
}

static cm_status copy_out(void *host, const void *device, size_t bytes, char *reason, size_t size)
{
    return explain(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost), reason, size);
}

static cm_status synchronize(char *reason, size_t size)
{
    cm_status status = explain(cudaDeviceSynchronize(), reason, size);
    if (status != CM_OK || !cm_cuda_refused || !*cm_cuda_refused)
        return status;
    cm_refusal_print(*cm_cuda_refused, reason, size);
    *cm_cuda_refused = 0;
    return CM_BAD_ID;
}

// The stream does not wait for the default one, nor that for it: whoever launches there is not recorded, and
// is told so.
static cm_status capture(void **stream, char *reason, size_t size)
{
    cudaStream_t made = nullptr;
    cudaError_t error = cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking);
    if (error == cudaSuccess)
        error = cudaStreamBeginCapture(made, cudaStreamCaptureModeThreadLocal);
    if (error != cudaSuccess && made)
        cudaStreamDestroy(made);
    *stream = error == cudaSuccess ? made : nullptr;
    return explain(error, reason, size);
}

static cm_status conclude(void *stream, void **graph, char *reason, size_t size)
{
    cudaGraph_t recorded = nullptr;
    cudaGraphExec_t made = nullptr;
    cudaError_t error = cudaStreamEndCapture(static_cast<cudaStream_t>(stream), &recorded);
    if (error == cudaSuccess)
        error = cudaGraphInstantiateWithFlags(&made, recorded, 0);
    if (recorded)
        cudaGraphDestroy(recorded);
    cudaStreamDestroy(static_cast<cudaStream_t>(stream));
    *graph = error == cudaSuccess ? made : nullptr;
    return explain(error, reason, size);
}

static cm_status replay(const cm_call *call, void *graph)
{
    cudaError_t error =
        cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), static_cast<cudaStream_t>(call->stream));
    if (error == cudaSuccess)
        return CM_OK;
    cudaGetLastError(); // or the next launch that is right finds it
    return call->host->fail(call, CM_DEVICE_FAULT, "replay: %s", cudaGetErrorString(error));
}

static void forget(void *graph)
{
    if (graph)
        cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph));
}

static cm_status locate(const void *pointer, DLDevice *device, char *reason, size_t size)
{
    cudaPointerAttributes attributes;
    cudaError_t error = cudaPointerGetAttributes(&attributes, pointer);
    if (error != cudaSuccess)
        return explain(error, reason, size);
    *device = {attributes.type == cudaMemoryTypeDevice    ? kDLCUDA
               : attributes.type == cudaMemoryTypeManaged ? kDLCUDAManaged
               : attributes.type == cudaMemoryTypeHost    ? kDLCUDAHost
                                                          : kDLCPU,
               attributes.type == cudaMemoryTypeDevice ? attributes.device : 0};
    return CM_OK;
}

const cm_side cm_cuda_native = {
    .size = sizeof(cm_side),
    .emulated = false,
    .available = available,
    .allocate = allocate,
    .release = release,
    .copy_in = copy_in,
    .copy_out = copy_out,
    .synchronize = synchronize,
    .capture = capture,
    .conclude = conclude,
    .replay = replay,
    .forget = forget,
    .locate = locate,
};
