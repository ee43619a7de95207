// SPDX-License-Identifier: Apache-2.0
#include "harness/bench_copies.h"

#include "harness/bench_cpus.h"

#include <string.h>
#include <sys/mman.h>

enum {
    PAGE = 4096,
    MOST = 4096,     // copies: beyond, the states of a small case cost more than they hold
    EACH = 3,        // of a copy's bytes: the copy, and what two kernels make of it
    OVERHEAD = 65536 // bytes of a state that do not come from weights
};

bool cm_copies_hold(const cm_pristine *pristine, int argument)
{
    cm_role role = pristine->test_case.op->arguments[argument].role;
    return pristine->arguments[argument] && (role == CM_WEIGHT || role == CM_ADAPTER);
}

static size_t round_up(size_t size, size_t to)
{
    return (size + to - 1) / to * to;
}

static int64_t count_copies(size_t touched, size_t cold, size_t stride, size_t limit, bool *short_of_memory)
{
    size_t wanted = touched && stride ? (cold + touched - 1) / touched : 1;
    size_t memory = cm_memory_available() / 10 * 6;
    if (limit && (memory == 0 || memory > limit))
        memory = limit;
    size_t room = memory / (EACH * (stride + OVERHEAD));
    wanted = wanted ? wanted : 1;
    *short_of_memory = memory && wanted > room;
    wanted = *short_of_memory ? room : wanted;
    return wanted > MOST ? MOST : (int64_t)wanted;
}

cm_status cm_copies_open(const cm_pristine *pristine, size_t touched, size_t cold, size_t memory,
                         size_t alignment, cm_copies *copies, cm_error *error)
{
    size_t limit = memory > pristine->bytes ? memory - pristine->bytes : memory ? 1 : 0;
    *copies = (cm_copies){.pristine = pristine, .touched = touched};
    for (int n = 0; pristine->test_case.op->arguments[n].name; n++)
        if (cm_copies_hold(pristine, n)) {
            copies->offsets[n] = copies->stride;
            copies->stride += round_up(cm_tensor_extent(pristine->arguments[n]), alignment);
        }
    copies->stride = round_up(copies->stride, alignment > PAGE ? alignment : PAGE);
    copies->count = (int)count_copies(touched, cold, copies->stride, limit, &copies->short_of_memory);
    copies->mapped = (size_t)copies->count * copies->stride;
    if (copies->mapped > 0)
        copies->memory =
            mmap(NULL, copies->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (copies->count == 0 || copies->memory == MAP_FAILED) {
        copies->memory = NULL;
        return cm_fail(
            error, CM_NO_MEMORY,
            "case %s: no memory for one more copy of its weights (%zu MiB) and what two kernels make "
            "of it; free some, or give a larger --memory-gib",
            pristine->name, copies->stride >> 20);
    }
    if (copies->mapped > 0)
        madvise(copies->memory, copies->mapped, MADV_HUGEPAGE);
    for (int copy = 0; copy < copies->count; copy++)
        for (int n = 0; pristine->test_case.op->arguments[n].name; n++)
            if (cm_copies_hold(pristine, n))
                memcpy(cm_copies_data(copies, copy, n), pristine->arguments[n]->data,
                       cm_tensor_extent(pristine->arguments[n]));
    return CM_OK;
}

void cm_copies_protect(const cm_copies *copies)
{
    if (copies->memory && mprotect(copies->memory, copies->mapped, PROT_READ))
        cm_broken("the copies of the weights can't be protected");
}

void *cm_copies_data(const cm_copies *copies, int copy, int argument)
{
    return copies->memory + (size_t)copy * copies->stride + copies->offsets[argument];
}

void cm_copies_close(cm_copies *copies)
{
    if (copies->memory)
        munmap(copies->memory, copies->mapped);
    *copies = (cm_copies){0};
}
