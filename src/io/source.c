/* source.c: finds a checkpoint's weight files, keeps the table of tensors, and converts a tensor's elements to float. */
#include "io/source.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/status.h"
#include "io/weights.h"

typedef tf_status (*reader)(tfi_source *s, const tfi_file *file);

tfi_shown tfi_show(const char *text, size_t size)
{
    tfi_shown shown;
    const size_t n = size < 100 ? size : 100;

    for (size_t i = 0; i < n; i++) shown.text[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    strcpy(shown.text + n, size > n ? "..." : "");
    return shown;
}

/* The last element's index in the storage, or -1 if a product or sum overflows. Shape and strides are >= 0. */
static int64_t last_element(const tfi_tensor *t, int64_t offset)
{
    for (int i = 0; i < t->rank; i++) {
        int64_t reach;
        if (__builtin_mul_overflow(t->shape[i] - 1, t->stride[i], &reach)) return -1;
        if (__builtin_add_overflow(offset, reach, &offset)) return -1;
    }
    return offset;
}

static tf_status check_shape(const tfi_tensor *t)
{
    /* Leaves room for the byte count in any dtype; empty dimensions count as 1, so that no partial product overflows either. */
    int64_t elements = 8;

    for (int i = 0; i < t->rank; i++) {
        if (t->shape[i] < 0)
            return tfi_fail(TF_STATUS_CORRUPT, "tensor \"%s\": dimension %d is %lld", tfi_show_name(t->name).text, i,
                            (long long)t->shape[i]);
        if (t->stride[i] < 0)
            return tfi_fail(TF_STATUS_CORRUPT, "tensor \"%s\": stride %d is %lld", tfi_show_name(t->name).text, i,
                            (long long)t->stride[i]);
        if (t->shape[i] > 0 && __builtin_mul_overflow(elements, t->shape[i], &elements))
            return tfi_fail(TF_STATUS_CORRUPT, "tensor \"%s\": dimension %d, %lld, makes more elements than can exist",
                            tfi_show_name(t->name).text, i, (long long)t->shape[i]);
    }
    return TF_STATUS_OK;
}

/* The table doubles whenever its count is a power of two. */
static tfi_tensor *push(tfi_source *s)
{
    const size_t n = (size_t)s->tensor_count;

    if ((n & (n - 1)) == 0 && (n == 0 || n >= 64)) {
        tfi_tensor *larger = tfi_arena_alloc(&s->arena, (n ? 2 * n : 64) * sizeof *larger);
        if (!larger) return NULL;
        if (n) memcpy(larger, s->tensors, n * sizeof *larger);
        s->tensors = larger;
    }
    return &s->tensors[s->tensor_count++];
}

tf_status tfi_source_add(tfi_source *s, const tfi_tensor *view, int64_t offset, const char *name, size_t name_size)
{
    tfi_tensor t = *view;
    const int64_t element_size = (int64_t)tfi_dtype_size(t.dtype);
    tf_status status;

    if (!(t.name = tfi_arena_copy(&s->arena, name, name_size))) return TF_STATUS_NOMEM;
    if (strlen(t.name) != name_size)
        return tfi_fail(TF_STATUS_CORRUPT, "tensor \"%s\": a zero byte in the name", tfi_show_name(t.name).text);
    if ((status = check_shape(&t)) < 0) return status;
    if (offset < 0)
        return tfi_fail(TF_STATUS_CORRUPT, "tensor \"%s\": offset %lld", tfi_show_name(t.name).text, (long long)offset);

    if (tfi_tensor_elements(&t) == 0) {
        t.span = 0;
    } else {
        const int64_t last = last_element(&t, offset);
        if ((uint64_t)last >= t.span / (uint64_t)element_size)
            return tfi_fail(TF_STATUS_CORRUPT, "tensor \"%s\": shape, strides and offset %lld leave its storage of %zu bytes",
                            tfi_show_name(t.name).text, (long long)offset, t.span);
        t.data += offset * element_size;
        t.span = (size_t)((last - offset + 1) * element_size);
    }
    tfi_tensor *place = push(s);
    if (!place) return TF_STATUS_NOMEM;
    *place = t;
    return TF_STATUS_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const tfi_tensor *)a)->name, ((const tfi_tensor *)b)->name);
}

static tf_status sort_table(tfi_source *s)
{
    if (s->tensor_count == 0) return TF_STATUS_OK;
    qsort(s->tensors, (size_t)s->tensor_count, sizeof *s->tensors, by_name);
    for (int64_t i = 1; i < s->tensor_count; i++)
        if (by_name(&s->tensors[i - 1], &s->tensors[i]) == 0)
            return tfi_fail(TF_STATUS_CORRUPT, "tensor \"%s\" is stored twice", tfi_show_name(s->tensors[i].name).text);
    return TF_STATUS_OK;
}

/* Read the file that is open in the next place of s->weight_files. */
static tf_status read_open_file(tfi_source *s, const char *name, reader read)
{
    const tf_status status = read(s, &s->weight_files[s->weight_file_count++]);
    return status < 0 ? tfi_fail_prefix(status, "%s/%s: ", s->files.label, name) : status;
}

static tf_status reserve_files(tfi_source *s, size_t count)
{
    s->weight_files = tfi_arena_alloc(&s->arena, count * sizeof *s->weight_files);
    return s->weight_files ? TF_STATUS_OK : TF_STATUS_NOMEM;
}

static tf_status read_single(tfi_source *s, const char *name, reader read)
{
    tf_status status;

    if ((status = reserve_files(s, 1)) < 0) return status;
    if ((status = tfi_files_open(&s->files, name, &s->weight_files[0])) < 0) return status;
    if ((status = read_open_file(s, name, read)) < 0) return status;
    return (status = sort_table(s)) < 0 ? tfi_fail_prefix(status, "%s/%s: ", s->files.label, name) : status;
}

/* A shard is a file beside its index: the name must not lead out of the directory. */
static tf_status shard_name(const char *tensor, const json_t *value, const char **out)
{
    const char *name = json_string_value(value);

    if (!name) return tfi_fail(TF_STATUS_CORRUPT, "weight_map: \"%s\" is not a file name", tfi_show_name(tensor).text);
    if (!*name || strlen(name) != json_string_length(value) || strchr(name, '/'))
        return tfi_fail(TF_STATUS_CORRUPT, "weight_map: \"%s\" is in \"%s\", no file of this directory",
                        tfi_show_name(tensor).text, tfi_show_name(name).text);
    *out = name;
    return TF_STATUS_OK;
}

static int64_t find_shard(const char *const *shards, int64_t count, const char *name)
{
    for (int64_t i = count - 1; i >= 0; i--)
        if (strcmp(shards[i], name) == 0) return i;
    return -1;
}

static tf_status read_shards(tfi_source *s, json_t *map, reader read)
{
    const char *tensor, *name = NULL, **shards;
    json_t *value;
    tf_status status;

    if ((status = reserve_files(s, json_object_size(map))) < 0) return status;
    if (!(shards = tfi_arena_alloc(&s->arena, json_object_size(map) * sizeof *shards))) return TF_STATUS_NOMEM;
    json_object_foreach(map, tensor, value)
    {
        if ((status = shard_name(tensor, value, &name)) < 0) return status;
        if (find_shard(shards, s->weight_file_count, name) >= 0) continue;
        if ((status = tfi_files_need(&s->files, name, &s->weight_files[s->weight_file_count])) < 0) return status;
        shards[s->weight_file_count] = name;
        if ((status = read_open_file(s, name, read)) < 0) return status;
    }
    if ((status = sort_table(s)) < 0) return status;
    json_object_foreach(map, tensor, value)
    {
        const tfi_tensor *t = tfi_source_tensor(s, tensor);
        name = json_string_value(value);
        if (!t || t->file != &s->weight_files[find_shard(shards, s->weight_file_count, name)])
            return tfi_fail(TF_STATUS_CORRUPT, "weight_map: \"%s\" is not in %s", tfi_show_name(tensor).text,
                            tfi_show_name(name).text);
    }
    return TF_STATUS_OK;
}

static tf_status read_index(tfi_source *s, const char *name, reader read)
{
    tfi_file file;
    json_t *root;
    tf_status status;

    if ((status = tfi_files_open(&s->files, name, &file)) < 0) return status;
    status = tfi_json_parse((const char *)file.data, file.size, "index", &root);
    tfi_files_close(&s->files, &file);
    if (status == TF_STATUS_OK) {
        json_t *map = json_object_get(root, "weight_map");
        status = json_is_object(map) ? read_shards(s, map, read)
                                     : tfi_fail(TF_STATUS_CORRUPT, "\"weight_map\" is missing or not an object");
        json_decref(root);
    }
    if (status == TF_STATUS_OK) return status;
    /* NOT_FOUND would mean that there is no index; here a shard is missing, which is a broken checkpoint. */
    return tfi_fail_prefix(status == TF_STATUS_NOT_FOUND ? TF_STATUS_CORRUPT : status, "%s/%s: ", s->files.label, name);
}

static tf_status read_files(tfi_source *s)
{
    static const struct {
        const char *name;
        tf_status (*open)(tfi_source *s, const char *name, reader read);
        reader read;
    } forms[] = {{"model.safetensors", read_single, tfi_safetensors_read},
                 {"model.safetensors.index.json", read_index, tfi_safetensors_read},
                 {"pytorch_model.bin", read_single, tfi_torch_read},
                 {"pytorch_model.bin.index.json", read_index, tfi_torch_read}};

    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        const tf_status status = forms[i].open(s, forms[i].name, forms[i].read);
        if (status != TF_STATUS_NOT_FOUND) return status;
    }
    return TF_STATUS_OK;
}

tf_status tfi_source_open(tfi_source *s, tfi_memory *memory, const tfi_files *files)
{
    tf_status status;

    *s = (tfi_source){.memory = memory, .files = *files, .arena = {.memory = memory}};
    if ((status = tfi_host_tensors_read(s)) == TF_STATUS_OK && s->tensor_count == 0) {
        status = read_files(s);
    } else if (status == TF_STATUS_OK && (status = sort_table(s)) < 0) {
        status = tfi_fail_prefix(TF_STATUS_INVALID, "%s: ", s->files.label);
    }
    if (status < 0) tfi_source_close(s);
    return status;
}

void tfi_source_close(tfi_source *s)
{
    for (int64_t i = 0; i < s->weight_file_count; i++) tfi_files_close(&s->files, &s->weight_files[i]);
    tfi_arena_close(&s->arena);
    memset(s, 0, sizeof *s);
}

static int name_of_key(const void *key, const void *tensor)
{
    return strcmp(key, ((const tfi_tensor *)tensor)->name);
}

const tfi_tensor *tfi_source_tensor(const tfi_source *s, const char *name)
{
    if (s->tensor_count == 0) return NULL;
    return bsearch(name, s->tensors, (size_t)s->tensor_count, sizeof *s->tensors, name_of_key);
}

int64_t tfi_tensor_elements(const tfi_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->shape[i];
    return n;
}

int tfi_tensor_is_contiguous(const tfi_tensor *t)
{
    int64_t expected = 1;

    if (tfi_tensor_elements(t) == 0) return 1;
    for (int i = t->rank - 1; i >= 0; i--) {
        if (t->shape[i] != 1 && t->stride[i] != expected) return 0;
        expected *= t->shape[i];
    }
    return 1;
}

/* One loop a dtype over n elements, `stride` apart. Inlined with stride 1 these become vector loops. */
static inline void f32_run(const uint8_t *src, int64_t stride, int64_t n, float *dst)
{
    for (int64_t i = 0; i < n; i++) memcpy(&dst[i], src + i * stride * 4, 4);
}

static inline void bf16_run(const uint8_t *src, int64_t stride, int64_t n, float *dst)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + i * stride * 2, sizeof h);
        dst[i] = tfi_bf16_to_f32(h);
    }
}

static inline void f16_run(const uint8_t *src, int64_t stride, int64_t n, float *dst)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + i * stride * 2, sizeof h);
        dst[i] = tfi_f16_to_f32(h);
    }
}

static inline void f64_run(const uint8_t *src, int64_t stride, int64_t n, float *dst)
{
    for (int64_t i = 0; i < n; i++) {
        double d;
        memcpy(&d, src + i * stride * 8, sizeof d);
        dst[i] = (float)d;
    }
}

static void convert_run(tfi_dtype dtype, const uint8_t *src, int64_t stride, int64_t n, float *dst)
{
    if (dtype == TFI_F32 && stride == 1) memcpy(dst, src, (size_t)n * sizeof *dst);
    else if (dtype == TFI_F32) f32_run(src, stride, n, dst);
    else if (dtype == TFI_BF16 && stride == 1) bf16_run(src, 1, n, dst);
    else if (dtype == TFI_BF16) bf16_run(src, stride, n, dst);
    else if (dtype == TFI_F16 && stride == 1) f16_run(src, 1, n, dst);
    else if (dtype == TFI_F16) f16_run(src, stride, n, dst);
    else f64_run(src, stride, n, dst);
}

/* Step the index of all dimensions but the last, last of them fastest, and keep `at`, its element, in step. 0 at the end. */
static int next_row(const tfi_tensor *t, int64_t *index, int64_t *at)
{
    for (int i = t->rank - 2; i >= 0; i--) {
        *at += t->stride[i];
        if (++index[i] < t->shape[i]) return 1;
        *at -= t->stride[i] * t->shape[i];
        index[i] = 0;
    }
    return 0;
}

tf_status tfi_tensor_to_f32(const tfi_tensor *t, float *dst)
{
    const int64_t elements = tfi_tensor_elements(t), element_size = (int64_t)tfi_dtype_size(t->dtype);
    int64_t index[TFI_RANK_MAX] = {0}, at = 0;

    if (t->dtype > TFI_F64)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "tensor \"%s\": %s where floating point is expected",
                        tfi_show_name(t->name).text, tfi_dtype_name(t->dtype));
    if (elements == 0) return TF_STATUS_OK;
    if (tfi_tensor_is_contiguous(t)) {
        convert_run(t->dtype, t->data, 1, elements, dst);
        return TF_STATUS_OK;
    }
    const int64_t row = t->shape[t->rank - 1], stride = t->stride[t->rank - 1];
    do {
        convert_run(t->dtype, t->data + at * element_size, stride, row, dst);
        dst += row;
    } while (next_row(t, index, &at));
    return TF_STATUS_OK;
}
