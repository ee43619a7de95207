// SPDX-License-Identifier: Apache-2.0
// Memory that tells on its users: each block has a mapping of its own between two guard pages, lies flush
// against one of them, and the rest of its pages is canaried. A fault address can be turned into a sentence
// about the blocks of `active` arenas, the thread's own first, from a signal handler.
#ifndef CM_ARENA_H
#define CM_ARENA_H

#include "harness/status.h"
#include "harness/tensor.h"

enum { CM_ARENA_BLOCKS = 128 };
#define CM_CANARY 0xff // as bf16, f16 or f32: NaN

typedef enum cm_place { CM_PLACE_END, CM_PLACE_START } cm_place; // flush against the guard behind, or before

typedef struct cm_block {
    const char *name; // of the argument, or "scratch"
    char *mapping, *data;
    size_t mapped, size;    // bytes with guards; bytes of data
    bool fenced;            // simulated device memory: no access from the host
    bool input;             // may be made read-only
    bool file;              // pages of a memory file, copied when they are written to
    char *remote;           // a copy of its pages in a real device's memory; NULL: none. Set by the site
    const DLTensor *tensor; // what lies there, to name an element; NULL: plain bytes. Set by the owner
} cm_block;

typedef struct cm_arena {
    cm_block blocks[CM_ARENA_BLOCKS];
    int count;
    bool read_only;        // the inputs, by cm_arena_protect
    bool launched;         // an emulated device has the fenced blocks, and the host none of the others
    struct cm_arena *next; // of those that are active in this thread
    bool recycle; // dropped blocks are kept, inaccessible, for the thread's next one of their size: many
                  // stages, few mappings
} cm_arena;

// `alignment` is a power of two; with PLACE_END the data ends at the guard page if size is a multiple of it.
// NULL when there is no memory or no free block.
void *cm_arena_take(cm_arena *arena, const char *name, size_t size, size_t alignment, cm_place place,
                    bool input);
// A private view of a memory file of whole pages, flush against both guards: what is never written to costs
// nothing. NULL as above.
void *cm_arena_map(cm_arena *arena, const char *name, size_t size, int file, bool input);
void cm_arena_drop(cm_arena *arena, int first);         // unmaps blocks from `first` on
void cm_arena_protect(cm_arena *arena, bool read_only); // the inputs
// Makes the block that holds `data` simulated device memory, until it is dropped.
void cm_arena_fence(cm_arena *arena, const void *data);
void cm_arena_unfence(cm_arena *arena, const void *data); // host memory again, its bytes unchanged
// Around a launch on an emulated device: fenced blocks of all active arenas can be touched meanwhile, the
// others can't.
void cm_arena_launch(bool begins);
// Bytes of the block's pages without guards, from *pages on: data and canaries.
size_t cm_arena_pages(const cm_block *block, char **pages);
// The first block whose canaries (those of fenced ones are not looked at) are broken, with the distance in
// bytes from its data (negative: before).
const cm_block *cm_arena_broken(const cm_arena *arena, int64_t *distance);

typedef enum cm_touch { CM_TOUCH_UNKNOWN, CM_TOUCH_INPUT_WRITE, CM_TOUCH_GUARD, CM_TOUCH_DEVICE } cm_touch;

// Whose memory an address is that lies in no arena: a device's (see cm_side.owns); NULL: nobody's.
void cm_arena_elsewhere(bool (*owns)(const void *address));

// Each thread has its own active arenas.
void cm_arena_activate(cm_arena *arena); // one more, the first to be asked; NULL: none is active any more
void cm_arena_deactivate(const cm_arena *arena); // if it is active
void cm_arena_forget(void); // unmaps what this thread keeps for recycling: for the end of a thread
// Says what an access at `address` of an active arena was; writes one sentence. Async-signal-safe.
cm_touch cm_arena_explain(const void *address, bool write, char *text, size_t size, const cm_block **block);

#endif
