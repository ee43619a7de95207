// SPDX-License-Identifier: Apache-2.0
// A GPU by the CUDA runtime: whether there is one, and its memory.
#include "optimized/cuda/arrays.h"

static cm_status explain(cudaError_t error, char *reason, size_t size)
{
    if (error == cudaSuccess)
        return CM_OK;
    snprintf(reason, size, "%s", cudaGetErrorString(error));
    return error == cudaErrorMemoryAllocation ? CM_NO_MEMORY : CM_DEVICE_FAULT;
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
    else
        return true;
    return false;
}

static cm_status allocate(size_t bytes, void **memory, char *reason, size_t size)
{
    return explain(cudaMalloc(memory, bytes), reason, size);
}

static void release(void *memory)
{
    cudaFree(memory);
}

static cm_status copy_in(void *device, const void *host, size_t bytes, char *reason, size_t size)
{
    return explain(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice), reason, size);
}

static cm_status copy_out(void *host, const void *device, size_t bytes, char *reason, size_t size)
{
    return explain(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost), reason, size);
}

static cm_status synchronize(char *reason, size_t size)
{
    return explain(cudaDeviceSynchronize(), reason, size);
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
};
