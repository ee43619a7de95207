// SPDX-License-Identifier: Apache-2.0
// sgmv_plan/paths: a kernel of two paths. A few tokens are searched once for each adapter, many are counted
// first. PATHS_forgotten never counts, whatever it declares; PATHS_undeclared says a third path.
#include <checkmoe.h>

enum { SEARCH, COUNT, COUNT_FROM = 5000 };
static const cm_path paths[] = {{"search", "all tokens once for each adapter"},
                                {"count", "tokens of each adapter are counted first"},
                                {0}};
static const cm_switch_point points[] = {{"T", COUNT_FROM, "from search to count"}, {0}};

#ifdef PATHS_forgotten
enum { CHOSEN_FROM = 5000000 };
#else
enum { CHOSEN_FROM = COUNT_FROM };
#endif

struct plan {
    int64_t T, L, adapter_stride;
    const int32_t *token_adapter;
    int32_t *permutation, *offset, *adapter;
};

static int32_t adapter_of(const struct plan *plan, int64_t t)
{
    return plan->token_adapter[t * plan->adapter_stride];
}

// Both return the number of segments.
static int64_t search(const struct plan *plan)
{
    int64_t segment = 0, n = 0;
    for (int64_t a = -1; a < plan->L; a++) {
        int64_t begin = n;
        for (int64_t t = 0; t < plan->T; t++)
            if (adapter_of(plan, t) == a)
                plan->permutation[n++] = (int32_t)t;
        if (n > begin) {
            plan->offset[segment] = (int32_t)begin;
            plan->adapter[segment++] = (int32_t)a;
        }
    }
    return segment;
}

static int64_t count(const struct plan *plan, int32_t *next)
{
    int64_t segment = 0;
    int32_t begin = 0;
    for (int64_t a = 0; a <= plan->L; a++)
        next[a] = 0;
    for (int64_t t = 0; t < plan->T; t++)
        next[adapter_of(plan, t) + 1]++;
    for (int64_t a = 0; a <= plan->L; a++) {
        int32_t tokens = next[a];
        next[a] = begin;
        if (tokens > 0) {
            plan->offset[segment] = begin;
            plan->adapter[segment++] = (int32_t)a - 1;
        }
        begin += tokens;
    }
    for (int64_t t = 0; t < plan->T; t++)
        plan->permutation[next[adapter_of(plan, t) + 1]++] = (int32_t)t;
    return segment;
}

static cm_status run(const cm_call *call, void *state)
{
    const cm_host *host = call->host;
    (void)state;
    cm_status status = host->validate(call);
    if (status != CM_OK)
        return status;
    const DLTensor *adapters = host->argument(call, "token_adapter");
    struct plan plan = {.T = host->dim(call, 'T'),
                        .L = host->dim(call, 'L'),
                        .adapter_stride = adapters->strides[0],
                        .token_adapter = adapters->data,
                        .permutation = host->argument(call, "permutation")->data,
                        .offset = host->argument(call, "segment_offset")->data,
                        .adapter = host->argument(call, "segment_adapter")->data};
    int32_t *next = host->scratch(call, (size_t)(plan.L + 1) * sizeof *next, sizeof *next);
    if (!next)
        return host->fail(call, CM_NO_MEMORY, "no scratch memory");
    int64_t segment;
    if (plan.T < CHOSEN_FROM) {
        host->path(call, SEARCH);
        segment = search(&plan);
    } else {
        host->path(call, COUNT);
        segment = count(&plan, next);
    }
#ifdef PATHS_undeclared
    host->path(call, 2);
#endif
    for (; segment <= plan.L + 1; segment++) {
        plan.offset[segment] = (int32_t)plan.T;
        if (segment <= plan.L)
            plan.adapter[segment] = -1;
    }
    return CM_OK;
}

static const cm_kernel kernel = {
    .size = sizeof(cm_kernel),
    .name = "sgmv_plan/paths",
    .file = __FILE__,
    .line = __LINE__,
    .accuracy = CM_ACCURACY_SINGLE,
    .run = run,
    .paths = paths,
    .switch_points = points,
};

const cm_kernel *const *checkmoe_plugin_1(uint32_t abi_version);
const cm_kernel *const *checkmoe_plugin_1(uint32_t abi_version)
{
    static const cm_kernel *const kernels[] = {&kernel, NULL};
    return abi_version == CM_ABI_VERSION ? kernels : NULL;
}
