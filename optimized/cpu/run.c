// SPDX-License-Identifier: Apache-2.0
// A run of the engine. Phases, with all threads meeting between them:
//   rows    x of each token with zeros behind it, and its codes
//   shrink  v = A x of gate and up, for each run of slots of one adapter
//   first   a group of gate's and up's columns of an expert, LoRA, biases, silu: h
//   middle  codes of h; v = A h of down
//   second  a group of down's columns of an expert, LoRA, bias
//   last    each token's weighted sum
#include "optimized/cpu/team.h"
#include "optimized/cpu/work.h"

static int kind_of(const struct cm_work *work, int64_t expert)
{
    return expert < work->engine->E ? CM_ROUTED : CM_SHARED;
}

// Which expert and group of columns an item is.
struct item {
    const struct cm_stretch *rows;
    const struct cm_pack *pack;
    int64_t matrix, panel; // the group's first
    int width;
};

static struct item find_item(const struct cm_work *work, const struct cm_pack packs[CM_KINDS], int64_t n)
{
    int64_t groups = cm_pack_group_count(&packs[CM_ROUTED]), routed = work->plan.routed_count;
    bool shared = n >= routed * groups;
    int64_t at = shared ? routed : n / groups, group = n - at * groups;
    const struct cm_stretch *rows = &work->plan.experts[at];
    struct item item = {.rows = rows, .pack = &packs[shared], .matrix = shared ? 0 : rows->expert};
    item.panel = cm_pack_first_panel(item.pack, group);
    item.width = cm_pack_width(item.pack, item.panel);
    return item;
}

// Row of x of a slot.
static const char *x_row(const struct cm_work *work, const struct cm_rows *rows, int64_t slot)
{
    int64_t n = work->products->adjacent ? slot : work->plan.slots.slots[slot].token;
    return rows->data + n * rows->stride;
}

static void quantise(const struct cm_work *work, const struct cm_rows *to, int64_t row, const float *from,
                     const uint16_t *from_bf16, int64_t count)
{
    bool codes = work->engine->gate_up[CM_ROUTED].format != CM_FORMAT_BF16;
    char *at = to->data + row * to->stride;
    struct cm_quantisation quantisation = {
        .from = from,
        .from_bf16 = from_bf16,
        .count = count,
        .padded = codes ? to->totals_at : to->scale_at / 2,
        .group = work->engine->group > 0 && work->engine->group < count ? work->engine->group : count,
        .offset = work->engine->gate_up[CM_ROUTED].format == CM_FORMAT_I4_CODES ? 8 : 128,
        .codes = codes ? (int8_t *)at : NULL,
        .as_bf16 = codes ? NULL : (uint16_t *)at,
        .totals = codes ? (int32_t *)(at + to->totals_at) : NULL,
        .scale = (float *)(at + to->scale_at),
    };
    work->products->quantise(&quantisation);
}

// Row n of x: of token n, or of slot n's token.
static void do_rows(const struct cm_work *work, int64_t n)
{
    const DLTensor *hidden = work->call->host->argument(work->call, "hidden");
    int64_t H = work->engine->H, t = work->products->adjacent ? work->plan.slots.slots[n].token : n;
    char *to = work->x.data + n * work->x.stride;
    memcpy(to, cm_row_at(hidden, 0, 0, t), (size_t)H * 2);
    memset(to + 2 * H, 0, (size_t)(work->x.stride - 2 * H));
    if (work->engine->quantised)
        quantise(work, &work->x_codes, n, NULL, (const uint16_t *)to, H);
}

// v of a slot's gate (and down), or of its up.
static char *v_row(const struct cm_work *work, int64_t slot, int part)
{
    return work->v + slot * 2 * work->v_stride + (part == CM_PART_UP ? work->v_stride : 0);
}

// Row of what A sees of a slot: x, or h.
static const char *a_row(const struct cm_work *work, int64_t slot, int part)
{
    if (part != CM_PART_DOWN)
        return x_row(work, &work->x, slot);
    return work->engine->quantised ? (const char *)(work->exact + slot * work->exact_stride)
                                   : work->h.data + slot * work->h.stride;
}

// A group of A's columns of v, which is fp32 if rows are quantised, else bf16; zeros behind the last one.
static void keep_v(const struct cm_work *work, const float *from, int64_t column, int64_t count, int64_t wide,
                   char *v)
{
    bool last = count <= wide;
    count = last ? count : wide;
    if (!work->engine->quantised) {
        int64_t end = last ? work->v_stride / 2 - column : wide;
        work->products->round(from, count, end, (uint16_t *)v + column);
        return;
    }
    float *to = (float *)v + column;
    memcpy(to, from, (size_t)count * sizeof *to);
    if (last)
        memset(to + count, 0, (size_t)(work->v_stride - (column + count) * 4));
}

// v [rows of a run] = A in.
static void shrink(const struct cm_work *work, const struct cm_stretch *run, int part, struct cm_local *local)
{
    int kind = kind_of(work, run->expert);
    const struct cm_adapter *adapter = &work->engine->adapters[run->adapter];
    const struct cm_pack *a = &adapter->a[kind][part];
    bool wide_rows = part == CM_PART_DOWN && work->engine->quantised;
    for (int64_t begin = run->begin; a->data && begin < run->end; begin += CM_ROW_BLOCK) {
        int64_t rows = run->end - begin < CM_ROW_BLOCK ? run->end - begin : CM_ROW_BLOCK;
        for (int64_t n = 0; n < rows; n++)
            local->at[n] = a_row(work, begin + n, part);
        for (int64_t panel = 0; panel < a->panels; panel += cm_pack_width(a, panel)) {
            const struct cm_product product = {.x = local->at,
                                               .rows = rows,
                                               .w = cm_pack_at(a, kind == CM_ROUTED ? run->expert : 0, panel),
                                               .panels = cm_pack_width(a, panel),
                                               .lines = a->lines,
                                               .group = a->lines,
                                               .out = local->out,
                                               .sums = local->sums};
            int64_t column = panel * CM_LANES;
            work->products->multiply[wide_rows ? CM_FORMAT_BF16_F32 : CM_FORMAT_BF16](&product);
            for (int64_t n = 0; n < rows; n++)
                keep_v(work, local->out + n * CM_COLUMNS, column, adapter->rank - column,
                       product.panels * CM_LANES, v_row(work, begin + n, part));
        }
    }
}

// B's lines of an item are few and lie by themselves: without this each item waits for them once more.
static void fetch_b(const struct cm_work *work, const struct item *item, int part, int64_t panel)
{
    const struct cm_slot *slots = work->plan.slots.slots;
    int kind = kind_of(work, item->rows->expert), halves = part == CM_PART_DOWN ? 1 : 2;
    int64_t before = -1;
    for (int64_t slot = item->rows->begin; work->engine->adapters && slot < item->rows->end; slot++) {
        int64_t l = slots[slot].adapter;
        if (l == before || l < 0)
            continue;
        before = l;
        for (int half = 0; half < halves; half++) {
            const struct cm_pack *b = &work->engine->adapters[l].b[kind][part + half];
            int64_t bytes = b->data ? cm_pack_width(b, panel) * b->lines * CM_LINE : 0;
            const char *at = b->data ? cm_pack_at(b, item->matrix, panel) : NULL;
            for (int64_t n = 0; n < bytes; n += CM_LINE)
                __builtin_prefetch(at + n);
        }
    }
}

// Adds s B v to local->out, columns of B's group at `panel`, for the runs within the slots
// begin..begin+rows-1. part: down, or gate for gate and up.
static void add_lora(const struct cm_work *work, const struct item *item, int64_t begin, int64_t rows,
                     int part, int64_t panel, struct cm_local *local)
{
    const DLTensor *scaling = work->call->host->argument(work->call, "lora_scaling");
    int kind = kind_of(work, item->rows->expert);
    const struct cm_slots *slots = &work->plan.slots;
    for (int64_t first = begin, last; work->engine->adapters && first < begin + rows; first = last) {
        int64_t l = slots->slots[first].adapter;
        last = cm_slots_adapter_end(slots, first, begin + rows);
        const struct cm_adapter *adapter = l < 0 ? NULL : &work->engine->adapters[l];
        if (!adapter || adapter->rank == 0)
            continue;
        for (int64_t slot = first; slot < last; slot++)
            local->at[slot - first] = v_row(work, slot, part);
        const struct cm_pack *b = adapter->b[kind];
        struct cm_addition addition = {.v = local->at,
                                       .rows = last - first,
                                       .wide = work->engine->quantised,
                                       .second = work->v_stride,
                                       .s = cm_load_float(scaling, cm_row_at(scaling, 0, 0, 0), l),
                                       .out = local->out + (first - begin) * CM_COLUMNS,
                                       .sums = local->sums};
        for (int half = 0; half < (part == CM_PART_DOWN ? 1 : 2); half++) {
            const struct cm_pack *pack = &b[part + half];
            if (!pack->data) // gate or up alone has an adapter
                continue;
            addition.b[addition.halves++] = cm_pack_at(pack, item->matrix, panel);
            addition.panels = cm_pack_width(pack, panel);
            addition.lines = pack->lines;
            if (addition.halves == 1 && half == 1)
                addition.out += addition.panels * CM_LANES;
            for (int64_t row = 0; addition.halves == 1 && half == 1 && row < addition.rows; row++)
                local->at[row] += work->v_stride;
        }
        if (addition.halves > 0)
            work->products->add(&addition);
    }
}

static void note_paths(const struct cm_work *work, unsigned paths)
{
    for (int n = 0; paths; n++, paths >>= 1)
        if (paths & 1)
            work->call->host->path(work->call, n);
}

// W x of an item for the slots begin..begin+rows-1, in local->out.
static void multiply(const struct cm_work *work, const struct item *item, const struct cm_rows *x,
                     bool by_token, int64_t begin, int64_t rows, struct cm_local *local)
{
    const struct cm_pack *pack = item->pack;
    int64_t bytes = item->width * pack->lines * CM_LINE;
    const char *w = cm_pack_at(pack, item->matrix, item->panel);
    bool ends = item->panel + item->width >= pack->panels || begin + rows < item->rows->end;
    for (int64_t n = 0; n < rows; n++)
        local->at[n] = by_token ? x_row(work, x, begin + n) : x->data + (begin + n) * x->stride;
    struct cm_product product = {.x = local->at,
                                 .rows = rows,
                                 .scale_at = x->scale_at,
                                 .totals_at = x->totals_at,
                                 .w = w,
                                 .format = pack->format,
                                 .panels = item->width,
                                 .lines = pack->lines,
                                 .group = pack->group,
                                 .scale = cm_pack_scale(pack, item->matrix, item->panel),
                                 .out = local->out,
                                 .sums = local->sums,
                                 .next = ends ? NULL : w + bytes,
                                 .next_bytes = ends ? 0 : bytes};
    if (work->products->paths)
        note_paths(work, work->products->paths(&product, item->rows->end - item->rows->begin));
    work->products->multiply[pack->format](&product);
}

static int64_t block_of(const struct item *item, int64_t begin)
{
    int64_t left = item->rows->end - begin;
    return left < CM_ROW_BLOCK ? left : CM_ROW_BLOCK;
}

static void do_first(const struct cm_work *work, int64_t n, struct cm_local *local)
{
    const struct cm_engine *engine = work->engine;
    struct item item = find_item(work, engine->gate_up, n);
    int kind = kind_of(work, item.rows->expert);
    const struct cm_rows *x = engine->quantised ? &work->x_codes : &work->x;
    int64_t panel = item.panel / 2, wide = item.width / 2 * CM_LANES, column = panel * CM_LANES;
    int64_t left = engine->width[kind] - column, expert = item.rows->expert;
    bool final = item.panel + item.width >= item.pack->panels, biased = kind == CM_ROUTED;
    fetch_b(work, &item, CM_PART_GATE, panel);
    for (int64_t begin = item.rows->begin, rows; begin < item.rows->end; begin += rows) {
        rows = block_of(&item, begin);
        multiply(work, &item, x, true, begin, rows, local);
        add_lora(work, &item, begin, rows, CM_PART_GATE, panel, local);
        const float *gate_bias = biased ? engine->bias[CM_PART_GATE] : NULL;
        const float *up_bias = biased ? engine->bias[CM_PART_UP] : NULL;
        for (int64_t row = 0; row < rows; row++) {
            struct cm_activation activation = {
                .gate = local->out + row * CM_COLUMNS,
                .up = local->out + row * CM_COLUMNS + wide,
                .gate_bias =
                    gate_bias ? gate_bias + expert * engine->bias_stride[CM_PART_GATE] + column : NULL,
                .up_bias = up_bias ? up_bias + expert * engine->bias_stride[CM_PART_UP] + column : NULL,
                .count = left < wide ? left : wide,
                .padded = final ? work->exact_stride - column : wide,
                .round = engine->round_h,
                .h = engine->quantised ? NULL
                                       : (uint16_t *)(work->h.data + (begin + row) * work->h.stride) + column,
                .exact = engine->quantised ? work->exact + (begin + row) * work->exact_stride + column : NULL,
            };
            work->products->activate(&activation);
        }
    }
}

// v = A h of a run, or the codes of a slot's h.
static void do_middle(const struct cm_work *work, int64_t n, struct cm_local *local)
{
    if (n < work->plan.run_count) {
        shrink(work, &work->plan.runs[n], CM_PART_DOWN, local);
        return;
    }
    int64_t slot = n - work->plan.run_count;
    int kind = kind_of(work, work->plan.slots.slots[slot].expert);
    quantise(work, &work->h_codes, slot, work->exact + slot * work->exact_stride, NULL,
             work->engine->width[kind]);
}

static void do_second(const struct cm_work *work, int64_t n, struct cm_local *local)
{
    const struct cm_engine *engine = work->engine;
    struct item item = find_item(work, engine->down, n);
    const struct cm_rows *h = engine->quantised ? &work->h_codes : &work->h;
    int64_t wide = (int64_t)item.width * CM_LANES, column = item.panel * CM_LANES;
    const float *bias = kind_of(work, item.rows->expert) == CM_ROUTED ? engine->bias[CM_PART_DOWN] : NULL;
    if (bias)
        bias += item.rows->expert * engine->bias_stride[CM_PART_DOWN] + column;
    fetch_b(work, &item, CM_PART_DOWN, item.panel);
    for (int64_t begin = item.rows->begin, rows; begin < item.rows->end; begin += rows) {
        rows = block_of(&item, begin);
        multiply(work, &item, h, false, begin, rows, local);
        add_lora(work, &item, begin, rows, CM_PART_DOWN, item.panel, local);
        for (int64_t row = 0; row < rows; row++) {
            float *to = work->down + (begin + row) * work->down_stride + column;
            const float *from = local->out + row * CM_COLUMNS;
            memcpy(to, from, (size_t)wide * sizeof *to);
            for (int64_t i = 0; bias && i < wide; i++)
                to[i] += bias[i];
        }
    }
}

static void do_last(const struct cm_work *work, int64_t t)
{
    const cm_call *call = work->call;
    const DLTensor *output = call->host->argument(call, "output");
    const DLTensor *given = call->host->argument(call, "topk_weights");
    int64_t per_token = work->plan.slots.per_token, k = call->host->dim(call, 'k'), count = 0;
    const float **rows = work->terms + t * per_token;
    float *weights = work->weights + t * per_token;
    for (int64_t j = 0; j < per_token; j++) {
        int32_t place = work->plan.slots.place[t * per_token + j];
        if (place < 0)
            continue;
        rows[count] = work->down + place * work->down_stride;
        weights[count++] =
            j < k ? cm_load_float(given, cm_row_at(given, 0, 0, t), j) : cm_shared_weight(call, t);
    }
    struct cm_combination combination = {.rows = rows,
                                         .weights = weights,
                                         .count = count,
                                         .columns = work->engine->H,
                                         .y = (char *)cm_row_at(output, 0, 0, t),
                                         .bits = output->dtype.bits,
                                         .bf16 = output->dtype.code == kDLBfloat};
    work->products->combine(&combination);
}

static void do_item(const struct cm_work *work, int phase, int64_t n, struct cm_local *local)
{
    int64_t runs = work->plan.run_count;
    switch (phase) {
    case CM_PHASE_ROWS:
        do_rows(work, n);
        break;
    case CM_PHASE_SHRINK:
        shrink(work, &work->plan.runs[n % runs], n < runs ? CM_PART_GATE : CM_PART_UP, local);
        break;
    case CM_PHASE_FIRST:
        do_first(work, n, local);
        break;
    case CM_PHASE_MIDDLE:
        do_middle(work, n, local);
        break;
    case CM_PHASE_SECOND:
        do_second(work, n, local);
        break;
    default:
        do_last(work, n);
        break;
    }
}

// What each thread of the team does.
static void do_phases(void *context, int thread, int threads)
{
    const struct cm_work *work = context;
    struct cm_local *local = (struct cm_local *)(work->local + thread * (int64_t)sizeof(struct cm_local));
    for (int phase = 0; phase < CM_PHASES; phase++) {
        struct cm_share *shares = work->shares + phase * work->threads;
        if (work->items[phase] == 0)
            continue;
        for (int64_t n; (n = cm_shares_take(shares, work->threads, thread)) >= 0;)
            do_item(work, phase, n, local);
        if (phase < CM_PHASE_LAST && threads > 1)
            cm_team_meet();
    }
}

cm_status cm_engine_run(const cm_call *call, cm_engine_supported *supports,
                        const struct cm_products *products, const void *state)
{
    const struct cm_engine *engine = state;
    cm_status status = cm_engine_check_state(call, supports, engine);
    if (status != CM_OK)
        return status;
    if (!cm_adapters_fit(engine, call))
        return call->host->fail(call, CM_BAD_STATE, "update was not called for these adapters");
    struct cm_work work = {.call = call, .engine = engine, .products = products};
    if (!cm_plan_open(call, engine, &work.plan) || !cm_work_open(call, &work))
        return call->host->fail(call, CM_NO_MEMORY, "no scratch memory");
    cm_team_run(work.threads, do_phases, &work);
    return CM_OK;
}
