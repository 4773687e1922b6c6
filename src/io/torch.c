/* torch.c: pytorch_model.bin. Since PyTorch 1.6 a zip archive with a pickle (data.pkl) and one stored entry a storage (data/0,
 * data/1, ...); before, five pickles in a row (magic, protocol, system, state dict, storage keys) and then the storages, each
 * behind its element count. See torch/serialization.py. */
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "io/pickle.h"
#include "io/weights.h"
#include "io/zip.h"

/* The pickle of the magic number 0x1950a86a20f9469cfc6c. */
static const uint8_t magic[] = {0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};

enum { LEGACY_PROTOCOL = 1001 };

static tf_status add_tensor(tfi_source *s, const tfi_file *file, const tfi_pickle_value *name, const tfi_pickle_tensor *tensor)
{
    const tfi_pickle_storage *storage = tensor->storage;
    tfi_tensor t = {.dtype = storage->dtype, .rank = tensor->rank, .data = storage->data, .span = storage->size, .file = file};

    memcpy(t.shape, tensor->shape, sizeof t.shape);
    memcpy(t.stride, tensor->stride, sizeof t.stride);
    return tfi_source_add(s, &t, tensor->offset, name->as.text, name->size);
}

/* Values that are no tensors are ignored, as load_state_dict would have no use for them either. */
static tf_status add_all(tfi_source *s, const tfi_file *file, const tfi_pickle *pickle)
{
    tf_status status;

    if (pickle->root.kind != TFI_PICKLE_DICT) return tfi_fail(TF_STATUS_CORRUPT, "the pickle holds no state dict");
    for (const tfi_pickle_item *i = pickle->root.as.container->first; i; i = i->next->next) {
        const tfi_pickle_value *key = &i->value, *value = &i->next->value;
        if (key->kind != TFI_PICKLE_TEXT || value->kind != TFI_PICKLE_TENSOR) continue;
        if ((status = add_tensor(s, file, key, value->as.tensor)) < 0) return status;
    }
    return TF_STATUS_OK;
}

/* What the pickle says a storage has, or -1 if that overflows. */
static int64_t storage_bytes(const tfi_pickle_storage *s)
{
    int64_t bytes;
    return __builtin_mul_overflow(s->count, (int64_t)tfi_dtype_size(s->dtype), &bytes) ? -1 : bytes;
}

static tf_status set_storage(tfi_pickle_storage *s, const uint8_t *data, size_t size)
{
    const int64_t bytes = storage_bytes(s);

    if (bytes < 0 || (uint64_t)bytes > size)
        return tfi_fail(TF_STATUS_CORRUPT, "storage %s: %lld elements of %s, and %zu bytes in the file",
                        tfi_show(s->key, s->key_size).text, (long long)s->count, tfi_dtype_name(s->dtype), size);
    s->data = data;
    s->size = (size_t)bytes;
    return TF_STATUS_OK;
}

static tf_status read_zip(tfi_source *s, tfi_arena *arena, const tfi_file *file)
{
    tfi_zip zip;
    tfi_pickle pickle;
    const uint8_t *data;
    size_t size;
    tf_status status;

    if ((status = tfi_zip_open(arena, file, &zip)) < 0) return status;
    status = tfi_zip_find(&zip, "byteorder", "", 0, &data, &size);
    if (status == TF_STATUS_OK && (size != 6 || memcmp(data, "little", 6) != 0))
        return tfi_fail(TF_STATUS_UNSUPPORTED, "byteorder: \"%s\"; only \"little\" is supported",
                        tfi_show((const char *)data, size).text);
    if (status < 0 && status != TF_STATUS_NOT_FOUND) return status;

    status = tfi_zip_find(&zip, "data.pkl", "", 0, &data, &size);
    if (status == TF_STATUS_NOT_FOUND) return tfi_fail(TF_STATUS_CORRUPT, "the zip archive has no entry data.pkl");
    if (status < 0) return status;
    if ((status = tfi_pickle_read(arena, data, size, &pickle)) < 0) return status;
    for (tfi_pickle_storage *p = pickle.storages; p; p = p->next) {
        status = tfi_zip_find(&zip, "data/", p->key, p->key_size, &data, &size);
        if (status == TF_STATUS_NOT_FOUND)
            return tfi_fail(TF_STATUS_CORRUPT, "the zip archive has no entry data/%s", tfi_show(p->key, p->key_size).text);
        if (status < 0 || (status = set_storage(p, data, size)) < 0) return status;
    }
    return add_all(s, file, &pickle);
}

static int by_key(const void *a, const void *b)
{
    const tfi_pickle_storage *x = *(tfi_pickle_storage *const *)a, *y = *(tfi_pickle_storage *const *)b;
    if (x->key_size != y->key_size) return x->key_size < y->key_size ? -1 : 1;
    return memcmp(x->key, y->key, x->key_size);
}

/* The storages that tensors name, sorted by key; one key may be there many times. */
static tf_status sort_storages(tfi_arena *arena, const tfi_pickle *pickle, tfi_pickle_storage ***out)
{
    size_t n = 0;

    *out = tfi_arena_alloc(arena, pickle->storage_count * sizeof **out);
    if (!*out) return TF_STATUS_NOMEM;
    for (tfi_pickle_storage *p = pickle->storages; p; p = p->next) (*out)[n++] = p;
    if (n) qsort(*out, n, sizeof **out, by_key);
    return TF_STATUS_OK;
}

/* The first of those whose key is `key`, or count. */
static size_t first_of_key(tfi_pickle_storage *const *storages, size_t count, const tfi_pickle_storage *key)
{
    size_t low = 0, high = count;

    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (by_key(&storages[middle], &key) < 0) low = middle + 1;
        else high = middle;
    }
    return low < count && by_key(&storages[low], &key) == 0 ? low : count;
}

/* One storage at `at`: its element count in 8 bytes, its elements. Each of those that name it learns where it is. */
static tf_status read_storage(tfi_pickle_storage **storages, size_t count, const tfi_pickle_value *key, const tfi_file *file,
                              size_t *at)
{
    const tfi_pickle_storage wanted = {.key = key->as.text, .key_size = key->size};
    const size_t first = first_of_key(storages, count, &wanted), left = file->size - *at;
    const tfi_shown name = tfi_show(wanted.key, wanted.key_size);
    tf_status status;

    if (first == count) return tfi_fail(TF_STATUS_CORRUPT, "storage %s belongs to no tensor", name.text);
    if (storages[first]->data) return tfi_fail(TF_STATUS_CORRUPT, "storage %s is stored twice", name.text);
    const size_t element_size = tfi_dtype_size(storages[first]->dtype);
    if (left < 8) return tfi_fail(TF_STATUS_CORRUPT, "storage %s: the file is cut off", name.text);
    const uint64_t elements = tfi_read_u64(file->data + *at);
    if (elements > (left - 8) / element_size)
        return tfi_fail(TF_STATUS_CORRUPT, "storage %s: %llu elements of %zu bytes, %zu bytes are left in the file", name.text,
                        (unsigned long long)elements, element_size, left - 8);
    *at += 8;
    for (size_t i = first; i < count && by_key(&storages[i], &storages[first]) == 0; i++)
        if ((status = set_storage(storages[i], file->data + *at, (size_t)elements * element_size)) < 0) return status;
    *at += (size_t)elements * element_size;
    return TF_STATUS_OK;
}

static tf_status read_next_pickle(tfi_arena *arena, const tfi_file *file, const char *what, size_t *at, tfi_pickle *out)
{
    const tf_status status = tfi_pickle_read(arena, file->data + *at, file->size - *at, out);
    if (status < 0) return tfi_fail_prefix(status, "%s: ", what);
    *at += out->size;
    return status;
}

static tf_status read_legacy_head(tfi_arena *arena, const tfi_file *file, size_t *at)
{
    tfi_pickle protocol, system;
    tf_status status;

    *at = sizeof magic;
    if ((status = read_next_pickle(arena, file, "protocol", at, &protocol)) < 0) return status;
    if (protocol.root.kind != TFI_PICKLE_INT || protocol.root.as.integer != LEGACY_PROTOCOL)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "protocol: only %d is supported", LEGACY_PROTOCOL);
    if ((status = read_next_pickle(arena, file, "system", at, &system)) < 0) return status;
    if (system.root.kind != TFI_PICKLE_DICT) return tfi_fail(TF_STATUS_CORRUPT, "system: no dict");
    const tfi_pickle_value *little = tfi_pickle_find(system.root.as.container, "little_endian");
    if (little && (little->kind != TFI_PICKLE_BOOL || !little->as.integer))
        return tfi_fail(TF_STATUS_UNSUPPORTED, "little_endian: only true is supported");
    return TF_STATUS_OK;
}

static tf_status read_legacy(tfi_source *s, tfi_arena *arena, const tfi_file *file)
{
    tfi_pickle pickle, keys;
    tfi_pickle_storage **storages;
    size_t at;
    tf_status status;

    if ((status = read_legacy_head(arena, file, &at)) < 0) return status;
    if ((status = read_next_pickle(arena, file, "state dict", &at, &pickle)) < 0) return status;
    if ((status = read_next_pickle(arena, file, "storage keys", &at, &keys)) < 0) return status;
    if (keys.root.kind != TFI_PICKLE_LIST) return tfi_fail(TF_STATUS_CORRUPT, "storage keys: no list");
    if ((status = sort_storages(arena, &pickle, &storages)) < 0) return status;
    for (const tfi_pickle_item *i = keys.root.as.container->first; i; i = i->next) {
        if (i->value.kind != TFI_PICKLE_TEXT) return tfi_fail(TF_STATUS_CORRUPT, "storage keys: one is no string");
        if ((status = read_storage(storages, pickle.storage_count, &i->value, file, &at)) < 0) return status;
    }
    for (const tfi_pickle_storage *p = pickle.storages; p; p = p->next)
        if (!p->data) return tfi_fail(TF_STATUS_CORRUPT, "storage %s is not in the file", tfi_show(p->key, p->key_size).text);
    return add_all(s, file, &pickle);
}

tf_status tfi_torch_read(tfi_source *s, const tfi_file *file)
{
    tfi_arena arena = {.memory = s->memory};
    tf_status status;

    if (file->size >= 4 && memcmp(file->data, "PK\3\4", 4) == 0) status = read_zip(s, &arena, file);
    else if (file->size >= sizeof magic && memcmp(file->data, magic, sizeof magic) == 0) status = read_legacy(s, &arena, file);
    else status = tfi_fail(TF_STATUS_CORRUPT, "neither a zip archive nor the older layout of torch.save");
    tfi_arena_close(&arena);
    return status;
}
