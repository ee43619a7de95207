// SPDX-License-Identifier: Apache-2.0
#include "harness/site.h"

const cm_side *cm_kernel_side(const cm_kernel *kernel)
{
    return kernel->device > kDLCPU ? kernel->side : NULL;
}

const char *cm_kernel_mode(const cm_kernel *kernel)
{
    const cm_side *side = cm_kernel_side(kernel);
    bool emulated = side ? side->emulated : kernel->emulated && kernel->emulated();
    return emulated ? "emulated" : "native";
}

static bool is_copied(const cm_site *site)
{
    return site->side && !site->side->emulated;
}

void *cm_site_send(cm_site *site, int n)
{
    cm_block *block = &site->arena->blocks[n];
    char *pages, reason[200] = "";
    size_t size = cm_arena_pages(block, &pages);
    if (!is_copied(site)) {
        if (!site->away[n])
            cm_arena_fence(site->arena, block->data);
        site->away[n] = true;
        return block->data;
    }
    void *memory = block->remote;
    cm_status status = CM_OK;
    if (!memory)
        status = site->side->allocate(size, &memory, reason, sizeof reason);
    if (status == CM_OK && !site->away[n])
        status = site->side->copy_in(memory, pages, size, reason, sizeof reason);
    if (status != CM_OK)
        cm_broken("%s could not be sent to the device: %s", block->name, reason);
    block->remote = memory;
    site->away[n] = true;
    return block->remote + (block->data - pages);
}

bool cm_site_fetch(cm_site *site, int n)
{
    const cm_block *block = &site->arena->blocks[n];
    char *pages, reason[200];
    size_t size = cm_arena_pages(block, &pages);
    cm_status status = CM_OK;
    if (!site->away[n])
        return true;
    site->away[n] = false;
    if (is_copied(site))
        status = site->side->copy_out(pages, block->remote, size, reason, sizeof reason);
    else
        cm_arena_unfence(site->arena, block->data);
    return status == CM_OK;
}

void cm_site_drop(cm_site *site, int first)
{
    for (int n = first; n < site->arena->count; n++) {
        if (site->arena->blocks[n].remote)
            site->side->release(site->arena->blocks[n].remote);
        site->arena->blocks[n].remote = NULL;
        site->away[n] = false;
    }
    cm_arena_drop(site->arena, first);
}
