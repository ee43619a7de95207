// SPDX-License-Identifier: Apache-2.0
#include "harness/op.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool cm_has_word(const char *words, const char *word, size_t length)
{
    for (const char *at = words; at && *at;) {
        size_t size = strcspn(at, " ");
        if (size == length && !strncmp(at, word, length))
            return true;
        at += size;
        at += *at == ' ';
    }
    return false;
}

int cm_op_argument_count(const cm_op *op)
{
    int count = 0;
    while (op->arguments[count].name)
        count++;
    return count;
}

int cm_op_argument_index(const cm_op *op, const char *name)
{
    for (int n = 0; op->arguments[n].name; n++)
        if (!strcmp(op->arguments[n].name, name))
            return n;
    return -1;
}

int cm_op_shape(const cm_argument *argument, const int64_t *dims, int64_t *shape, char *letters)
{
    int ndim = 0;
    for (const char *at = argument->shape; *at && ndim < CM_MAX_RANK;) {
        char *end = (char *)at + 1;
        char letter = isdigit((unsigned char)*at) ? '#' : *at;
        int64_t extent = letter == '#' ? strtoll(at, &end, 10) : dims[cm_dim_index(letter)];
        if (*end == '/') { // elements per group; 0: one group
            int64_t group = dims[cm_dim_index(end[1])];
            extent = group ? (extent + group - 1) / group : 1;
            letter = '#';
            end += 2;
        } else if (*end == '+') {
            extent += strtoll(end + 1, &end, 10);
            letter = '#';
        }
        if (letters)
            letters[ndim] = letter;
        shape[ndim++] = extent;
        at = end + (*end == ' ');
    }
    return ndim;
}

cm_dtype cm_op_dtype(const cm_argument *argument, const cm_dtype *dtypes)
{
    if (argument->dtype_variable)
        return dtypes[(int)argument->dtype_variable];
    return (cm_dtype)__builtin_ctz(argument->dtypes);
}

static bool has_dims(const cm_argument *argument, const int64_t *dims)
{
    for (const char *c = argument->shape; *c; c++) {
        int d = *c == 'T' || *c == 'G' ? -1 : cm_dim_index(*c);
        if (d >= 0 && dims[d] == 0)
            return false;
    }
    return true;
}

static bool has_any_word(const cm_case *test_case, const char *words)
{
    for (int axis = 0; axis < CM_AXIS_COUNT; axis++) {
        const char *word = cm_case_word(test_case, (cm_axis_kind)axis);
        if (cm_has_word(words, word, strlen(word)))
            return true;
    }
    return false;
}

bool cm_op_present(const cm_case *test_case, int argument)
{
    const cm_op *op = test_case->op;
    const cm_argument *wanted = &op->arguments[argument];
    if (!wanted->optional)
        return true;
    if (wanted->fill.words && !has_any_word(test_case, wanted->fill.words))
        return false;
    int scaled = wanted->scales ? cm_op_argument_index(op, wanted->scales) : -1;
    if (scaled >= 0 && cm_dtype_is_float(cm_op_dtype(&op->arguments[scaled], test_case->dtypes)))
        return false;
    for (int n = 0; op->arguments[n].name; n++)
        if (cm_has_word(wanted->with, op->arguments[n].name, strlen(op->arguments[n].name)) &&
            !has_dims(&op->arguments[n], test_case->dims))
            return false;
    return has_dims(wanted, test_case->dims);
}

cm_status cm_op_unadapted(const cm_case *test_case, cm_case *bare, cm_error *error)
{
    const cm_op *op = test_case->op;
    bool any = false;
    *bare = *test_case;
    bare->dims[cm_dim_index('L')] = bare->dims[cm_dim_index('r')] = 0;
    for (int n = 0; op->arguments[n].name; n++) {
        bool is_adapter = op->arguments[n].role == CM_ADAPTER && cm_op_present(test_case, n);
        if (is_adapter && cm_op_present(bare, n))
            return cm_fail(error, CM_BAD_VALUE, "%s has no call without adapters", op->name);
        any = any || is_adapter;
    }
    return any ? CM_OK : cm_fail(error, CM_BAD_VALUE, "the case has no adapters to leave out");
}

static cm_status check_shape(const cm_call *call, const cm_argument *argument, const DLTensor *tensor)
{
    int64_t shape[CM_MAX_RANK];
    char letters[CM_MAX_RANK];
    int ndim = cm_op_shape(argument, call->dims, shape, letters);
    if (tensor->ndim != ndim)
        return call->host->fail(call, CM_BAD_SHAPE, "%s has %d dimensions, %s needs %d (%s)", argument->name,
                                tensor->ndim, call->op->name, ndim, argument->shape);
    for (int d = 0; d < ndim; d++)
        if (tensor->shape[d] != shape[d])
            return call->host->fail(call, CM_BAD_SHAPE,
                                    "%s has extent %lld in dimension %d (%c), expected %lld", argument->name,
                                    (long long)tensor->shape[d], d, letters[d], (long long)shape[d]);
    if (!tensor->strides)
        return call->host->fail(call, CM_BAD_SHAPE, "%s has no strides; a call always gives them",
                                argument->name);
    for (int d = 0; d < ndim; d++)
        if (tensor->strides[d] < 0 ||
            (tensor->strides[d] == 0 && shape[d] > 1 && letters[d] != argument->shareable))
            return call->host->fail(call, CM_BAD_SHAPE, "%s has stride %lld in dimension %d (%c)",
                                    argument->name, (long long)tensor->strides[d], d, letters[d]);
    if (ndim > 0 && tensor->strides[ndim - 1] != 1 && shape[ndim - 1] > 1)
        return call->host->fail(call, CM_BAD_SHAPE,
                                "%s has stride %lld in its last dimension; its rows must be contiguous",
                                argument->name, (long long)tensor->strides[ndim - 1]);
    return CM_OK;
}

static cm_status check_dtype(const cm_call *call, int n)
{
    const cm_argument *arguments = call->op->arguments;
    cm_dtype dtype, other;
    if (!cm_dtype_from_dl(call->arguments[n]->dtype, &dtype) || !(arguments[n].dtypes & CM_DTYPE_BIT(dtype)))
        return call->host->fail(call, CM_BAD_DTYPE, "%s has a dtype (code %d, %d bits) that %s does not take",
                                arguments[n].name, call->arguments[n]->dtype.code,
                                call->arguments[n]->dtype.bits, call->op->name);
    for (int m = 0; m < n; m++)
        if (arguments[n].dtype_variable && call->arguments[m] &&
            arguments[m].dtype_variable == arguments[n].dtype_variable &&
            cm_dtype_from_dl(call->arguments[m]->dtype, &other) && other != dtype)
            return call->host->fail(call, CM_BAD_DTYPE, "%s is %s, but %s is %s; they share one dtype",
                                    arguments[n].name, cm_dtype_name(dtype), arguments[m].name,
                                    cm_dtype_name(other));
    return CM_OK;
}

// Range of the integers of one argument.
static cm_status check_values(const cm_call *call, const cm_argument *argument, const DLTensor *tensor)
{
    char letter = argument->index_into ? argument->index_into
                  : argument->is_rank  ? 'r'
                                       : argument->offset_into;
    if (!letter)
        return CM_OK;
    int64_t count = cm_tensor_count(tensor), previous = 0;
    int64_t limit = call->dims[cm_dim_index(letter)] - (argument->index_into ? 1 : 0);
    for (int64_t n = 0; n < count; n++) {
        int64_t value = (int64_t)cm_tensor_get(tensor, n);
        int64_t least = argument->index_into ? argument->index_min : argument->offset_into ? previous : 0;
        if (value < least || value > limit)
            return call->host->fail(call, argument->index_into ? CM_BAD_ID : CM_BAD_VALUE,
                                    "%s[%lld] = %lld, outside %lld..%lld (%c)", argument->name, (long long)n,
                                    (long long)value, (long long)least, (long long)limit, letter);
        previous = value;
    }
    if (argument->offset_into && count > 0 && (cm_tensor_get(tensor, 0) != 0 || previous != limit))
        return call->host->fail(call, CM_BAD_VALUE, "%s goes from %lld to %lld, expected 0 to %lld (%c)",
                                argument->name, (long long)cm_tensor_get(tensor, 0), (long long)previous,
                                (long long)limit, letter);
    return CM_OK;
}

static cm_status check_presence(const cm_call *call, int n)
{
    const cm_argument *arguments = call->op->arguments;
    const DLTensor *tensor = call->arguments[n], *scaled = NULL;
    if (arguments[n].scales)
        scaled = call->arguments[cm_op_argument_index(call->op, arguments[n].scales)];
    bool integers = scaled && scaled->dtype.code == kDLInt;
    if (!tensor && integers)
        return call->host->fail(call, CM_BAD_VALUE, "%s is missing: %s has integers", arguments[n].name,
                                arguments[n].scales);
    if (!tensor)
        return arguments[n].optional
                   ? CM_OK
                   : call->host->fail(call, CM_BAD_VALUE, "%s is missing", arguments[n].name);
    if (arguments[n].scales && !integers)
        return call->host->fail(call, CM_BAD_VALUE, "%s is given, but %s has no integers", arguments[n].name,
                                arguments[n].scales);
    for (int m = 0; arguments[m].name; m++)
        if (!call->arguments[m] &&
            cm_has_word(arguments[n].with, arguments[m].name, strlen(arguments[m].name)))
            return call->host->fail(call, CM_BAD_VALUE, "%s is given without %s", arguments[n].name,
                                    arguments[m].name);
    if (!tensor->data && cm_tensor_count(tensor) > 0)
        return call->host->fail(call, CM_BAD_VALUE, "%s has no data", arguments[n].name);
    if (tensor->byte_offset != 0)
        return call->host->fail(call, CM_BAD_VALUE,
                                "%s has a byte offset of %llu; data must point at its first element",
                                arguments[n].name, (unsigned long long)tensor->byte_offset);
    return CM_OK;
}

static cm_status check_device(const cm_call *call, const cm_argument *argument, const DLTensor *tensor)
{
    if (tensor->device.device_type != call->device)
        return call->host->fail(call, CM_BAD_DEVICE, "%s lies on device type %d, expected %d (1 is the host)",
                                argument->name, (int)tensor->device.device_type, (int)call->device);
    if (tensor->device.device_id != 0)
        return call->host->fail(call, CM_BAD_DEVICE, "%s lies on device number %d, expected 0",
                                argument->name, (int)tensor->device.device_id);
    return CM_OK;
}

// Whether two elements of a tensor lie in one place: a row begins before the one before it has ended.
static bool overlaps_itself(const DLTensor *tensor)
{
    int64_t inner = 0; // distance from the first to the last element of a row
    if (cm_tensor_count(tensor) == 0)
        return false;
    for (int d = tensor->ndim - 1; d >= 0; d--) {
        if (tensor->shape[d] > 1 && tensor->strides[d] <= inner)
            return true;
        inner += (tensor->shape[d] - 1) * tensor->strides[d];
    }
    return false;
}

static cm_status check_overlap(const cm_call *call, int output)
{
    const cm_argument *arguments = call->op->arguments;
    const DLTensor *tensor = call->arguments[output];
    if (overlaps_itself(tensor))
        return call->host->fail(call, CM_BAD_SHAPE, "the rows of %s overlap", arguments[output].name);
    for (int n = 0; arguments[n].name; n++)
        if (n != output && call->arguments[n] && cm_tensor_overlap(tensor, call->arguments[n]))
            return call->host->fail(call, CM_BAD_VALUE, "%s overlaps %s in memory", arguments[output].name,
                                    arguments[n].name);
    return CM_OK;
}

// A rank above 0 says that there are matrices of dimension r.
static cm_status check_rank(const cm_call *call, const cm_argument *argument, const DLTensor *tensor)
{
    const cm_argument *arguments = call->op->arguments;
    for (int n = 0; arguments[n].name; n++)
        if (call->arguments[n] && strchr(arguments[n].shape, 'r'))
            return CM_OK;
    for (int64_t n = 0; n < cm_tensor_count(tensor); n++)
        if (cm_tensor_get(tensor, n) > 0)
            return call->host->fail(call, CM_BAD_VALUE,
                                    "%s[%lld] = %lld, but there is no argument of that rank", argument->name,
                                    (long long)n, (long long)cm_tensor_get(tensor, n));
    return CM_OK;
}

static bool is_written(const cm_argument *argument)
{
    return argument->role == CM_OUTPUT || argument->role == CM_INOUT;
}

cm_status cm_op_validate(const cm_call *call)
{
    const cm_argument *arguments = call->op->arguments;
    const DLTensor *const *tensors = call->arguments;
    cm_status status = CM_OK;
    for (int n = 0; arguments[n].name && status == CM_OK; n++)
        if ((status = check_presence(call, n)) == CM_OK && tensors[n] &&
            (status = check_shape(call, &arguments[n], tensors[n])) == CM_OK)
            status = check_dtype(call, n);
    for (int n = 0; arguments[n].name && status == CM_OK; n++)
        if (tensors[n])
            status = check_device(call, &arguments[n], tensors[n]);
    for (int n = 0; arguments[n].name && status == CM_OK; n++)
        if (tensors[n] && is_written(&arguments[n]))
            status = check_overlap(call, n);
    for (int n = 0; arguments[n].name && status == CM_OK; n++)
        if (tensors[n] && call->device == kDLCPU && // a device's values can't be read from here
            (status = check_values(call, &arguments[n], tensors[n])) == CM_OK && arguments[n].is_rank)
            status = check_rank(call, &arguments[n], tensors[n]);
    return status;
}
