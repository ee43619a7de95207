// SPDX-License-Identifier: Apache-2.0
// Slots are sorted by counting, first by adapter, then by expert: both passes keep the order of equal ones,
// so that tokens stay in theirs.
#include "optimized/cpu/plan.h"

static int64_t key_of(const struct cm_slot *slot, bool by_expert)
{
    return by_expert ? slot->expert : slot->adapter + 1;
}

// starts [keys + 1] is scratch.
static void sort_by(const struct cm_slot *from, int64_t count, bool by_expert, int64_t keys, int32_t *starts,
                    struct cm_slot *to)
{
    memset(starts, 0, (size_t)(keys + 1) * sizeof *starts);
    for (int64_t n = 0; n < count; n++)
        starts[key_of(&from[n], by_expert) + 1]++;
    for (int64_t key = 0; key < keys; key++)
        starts[key + 1] += starts[key];
    for (int64_t n = 0; n < count; n++)
        to[starts[key_of(&from[n], by_expert)]++] = from[n];
}

static int64_t list_slots(const cm_call *call, struct cm_slots *slots, struct cm_slot *list)
{
    const DLTensor *ids = call->host->argument(call, "topk_ids");
    const DLTensor *token_adapter = call->host->argument(call, "token_adapter");
    int64_t T = call->host->dim(call, 'T'), k = call->host->dim(call, 'k'), E = call->host->dim(call, 'E');
    int64_t count = 0;
    for (int64_t t = 0; t < T; t++) {
        int32_t adapter = token_adapter ? cm_load_int(token_adapter, 0, t) : -1;
        for (int64_t j = 0; j < slots->per_token; j++) {
            int32_t expert = j < k ? cm_load_int(ids, t, j) : (int32_t)E;
            slots->place[t * slots->per_token + j] = -1;
            if (expert >= 0)
                list[count++] = (struct cm_slot){expert, adapter, (int32_t)t, (int32_t)j};
        }
    }
    return count;
}

static void find_stretches(struct cm_plan *plan, const struct cm_adapter *adapters, int64_t E)
{
    const struct cm_slots *slots = &plan->slots;
    for (int64_t begin = 0, end; begin < slots->count; begin = end) {
        int32_t expert = slots->slots[begin].expert;
        end = cm_slots_expert_end(slots, begin);
        plan->experts[plan->expert_count++] = (struct cm_stretch){begin, end, expert, -1};
        plan->routed_count += expert < E;
        for (int64_t first = begin, last; adapters && first < end; first = last) {
            int32_t adapter = slots->slots[first].adapter;
            last = cm_slots_adapter_end(slots, first, end);
            if (adapter >= 0 && adapters[adapter].rank > 0)
                plan->runs[plan->run_count++] = (struct cm_stretch){first, last, expert, adapter};
        }
    }
}

bool cm_plan_open(const cm_call *call, const struct cm_engine *engine, struct cm_plan *plan)
{
    bool shared = call->host->argument(call, "shared_gate") != NULL;
    int64_t T = call->host->dim(call, 'T'), k = call->host->dim(call, 'k'), E = call->host->dim(call, 'E');
    int64_t L = call->host->dim(call, 'L'), keys = E + 1 > L + 1 ? E + 1 : L + 1;
    *plan = (struct cm_plan){.slots = {.per_token = k + shared}};
    struct cm_slots *slots = &plan->slots;
    int64_t most = T * slots->per_token;
    struct cm_slot *list;
    int32_t *starts;
#define TAKE(place, count)                                                                                   \
    (place = call->host->scratch(call, (size_t)(count) * sizeof *(place), CM_LINE)) != NULL
    bool fits = TAKE(list, most) && TAKE(starts, keys + 1) && TAKE(slots->slots, most) &&
                TAKE(slots->place, most) && TAKE(plan->experts, most) && TAKE(plan->runs, most);
#undef TAKE
    if (!fits)
        return false;
    slots->count = list_slots(call, slots, list);
    sort_by(list, slots->count, false, L + 1, starts, slots->slots);
    memcpy(list, slots->slots, (size_t)slots->count * sizeof *list);
    sort_by(list, slots->count, true, E + 1, starts, slots->slots);
    for (int64_t n = 0; n < slots->count; n++)
        slots->place[slots->slots[n].token * slots->per_token + slots->slots[n].slot] = (int32_t)n;
    find_stretches(plan, engine->adapters, E);
    return true;
}
