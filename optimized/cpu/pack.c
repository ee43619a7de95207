// SPDX-License-Identifier: Apache-2.0
// Plain C: packing is not timed, but a layer has gigabytes, so that matrices are divided among threads.
#include "optimized/cpu/pack.h"

#include <stdlib.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20 }; // bytes

// Elements of k in a line.
static int64_t depth_of(cm_format format)
{
    switch (format) {
    case CM_FORMAT_I8:
    case CM_FORMAT_I8_CODES:
        return 4;
    case CM_FORMAT_I4:
    case CM_FORMAT_I4_CODES:
        return 8;
    default:
        return 2;
    }
}

static int64_t whole_panels(const struct cm_pack *pack)
{
    return pack->panels / pack->widest * pack->widest;
}

// First panel of the group of panel `at`. Of three panels left over, two come first.
static int64_t group_begin(const struct cm_pack *pack, int64_t at)
{
    int64_t whole = whole_panels(pack);
    if (at < whole)
        return at / pack->widest * pack->widest;
    return pack->panels - whole >= 2 && at - whole < 2 ? whole : at;
}

int cm_pack_width(const struct cm_pack *pack, int64_t first)
{
    int64_t left = pack->panels - first;
    return first < whole_panels(pack) ? pack->widest : left >= 2 ? 2 : 1;
}

int64_t cm_pack_group_count(const struct cm_pack *pack)
{
    int64_t rest = pack->panels % pack->widest;
    return pack->panels / pack->widest + rest / 2 + rest % 2;
}

int64_t cm_pack_first_panel(const struct cm_pack *pack, int64_t g)
{
    int64_t whole = pack->panels / pack->widest;
    return g <= whole ? g * pack->widest : whole * pack->widest + 2;
}

// Memory for large things begins at a huge page: few faults and few misses in the TLB.
static void *new_memory(size_t bytes)
{
    bool large = bytes >= HUGE_PAGE;
    size_t unit = large ? HUGE_PAGE : CM_LINE;
    void *memory = aligned_alloc(unit, (bytes + unit - 1) / unit * unit);
    if (memory && large)
        madvise(memory, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE); // advice: nothing depends on it
    return memory;
}

// Element k of lane `lane` into the lines of a panel, which are `stride` bytes apart.
static void put_code(cm_format format, char *panel, int64_t stride, int64_t lane, int64_t k, int code)
{
    int64_t depth = depth_of(format), j = k % depth;
    unsigned char *line = (unsigned char *)panel + k / depth * stride;
    switch (format) {
    case CM_FORMAT_I8_CODES:
        line[4 * lane + j] = (unsigned char)(code + 128);
        break;
    case CM_FORMAT_I4_CODES:
        line[4 * lane + j % 4] |= (unsigned char)((code + 8) << (j / 4 * 4));
        break;
    case CM_FORMAT_I8:
        line[j / 2 * 32 + 2 * lane + j % 2] = (unsigned char)code;
        break;
    default: // nibble q of half h: byte 2h + q / 2
        line[4 * lane + j % 2 * 2 + j / 4] |= (unsigned char)((code + 8) << (j / 2 % 2 * 4));
        break;
    }
}

static void put_row(const DLTensor *tensor, const char *from, cm_format format, char *panel, int64_t stride,
                    int64_t lane, int64_t k)
{
    if (format != CM_FORMAT_BF16) {
        for (int64_t i = 0; i < k; i++)
            put_code(format, panel, stride, lane, i, cm_load_code(tensor, from, i));
        return;
    }
    for (int64_t i = 0; i < k; i++)
        memcpy(panel + i / 2 * stride + 4 * lane + i % 2 * 2, from + 2 * i, 2);
}

// A row of a source's matrix m.
static const char *row_of(const DLTensor *tensor, int64_t adapter, int64_t m, int64_t row)
{
    bool many = tensor->ndim == (adapter < 0 ? 3 : 4);
    return adapter < 0 ? cm_row_at(tensor, 0, m, row) : cm_row_at(tensor, adapter, many ? m : adapter, row);
}

// Panel `at` of matrix m: of gate and up, the first half of a group is gate's.
static void pack_panel(const struct cm_pack *pack, const struct cm_pack_source *source, int64_t m, int64_t at)
{
    int64_t first = group_begin(pack, at);
    int width = cm_pack_width(pack, first), pair = source->tensor[1] != NULL;
    int64_t place = at - first, half = pair ? width / 2 : width, which = pair ? place / half : 0;
    int64_t source_panel = (pair ? first / 2 : first) + place % half, stride = (int64_t)width * CM_LINE;
    char *panel = pack->data + m * pack->bytes + first * pack->lines * CM_LINE + place * CM_LINE;
    const DLTensor *tensor = source->tensor[which], *scales = source->scale[which];
    float *to = pack->scales ? (float *)cm_pack_scale(pack, m, first) + place * CM_LANES : NULL;
    for (int64_t lane = 0; lane < CM_LANES; lane++) {
        int64_t row = source_panel * CM_LANES + lane;
        if (row >= source->n)
            break;
        put_row(tensor, row_of(tensor, source->adapter, m, row), pack->format, panel, stride, lane, pack->k);
        for (int64_t g = 0; to && g < pack->groups; g++)
            to[g * width * CM_LANES + lane] = cm_load_float(scales, cm_row_at(scales, 0, m, row), g);
    }
}

bool cm_pack_open(struct cm_pack *pack, const struct cm_pack_source *source)
{
    const DLTensor *tensor = source->tensor[0];
    bool many = tensor->ndim == (source->adapter < 0 ? 3 : 4);
    int dimension = source->adapter < 0 ? 0 : 1, pair = source->tensor[1] != NULL;
    int64_t count = many ? tensor->shape[dimension] : 1, depth = depth_of(source->format);
    if (many && tensor->strides[dimension] == 0 && count > 1 &&
        (!pair || source->tensor[1]->strides[dimension] == 0))
        count = 1;
    int64_t lines = (source->k + 4 * depth - 1) / (4 * depth) * 4;
    bool grouped = source->scale[0] && source->group > 0 && source->group < source->k;
    *pack = (struct cm_pack){
        .format = source->format,
        .count = count,
        .n = source->n,
        .k = source->k,
        .panels = (source->n + CM_LANES - 1) / CM_LANES * (1 + pair),
        .lines = lines,
        .group = grouped ? source->group / depth : lines,
        .groups = grouped ? (source->k + source->group - 1) / source->group : 1,
        .widest = source->widest,
    };
    pack->bytes = pack->panels * lines * CM_LINE;
    size_t bytes = (size_t)(count * pack->bytes);
    size_t scales = source->scale[0] ? (size_t)(count * pack->panels * CM_LANES * pack->groups) : 0;
    if (bytes == 0)
        return true;
    pack->data = new_memory(bytes);
    pack->scales = scales ? new_memory(scales * sizeof *pack->scales) : NULL;
    if (!pack->data || (scales && !pack->scales)) {
        cm_pack_close(pack);
        return false;
    }
    int64_t panels = pack->panels, all = count * panels;
#pragma omp parallel for num_threads(source->threads) schedule(static) if (bytes >= HUGE_PAGE)
    for (int64_t m = 0; m < count; m++)
        memset(pack->data + m * pack->bytes, 0, (size_t)pack->bytes);
    if (scales)
        memset(pack->scales, 0, scales * sizeof *pack->scales);
#pragma omp parallel for num_threads(source->threads) schedule(static) if (bytes >= HUGE_PAGE)
    for (int64_t at = 0; at < all; at++)
        pack_panel(pack, source, at / panels, at % panels);
    return true;
}

void cm_pack_close(struct cm_pack *pack)
{
    free(pack->data);
    free(pack->scales);
    *pack = (struct cm_pack){0};
}
