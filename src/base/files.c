#define _GNU_SOURCE
#include "base/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/options.h"
#include "base/status.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14; older kernels say EINVAL and the pages come one by one */
#endif

/* ---- sources ---- */

tf_status tfi_source_copy(tf_source *out, const tf_source *given)
{
    tf_source_init(out);
    if (!given) return tfi_fail(TF_STATUS_INVALID, "the source must not be NULL");
    return tfi_options_read(out, sizeof *out, given, "tf_source");
}

tf_status tfi_files_of(tfi_files *f, const tf_source *source)
{
    *f = (tfi_files){.source = *source};
    if (!source->file) return tfi_fail(TF_STATUS_INVALID, "tf_source: the callback `file` is NULL");
    if (source->reserved != TF_UNSET && source->reserved != 0)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "tf_source: reserved is %d; leave it unset", (int)source->reserved);
    snprintf(f->label, sizeof f->label, "%.511s", source->label ? source->label : "source");
    return tfi_option_int(&f->source.borrow, 0, 0, 1, "tf_source.borrow");
}

void tfi_source_released(const tf_source *source)
{
    if (source->release) source->release(source->user);
}

static int is_status(int value)
{
#define CASE(name, number, text) number == value ||
    return TF_STATUS_LIST(CASE) 0;
#undef CASE
}

tf_status tfi_source_failed(const char *label, const char *what, tf_status status, const char *error)
{
    if (!is_status((int)status))
        return tfi_fail(TF_STATUS_INVALID, "%s/%s: the source's callback returned %d, which is no status", label, what,
                        (int)status);
    return tfi_fail(status, "%s/%s: %s", label, what, error ? error : tf_status_string(status));
}

/* ---- a directory ---- */

static tf_status directory_file(void *user, const char *name, tf_file *out)
{
    tfi_directory *d = user;
    char path[1024];

    out->error = d->error;
    const int n = snprintf(path, sizeof path, "%s/%s", d->path, name);
    if (n < 0 || (size_t)n >= sizeof path) return strcpy(d->error, "the path is too long"), TF_STATUS_INVALID;
    if ((out->fd = open(path, O_RDONLY | O_CLOEXEC)) >= 0) return TF_STATUS_OK;
    const int why = errno;
    snprintf(d->error, sizeof d->error, "%s", strerror(why));
    return why == ENOENT || why == ENOTDIR ? TF_STATUS_NOT_FOUND : TF_STATUS_IO;
}

static void directory_file_close(void *user, const tf_file *file)
{
    (void)user;
    close(file->fd);
}

tf_status tfi_files_directory(tfi_files *f, tfi_directory *d, const char *path)
{
    struct stat st;
    tf_source source;

    if (strlen(path) >= sizeof d->path) return tfi_fail(TF_STATUS_INVALID, "the path has %zu bytes, too long", strlen(path));
    if (stat(path, &st) < 0)
        return tfi_fail(errno == ENOENT || errno == ENOTDIR ? TF_STATUS_NOT_FOUND : TF_STATUS_IO, "%s: %s", path,
                        strerror(errno));
    if (!S_ISDIR(st.st_mode)) return tfi_fail(TF_STATUS_INVALID, "%s: not a directory", path);
    strcpy(d->path, path);
    tf_source_init(&source);
    source.label = d->path;
    source.file = directory_file;
    source.file_close = directory_file_close;
    source.user = d;
    return tfi_files_of(f, &source);
}

void tfi_files_folder(tfi_files *f, const tfi_files *of, const char *folder)
{
    *f = *of;
    if (!*folder) return;
    snprintf(f->folder, sizeof f->folder, "%.*s/", TFI_FOLDER_MAX - 1, folder);
    snprintf(f->label, sizeof f->label, "%.511s/%.*s", of->label, TFI_FOLDER_MAX - 1, folder);
}

/* ---- files ---- */

static size_t page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* Map the bytes of an open file; mappings begin at pages. */
static tf_status map(const tf_file *g, tfi_file *out)
{
    struct stat st;

    if (g->fd < 0) return tfi_fail(TF_STATUS_INVALID, "neither data nor fd is set");
    if (fstat(g->fd, &st) < 0) return tfi_fail(TF_STATUS_IO, "%s", strerror(errno));
    if (!S_ISREG(st.st_mode)) return tfi_fail(TF_STATUS_IO, "not a regular file");
    const int64_t all = (int64_t)st.st_size, offset = g->offset == TF_UNSET ? 0 : g->offset;
    if (offset < 0 || offset > all)
        return tfi_fail(TF_STATUS_INVALID, "offset is %lld in a file of %lld bytes", (long long)offset, (long long)all);
    const int64_t size = g->size == TF_UNSET ? all - offset : g->size;
    if (size < 0 || size > all - offset)
        return tfi_fail(TF_STATUS_INVALID, "size is %lld, the file has %lld bytes behind offset %lld", (long long)size,
                        (long long)(all - offset), (long long)offset);
    out->data = (const uint8_t *)"";
    if (size == 0) return TF_STATUS_OK;
    const size_t before = (size_t)offset % page_size();
    void *p = mmap(NULL, (size_t)size + before, PROT_READ, MAP_PRIVATE, g->fd, (off_t)(offset - (int64_t)before));
    if (p == MAP_FAILED) return tfi_fail(TF_STATUS_IO, "cannot be mapped: %s", strerror(errno));
    out->data = (const uint8_t *)p + before;
    out->size = (size_t)size;
    out->mapped = 1;
    return TF_STATUS_OK;
}

static tf_status take_memory(const tf_file *g, tfi_file *out)
{
    if (g->fd != TF_UNSET) return tfi_fail(TF_STATUS_INVALID, "data and fd are both set");
    if (g->size < 0 || (uint64_t)g->size > UINTPTR_MAX - (uintptr_t)g->data)
        return tfi_fail(TF_STATUS_INVALID, "size is %lld", (long long)g->size);
    out->data = g->data;
    out->size = (size_t)g->size;
    return TF_STATUS_OK;
}

static void give_back(const tfi_files *f, const tf_file *given)
{
    if (f->source.file_close) f->source.file_close(f->source.user, given);
}

tf_status tfi_files_open(const tfi_files *f, const char *name, tfi_file *out)
{
    tf_file given = {.struct_size = sizeof given, .size = TF_UNSET, .offset = TF_UNSET, .fd = TF_UNSET, .reserved = TF_UNSET};
    char full[512];

    *out = (tfi_file){0};
    const int n = snprintf(full, sizeof full, "%s%s", f->folder, name);
    if (n < 0 || (size_t)n >= sizeof full) return tfi_fail(TF_STATUS_INVALID, "%s/%s: the name is too long", f->label, name);
    tf_status status = f->source.file(f->source.user, full, &given);
    if (status == TF_STATUS_NOT_FOUND) return status;
    if (status != TF_STATUS_OK) return tfi_source_failed(f->label, name, status, given.error);
    status = given.data ? take_memory(&given, out) : map(&given, out);
    out->given = given;
    if (status < 0 || !given.data) give_back(f, &given);
    if (status == TF_STATUS_OK) return status;
    *out = (tfi_file){0};
    return tfi_fail_prefix(status, "%s/%s: ", f->label, name);
}

void tfi_files_close(const tfi_files *f, tfi_file *file)
{
    const size_t before = (uintptr_t)file->data % page_size();

    if (file->mapped) munmap((void *)(file->data - before), file->size + before);
    else if (file->given.data) give_back(f, &file->given);
    *file = (tfi_file){0};
}

tf_status tfi_files_need(const tfi_files *f, const char *name, tfi_file *out)
{
    const tf_status status = tfi_files_open(f, name, out);
    if (status == TF_STATUS_NOT_FOUND) return tfi_fail(status, "%s: no file %s", f->label, name);
    return status;
}

static void advise(const tfi_file *file, size_t begin, size_t size, int advice, int inner_pages)
{
    const size_t page = page_size();
    const uintptr_t first = (uintptr_t)file->data + begin, last = first + size;
    /* Pages at the edges hold a neighbour's bytes too: fetch them, but do not drop them. */
    const uintptr_t from = inner_pages ? (first + page - 1) & ~(page - 1) : first & ~(page - 1);
    const uintptr_t to = inner_pages ? last & ~(page - 1) : last;

    if (file->mapped && to > from) (void)madvise((void *)from, to - from, advice);
}

void tfi_file_fetch(const tfi_file *file, size_t begin, size_t size)
{
    advise(file, begin, size, MADV_POPULATE_READ, 0);
}

void tfi_file_drop(const tfi_file *file, size_t begin, size_t size)
{
    advise(file, begin, size, MADV_DONTNEED, 1);
}
