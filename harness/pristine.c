// SPDX-License-Identifier: Apache-2.0
#include "harness/pristine.h"

#include "harness/host.h"
#include "harness/kept.h"
#include "harness/op.h"
#include "harness/registry.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    PADDING = 3,      // elements behind each row of a padded layout; odd, so that rows are unaligned
    PAGE = 4096,      // bytes
    LARGE = 16 * PAGE // bytes from which a weight gets a file
};

static bool is_word(const cm_case *test_case, cm_axis_kind axis, const char *word)
{
    return !strcmp(cm_case_word(test_case, axis), word);
}

void cm_pristine_layout(const cm_case *test_case, int n, cm_tensor *tensor)
{
    const cm_argument *argument = &test_case->op->arguments[n];
    int64_t shape[CM_MAX_RANK];
    char letters[CM_MAX_RANK];
    int ndim = cm_op_shape(argument, test_case->dims, shape, letters);
    cm_tensor_init(tensor, cm_op_dtype(argument, test_case->dtypes), ndim, shape, NULL);
    bool padded = is_word(test_case, CM_AXIS_LAYOUT, "padded");
    bool shared = is_word(test_case, CM_AXIS_LAYOUT, "shared_outer") && argument->shareable;
    int64_t stride = 1;
    for (int d = ndim - 1; d >= 0; d--) {
        bool one = shared && letters[d] == argument->shareable;
        tensor->strides[d] = one ? 0 : stride;
        stride *= one ? 1 : shape[d];
        stride += d == ndim - 1 && ndim > 1 && padded ? PADDING : 0;
        if (d == ndim - 1 && ndim > 1 && tensor->dl.dtype.bits < 8)
            stride += stride % 2; // rows start at a byte
    }
}

static void *keep(cm_pristine *pristine, void *memory, size_t size)
{
    if (memory == MAP_FAILED)
        return NULL;
    pristine->mappings[pristine->mapping_count] = memory;
    pristine->mapped[pristine->mapping_count++] = size;
    return memory;
}

static void *map(cm_pristine *pristine, size_t size)
{
    size = size ? size : 1;
    return keep(pristine, mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), size);
}

// Memory for the data of argument n. A weight never changes, so a large one of whole pages lies in a file,
// of which a stage can have a view in place of a copy.
static void *map_argument(cm_pristine *pristine, int n, size_t extent)
{
    bool large = pristine->test_case.op->arguments[n].role == CM_WEIGHT && extent >= LARGE;
    if (!large || extent % PAGE)
        return map(pristine, extent);
    int file = memfd_create("checkmoe", MFD_CLOEXEC);
    if (file < 0)
        return map(pristine, extent);
    void *data = MAP_FAILED;
    if (ftruncate(file, (off_t)extent) == 0)
        data = mmap(NULL, extent, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (data == MAP_FAILED) {
        close(file);
        return NULL;
    }
    pristine->files[n] = file;
    return keep(pristine, data, extent);
}

static void hosted_open(const cm_pristine *pristine, const DLTensor *const *arguments, cm_hosted *hosted)
{
    *hosted = (cm_hosted){.call = {.size = sizeof(cm_call),
                                   .op = pristine->test_case.op,
                                   .host = &cm_host_services,
                                   .arguments = arguments,
                                   .attributes = pristine->test_case.attributes,
                                   .dims = pristine->test_case.dims,
                                   .device = kDLCPU}};
}

static cm_status generate(const cm_pristine *pristine, const cm_call *call, int n, int level, cm_error *error)
{
    const cm_argument *argument = &pristine->test_case.op->arguments[n];
    cm_values values = {&pristine->test_case, call, n, level};
    for (const cm_generator *generator = cm_registry_generators(); generator->kind; generator++)
        if (argument->fill.kind && !strcmp(generator->kind, argument->fill.kind))
            return generator->fill(&values, &pristine->tensors[n].dl, error);
    cm_broken("op %s, argument %s: no generator \"%s\"", pristine->test_case.op->name, argument->name,
              argument->fill.kind ? argument->fill.kind : "");
}

static bool from_source(const cm_pristine *pristine, int n)
{
    return pristine->source &&
           pristine->source->has(pristine->source, pristine->test_case.op->arguments[n].name);
}

// Fills arguments in the order of the table; those that are not filled yet are invisible to generators.
static cm_status fill(cm_pristine *pristine, int level, cm_error *error)
{
    const cm_op *op = pristine->test_case.op;
    const DLTensor *visible[CM_MAX_ARGUMENTS] = {0};
    cm_hosted hosted;
    cm_status status = CM_OK;
    hosted_open(pristine, visible, &hosted);
    for (int n = 0; op->arguments[n].name && status == CM_OK; n++) {
        const DLTensor *tensor = pristine->arguments[n];
        if (!tensor || op->arguments[n].role == CM_OUTPUT)
            continue;
        if (from_source(pristine, n))
            status = pristine->source->fill(pristine->source, op->arguments[n].name, tensor, error);
        else
            status = generate(pristine, &hosted.call, n, level, error);
        visible[n] = tensor;
    }
    return status;
}

static cm_status fill_exact(cm_pristine *pristine, cm_error *error)
{
    cm_hosted hosted;
    hosted_open(pristine, pristine->arguments, &hosted);
    cm_status status = CM_OK;
    for (pristine->level = 0; pristine->level < CM_EXACT_LEVELS; pristine->level++) {
        status = fill(pristine, pristine->level, error);
        if (status != CM_OK)
            return status;
        status = pristine->test_case.op->exact(&hosted.call);
        if (status == CM_OK)
            return CM_OK;
    }
    return cm_fail(error, status, "case %s: no level of sparsity is exact (%s)", pristine->name,
                   hosted.error.message);
}

bool cm_pristine_is_exact(const cm_pristine *pristine)
{
    cm_hosted hosted;
    hosted_open(pristine, pristine->arguments, &hosted);
    return pristine->test_case.op->exact(&hosted.call) == CM_OK;
}

// A row of an optional argument that the source does not have is absent; what nothing knows is generated.
static bool present(const cm_pristine *pristine, int n)
{
    const cm_argument *argument = &pristine->test_case.op->arguments[n];
    if (from_source(pristine, n))
        return true;
    bool of_source = argument->role == CM_WEIGHT || argument->role == CM_ADAPTER;
    if (pristine->source && of_source && argument->optional)
        return false;
    return cm_op_present(&pristine->test_case, n);
}

cm_status cm_pristine_open(const cm_case *test_case, const cm_source *source, cm_pristine *pristine,
                           cm_error *error)
{
    cm_status status = CM_OK;
    *pristine = (cm_pristine){.test_case = *test_case, .source = source};
    cm_case_print(test_case, pristine->name);
    for (int n = 0; test_case->op->arguments[n].name; n++) {
        if (!present(pristine, n))
            continue;
        cm_tensor *tensor = &pristine->tensors[n];
        cm_pristine_layout(test_case, n, tensor);
        if (!(test_case->op->arguments[n].dtypes & CM_DTYPE_BIT(tensor->dtype))) {
            status = cm_fail(error, CM_BAD_DTYPE, "case %s: %s can't be %s", pristine->name,
                             test_case->op->arguments[n].name, cm_dtype_name(tensor->dtype));
            goto done;
        }
        size_t extent = cm_tensor_extent(&tensor->dl);
        tensor->dl.data = map_argument(pristine, n, extent);
        if (!tensor->dl.data) {
            status = cm_fail(error, CM_NO_MEMORY, "case %s: no memory for %s (%zu bytes)", pristine->name,
                             test_case->op->arguments[n].name, extent);
            goto done;
        }
        if (extent * 8 > (size_t)cm_tensor_count(&tensor->dl) * tensor->dl.dtype.bits)
            memset(tensor->dl.data, CM_CANARY, extent); // the gaps stay so
        pristine->arguments[n] = &tensor->dl;
        pristine->bytes += extent;
    }
    if (is_word(test_case, CM_AXIS_TIER, "exact"))
        CM_TRY(fill_exact(pristine, error));
    else
        CM_TRY(fill(pristine, 0, error));
    cm_hosted hosted;
    hosted_open(pristine, pristine->arguments, &hosted);
    status = cm_op_validate(&hosted.call);
    if (status != CM_OK)
        cm_fail(error, status, "case %s: %s", pristine->name, hosted.error.message);
    else
        pristine->kept = map(pristine, CM_KEPT_BYTES);
done:
    if (status != CM_OK)
        cm_pristine_close(pristine);
    return status;
}

cm_status cm_pristine_copy(const cm_pristine *from, cm_pristine *to, cm_error *error)
{
    *to = (cm_pristine){.test_case = from->test_case,
                        .source = from->source,
                        .borrowed = true,
                        .kept = from->kept,
                        .bytes = from->bytes,
                        .level = from->level};
    memcpy(to->name, from->name, sizeof to->name);
    for (int n = 0; n < CM_MAX_ARGUMENTS; n++) {
        if (!from->arguments[n])
            continue;
        cm_pristine_layout(&to->test_case, n, &to->tensors[n]);
        size_t extent = cm_tensor_extent(&to->tensors[n].dl);
        to->files[n] = from->files[n];
        to->tensors[n].dl.data =
            to->files[n] ? keep(to, mmap(NULL, extent, PROT_READ, MAP_SHARED, to->files[n], 0), extent)
                         : map(to, extent);
        if (!to->tensors[n].dl.data) {
            cm_pristine_close(to);
            return cm_fail(error, CM_NO_MEMORY, "case %s: no memory for a copy", from->name);
        }
        if (!to->files[n])
            memcpy(to->tensors[n].dl.data, from->tensors[n].dl.data, extent);
        to->arguments[n] = &to->tensors[n].dl;
    }
    return CM_OK;
}

// A view of what `from` shows.
static void alias(cm_tensor *to, const DLTensor *from)
{
    cm_dtype dtype = CM_F32;
    cm_dtype_from_dl(from->dtype, &dtype);
    cm_tensor_init(to, dtype, from->ndim, from->shape, from->data);
    memcpy(to->strides, from->strides, (size_t)from->ndim * sizeof *to->strides);
}

cm_status cm_pristine_own(cm_pristine *pristine, int argument, cm_error *error)
{
    cm_tensor own, *tensor = &pristine->tensors[argument];
    cm_tensor_init(&own, tensor->dtype, tensor->dl.ndim, tensor->shape, NULL);
    own.dl.data = map(pristine, cm_tensor_extent(&own.dl));
    if (!own.dl.data)
        return cm_fail(error, CM_NO_MEMORY, "case %s: no memory for a copy", pristine->name);
    cm_tensor_copy(&own.dl, &tensor->dl);
    tensor->dl.data = own.dl.data;
    memcpy(tensor->strides, own.strides, sizeof tensor->strides);
    pristine->files[argument] = 0;
    return CM_OK;
}

cm_status cm_pristine_select(const cm_pristine *from, char letter, const int64_t *rows, int64_t count,
                             cm_pristine *to, cm_error *error)
{
    const cm_op *op = from->test_case.op;
    *to = (cm_pristine){
        .test_case = from->test_case, .kept = from->kept, .bytes = from->bytes, .level = from->level};
    memcpy(to->name, from->name, sizeof to->name);
    to->test_case.dims[cm_dim_index(letter)] = count;
    to->borrowed = true;
    for (int n = 0; op->arguments[n].name; n++) {
        const DLTensor *all = from->arguments[n];
        if (!all)
            continue;
        to->arguments[n] = &to->tensors[n].dl;
        if (op->arguments[n].shape[0] != letter) {
            alias(&to->tensors[n], all);
            to->files[n] = from->files[n];
            continue;
        }
        cm_pristine_layout(&to->test_case, n, &to->tensors[n]);
        to->tensors[n].dl.data = map(to, cm_tensor_extent(&to->tensors[n].dl));
        if (!to->tensors[n].dl.data) {
            cm_pristine_close(to);
            return cm_fail(error, CM_NO_MEMORY, "case %s: no memory for a part of it", from->name);
        }
        int64_t row = all->shape[0] ? cm_tensor_count(all) / all->shape[0] : 0;
        for (int64_t i = 0; i < count * row; i++)
            cm_tensor_set(&to->tensors[n].dl, i, cm_tensor_get(all, rows[i / row] * row + i % row));
    }
    return CM_OK;
}

cm_status cm_pristine_unadapted(const cm_pristine *from, cm_pristine *to, cm_error *error)
{
    const cm_op *op = from->test_case.op;
    *to = (cm_pristine){.source = from->source, .borrowed = true, .kept = from->kept};
    cm_status status = cm_op_unadapted(&from->test_case, &to->test_case, error);
    for (int n = 0; op->arguments[n].name && status == CM_OK; n++) {
        if (!from->arguments[n] || !cm_op_present(&to->test_case, n))
            continue;
        alias(&to->tensors[n], from->arguments[n]);
        to->files[n] = from->files[n];
        to->arguments[n] = &to->tensors[n].dl;
        to->bytes += cm_tensor_extent(to->arguments[n]);
    }
    if (status == CM_OK)
        cm_case_print(&to->test_case, to->name);
    return status;
}

cm_status cm_pristine_vary(const cm_pristine *from, uint64_t seed, cm_pristine *to, cm_error *error)
{
    const cm_op *op = from->test_case.op;
    const DLTensor *visible[CM_MAX_ARGUMENTS] = {0};
    cm_hosted hosted;
    cm_status status = CM_OK;
    *to = (cm_pristine){.test_case = from->test_case,
                        .source = from->source,
                        .borrowed = true,
                        .kept = from->kept,
                        .bytes = from->bytes};
    to->test_case.seed = seed;
    cm_case_print(&to->test_case, to->name);
    hosted_open(to, visible, &hosted);
    for (int n = 0; op->arguments[n].name && status == CM_OK; n++) {
        cm_role role = op->arguments[n].role;
        const DLTensor *old = from->arguments[n];
        if (!old)
            continue;
        to->arguments[n] = &to->tensors[n].dl;
        if ((role != CM_INPUT && role != CM_INOUT) || from_source(from, n)) {
            alias(&to->tensors[n], old);
            to->files[n] = from->files[n];
        } else {
            cm_pristine_layout(&to->test_case, n, &to->tensors[n]);
            to->tensors[n].dl.data = map(to, cm_tensor_extent(old));
            if (!to->tensors[n].dl.data)
                status = cm_fail(error, CM_NO_MEMORY, "case %s: no memory for other inputs", from->name);
            else
                status = generate(to, &hosted.call, n, 0, error);
        }
        if (role != CM_OUTPUT)
            visible[n] = to->arguments[n];
    }
    if (status == CM_OK) {
        hosted_open(to, to->arguments, &hosted);
        status = cm_op_validate(&hosted.call);
        if (status != CM_OK)
            cm_fail(error, status, "case %s: %s", to->name, hosted.error.message);
    }
    if (status != CM_OK)
        cm_pristine_close(to);
    return status;
}

void cm_pristine_changed(cm_pristine *pristine)
{
    pristine->has_want[0] = pristine->has_want[1] = false;
    if (!pristine->borrowed)
        pristine->kept = NULL; // its files are not what they were
}

void cm_pristine_ask_once(cm_pristine *pristine)
{
    for (int n = 0; n < pristine->mapping_count; n++)
        if (pristine->kept && pristine->mappings[n] == pristine->kept) {
            munmap(pristine->mappings[n], pristine->mapped[n]);
            pristine->mapping_count--;
            pristine->mappings[n] = pristine->mappings[pristine->mapping_count];
            pristine->mapped[n] = pristine->mapped[pristine->mapping_count];
            pristine->kept = NULL;
        }
}

static cm_status evaluate(const cm_pristine *pristine, uint64_t omit, cm_accuracy accuracy, cm_want *want,
                          cm_error *error)
{
    cm_hosted hosted;
    hosted_open(pristine, pristine->arguments, &hosted);
    uint64_t key = pristine->kept ? cm_kept_key(&hosted.call, pristine->files, omit, accuracy) : 0;
    if (pristine->kept && cm_kept_find(pristine->kept, key, want))
        return CM_OK;
    cm_status status = pristine->test_case.op->reference(&hosted.call, omit, accuracy, want);
    if (status != CM_OK)
        cm_fail(error, status, "reference of %s on %s: %s", pristine->test_case.op->name, pristine->name,
                hosted.error.message);
    else if (pristine->kept)
        cm_kept_add(pristine->kept, key, want);
    return status;
}

cm_status cm_pristine_want(cm_pristine *pristine, cm_accuracy accuracy, cm_error *error)
{
    if (pristine->has_want[accuracy])
        return CM_OK;
    for (int n = 0; pristine->test_case.op->arguments[n].name; n++) {
        if (pristine->test_case.op->arguments[n].compare == CM_COMPARE_NONE)
            continue;
        size_t count = (size_t)cm_tensor_count(pristine->arguments[n]);
        if (pristine->want[accuracy][n].value) // of values that were changed since
            continue;
        double *memory = map(pristine, 5 * count * sizeof *memory);
        if (!memory)
            return cm_fail(error, CM_NO_MEMORY, "case %s: no memory for the reference", pristine->name);
        pristine->want[accuracy][n] =
            (cm_want){(int64_t)count,    memory, memory + count, memory + 2 * count, memory + 3 * count,
                      memory + 4 * count};
    }
    cm_status status = evaluate(pristine, 0, accuracy, pristine->want[accuracy], error);
    pristine->has_want[accuracy] = status == CM_OK;
    return status;
}

cm_status cm_pristine_without(const cm_pristine *pristine, uint64_t omit, cm_accuracy accuracy, cm_want *want,
                              cm_error *error)
{
    return evaluate(pristine, omit, accuracy, want, error);
}

int64_t cm_pristine_reads(const cm_pristine *pristine, int argument)
{
    if (!pristine->arguments[argument])
        return 0;
    cm_hosted hosted;
    int64_t count = cm_tensor_count(pristine->arguments[argument]), reads = 0;
    uint8_t *mask = cm_new((size_t)count, 1);
    hosted_open(pristine, pristine->arguments, &hosted);
    if (pristine->test_case.op->addressed(&hosted.call, argument, mask) != CM_OK)
        cm_broken("%s: addressed() failed: %s", pristine->name, hosted.error.message);
    for (int64_t n = 0; n < count; n++)
        reads += (mask[n] & CM_READS) != 0;
    free(mask);
    return reads;
}

void cm_pristine_close(cm_pristine *pristine)
{
    for (int n = 0; n < pristine->mapping_count; n++)
        munmap(pristine->mappings[n], pristine->mapped[n]);
    for (int n = 0; n < CM_MAX_ARGUMENTS && !pristine->borrowed; n++)
        if (pristine->files[n])
            close(pristine->files[n]);
    *pristine = (cm_pristine){0};
}
