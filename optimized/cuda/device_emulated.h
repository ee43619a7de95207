// SPDX-License-Identifier: Apache-2.0
// The emulated device as kernels see it. Included by device.h alone.
#ifndef CM_CUDA_DEVICE_EMULATED_H
#define CM_CUDA_DEVICE_EMULATED_H

#include "optimized/cuda/simt/global.h"
#include "optimized/cuda/simt/launch.h"
#include "optimized/cuda/simt/matrix.h"
#include "optimized/cuda/simt/shared.h"
#include "optimized/cuda/simt/warp.h"

#include <math.h>
#include <string.h>

#define CM_EMULATED 1
#define __global__  static
#define CM_DEVICE   [[maybe_unused]] static inline
#define CM_METHOD
#define CM_UNROLL
#define CM_THREADS(most)                // __launch_bounds__
#define CM_PARAMETER(type) const type & // of a kernel: read where the launch put it, by all threads

struct alignas(8) uint2 {
    uint32_t x, y;
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
typedef cm_simt::Index3 dim3;

#define threadIdx (cm_simt::thread()->index)
#define blockIdx  (cm_simt::block()->index)
#define blockDim  (cm_simt::block()->size)
#define gridDim   (cm_simt::block()->grid)

// Copies bits from one type to another.
template <typename To, typename From> static inline To cm_bits(From from)
{
    static_assert(sizeof(To) == sizeof(From), "same size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

CM_DEVICE int cm_popcount(unsigned bits)
{
    return __builtin_popcount(bits);
}

// Where the call stands: the last parameters of every wrapper.
#define CM_PLACE_PARAMETERS const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define CM_PLACE                                                                                             \
    cm_simt::Place                                                                                           \
    {                                                                                                        \
        file, line                                                                                           \
    }

// An array in device memory.
template <typename T> struct cm_global {
    T *data;
    int64_t count;

    void hold(int64_t index, int64_t elements, size_t alignment, cm_simt::Place place) const
    {
        if (index < 0 || index + elements > count)
            cm_simt::fail(cm_simt::GLOBAL_OUT_OF_BOUNDS, place, "element %lld of an array of %lld",
                          (long long)(index < 0 ? index : index + elements - 1), (long long)count);
        if (reinterpret_cast<uintptr_t>(data + index) % alignment)
            cm_simt::fail(cm_simt::MISALIGNED, place, "element %lld for a vector of %zu bytes",
                          (long long)index, alignment);
    }
    T get(int64_t index, CM_PLACE_PARAMETERS) const
    {
        hold(index, 1, 1, CM_PLACE);
        cm_simt::global_read(data + index, sizeof(T), CM_PLACE);
        return data[index];
    }
    void set(int64_t index, T value, CM_PLACE_PARAMETERS) const
    {
        hold(index, 1, 1, CM_PLACE);
        cm_simt::global_write(data + index, sizeof(T), CM_PLACE);
        data[index] = value;
    }
    // sizeof(V) / sizeof(T) elements from `index` on, which must be a multiple of that.
    template <typename V> V get_vector(int64_t index, CM_PLACE_PARAMETERS) const
    {
        V value;
        hold(index, sizeof(V) / sizeof(T), sizeof(V), CM_PLACE);
        cm_simt::global_read(data + index, sizeof(V), CM_PLACE);
        memcpy(&value, data + index, sizeof value);
        return value;
    }
    template <typename V> void set_vector(int64_t index, V value, CM_PLACE_PARAMETERS) const
    {
        hold(index, sizeof(V) / sizeof(T), sizeof(V), CM_PLACE);
        cm_simt::global_write(data + index, sizeof(V), CM_PLACE);
        memcpy(data + index, &value, sizeof value);
    }
    // Atomically; the value before.
    T add(int64_t index, T value, CM_PLACE_PARAMETERS) const
    {
        hold(index, 1, 1, CM_PLACE);
        cm_simt::global_atomic(data + index, sizeof(T), CM_PLACE);
        T before = data[index];
        data[index] = before + value;
        return before;
    }
};

// An array in the block's shared memory, `offset` bytes from its start.
template <typename T> struct cm_shared {
    static_assert(sizeof(T) % cm_simt::GRANULE == 0, "bytes are shared in groups of two or more");
    uint32_t offset, count;

    uint32_t hold(uint32_t index, uint32_t elements, size_t alignment, cm_simt::Place place) const
    {
        uint32_t at = offset + index * (uint32_t)sizeof(T);
        if (index >= count || elements > count - index ||
            at + elements * sizeof(T) > cm_simt::block()->shared_bytes)
            cm_simt::fail(cm_simt::SHARED_OUT_OF_BOUNDS, place, "element %u of an array of %u",
                          index + elements - 1, count);
        if (at % alignment)
            cm_simt::fail(cm_simt::MISALIGNED, place, "byte %u of shared memory for %zu bytes", at,
                          alignment);
        return at;
    }
    T get(uint32_t index, CM_PLACE_PARAMETERS) const
    {
        return get_vector<T>(index, file, line);
    }
    void set(uint32_t index, T value, CM_PLACE_PARAMETERS) const
    {
        set_vector<T>(index, value, file, line);
    }
    template <typename V> V get_vector(uint32_t index, CM_PLACE_PARAMETERS) const
    {
        V value;
        uint32_t at = hold(index, sizeof(V) / sizeof(T), sizeof(V), CM_PLACE);
        cm_simt::shared_read(at, sizeof(V), CM_PLACE);
        memcpy(&value, &cm_simt::block()->shared[at], sizeof value);
        return value;
    }
    template <typename V> void set_vector(uint32_t index, V value, CM_PLACE_PARAMETERS) const
    {
        uint32_t at = hold(index, sizeof(V) / sizeof(T), sizeof(V), CM_PLACE);
        cm_simt::shared_write(at, sizeof(V), CM_PLACE);
        memcpy(&cm_simt::block()->shared[at], &value, sizeof value);
    }
    T add(uint32_t index, T value, CM_PLACE_PARAMETERS) const
    {
        T before;
        uint32_t at = hold(index, 1, sizeof(T), CM_PLACE);
        cm_simt::shared_atomic(at, sizeof(T), CM_PLACE);
        memcpy(&before, &cm_simt::block()->shared[at], sizeof before);
        T after = before + value;
        memcpy(&cm_simt::block()->shared[at], &after, sizeof after);
        return before;
    }
};

template <typename T> static inline cm_shared<T> cm_shared_array(uint32_t offset, uint32_t count)
{
    return cm_shared<T>{offset, count};
}

CM_DEVICE void cm_barrier(CM_PLACE_PARAMETERS)
{
    cm_simt::barrier(CM_PLACE);
}

CM_DEVICE void cm_barrier_warp(unsigned mask = ~0u, CM_PLACE_PARAMETERS)
{
    cm_simt::sync_warp(mask, CM_PLACE);
}

// T has 4 or 8 bytes.
template <typename T>
static inline T cm_shuffle_any(cm_simt::ShuffleKind kind, T value, int argument, int width, unsigned mask,
                               cm_simt::Place place)
{
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = cm_simt::shuffle(kind, mask, bits, argument, width, place);
    memcpy(&value, &bits, sizeof value);
    return value;
}

template <typename T>
static inline T cm_shuffle(T value, int lane, int width = 32, unsigned mask = ~0u, CM_PLACE_PARAMETERS)
{
    return cm_shuffle_any(cm_simt::SHUFFLE_FROM, value, lane, width, mask, CM_PLACE);
}

template <typename T>
static inline T cm_shuffle_xor(T value, int lanes, int width = 32, unsigned mask = ~0u, CM_PLACE_PARAMETERS)
{
    return cm_shuffle_any(cm_simt::SHUFFLE_XOR, value, lanes, width, mask, CM_PLACE);
}

template <typename T>
static inline T cm_shuffle_down(T value, int lanes, int width = 32, unsigned mask = ~0u, CM_PLACE_PARAMETERS)
{
    return cm_shuffle_any(cm_simt::SHUFFLE_DOWN, value, lanes, width, mask, CM_PLACE);
}

template <typename T>
static inline T cm_shuffle_up(T value, int lanes, int width = 32, unsigned mask = ~0u, CM_PLACE_PARAMETERS)
{
    return cm_shuffle_any(cm_simt::SHUFFLE_UP, value, lanes, width, mask, CM_PLACE);
}

CM_DEVICE unsigned cm_ballot(bool predicate, unsigned mask = ~0u, CM_PLACE_PARAMETERS)
{
    return cm_simt::ballot(mask, predicate, CM_PLACE);
}

// 16 bytes from device to shared memory; of the elements only the first `valid` are read, the others become
// 0.
template <typename T>
static inline void cm_async_copy(cm_shared<T> to, uint32_t index, cm_global<const T> from, int64_t source,
                                 int valid = 16 / sizeof(T), CM_PLACE_PARAMETERS)
{
    uint32_t at = to.hold(index, 16 / sizeof(T), 16, CM_PLACE);
    uint32_t bytes = (uint32_t)(valid * (int)sizeof(T));
    if (valid > 0) {
        from.hold(source, valid, 16, CM_PLACE);
        cm_simt::global_read(from.data + source, bytes, CM_PLACE);
    }
    cm_simt::async_copy(at, from.data + source, bytes, 16 - bytes, CM_PLACE);
}

CM_DEVICE void cm_async_commit(void)
{
    cm_simt::async_commit();
}

template <int YOUNGEST> static inline void cm_async_wait(void)
{
    cm_simt::async_wait(YOUNGEST);
}

template <typename T> inline constexpr cm_simt::MatrixType cm_matrix_type = cm_simt::MATRIX_BF16;
template <> inline constexpr cm_simt::MatrixType cm_matrix_type<cm_f16> = cm_simt::MATRIX_F16;

// d[16x8] = a[16x16] b[16x8] + c with the fragments of mma.m16n8k16; T: cm_bf16 or cm_f16.
template <typename T>
static inline void cm_mma(float d[4], const uint32_t a[4], const uint32_t b[2], const float c[4],
                          CM_PLACE_PARAMETERS)
{
    cm_simt::mma_16x8x16(cm_matrix_type<T>, 1, d, a, b, c, CM_PLACE);
}

// d[n] += a b[n] for n < COUNT: as many instructions, one meeting of the lanes.
template <typename T, int COUNT>
static inline void cm_mma_row(float (*d)[4], const uint32_t a[4], const uint32_t *b, CM_PLACE_PARAMETERS)
{
    cm_simt::mma_16x8x16(cm_matrix_type<T>, COUNT, *d, a, b, *d, CM_PLACE);
}

// COUNT 8x8 matrices of 16-bit elements; `index` is the element at which this lane's row begins.
template <int COUNT, typename T>
static inline void cm_load_matrices(uint32_t *registers, cm_shared<T> from, uint32_t index,
                                    CM_PLACE_PARAMETERS)
{
    cm_simt::load_matrices(registers, COUNT, from.hold(index, 8, 16, CM_PLACE), false, CM_PLACE);
}

template <int COUNT, typename T>
static inline void cm_load_matrices_transposed(uint32_t *registers, cm_shared<T> from, uint32_t index,
                                               CM_PLACE_PARAMETERS)
{
    cm_simt::load_matrices(registers, COUNT, from.hold(index, 8, 16, CM_PLACE), true, CM_PLACE);
}

// Says that a value is outside its range; the launch returns CM_BAD_ID. For kernels, and their hosts.
struct cm_refusal {
};

CM_DEVICE void cm_refuse(const cm_refusal &, cm_refused argument, int64_t element)
{
    cm_simt::refuse((uint64_t)argument << CM_REFUSED_SHIFT | (uint64_t)element);
}

[[maybe_unused]] static inline cm_refusal cm_refusal_of(const cm_call *)
{
    return cm_refusal{};
}

// What a host function may ask of the device's runtime; every one of them spoils a graph that is captured.
[[maybe_unused]] static inline cm_status cm_copy_out(const cm_call *call, void *host, const void *device,
                                                     size_t bytes)
{
    return cm_simt::copy_out(call, host, device, bytes);
}

// Poisoned; NULL, with the sentence set, when there is none.
[[maybe_unused]] static inline void *cm_allocate(const cm_call *call, size_t bytes)
{
    return cm_simt::allocate(call, bytes);
}

[[maybe_unused]] static inline cm_status cm_release(const cm_call *call, void *memory)
{
    return cm_simt::release(call, memory);
}

#endif
