// SPDX-License-Identifier: Apache-2.0
// Reading an op's table: shapes, groups, which arguments a case has; and what the host offers to kernels.
#include "suites/unit/op.h"

#include "harness/host.h"
#include "harness/op.h"
#include "suites/unit/cases.h"

#include <stdio.h>
#include <string.h>

const struct cm_unit_valid cm_unit_valid[CM_UNIT_OPS] = {
    {"moe_forward", "t5-k2-e4-h16-i9-d6-r7x3-g4-bf16-wi4-random-s1"},
    {"sgmv_shrink", "t5-r7x3-K16-S2-bf16-vf32-random-s1"},
    {"sgmv_expand", "t5-r7x3-n18-S2-f16-random-s1"},
    {"sgmv", "t5-r7x3-K16-n18-S2-bf16-yf32-random-s1"},
    {"sgmv_plan", "t5-l3-random-s1"},
    {"quantize", "t5-K17-g4-bf16-qi4-random-s1"},
    {"dequantize", "t5-K17-g4-bf16-qi8-random-s1"},
};

// Name, letters and extents of every argument, by hand.
static const char *const shapes[CM_UNIT_OPS] = {
    "hidden TH 5x16|topk_ids Tk 5x2|topk_weights Tk 5x2|token_adapter T 5|lora_rank L 3|lora_scaling L 3|"
    "w_gate EIH 4x9x16|w_up EIH 4x9x16|w_down EHI 4x16x9|w_gate_scale EI# 4x9x4|w_up_scale EI# 4x9x4|"
    "w_down_scale EH# 4x16x3|bias_gate EI 4x9|bias_up EI 4x9|bias_down EH 4x16|lora_a_gate LErH 3x4x7x16|"
    "lora_b_gate LEIr 3x4x9x7|lora_a_up LErH 3x4x7x16|lora_b_up LEIr 3x4x9x7|lora_a_down LErI 3x4x7x9|"
    "lora_b_down LEHr 3x4x16x7|shared_gate DH 6x16|shared_up DH 6x16|shared_down HD 16x6|"
    "shared_gate_scale D# 6x4|shared_up_scale D# 6x4|shared_down_scale H# 16x2|shared_router #H 1x16|"
    "shared_lora_a_gate LrH 3x7x16|shared_lora_b_gate LDr 3x6x7|shared_lora_a_up LrH 3x7x16|"
    "shared_lora_b_up LDr 3x6x7|shared_lora_a_down LrD 3x7x6|shared_lora_b_down LHr 3x16x7|expert_map E "
    "4|output TH 5x16|",
    "x TK 5x16|lora_a LSrK 3x2x7x16|permutation T 5|segment_offset # 5|segment_adapter # 4|lora_rank L 3|"
    "v TSr 5x2x7|",
    "v TSr 5x2x7|slice_offset # 3|permutation T 5|segment_offset # 5|segment_adapter # 4|lora_rank L 3|"
    "lora_scaling L 3|lora_b LNr 3x18x7|y TN 5x18|",
    "x TK 5x16|lora_a LSrK 3x2x7x16|slice_offset # 3|permutation T 5|segment_offset # 5|segment_adapter # 4|"
    "lora_rank L 3|lora_scaling L 3|lora_b LNr 3x18x7|y TN 5x18|",
    "token_adapter T 5|permutation T 5|segment_offset # 5|segment_adapter # 4|",
    "x TK 5x17|codes TK 5x17|scale T# 5x5|",
    "codes TK 5x17|scale T# 5x5|y TK 5x17|",
};

START_TEST(shapes_by_letters)
{
    cm_case test_case = cm_unit_case(cm_unit_valid[_i].op, cm_unit_valid[_i].name);
    char text[2048] = "";
    for (int n = 0; n < cm_op_argument_count(test_case.op); n++) {
        const cm_argument *argument = &test_case.op->arguments[n];
        int64_t shape[CM_MAX_RANK], again[CM_MAX_RANK];
        char letters[CM_MAX_RANK];
        int ndim = cm_op_shape(argument, test_case.dims, shape, letters);
        ck_assert_int_eq(cm_op_shape(argument, test_case.dims, again, NULL), ndim);
        ck_assert(!memcmp(shape, again, (size_t)ndim * sizeof *shape));
        size_t at = strlen(text);
        at += (size_t)sprintf(text + at, "%s %.*s ", argument->name, ndim, letters);
        for (int d = 0; d < ndim; d++)
            at += (size_t)sprintf(text + at, d ? "x%lld" : "%lld", (long long)shape[d]);
        strcpy(text + at, "|");
        ck_assert_int_eq(cm_op_argument_index(test_case.op, argument->name), n);
    }
    ck_assert_str_eq(text, shapes[_i]);
    ck_assert_int_eq(cm_op_argument_index(test_case.op, "nothing"), -1);
}
END_TEST

START_TEST(groups)
{
    static const cm_argument argument = {.name = "x", .shape = "E 12 H/G I+3"};
    int64_t dims[CM_DIM_COUNT] = {0}, shape[CM_MAX_RANK];
    char letters[CM_MAX_RANK];
    static const int64_t cases[][3] = {
        {16, 4, 4}, {17, 4, 5}, {3, 4, 1}, {16, 0, 1}, {16, 1, 16}}; // H, G, groups
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
        dims[cm_dim_index('E')] = 5;
        dims[cm_dim_index('H')] = cases[n][0];
        dims[cm_dim_index('G')] = cases[n][1];
        ck_assert_int_eq(cm_op_shape(&argument, dims, shape, letters), 4);
        ck_assert(shape[0] == 5 && shape[1] == 12 && shape[2] == cases[n][2] && shape[3] == 3);
        ck_assert(!memcmp(letters, "E###", 4));
    }
}
END_TEST

// Which optional arguments a case has: by its dimensions, by what can be generated, by their partner.
START_TEST(presence)
{
    static const struct {
        const char *name, *absent; // among those of `asked`
    } rows[] = {
        {"t5-k2-e4-h16-i9-d6-r7x3", "bias_up w_gate_scale shared_router"},
        {"t0-k2-e4-h16-i9-d6-r7x3", "bias_up w_gate_scale shared_router"},
        {"t5-k2-e4-h16-i9-r7x3", "bias_up w_gate_scale shared_router shared_up shared_lora_b_down"},
        {"t5-k2-e4-h16-i9-d6-r7x3-biased", "w_gate_scale shared_router"},
        {"t5-k2-e4-h16-i9-d6-r7x3-gated-wi8", "bias_up"},
        {"t5-k2-e4-h16-i9-r7x3-biased_gated-wi4", "shared_router shared_up shared_lora_b_down"},
        {"t5-k2-e4-h16-i9-d6", "token_adapter lora_rank lora_scaling bias_up w_gate_scale shared_router "
                               "lora_a_up lora_b_up shared_lora_b_down"},
    };
    static const char *const asked[] = {"hidden",    "token_adapter", "lora_rank",          "lora_scaling",
                                        "bias_up",   "w_gate_scale",  "shared_router",      "lora_a_up",
                                        "lora_b_up", "shared_up",     "shared_lora_b_down", "output"};
    for (size_t row = 0; row < sizeof rows / sizeof *rows; row++) {
        cm_case test_case = cm_unit_case("moe_forward", rows[row].name);
        for (size_t n = 0; n < sizeof asked / sizeof *asked; n++) {
            bool want = !cm_has_word(rows[row].absent, asked[n], strlen(asked[n]));
            int argument = cm_op_argument_index(test_case.op, asked[n]);
            ck_assert_msg(cm_op_present(&test_case, argument) == want, "%s of %s", asked[n], rows[row].name);
        }
    }
    ck_assert(cm_has_word("ab cd", "cd", 2) && !cm_has_word("ab cd", "c", 1) && !cm_has_word("ab", "abc", 3));
    ck_assert(!cm_has_word("", "a", 1) && cm_has_word("a", "a,b", 1));
}
END_TEST

START_TEST(host_services)
{
    cm_arena arena = {0};
    cm_pristine *pristine = cm_unit_open(cm_unit_valid[0].op, cm_unit_valid[0].name);
    cm_hosted hosted = {.call = {.op = pristine->test_case.op,
                                 .host = &cm_host_services,
                                 .arguments = pristine->arguments,
                                 .attributes = pristine->test_case.attributes,
                                 .dims = pristine->test_case.dims}};
    const cm_call *call = &hosted.call;
    const cm_host *host = call->host;
    ck_assert_uint_eq(host->abi_version, CM_ABI_VERSION);
    ck_assert_ptr_eq(host->argument(call, "w_up"), cm_unit_argument(pristine, "w_up"));
    ck_assert_ptr_null(host->argument(call, "nothing"));
    ck_assert(host->attribute(call, "activation_limit") == 7 && host->dim(call, 'H') == 16);
    ck_assert_int_eq(host->dim(call, '?'), 0);
    ck_assert_int_eq((host->fail)(call, CM_BAD_STATE, "%d of %s", 3, "x"), CM_BAD_STATE);
    ck_assert_str_eq(hosted.error.message, "3 of x");
    ck_assert_ptr_null(host->scratch(call, 16, 16)); // there is no arena
    hosted.arena = &arena;
    hosted.poison = 0x7e;
    unsigned char *scratch = host->scratch(call, 100, 64);
    ck_assert(scratch && (uintptr_t)scratch % 64 == 0 && scratch[0] == 0x7e && scratch[99] == 0x7e);
    ck_assert_str_eq(arena.blocks[0].name, "scratch");
    ck_assert_ptr_nonnull(host->scratch(call, 3, 0));
    ck_assert_ptr_null(host->scratch(call, 16, 3));
    ck_assert_ptr_null(host->scratch(call, 16, 8192));
    cm_arena_drop(&arena, 0);
    cm_unit_close(pristine);
}
END_TEST

TCase *cm_unit_op_tables(void)
{
    TCase *tcase = tcase_create("tables");
    tcase_add_loop_test(tcase, shapes_by_letters, 0, CM_UNIT_OPS);
    tcase_add_test(tcase, groups);
    tcase_add_test(tcase, presence);
    tcase_add_test(tcase, host_services);
    return tcase;
}
