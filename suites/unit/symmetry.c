// SPDX-License-Identifier: Apache-2.0
// Every symmetry that an op's table lists, held against its reference: what is transformed follows from the
// table alone. Relations that are wrong on purpose show that the comparison would notice.
#include "harness/op.h"
#include "harness/registry.h"
#include "harness/rng.h"
#include "suites/unit/oracle.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOLERANCE 1e-12 // of sum |terms|: permuting changes the order of sums

// One case, transformed, and what the reference says before and after.
struct relation {
    const cm_op *op;
    const cm_symmetry *symmetry;
    const char *only;               // arguments that are transformed; NULL: all that should be
    cm_pristine *pristine;          // transformed in place
    cm_want want[CM_MAX_ARGUMENTS]; // of the case as it was
    int64_t *order;                 // PERMUTE: new place -> old place
    int64_t *place;                 // PERMUTE: old place -> new place
    int64_t extent;
};

static void relation_open(const cm_op *op, const char *text, const char *const *added, struct relation *out)
{
    *out = (struct relation){.op = op, .pristine = cm_new(1, sizeof(cm_pristine))};
    cm_oracle_open_case(op, text, out->pristine);
    for (; *added; added++)
        cm_oracle_add_argument(out->pristine, *added, -2);
}

static void relation_close(struct relation *relation)
{
    cm_pristine_close(relation->pristine);
    cm_oracle_close_wants(relation->want);
    free(relation->pristine);
    free(relation->order);
    free(relation->place);
}

static bool is_listed(const char *words, const char *name)
{
    return cm_has_word(words, name, strlen(name));
}

// Place of the symmetry's letter in an argument's shape, -1: it has none.
static int dimension_of(const struct relation *relation, int argument)
{
    int64_t shape[CM_MAX_RANK];
    char letters[CM_MAX_RANK];
    int ndim =
        cm_op_shape(&relation->op->arguments[argument], relation->pristine->test_case.dims, shape, letters);
    for (int d = 0; d < ndim; d++)
        if (letters[d] == relation->symmetry->letter)
            return d;
    return -1;
}

// Flat index before the permutation of what stands at flat index n after it.
static int64_t source_of(const struct relation *relation, const DLTensor *tensor, int d, int64_t n)
{
    int64_t inner = 1;
    for (int e = d + 1; e < tensor->ndim; e++)
        inner *= tensor->shape[e];
    int64_t at = n / inner % relation->extent;
    return n + (relation->order[at] - at) * inner;
}

static void permute_argument(const struct relation *relation, int argument)
{
    const DLTensor *tensor = relation->pristine->arguments[argument];
    bool is_index = relation->op->arguments[argument].index_into == relation->symmetry->letter;
    int64_t count = cm_tensor_count(tensor);
    double *old = cm_new((size_t)count, sizeof *old);
    int d = dimension_of(relation, argument);
    for (int64_t n = 0; n < count; n++)
        old[n] = cm_tensor_get(tensor, n);
    for (int64_t n = 0; n < count; n++) {
        double value = d < 0 ? old[n] : old[source_of(relation, tensor, d, n)];
        if (is_index && value >= 0)
            value = (double)relation->place[(int64_t)value];
        cm_tensor_set(tensor, n, value);
    }
    free(old);
}

// A random cycle (Sattolo): nothing stays in place.
static void draw_order(struct relation *relation, uint64_t seed)
{
    relation->extent = relation->pristine->test_case.dims[cm_dim_index(relation->symmetry->letter)];
    relation->order = cm_new((size_t)relation->extent, sizeof *relation->order);
    relation->place = cm_new((size_t)relation->extent, sizeof *relation->place);
    for (int64_t n = 0; n < relation->extent; n++)
        relation->order[n] = n;
    for (int64_t n = relation->extent - 1; n > 0; n--) {
        int64_t other = cm_rng_below((cm_rng){seed, 0x73796d}, (uint64_t)n, n), keep = relation->order[n];
        relation->order[n] = relation->order[other];
        relation->order[other] = keep;
    }
    for (int64_t n = 0; n < relation->extent; n++)
        relation->place[relation->order[n]] = n;
}

// Applies the symmetry to the inputs. False: the case has nothing that it would change.
static bool transform(struct relation *relation)
{
    const cm_symmetry *symmetry = relation->symmetry;
    int changed = 0;
    if (symmetry->kind == CM_SYMMETRY_PERMUTE) {
        draw_order(relation, relation->pristine->test_case.seed);
        if (relation->extent < 2)
            return false;
    }
    for (int n = 0; relation->op->arguments[n].name; n++) {
        const cm_argument *row = &relation->op->arguments[n];
        const DLTensor *tensor = relation->pristine->arguments[n];
        if (!tensor || row->role == CM_OUTPUT || (relation->only && !is_listed(relation->only, row->name)))
            continue;
        if (symmetry->kind == CM_SYMMETRY_PERMUTE) {
            bool has = dimension_of(relation, n) >= 0 || row->index_into == symmetry->letter;
            if (has)
                permute_argument(relation, n);
            changed += has;
        } else if (is_listed(symmetry->arguments, row->name)) {
            double factor = symmetry->kind == CM_SYMMETRY_SCALE ? 2 : 0;
            int64_t count = cm_tensor_count(tensor);
            double *scaled = cm_new((size_t)count, sizeof *scaled); // with a stride of 0 elements are one
            for (int64_t i = 0; i < count; i++)
                scaled[i] = factor * cm_tensor_get(tensor, i);
            for (int64_t i = 0; i < count; i++)
                cm_tensor_set(tensor, i, scaled[i]);
            free(scaled);
            changed++;
        }
    }
    return changed > 0;
}

// Elements of the outputs that do not obey; `compared` counts those that were looked at.
static int64_t violations(const struct relation *relation, int64_t *compared)
{
    bool permuted = relation->symmetry->kind == CM_SYMMETRY_PERMUTE;
    double factor = relation->symmetry->kind == CM_SYMMETRY_SCALE ? 2 : 1;
    cm_want after[CM_MAX_ARGUMENTS];
    int64_t bad = 0;
    cm_oracle_want(relation->pristine, 0, CM_ACCURACY_SINGLE, after);
    for (int out = 0; out < CM_MAX_ARGUMENTS; out++) {
        int d = after[out].count && permuted ? dimension_of(relation, out) : -1;
        bool is_index = permuted && after[out].count &&
                        relation->op->arguments[out].index_into == relation->symmetry->letter;
        for (int64_t n = 0; n < after[out].count; n++) {
            int64_t from = d < 0 ? n : source_of(relation, relation->pristine->arguments[out], d, n);
            double wanted = factor * relation->want[out].value[from];
            if (is_index && wanted >= 0)
                wanted = (double)relation->place[(int64_t)wanted];
            double allowed = permuted ? TOLERANCE * relation->want[out].magnitude[from] : 0;
            bad += !(fabs(after[out].value[n] - wanted) <= allowed);
            ++*compared;
        }
    }
    cm_oracle_close_wants(after);
    return bad;
}

static const char *const nothing[] = {NULL};

// Returns the number of violations, -1 if the case has nothing to transform.
static int64_t violations_of(const cm_op *op, const cm_symmetry *symmetry, const char *text,
                             const char *const *added, const char *only, int64_t *compared)
{
    struct relation relation;
    relation_open(op, text, added, &relation);
    relation.symmetry = symmetry;
    relation.only = only;
    cm_oracle_want(relation.pristine, symmetry->kind == CM_SYMMETRY_OMIT ? symmetry->terms : 0,
                   CM_ACCURACY_SINGLE, relation.want);
    int64_t bad = transform(&relation) ? violations(&relation, compared) : -1;
    relation_close(&relation);
    return bad;
}

struct search {
    const cm_op *op;
    int64_t compared[16]; // by symmetry
    int cases;
};

static cm_status try_case(const char *text, void *self)
{
    struct search *search = self;
    for (int n = 0; search->op->symmetries[n].name; n++) {
        const cm_symmetry *symmetry = &search->op->symmetries[n];
        int64_t bad = violations_of(search->op, symmetry, text, nothing, NULL, &search->compared[n]);
        ck_assert_msg(bad <= 0, "%s/%s: \"%s\" is violated by %lld elements of the reference",
                      search->op->name, text, symmetry->name, (long long)bad);
    }
    search->cases++;
    return CM_OK;
}

// Cases of each op.
static const struct cases {
    const char *op, *pattern;
} cases[] = {
    {"moe_forward", "t{1,9}-k{1,3}-e5-h33-i17-{,d20}-r8x3-{bf16,f32}-{uniform,holes,duplicate}-random-s1"},
    {"moe_forward", "t9-k2-e4-h48-i32-d24-r8x3-f16-{padded,shared_outer}-{full,rank0}-random-s2"},
    {"moe_forward", "t9-k2-e4-h48-i32-{bf16,f16,f32}-random-s3"},
    {"moe_forward", "t9-k2-e4-h48-i32-d24-r8x3-{bf16,f32}-exact-s4"},
    {"sgmv_shrink",
     "t{1,9}-r{1,8}x3-K{33,64}-S{1,3}-{bf16,f32}-{mixed,last,rank0}-{packed,padded}-random-s1"},
    {"sgmv_shrink", "t9-r8x3-K64-S3-bf16-vf32-{mixed,full}-exact-s2"},
    {"sgmv_expand",
     "t{1,9}-r{1,8}x3-n{33,64}-S{1,3}-{bf16,f32}-{,accumulate=0}-{mixed,last,rank0}-random-s1"},
    {"sgmv_expand", "t9-r8x3-n64-S3-bf16-vf32-{mixed,full,padded}-exact-s2"},
    {"sgmv_plan", "t9-l3-{mixed,full}-random-s1"},
};

START_TEST(every_listed_symmetry_holds)
{
    for (const cm_op *const *op = cm_registry_ops(); *op; op++) {
        struct search search = {.op = *op};
        for (size_t n = 0; n < sizeof cases / sizeof *cases; n++)
            if (!strcmp(cases[n].op, (*op)->name))
                ck_assert_int_eq(cm_case_expand(cases[n].pattern, try_case, &search, NULL), CM_OK);
        ck_assert_msg(search.cases > 0, "no case of %s is tried here", (*op)->name);
        for (int n = 0; (*op)->symmetries[n].name; n++) {
            ck_assert_msg(search.compared[n] > 0, "%s: nothing showed \"%s\"", (*op)->name,
                          (*op)->symmetries[n].name);
            if (getenv("CM_VERBOSE"))
                fprintf(stderr, "%-12s %-22s %8lld elements\n", (*op)->name, (*op)->symmetries[n].name,
                        (long long)search.compared[n]);
        }
    }
}
END_TEST

// With arguments that no case has yet.
START_TEST(symmetries_hold_with_optional_arguments)
{
    static const char *const added[] = {"bias_gate", "bias_up", "bias_down", "shared_router", NULL};
    const cm_op *op = cm_registry_find_op("moe_forward", strlen("moe_forward"));
    for (int n = 0; op->symmetries[n].name; n++) {
        int64_t compared = 0,
                bad = violations_of(op, &op->symmetries[n], "t9-k2-e4-h48-i32-d24-r8x3-f32-holes-random-s5",
                                    added, NULL, &compared);
        ck_assert_msg(bad == 0, "\"%s\" is violated by %lld elements of the reference with biases",
                      op->symmetries[n].name, (long long)bad);
    }
}
END_TEST

#define MOE    "moe_forward", "t9-k2-e4-h48-i32-r8x3-bf16-random-s1"
#define SHRINK "sgmv_shrink", "t9-r8x3-K64-S3-bf16-random-s1"
#define EXPAND "sgmv_expand", "t9-r8x3-n64-S3-bf16-random-s1"

static const struct wrong {
    const char *op, *cases;
    const char *only; // of the arguments that should be permuted; NULL: all
    cm_symmetry symmetry;
} wrong[] = {
    {MOE, "w_gate", {"", CM_SYMMETRY_PERMUTE, 'I', NULL, 0}},
    {MOE, "w_gate w_up w_down", {"", CM_SYMMETRY_PERMUTE, 'I', NULL, 0}},
    {MOE, "topk_ids", {"", CM_SYMMETRY_PERMUTE, 'E', NULL, 0}},
    {MOE, "topk_ids", {"", CM_SYMMETRY_PERMUTE, 'k', NULL, 0}},
    {MOE, "hidden w_gate w_up lora_a_gate lora_a_up", {"", CM_SYMMETRY_PERMUTE, 'H', NULL, 0}},
    {MOE, NULL, {"", CM_SYMMETRY_SCALE, 0, "w_gate", 0}},
    {MOE, NULL, {"", CM_SYMMETRY_SCALE, 0, "w_down", 0}},
    {MOE, NULL, {"", CM_SYMMETRY_OMIT, 0, "lora_scaling", 1}},
    {MOE, NULL, {"", CM_SYMMETRY_OMIT, 0, "w_up", 7}},
    {SHRINK, "lora_a", {"", CM_SYMMETRY_PERMUTE, 'K', NULL, 0}},
    {SHRINK, "segment_adapter", {"", CM_SYMMETRY_PERMUTE, 'L', NULL, 0}},
    {EXPAND, NULL, {"", CM_SYMMETRY_PERMUTE, 'N', NULL, 0}},
    {EXPAND, NULL, {"", CM_SYMMETRY_SCALE, 0, "y", 0}},
    {EXPAND, NULL, {"", CM_SYMMETRY_OMIT, 0, "lora_scaling", 2}},
};

START_TEST(a_wrong_symmetry_is_noticed)
{
    int64_t compared = 0;
    const struct wrong *row = &wrong[_i];
    const cm_op *op = cm_registry_find_op(row->op, strlen(row->op));
    int64_t bad = violations_of(op, &row->symmetry, row->cases, nothing, row->only, &compared);
    ck_assert_msg(bad * 3 > compared, "only %lld of %lld elements notice", (long long)bad,
                  (long long)compared);
}
END_TEST

Suite *cm_unit_symmetry(void);
Suite *cm_unit_symmetry(void)
{
    Suite *suite = suite_create("symmetry");
    TCase *tcase = tcase_create("symmetry");
    tcase_set_timeout(tcase, 300);
    tcase_add_test(tcase, every_listed_symmetry_holds);
    tcase_add_test(tcase, symmetries_hold_with_optional_arguments);
    tcase_add_loop_test(tcase, a_wrong_symmetry_is_noticed, 0, sizeof wrong / sizeof *wrong);
    suite_add_tcase(suite, tcase);
    return suite;
}
