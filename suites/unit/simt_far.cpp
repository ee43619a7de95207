// SPDX-License-Identifier: Apache-2.0
// Offsets of more than 2^31 elements: experts, adapters and tokens lie so far apart, in memory of which only
// what is touched exists. moe_forward/cuda must give the same bits as for the same values side by side.
#include "suites/unit/simt.h"

extern "C" {
#include "optimized/kernels.h"
}

#include <map>
#include <memory>
#include <stdarg.h>
#include <string>
#include <sys/mman.h>
#include <vector>

namespace
{

constexpr int64_t FAR = (1ll << 31) + 72; // elements; 72 more, so that what is cut to 32 bits lies elsewhere
enum { T = 3, k = 2, E = 2, H = 40, I = 24, L = 2, R = 8 };

// A tensor of up to four dimensions in memory of its own. The first one is `far` elements apart.
struct Far {
    DLTensor tensor = DLTensor();
    int64_t shape[4], strides[4];
    size_t bytes = 0;

    Far(DLDataType dtype, std::vector<int64_t> dims, bool far)
    {
        int64_t step = 1;
        for (int d = (int)dims.size() - 1; d >= 0; d--) {
            shape[d] = dims[(size_t)d];
            strides[d] = far && d == 0 && dims.size() > 1 ? FAR : step;
            step *= dims[(size_t)d];
        }
        bytes = (size_t)((shape[0] - 1) * strides[0] + step) * dtype.bits / 8;
        void *memory =
            mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        ck_assert_ptr_ne(memory, MAP_FAILED);
        tensor = {memory, {kDLCUDA, 0}, (int)dims.size(), dtype, shape, strides, 0};
    }
    Far(const Far &) = delete;
    ~Far()
    {
        munmap(tensor.data, bytes);
    }
    // Element n, row-major.
    template <typename V> V &at(int64_t n)
    {
        int64_t offset = 0;
        for (int d = tensor.ndim - 1; d >= 0; n /= shape[d], d--)
            offset += n % shape[d] * strides[d];
        return static_cast<V *>(tensor.data)[offset];
    }
    int64_t count() const
    {
        int64_t all = 1;
        for (int d = 0; d < tensor.ndim; d++)
            all *= shape[d];
        return all;
    }
};

struct Call {
    cm_call call; // first: the host finds the others by it
    std::map<std::string, std::unique_ptr<Far>> arguments;
    std::vector<void *> taken;

    explicit Call(bool far);
    ~Call()
    {
        for (void *memory : taken)
            free(memory);
    }
};

const Call *self(const cm_call *call)
{
    return reinterpret_cast<const Call *>(call);
}

const DLTensor *argument(const cm_call *call, const char *name)
{
    auto found = self(call)->arguments.find(name);
    return found == self(call)->arguments.end() ? nullptr : &found->second->tensor;
}

double attribute(const cm_call *, const char *)
{
    return 0;
}

int64_t dim(const cm_call *, char letter)
{
    const std::map<char, int64_t> dims = {{'T', T}, {'k', k}, {'E', E}, {'H', H},
                                          {'I', I}, {'L', L}, {'r', R}};
    auto found = dims.find(letter);
    return found == dims.end() ? 0 : found->second;
}

cm_status validate(const cm_call *)
{
    return CM_OK;
}

void *scratch(const cm_call *call, size_t bytes, size_t alignment)
{
    void *memory = aligned_alloc(alignment, (bytes + alignment) / alignment * alignment);
    memset(memory, 0xff, bytes);
    const_cast<Call *>(self(call))->taken.push_back(memory);
    return memory;
}

void path(const cm_call *, int)
{
}

Call::Call(bool far) : call(cm_unit_call)
{
    static cm_host host = *cm_unit_call.host;
    const DLDataType bf16 = {kDLBfloat, 16, 1}, f32 = {kDLFloat, 32, 1}, i32 = {kDLInt, 32, 1};
    host.argument = argument;
    host.attribute = attribute;
    host.dim = dim;
    host.validate = validate;
    host.scratch = scratch;
    host.path = path;
    call.host = &host;
    const struct {
        const char *name;
        DLDataType dtype;
        std::vector<int64_t> dims;
    } all[] = {{"hidden", bf16, {T, H}},
               {"topk_ids", i32, {T, k}},
               {"topk_weights", f32, {T, k}},
               {"token_adapter", i32, {T}},
               {"lora_rank", i32, {L}},
               {"lora_scaling", f32, {L}},
               {"w_gate", bf16, {E, I, H}},
               {"w_up", bf16, {E, I, H}},
               {"w_down", bf16, {E, H, I}},
               {"lora_a_gate", bf16, {L, E, R, H}},
               {"lora_b_gate", bf16, {L, E, I, R}},
               {"lora_a_up", bf16, {L, E, R, H}},
               {"lora_b_up", bf16, {L, E, I, R}},
               {"lora_a_down", bf16, {L, E, R, I}},
               {"lora_b_down", bf16, {L, E, H, R}},
               {"output", bf16, {T, H}}};
    uint32_t state = 1;
    for (const auto &one : all) {
        auto &made = arguments[one.name] = std::make_unique<Far>(one.dtype, one.dims, far);
        for (int64_t n = 0; n < made->count(); n++) {
            state = state * 1664525 + 1013904223;
            float value = (float)((int)(state >> 16 & 63) - 32) / 64;
            if (one.dtype.code == kDLBfloat)
                cm_narrow(value, &made->at<cm_bf16>(n));
            else if (one.dtype.code == kDLFloat)
                made->at<float>(n) = value;
            else // the last experts, adapters and ranks above all
                made->at<int32_t>(n) = one.name[0] == 'l' ? R - (int)n : n != 3;
        }
    }
}

} // namespace

START_TEST(offsets_have_64_bits)
{
    Call near(false), far(true);
    cm_simt::set_schedule(0);
    ck_assert_msg(cm_moe_forward_cuda.run(&near.call, nullptr) == CM_OK, "%s", cm_unit_said);
    ck_assert_msg(cm_moe_forward_cuda.run(&far.call, nullptr) == CM_OK, "%s", cm_unit_said);
    int different = 0;
    for (int n = 0; n < T * H; n++) {
        uint16_t is = far.arguments["output"]->at<uint16_t>(n),
                 was = near.arguments["output"]->at<uint16_t>(n);
        ck_assert_msg(is == was, "element %d: %04x, not %04x", n, is, was);
        different += (was & 0x7fff) != 0;
    }
    ck_assert_int_gt(different, T * H / 2);
}
END_TEST

TCase *cm_unit_simt_far(void)
{
    TCase *tcase = tcase_create("far");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, offsets_have_64_bits);
    return tcase;
}
