// SPDX-License-Identifier: Apache-2.0
// The bytes of CPUID occur within other instructions, too. A candidate counts if walking through the code of
// its function, instruction by instruction, arrives at it. Functions begin where .eh_frame_hdr says.
#include "optimized/amx/emulator/rewrite.h"

#include "optimized/amx/emulator/length.h"
#include "optimized/amx/emulator/system.h"

#include <fcntl.h>
#include <link.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>

enum { MOST = 4096, LONGEST_FUNCTION = 1 << 20 };

static struct place {
    uint64_t address;
    cm_amx_query query;
} places[MOST]; // sorted by address within an object only
static int place_count;

// .eh_frame_hdr of one object: pairs of 32-bit distances from its start, function and its frame, sorted.
struct functions {
    const uint8_t *header;
    const int32_t *pairs;
    uint32_t count;
};

static bool open_functions(struct functions *functions, const uint8_t *header)
{
    // version 1; frame pointer: 4 bytes relative; count: 4 bytes; table: 4 bytes relative to the header
    static const uint8_t known[4] = {1, 0x1b, 0x03, 0x3b};
    if (memcmp(header, known, sizeof known) != 0)
        return false;
    memcpy(&functions->count, header + 8, 4);
    functions->header = header;
    functions->pairs = (const int32_t *)(const void *)(header + 12);
    return functions->count > 0;
}

// The function that holds `address`, or NULL. A frame has its length, a distance, then begin and size of its
// function, 4 bytes each as C compilers write them.
static const uint8_t *find_function(const struct functions *functions, const uint8_t *address)
{
    uint32_t low = 0, high = functions->count, size;
    ptrdiff_t distance = address - functions->header;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (functions->pairs[2 * middle] <= distance)
            low = middle;
        else
            high = middle;
    }
    int32_t begin = functions->pairs[2 * low];
    memcpy(&size, functions->header + functions->pairs[2 * low + 1] + 12, sizeof size);
    return distance >= begin && distance - begin < (ptrdiff_t)size ? functions->header + begin : NULL;
}

static bool is_instruction(const struct functions *functions, const uint8_t *candidate, const uint8_t *begin,
                           const uint8_t *end)
{
    const uint8_t *at = find_function(functions, candidate);
    if (!at || at < begin || candidate - at > LONGEST_FUNCTION)
        return false;
    while (at < candidate) {
        size_t length = cm_amx_length(at, (size_t)(end - at));
        if (length == 0)
            return false;
        at += length;
    }
    return at == candidate;
}

static cm_amx_query query_at(const uint8_t *code, size_t available)
{
    if (available >= 2 && code[0] == 0x0f && code[1] == 0xa2)
        return CM_AMX_CPUID;
    if (available >= 3 && code[0] == 0x0f && code[1] == 0x01 && code[2] == 0xd0)
        return CM_AMX_XGETBV;
    return CM_AMX_NO_QUERY;
}

static void rewrite(const uint8_t *code, cm_amx_query query, int memory)
{
    static const uint8_t trap[3] = {0x0f, 0x0b, 0x90};
    long length = query == CM_AMX_CPUID ? 2 : 3;
    places[place_count++] = (struct place){(uint64_t)(uintptr_t)code, query};
    if (cm_amx_system(SYS_pwrite64, memory, (long)trap, length, (long)code, 0, 0) != length)
        place_count--;
}

static void rewrite_segment(const struct functions *functions, const uint8_t *begin, size_t size, int memory)
{
    const uint8_t *end = begin + size;
    for (const uint8_t *at = begin; (at = memchr(at, 0x0f, (size_t)(end - at))); at++) {
        cm_amx_query query = query_at(at, (size_t)(end - at));
        if (query != CM_AMX_NO_QUERY && place_count < MOST && is_instruction(functions, at, begin, end))
            rewrite(at, query, memory);
    }
}

static bool is_left_alone(const struct dl_phdr_info *object)
{
    static const char *const names[] = {"/libc.so", "/ld-linux", "linux-vdso", "linux-gate"};
    const uint8_t *own = (const uint8_t *)&places;
    for (size_t n = 0; n < sizeof names / sizeof *names; n++)
        if (strstr(object->dlpi_name, names[n]))
            return true;
    for (int n = 0; n < object->dlpi_phnum; n++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[n];
        uint64_t offset = (uint64_t)(uintptr_t)own - object->dlpi_addr - segment->p_vaddr;
        if (segment->p_type == PT_LOAD && offset < segment->p_memsz)
            return true;
    }
    return false;
}

static int visit(struct dl_phdr_info *object, size_t size, void *memory)
{
    struct functions functions = {0};
    (void)size;
    if (is_left_alone(object))
        return 0;
    for (int n = 0; n < object->dlpi_phnum; n++)
        if (object->dlpi_phdr[n].p_type == PT_GNU_EH_FRAME &&
            !open_functions(&functions,
                            (const uint8_t *)(uintptr_t)(object->dlpi_addr + object->dlpi_phdr[n].p_vaddr)))
            return 0;
    for (int n = 0; n < object->dlpi_phnum && functions.count; n++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[n];
        if (segment->p_type == PT_LOAD && segment->p_flags & PF_X && segment->p_flags & PF_R)
            rewrite_segment(&functions, (const uint8_t *)(uintptr_t)(object->dlpi_addr + segment->p_vaddr),
                            segment->p_filesz, *(int *)memory);
    }
    return 0;
}

int cm_amx_rewrite_queries(void)
{
    int memory =
        (int)cm_amx_system(SYS_openat, AT_FDCWD, (long)"/proc/self/mem", O_RDWR | O_CLOEXEC, 0, 0, 0);
    if (memory < 0)
        return 0;
    dl_iterate_phdr(visit, &memory);
    cm_amx_system(SYS_close, memory, 0, 0, 0, 0, 0);
    return place_count;
}

cm_amx_query cm_amx_find_query(uint64_t address)
{
    for (int n = 0; n < place_count; n++)
        if (places[n].address == address)
            return places[n].query;
    return CM_AMX_NO_QUERY;
}
