/* safetensors.c: the safetensors format. 8 bytes of header length, a JSON header {name: {dtype, shape, data_offsets}}, then the
 * elements of all tensors, row-major, one after the other. As in the format's own reader the tensors must fill the data
 * exactly: no overlap, no gap, nothing after the last. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/status.h"
#include "io/weights.h"

enum { LENGTH_SIZE = 8, HEADER_MAX = 100 * 1000 * 1000 }; /* the limit of the format's own reader */

static tf_status read_dtype(const char *name, const json_t *info, tfi_dtype *out)
{
    static const char *const names[TFI_DTYPE_COUNT] = {"F32", "BF16", "F16", "F64", "I64", "I32", "I16", "I8", "U8", "BOOL"};
    const char *text = json_string_value(json_object_get(info, "dtype"));

    if (!text)
        return tfi_fail(TF_STATUS_CORRUPT, "tensor \"%s\": \"dtype\" is missing or not a string", tfi_show_name(name).text);
    for (int i = 0; i < TFI_DTYPE_COUNT; i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = (tfi_dtype)i;
            return TF_STATUS_OK;
        }
    }
    return tfi_fail(TF_STATUS_UNSUPPORTED, "tensor \"%s\": dtype \"%.32s\" is not supported", tfi_show_name(name).text, text);
}

/* An array of at most `max` integers >= 0. */
static tf_status read_integers(const char *name, const json_t *info, const char *key, size_t max, int64_t *out, size_t *count)
{
    const json_t *array = json_object_get(info, key);

    *count = json_array_size(array);
    if (!json_is_array(array))
        return tfi_fail(TF_STATUS_CORRUPT, "tensor \"%s\": \"%s\" is missing or no array", tfi_show_name(name).text, key);
    if (*count > max)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "tensor \"%s\": \"%s\" has %zu numbers, %zu is the most",
                        tfi_show_name(name).text, key, *count, max);
    for (size_t i = 0; i < *count; i++) {
        const json_t *v = json_array_get(array, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return tfi_fail(TF_STATUS_CORRUPT, "tensor \"%s\": \"%s\"[%zu] is not an integer >= 0", tfi_show_name(name).text,
                            key, i);
        out[i] = json_integer_value(v);
    }
    return TF_STATUS_OK;
}

/* Row-major strides and the bytes that the shape asks for. */
static tf_status lay_out(const char *name, tfi_tensor *t, int64_t *bytes)
{
    *bytes = (int64_t)tfi_dtype_size(t->dtype);
    int64_t stride = 1;
    for (int i = t->rank - 1; i >= 0; i--) {
        t->stride[i] = stride;
        if (__builtin_mul_overflow(stride, t->shape[i], &stride) || __builtin_mul_overflow(*bytes, t->shape[i], bytes))
            return tfi_fail(TF_STATUS_CORRUPT, "tensor \"%s\": dimension %d, %lld, makes more elements than can exist",
                            tfi_show_name(name).text, i, (long long)t->shape[i]);
    }
    return TF_STATUS_OK;
}

static tf_status add_tensor(tfi_source *s, const char *name, const json_t *info, const uint8_t *data, size_t size,
                            const tfi_file *file)
{
    tfi_tensor t = {.file = file};
    int64_t offsets[2], bytes;
    size_t rank, offset_count;
    tf_status status;

    if (!json_is_object(info))
        return tfi_fail(TF_STATUS_CORRUPT, "tensor \"%s\": its header entry is no object", tfi_show_name(name).text);
    if ((status = read_dtype(name, info, &t.dtype)) < 0) return status;
    if ((status = read_integers(name, info, "shape", TFI_RANK_MAX, t.shape, &rank)) < 0) return status;
    if ((status = read_integers(name, info, "data_offsets", 2, offsets, &offset_count)) < 0) return status;
    t.rank = (int)rank;
    if ((status = lay_out(name, &t, &bytes)) < 0) return status;
    if (offset_count != 2 || offsets[0] > offsets[1] || (uint64_t)offsets[1] > size)
        return tfi_fail(TF_STATUS_CORRUPT, "tensor \"%s\": \"data_offsets\" [%lld, %lld] lie outside the %zu bytes of data",
                        tfi_show_name(name).text, offset_count > 0 ? (long long)offsets[0] : -1,
                        offset_count > 1 ? (long long)offsets[1] : -1, size);
    if (offsets[1] - offsets[0] != bytes)
        return tfi_fail(TF_STATUS_CORRUPT, "tensor \"%s\": shape and dtype make %lld bytes, \"data_offsets\" hold %lld",
                        tfi_show_name(name).text, (long long)bytes, (long long)(offsets[1] - offsets[0]));
    t.data = data + offsets[0];
    t.span = (size_t)bytes;
    return tfi_source_add(s, &t, 0, name, strlen(name));
}

static int by_place(const void *a, const void *b)
{
    const tfi_tensor *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return (x->span > y->span) - (x->span < y->span);
}

/* Sorts the tensors of this file by place, which the final sort by name undoes. */
static tf_status check_tiling(tfi_tensor *tensors, int64_t count, const uint8_t *data, size_t size)
{
    size_t end = 0;

    if (count > 0) qsort(tensors, (size_t)count, sizeof *tensors, by_place);
    for (int64_t i = 0; i < count; i++) {
        const size_t begin = (size_t)(tensors[i].data - data);
        if (begin != end)
            return tfi_fail(TF_STATUS_CORRUPT,
                            "tensor \"%s\": \"data_offsets\" begin at %zu, the tensor before ends at %zu: %s",
                            tfi_show_name(tensors[i].name).text, begin, end, begin < end ? "overlap" : "gap");
        end = begin + tensors[i].span;
    }
    if (end != size) return tfi_fail(TF_STATUS_CORRUPT, "%zu bytes follow the last tensor", size - end);
    return TF_STATUS_OK;
}

static tf_status add_all(tfi_source *s, json_t *header, const uint8_t *data, size_t size, const tfi_file *file)
{
    const int64_t first = s->tensor_count;
    const char *name;
    json_t *info;
    tf_status status;

    if (!json_is_object(header)) return tfi_fail(TF_STATUS_CORRUPT, "the header is no JSON object");
    json_object_foreach(header, name, info)
    {
        if (strcmp(name, "__metadata__") == 0) continue;
        if ((status = add_tensor(s, name, info, data, size, file)) < 0) return status;
    }
    return check_tiling(s->tensors + first, s->tensor_count - first, data, size);
}

tf_status tfi_safetensors_read(tfi_source *s, const tfi_file *file)
{
    json_t *header;
    tf_status status;

    if (file->size < LENGTH_SIZE) return tfi_fail(TF_STATUS_CORRUPT, "%zu bytes, too short for a header", file->size);
    const uint64_t length = tfi_read_u64(file->data);
    const size_t rest = file->size - LENGTH_SIZE;
    if (length > rest)
        return tfi_fail(TF_STATUS_CORRUPT, "a header of %llu bytes in a file of %zu", (unsigned long long)length, file->size);
    if (length > HEADER_MAX)
        return tfi_fail(TF_STATUS_CORRUPT, "a header of %llu bytes; %d is the most", (unsigned long long)length, HEADER_MAX);
    const uint8_t *text = file->data + LENGTH_SIZE;
    if ((status = tfi_json_parse((const char *)text, (size_t)length, "header", &header)) < 0) return status;
    status = add_all(s, header, text + length, rest - (size_t)length, file);
    json_decref(header);
    return status;
}
