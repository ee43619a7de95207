// SPDX-License-Identifier: Apache-2.0
#include "optimized/cpu/work.h"

#include "optimized/cpu/team.h"

static int64_t round_up(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

static int64_t count_items(const struct cm_work *work, const struct cm_pack packs[CM_KINDS])
{
    int64_t shared = work->plan.expert_count - work->plan.routed_count;
    return work->plan.routed_count * cm_pack_group_count(&packs[CM_ROUTED]) +
           (shared ? cm_pack_group_count(&packs[CM_SHARED]) : 0);
}

// Room for `count` rows of bf16, or of codes (which may be bf16) with scale and totals behind each.
static bool rows_open(const struct cm_work *work, bool quantised, int64_t count, int64_t columns,
                      struct cm_rows *rows)
{
    const struct cm_engine *engine = work->engine;
    bool bytes = quantised && engine->gate_up[CM_ROUTED].format != CM_FORMAT_BF16;
    int64_t wide = round_up(columns, CM_PAD) * 2, groups = 1;
    if (bytes) {
        wide = round_up(columns, CM_LINE);
        groups =
            engine->group > 0 && engine->group < columns ? (columns + engine->group - 1) / engine->group : 1;
        rows->totals_at = wide;
        wide += groups * 4;
    }
    rows->scale_at = quantised ? wide : 0;
    rows->stride = round_up(quantised ? wide + 4 : wide, CM_LINE);
    rows->data = work->call->host->scratch(work->call, (size_t)(count * rows->stride), CM_LINE);
    return rows->data != NULL;
}

bool cm_work_open(const cm_call *call, struct cm_work *work)
{
    const struct cm_engine *engine = work->engine;
    const struct cm_plan *plan = &work->plan;
    int64_t I = engine->width[CM_ROUTED], D = engine->width[CM_SHARED], widest = I > D ? I : D;
    int64_t T = call->host->dim(call, 'T'), slots = plan->slots.count, most = 1;
    work->exact_stride = round_up(widest, CM_PAD);
    work->v_stride = round_up(call->host->dim(call, 'r'), CM_PAD) * (engine->quantised ? 4 : 2);
    work->down_stride = round_up(engine->H, CM_COLUMNS);
    const int64_t items[CM_PHASES] = {
        [CM_PHASE_ROWS] = work->products->adjacent ? slots : T,
        [CM_PHASE_SHRINK] = 2 * plan->run_count,
        [CM_PHASE_FIRST] = count_items(work, engine->gate_up),
        [CM_PHASE_MIDDLE] = plan->run_count + (engine->quantised ? slots : 0),
        [CM_PHASE_SECOND] = count_items(work, engine->down),
        [CM_PHASE_LAST] = T,
    };
    for (int phase = 0; phase < CM_PHASES; phase++) {
        work->items[phase] = items[phase];
        most = items[phase] > most ? items[phase] : most;
    }
    work->threads = cm_team_limit(call);
    work->threads = work->threads > most ? (int)most : work->threads;
#define TAKE(place, count)                                                                                   \
    (work->place = call->host->scratch(call, (size_t)(count) * sizeof *work->place, CM_LINE)) != NULL
    bool fits = rows_open(work, false, items[CM_PHASE_ROWS], engine->H, &work->x) &&
                rows_open(work, false, slots, widest, &work->h) && TAKE(v, 2 * slots * work->v_stride) &&
                TAKE(down, slots * work->down_stride) && TAKE(weights, T * plan->slots.per_token) &&
                TAKE(terms, T * plan->slots.per_token) &&
                TAKE(local, work->threads * (int64_t)sizeof(struct cm_local)) &&
                TAKE(shares, CM_PHASES * work->threads);
    if (fits && engine->quantised)
        fits = rows_open(work, true, items[CM_PHASE_ROWS], engine->H, &work->x_codes) &&
               rows_open(work, true, slots, widest, &work->h_codes) &&
               TAKE(exact, slots * work->exact_stride);
#undef TAKE
    for (int phase = 0; fits && phase < CM_PHASES; phase++)
        cm_shares_open(work->shares + phase * work->threads, work->threads, work->items[phase]);
    return fits;
}
