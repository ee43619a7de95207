// SPDX-License-Identifier: Apache-2.0
// A GPU as kernels see it: the wrappers of device_emulated.h as plain accesses and PTX. Included by device.h
// alone.
#ifndef CM_CUDA_DEVICE_GPU_H
#define CM_CUDA_DEVICE_GPU_H

#include <cuda_runtime.h>
#include <math.h>

#define CM_DEVICE          static __device__ __forceinline__
#define CM_METHOD          __device__ __forceinline__
#define CM_UNROLL          _Pragma("unroll")
#define CM_THREADS(most)   __launch_bounds__(most, 1)   // without the 1, ptxas saves registers by spilling
#define CM_PARAMETER(type) const __grid_constant__ type // of a kernel: stays in constant memory

// Copies bits from one type to another; registers only.
template <typename To, typename From> CM_DEVICE To cm_bits(From from)
{
    static_assert(sizeof(To) == sizeof(From), "same size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

CM_DEVICE int cm_popcount(unsigned bits)
{
    return __popc(bits);
}

// An array in device memory; the count is the emulator's.
template <typename T> struct cm_global {
    T *data;
    int64_t count;

    __device__ T get(int64_t index) const
    {
        return data[index];
    }
    __device__ void set(int64_t index, T value) const
    {
        data[index] = value;
    }
    template <typename V> __device__ V get_vector(int64_t index) const
    {
        return *reinterpret_cast<const V *>(data + index);
    }
    template <typename V> __device__ void set_vector(int64_t index, V value) const
    {
        *reinterpret_cast<V *>(data + index) = value;
    }
    __device__ T add(int64_t index, T value) const
    {
        return atomicAdd(data + index, value);
    }
};

// An array in the block's shared memory.
template <typename T> struct cm_shared {
    T *data;

    __device__ T get(uint32_t index) const
    {
        return data[index];
    }
    __device__ void set(uint32_t index, T value) const
    {
        data[index] = value;
    }
    template <typename V> __device__ V get_vector(uint32_t index) const
    {
        return *reinterpret_cast<const V *>(data + index);
    }
    template <typename V> __device__ void set_vector(uint32_t index, V value) const
    {
        *reinterpret_cast<V *>(data + index) = value;
    }
    __device__ T add(uint32_t index, T value) const
    {
        return atomicAdd(data + index, value);
    }
};

template <typename T> CM_DEVICE cm_shared<T> cm_shared_array(uint32_t offset, uint32_t)
{
    extern __shared__ __align__(128) unsigned char cm_shared_memory[];
    return cm_shared<T>{reinterpret_cast<T *>(cm_shared_memory + offset)};
}

CM_DEVICE void cm_barrier(void)
{
    __syncthreads();
}

CM_DEVICE void cm_barrier_warp(unsigned mask = ~0u)
{
    __syncwarp(mask);
}

template <typename T> CM_DEVICE T cm_shuffle(T value, int lane, int width = 32, unsigned mask = ~0u)
{
    return __shfl_sync(mask, value, lane, width);
}

template <typename T> CM_DEVICE T cm_shuffle_xor(T value, int lanes, int width = 32, unsigned mask = ~0u)
{
    return __shfl_xor_sync(mask, value, lanes, width);
}

template <typename T> CM_DEVICE T cm_shuffle_down(T value, int lanes, int width = 32, unsigned mask = ~0u)
{
    return __shfl_down_sync(mask, value, lanes, width);
}

template <typename T> CM_DEVICE T cm_shuffle_up(T value, int lanes, int width = 32, unsigned mask = ~0u)
{
    return __shfl_up_sync(mask, value, lanes, width);
}

CM_DEVICE unsigned cm_ballot(bool predicate, unsigned mask = ~0u)
{
    return __ballot_sync(mask, predicate);
}

CM_DEVICE uint32_t cm_shared_address(const void *pointer)
{
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// cp.async, past the first-level cache: 16 bytes, of which the elements from `valid` on are zeros.
template <typename T>
CM_DEVICE void cm_async_copy(cm_shared<T> to, uint32_t index, cm_global<const T> from, int64_t source,
                             int valid = 16 / sizeof(T))
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(cm_shared_address(to.data + index)),
                 "l"(from.data + (valid > 0 ? source : 0)), "r"(valid * (int)sizeof(T))
                 : "memory");
}

CM_DEVICE void cm_async_commit(void)
{
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}

template <int YOUNGEST> CM_DEVICE void cm_async_wait(void)
{
    asm volatile("cp.async.wait_group %0;\n" ::"n"(YOUNGEST) : "memory");
}

template <typename T> struct cm_mma_type;
#define CM_MMA(type, name)                                                                                   \
    template <> struct cm_mma_type<type> {                                                                   \
        static CM_MMA_DEVICE void run(float d[4], const uint32_t a[4], const uint32_t b[2],                  \
                                      const float c[4])                                                      \
        {                                                                                                    \
            asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." name "." name                              \
                         ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};\n"                  \
                         : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])                                    \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]),      \
                           "f"(c[1]), "f"(c[2]), "f"(c[3]));                                                 \
        }                                                                                                    \
    };
#define CM_MMA_DEVICE __device__ __forceinline__
CM_MMA(cm_bf16, "bf16")
CM_MMA(cm_f16, "f16")
#undef CM_MMA
#undef CM_MMA_DEVICE

// d[16x8] = a[16x16] b[16x8] + c with the fragments of mma.m16n8k16; T: cm_bf16 or cm_f16.
template <typename T>
CM_DEVICE void cm_mma(float d[4], const uint32_t a[4], const uint32_t b[2], const float c[4])
{
    cm_mma_type<T>::run(d, a, b, c);
}

// d[n] += a b[n] for n < COUNT.
template <typename T, int COUNT>
CM_DEVICE void cm_mma_row(float (*d)[4], const uint32_t a[4], const uint32_t *b)
{
    CM_UNROLL
    for (int n = 0; n < COUNT; n++)
        cm_mma_type<T>::run(d[n], a, b + 2 * n, d[n]);
}

template <int COUNT, bool TRANSPOSED>
CM_DEVICE void cm_load_matrices_at(uint32_t *registers, uint32_t address)
{
    if constexpr (COUNT == 4 && TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                     : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                     : "r"(address)
                     : "memory");
    else if constexpr (COUNT == 4)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                     : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                     : "r"(address)
                     : "memory");
    else if constexpr (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];\n"
                     : "=r"(registers[0]), "=r"(registers[1])
                     : "r"(address)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];\n"
                     : "=r"(registers[0]), "=r"(registers[1])
                     : "r"(address)
                     : "memory");
}

// COUNT (2 or 4) 8x8 matrices of 16-bit elements; `index` is the element at which this lane's row begins.
template <int COUNT, typename T>
CM_DEVICE void cm_load_matrices(uint32_t *registers, cm_shared<T> from, uint32_t index)
{
    cm_load_matrices_at<COUNT, false>(registers, cm_shared_address(from.data + index));
}

template <int COUNT, typename T>
CM_DEVICE void cm_load_matrices_transposed(uint32_t *registers, cm_shared<T> from, uint32_t index)
{
    cm_load_matrices_at<COUNT, true>(registers, cm_shared_address(from.data + index));
}

// CM_OK, or a status with the sentence set in the call.
template <typename... Parameters, typename... Arguments>
static cm_status cm_launch(const cm_call *call, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                           size_t shared, Arguments... arguments)
{
    cudaError_t error = cudaSuccess;
    if (shared > 48 * 1024)
        error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    if (error == cudaSuccess) {
        kernel<<<grid, block, shared, static_cast<cudaStream_t>(call->stream)>>>(arguments...);
        error = cudaGetLastError();
    }
    if (error == cudaSuccess)
        return CM_OK;
    cudaGetLastError(); // or the next launch that is right finds it
    return call->host->fail(call, CM_DEVICE_FAULT, "launch: %s", cudaGetErrorString(error));
}

#define CM_LAUNCH(call, kernel, grid, block, shared, ...)                                                    \
    cm_launch(call, kernel, grid, block, shared, __VA_ARGS__)

// Says that a value is outside its range; synchronize returns CM_BAD_ID. One word for the process: what is
// said last stays.
struct cm_refusal {
    volatile uint64_t *word; // of host memory
};

extern volatile uint64_t *cm_cuda_refused; // NULL: there is no device

CM_DEVICE void cm_refuse(const cm_refusal &to, cm_refused argument, int64_t element)
{
    *to.word = (uint64_t)argument << CM_REFUSED_SHIFT | (uint64_t)element;
}

[[maybe_unused]] static inline cm_refusal cm_refusal_of(const cm_call *)
{
    return cm_refusal{cm_cuda_refused};
}

// What a host function may ask of the device's runtime; every one of them spoils a graph that is captured.
[[maybe_unused]] static inline cm_status cm_copy_out(const cm_call *call, void *host, const void *device,
                                                     size_t bytes)
{
    cudaStream_t stream = static_cast<cudaStream_t>(call->stream);
    cudaError_t error = cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream);
    if (error == cudaSuccess)
        error = cudaStreamSynchronize(stream);
    if (error == cudaSuccess)
        return CM_OK;
    return call->host->fail(call, CM_DEVICE_FAULT, "copy to the host: %s", cudaGetErrorString(error));
}

// Undefined bytes; NULL, with the sentence set, when there is none.
[[maybe_unused]] static inline void *cm_allocate(const cm_call *call, size_t bytes)
{
    void *memory = nullptr;
    cudaError_t error = cudaMalloc(&memory, bytes);
    if (error == cudaSuccess)
        return memory;
    call->host->fail(call, error == cudaErrorMemoryAllocation ? CM_NO_MEMORY : CM_DEVICE_FAULT,
                     "allocation of %zu bytes: %s", bytes, cudaGetErrorString(error));
    return nullptr;
}

[[maybe_unused]] static inline cm_status cm_release(const cm_call *call, void *memory)
{
    cudaError_t error = cudaFree(memory);
    if (error == cudaSuccess)
        return CM_OK;
    return call->host->fail(call, CM_DEVICE_FAULT, "release: %s", cudaGetErrorString(error));
}

#endif
