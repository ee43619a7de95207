// SPDX-License-Identifier: Apache-2.0
// sgmv_shrink/modern: C++17 with vectors and lambdas. A reader is chosen once for each tensor; an exception
// becomes a status before it leaves.
#include <checkmoe.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <new>
#include <numeric>
#include <stdexcept>
#include <vector>

namespace
{

template <typename T> T bit_cast(const void *bytes)
{
    T value;
    std::memcpy(&value, bytes, sizeof value);
    return value;
}

float from_half(std::uint16_t bits)
{
    int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    float value = exponent == 31 ? (mantissa ? std::numeric_limits<float>::quiet_NaN()
                                             : std::numeric_limits<float>::infinity())
                  : exponent     ? std::ldexp(1024.0f + static_cast<float>(mantissa), exponent - 25)
                                 : std::ldexp(static_cast<float>(mantissa), -24);
    return bits & 0x8000 ? -value : value;
}

std::uint16_t to_half(float value)
{
    auto bits = bit_cast<std::uint32_t>(&value);
    auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000);
    float magnitude = std::fabs(value);
    if (!(magnitude < 65520.0f))
        return sign | (std::isnan(value) ? 0x7e00 : 0x7c00);
    int exponent = std::max(magnitude > 0 ? std::ilogb(magnitude) : -14, -14);
    // in units of the last place; a carry out of the mantissa goes into the exponent
    auto units = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
    return static_cast<std::uint16_t>(sign | (units + (exponent + 14) * 1024));
}

using row_reader = std::function<std::vector<float>(std::initializer_list<std::int64_t>, std::int64_t)>;

const char *address(const DLTensor &tensor, std::initializer_list<std::int64_t> index)
{
    std::int64_t offset = std::inner_product(index.begin(), index.end(), tensor.strides, std::int64_t{0});
    return static_cast<const char *>(tensor.data) + tensor.byte_offset + offset * (tensor.dtype.bits / 8);
}

// Rows of the last dimension, as fp32.
row_reader rows_of(const DLTensor &tensor)
{
    std::function<float(const char *)> element;
    if (tensor.dtype.bits == 32)
        element = [](const char *at) { return bit_cast<float>(at); };
    else if (tensor.dtype.code == kDLFloat)
        element = [](const char *at) { return from_half(bit_cast<std::uint16_t>(at)); };
    else
        element = [](const char *at) {
            std::uint32_t bits = std::uint32_t{bit_cast<std::uint16_t>(at)} << 16;
            return bit_cast<float>(&bits);
        };
    return [&tensor, element](std::initializer_list<std::int64_t> index, std::int64_t count) {
        std::vector<float> row(static_cast<std::size_t>(count));
        const char *at = address(tensor, index);
        std::int64_t step = tensor.strides[tensor.ndim - 1] * (tensor.dtype.bits / 8);
        for (auto &value : row) {
            value = element(at);
            at += step;
        }
        return row;
    };
}

void store(const DLTensor &tensor, std::initializer_list<std::int64_t> index, float value)
{
    char *at = const_cast<char *>(address(tensor, index));
    auto bits = bit_cast<std::uint32_t>(&value);
    if (tensor.dtype.bits == 32) {
        std::memcpy(at, &value, 4);
        return;
    }
    auto half = tensor.dtype.code == kDLFloat
                    ? to_half(value)
                    : static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    std::memcpy(at, &half, 2);
}

std::vector<int> whole_of(const DLTensor &vector)
{
    std::vector<int> values(static_cast<std::size_t>(vector.shape[0]));
    for (std::size_t n = 0; n < values.size(); n++)
        values[n] = bit_cast<std::int32_t>(address(vector, {static_cast<std::int64_t>(n)}));
    return values;
}

void shrink(const cm_call *call)
{
    auto tensor = [call](const char *name) -> const DLTensor & { return *call->host->argument(call, name); };
    auto dim = [call](char letter) { return call->host->dim(call, letter); };
    const auto &v = tensor("v");
    auto x_row = rows_of(tensor("x")), a_row = rows_of(tensor("lora_a"));
    auto permutation = whole_of(tensor("permutation")), offset = whole_of(tensor("segment_offset"));
    auto adapter = whole_of(tensor("segment_adapter")), rank = whole_of(tensor("lora_rank"));
    for (std::size_t p = 0; p < adapter.size(); p++) {
        int live = adapter[p] < 0 ? 0 : rank.at(static_cast<std::size_t>(adapter[p]));
        std::for_each(permutation.begin() + offset[p], permutation.begin() + offset[p + 1], [&](int t) {
            auto x = live ? x_row({t, 0}, dim('K')) : std::vector<float>{};
            for (std::int64_t s = 0; s < dim('S'); s++)
                for (std::int64_t j = 0; j < dim('r'); j++) {
                    float sum = 0;
                    if (j < live) {
                        auto a = a_row({adapter[p], s, j, 0}, dim('K'));
                        sum = std::inner_product(x.begin(), x.end(), a.begin(), 0.0f);
                    }
                    store(v, {t, s, j}, sum);
                }
        });
    }
}

cm_status run(const cm_call *call, void *)
{
    cm_status status = call->host->validate(call);
    if (status != CM_OK)
        return status;
    try {
        shrink(call);
    } catch (const std::bad_alloc &) {
        return call->host->fail(call, CM_NO_MEMORY, "no memory");
    } catch (const std::exception &exception) {
        return call->host->fail(call, CM_BAD_VALUE, "%s", exception.what());
    }
    return CM_OK;
}

const cm_kernel kernel = [] {
    cm_kernel made{};
    made.size = sizeof made;
    made.name = "sgmv_shrink/modern";
    made.file = __FILE__;
    made.line = __LINE__;
    made.accuracy = CM_ACCURACY_SINGLE;
    made.run = run;
    return made;
}();

} // namespace

extern "C" const cm_kernel *const *checkmoe_plugin_1(std::uint32_t abi_version)
{
    static const cm_kernel *const kernels[] = {&kernel, nullptr};
    return abi_version == CM_ABI_VERSION ? kernels : nullptr;
}
