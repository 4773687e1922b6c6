#define _GNU_SOURCE
#include "base/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14; older kernels say EINVAL and the pages come one by one */
#endif

static tf_status directory_open(tfi_files *f, const char *name, tfi_file *out)
{
    char path[1024];
    struct stat st;
    tf_status status = TF_STATUS_OK;

    memset(out, 0, sizeof *out);
    const int n = snprintf(path, sizeof path, "%s/%s", f->label, name);
    if (n < 0 || (size_t)n >= sizeof path) return tfi_fail(TF_STATUS_INVALID, "%s/%s: the path is too long", f->label, name);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        if (errno == ENOENT || errno == ENOTDIR) return TF_STATUS_NOT_FOUND;
        return tfi_fail(TF_STATUS_IO, "%s: %s", path, strerror(errno));
    }
    if (fstat(fd, &st) < 0) {
        status = tfi_fail(TF_STATUS_IO, "%s: %s", path, strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        status = tfi_fail(TF_STATUS_IO, "%s: not a regular file", path);
    } else if (st.st_size == 0) {
        out->data = (const uint8_t *)"";
    } else {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            status = tfi_fail(TF_STATUS_IO, "%s: cannot be mapped: %s", path, strerror(errno));
        } else {
            out->data = p;
            out->size = (size_t)st.st_size;
            out->mapped = 1;
        }
    }
    close(fd);
    return status;
}

static void directory_close(tfi_files *f, tfi_file *file)
{
    (void)f;
    if (file->mapped) munmap((void *)file->data, file->size);
    memset(file, 0, sizeof *file);
}

tf_status tfi_files_directory(tfi_files *f, const char *path)
{
    struct stat st;

    memset(f, 0, sizeof *f);
    if (strlen(path) >= sizeof f->label) return tfi_fail(TF_STATUS_INVALID, "the path has %zu bytes, too long", strlen(path));
    if (stat(path, &st) < 0)
        return tfi_fail(errno == ENOENT || errno == ENOTDIR ? TF_STATUS_NOT_FOUND : TF_STATUS_IO, "%s: %s", path, strerror(errno));
    if (!S_ISDIR(st.st_mode)) return tfi_fail(TF_STATUS_INVALID, "%s: not a directory", path);
    strcpy(f->label, path);
    f->open = directory_open;
    f->close = directory_close;
    return TF_STATUS_OK;
}

tf_status tfi_files_need(tfi_files *f, const char *name, tfi_file *out)
{
    const tf_status status = f->open(f, name, out);
    if (status == TF_STATUS_NOT_FOUND) return tfi_fail(status, "%s: no file %s", f->label, name);
    return status;
}

static void advise(const tfi_file *file, size_t begin, size_t size, int advice, int inner_pages)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
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
