/* zip.c: finds stored entries in a zip archive. Layouts: APPNOTE.TXT 6.3, sections 4.3.7 (local header), 4.3.12 (directory
 * entry), 4.3.14 to 4.3.16 (ends), 4.5.3 (zip64 extra field). */
#include "io/zip.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "io/weights.h"

enum {
    LOCAL_SIZE = 30,
    ENTRY_SIZE = 46,
    END_SIZE = 22,
    END64_SIZE = 56,
    LOCATOR_SIZE = 20,
    COMMENT_MAX = 65535,
    FLAG_ENCRYPTED = 1,
    ZIP64_EXTRA = 1
};

/* Where the directory lies. */
typedef struct directory {
    uint64_t count, size, begin;
} directory;

static int has_mark(const uint8_t *p, char a, char b)
{
    return p[0] == 'P' && p[1] == 'K' && p[2] == a && p[3] == b;
}

/* The end record: the last thing in the file but for a comment, whose length must fit. */
static const uint8_t *find_end(const tfi_file *file)
{
    for (size_t comment = 0; comment <= COMMENT_MAX && comment + END_SIZE <= file->size; comment++) {
        const uint8_t *p = file->data + file->size - END_SIZE - comment;
        if (has_mark(p, 5, 6) && tfi_read_u16(p + 20) == comment) return p;
    }
    return NULL;
}

static tf_status read_end(const tfi_file *file, directory *d)
{
    const uint8_t *end = find_end(file);

    if (!end) return tfi_fail(TF_STATUS_CORRUPT, "a zip archive without its end record: the file is cut off");
    d->count = tfi_read_u16(end + 10);
    d->size = tfi_read_u32(end + 12);
    d->begin = tfi_read_u32(end + 16);
    const size_t end_at = (size_t)(end - file->data);
    if (end_at >= LOCATOR_SIZE && has_mark(end - LOCATOR_SIZE, 6, 7)) {
        const uint64_t at = tfi_read_u64(end - LOCATOR_SIZE + 8);
        if (at > end_at || end_at - at < END64_SIZE || !has_mark(file->data + at, 6, 6))
            return tfi_fail(TF_STATUS_CORRUPT, "the zip64 end record is not at byte %llu", (unsigned long long)at);
        d->count = tfi_read_u64(file->data + at + 32);
        d->size = tfi_read_u64(file->data + at + 40);
        d->begin = tfi_read_u64(file->data + at + 48);
    }
    if (d->begin > end_at || d->size > end_at - d->begin || d->count > d->size / ENTRY_SIZE)
        return tfi_fail(TF_STATUS_CORRUPT, "the zip directory (%llu entries, %llu bytes at %llu) does not fit the file",
                        (unsigned long long)d->count, (unsigned long long)d->size, (unsigned long long)d->begin);
    return TF_STATUS_OK;
}

/* In a zip64 archive a field of all ones means that the true value is in the extra field, in this order. */
static tf_status read_zip64(tfi_zip_entry *e, const uint8_t *extra, size_t extra_size)
{
    uint64_t *const fields[] = {&e->size, &e->stored_size, &e->header_at};

    while (extra_size >= 4) {
        const size_t size = tfi_read_u16(extra + 2);
        if (size > extra_size - 4) break;
        if (tfi_read_u16(extra) == ZIP64_EXTRA) {
            const uint8_t *p = extra + 4, *end = p + size;
            for (int i = 0; i < 3; i++) {
                if (*fields[i] != UINT32_MAX) continue;
                if (end - p < 8) return tfi_fail(TF_STATUS_CORRUPT, "a zip entry's zip64 field is cut off");
                *fields[i] = tfi_read_u64(p);
                p += 8;
            }
            return TF_STATUS_OK;
        }
        extra += 4 + size;
        extra_size -= 4 + size;
    }
    return TF_STATUS_OK;
}

/* Read the entry at *p, and go behind it. */
static tf_status read_entry(const uint8_t **p, const uint8_t *end, tfi_zip_entry *e)
{
    const uint8_t *at = *p;
    const size_t left = (size_t)(end - at);

    if (left < ENTRY_SIZE || !has_mark(at, 1, 2)) return tfi_fail(TF_STATUS_CORRUPT, "the zip directory is malformed");
    const size_t name_size = tfi_read_u16(at + 28), extra_size = tfi_read_u16(at + 30), comment_size = tfi_read_u16(at + 32);
    if (left - ENTRY_SIZE < name_size + extra_size + comment_size)
        return tfi_fail(TF_STATUS_CORRUPT, "the zip directory is cut off");
    const char *name = (const char *)at + ENTRY_SIZE, *folder_end = memchr(name, '/', name_size);
    e->name = folder_end ? folder_end + 1 : name;
    e->name_size = name_size - (size_t)(e->name - name);
    e->flags = tfi_read_u16(at + 8);
    e->method = tfi_read_u16(at + 10);
    e->stored_size = tfi_read_u32(at + 20);
    e->size = tfi_read_u32(at + 24);
    e->header_at = tfi_read_u32(at + 42);
    *p = at + ENTRY_SIZE + name_size + extra_size + comment_size;
    return read_zip64(e, at + ENTRY_SIZE + name_size, extra_size);
}

static int by_name(const void *a, const void *b)
{
    const tfi_zip_entry *x = a, *y = b;
    const size_t shorter = x->name_size < y->name_size ? x->name_size : y->name_size;
    const int order = memcmp(x->name, y->name, shorter);
    return order ? order : (x->name_size > y->name_size) - (x->name_size < y->name_size);
}

tf_status tfi_zip_open(tfi_arena *arena, const tfi_file *file, tfi_zip *out)
{
    directory d = {0};
    tf_status status;

    if ((status = read_end(file, &d)) < 0) return status;
    *out = (tfi_zip){.file = file, .count = (size_t)d.count};
    if (!(out->entries = tfi_arena_alloc(arena, out->count * sizeof *out->entries))) return TF_STATUS_NOMEM;
    const uint8_t *p = file->data + d.begin, *end = p + d.size;
    for (size_t i = 0; i < out->count; i++)
        if ((status = read_entry(&p, end, &out->entries[i])) < 0) return status;
    if (out->count) qsort(out->entries, out->count, sizeof *out->entries, by_name);
    for (size_t i = 1; i < out->count; i++)
        if (by_name(&out->entries[i - 1], &out->entries[i]) == 0)
            return tfi_fail(TF_STATUS_CORRUPT, "two zip entries have the name \"%s\"",
                            tfi_show(out->entries[i].name, out->entries[i].name_size).text);
    return TF_STATUS_OK;
}

static tf_status locate(const tfi_zip *zip, const tfi_zip_entry *e, const char *name, const uint8_t **data, size_t *size)
{
    const tfi_file *file = zip->file;

    if (e->method != 0 || e->flags & FLAG_ENCRYPTED)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "the zip entry %s is compressed or encrypted (method %u)", name, e->method);
    if (e->header_at > file->size || file->size - e->header_at < LOCAL_SIZE || !has_mark(file->data + e->header_at, 3, 4))
        return tfi_fail(TF_STATUS_CORRUPT, "the zip entry %s is not at byte %llu", name, (unsigned long long)e->header_at);
    const uint8_t *header = file->data + e->header_at;
    const size_t lead = LOCAL_SIZE + (size_t)tfi_read_u16(header + 26) + tfi_read_u16(header + 28);
    const size_t left = file->size - (size_t)e->header_at;
    if (e->size != e->stored_size || left < lead || e->size > left - lead)
        return tfi_fail(TF_STATUS_CORRUPT, "the zip entry %s of %llu bytes at %llu leaves the file", name,
                        (unsigned long long)e->size, (unsigned long long)e->header_at);
    *data = header + lead;
    *size = (size_t)e->size;
    return TF_STATUS_OK;
}

tf_status tfi_zip_find(const tfi_zip *zip, const char *folder, const char *name, size_t name_size, const uint8_t **data,
                       size_t *size)
{
    char path[128];
    const size_t folder_size = strlen(folder);

    if (zip->count == 0 || name_size > sizeof path - 1 - folder_size) return TF_STATUS_NOT_FOUND;
    memcpy(path, folder, folder_size);
    memcpy(path + folder_size, name, name_size);
    const tfi_zip_entry key = {.name = path, .name_size = folder_size + name_size};
    const tfi_zip_entry *e = bsearch(&key, zip->entries, zip->count, sizeof *zip->entries, by_name);
    if (!e) return TF_STATUS_NOT_FOUND;
    return locate(zip, e, tfi_show(path, folder_size + name_size).text, data, size);
}
