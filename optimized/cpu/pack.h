// SPDX-License-Identifier: Apache-2.0
// Matrices in the order that products.h describes.
#ifndef CM_CPU_PACK_H
#define CM_CPU_PACK_H

#include "optimized/cpu/products.h"
#include "optimized/view.h"

// `count` matrices [n, k] of one format; gate and up stand in one matrix: of each group of 2p panels p are
// gate's, p are up's. Owns its memory.
struct cm_pack {
    cm_format format;
    int64_t count, n, k;   // n: columns of gate alone where there are two
    int64_t panels, lines; // of a matrix, of a panel
    int64_t group, groups; // lines that share a scale; number of scales of a column
    int64_t bytes;         // of a matrix
    int widest;            // panels of a group
    char *data;            // [count, bytes]
    float *scales;         // [count, panels * 16 * groups], group by group; NULL: none
};

// Where rows of a matrix come from.
struct cm_pack_source {
    const DLTensor *tensor[2], *scale[2]; // [1]: up, or NULL
    int64_t adapter;                      // of [L, (count,) n, k]; -1: [(count,) n, k]
    int64_t n, k;                         // the first n rows and k elements are read
    int64_t group;                        // elements that share a scale; 0: all
    cm_format format;
    int widest; // 4, or 2 if the columns go beside another matrix's
    int threads;
};

// Matrices that share their memory (stride 0) are packed once. False: no memory.
bool cm_pack_open(struct cm_pack *pack, const struct cm_pack_source *source);
void cm_pack_close(struct cm_pack *pack); // accepts zero

// Panels of the group that begins at panel `first`.
int cm_pack_width(const struct cm_pack *pack, int64_t first);
int64_t cm_pack_group_count(const struct cm_pack *pack);
// First panel of group g.
int64_t cm_pack_first_panel(const struct cm_pack *pack, int64_t g);

static inline const char *cm_pack_at(const struct cm_pack *pack, int64_t m, int64_t panel)
{
    return pack->data + (pack->count > 1 ? m : 0) * pack->bytes + panel * pack->lines * CM_LINE;
}

static inline const float *cm_pack_scale(const struct cm_pack *pack, int64_t m, int64_t panel)
{
    int64_t matrix = pack->panels * CM_LANES * pack->groups;
    return pack->scales ? pack->scales + (pack->count > 1 ? m : 0) * matrix + panel * CM_LANES * pack->groups
                        : NULL;
}

#endif
