/* The table of choices, and its file. Asks for no toolkit: the parser is tested in every build. */
#define _POSIX_C_SOURCE 200809L
#include "backend/cuda/gemm_choices.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/cuda/buckets.h"
#include "base/status.h"

static const char title[] = "tfinfer gemm choices 1\n";
static const char title_of_any_version[] = "tfinfer gemm choices ";

enum { FILE_MAX = 1 << 20, EXTENT_MAX = INT32_MAX, SUM_LINE = 21 /* bytes */ };

/* ---- table ---- */

static uint64_t fnv(uint64_t h, const void *data, size_t size)
{
    const unsigned char *p = data;

    for (size_t i = 0; i < size; i++) h = (h ^ p[i]) * 1099511628211u;
    return h;
}

#define FNV_BEGIN 14695981039346656037u

tfi_gemm_choice *tfi_gemm_choices_find(tfi_gemm_choices *c, const tfi_gemm_shape *s)
{
    for (uint64_t i = 0, at = fnv(FNV_BEGIN, s, sizeof *s); i < TFI_GEMM_CLASSES; i++, at++) {
        tfi_gemm_choice *e = &c->at[at % TFI_GEMM_CLASSES];
        if (e->state == TFI_GEMM_FREE || memcmp(&e->shape, s, sizeof *s) == 0) return e;
    }
    return NULL;
}

/* ---- text ---- */

/* The lines in front of the choices; their size. */
static int print_head(const tfi_gemm_origin *o, char *out, size_t size)
{
    return snprintf(out, size, "%sdevice %s\ncapability %d multiprocessors %d cublasLt %lld\n", title, o->device,
                    (int)o->capability, (int)o->multiprocessors, (long long)o->library);
}

/* What is left to read. */
typedef struct cursor {
    const char *p, *end;
} cursor;

/* A number in [min, max] and what ends it. */
static int read_number(cursor *c, int64_t min, int64_t max, char end, int64_t *out)
{
    int64_t n = 0;
    const char *begin = c->p;

    for (; c->p < c->end && *c->p >= '0' && *c->p <= '9'; c->p++)
        if ((n = 10 * n + (*c->p - '0')) > max) return 0;
    if (c->p == begin || c->p == c->end || *c->p++ != end || n < min) return 0;
    *out = n;
    return 1;
}

static int read_choice(cursor *c, tfi_gemm_choice *e)
{
    tfi_gemm_shape *s = &e->shape;
    int64_t n[4 + TFI_GEMM_CONFIG];

    if (!read_number(c, 1, EXTENT_MAX, ' ', &s->M) || !read_number(c, 1, EXTENT_MAX, ' ', &s->N) ||
        !read_number(c, 1, EXTENT_MAX, ' ', &s->K))
        return 0;
    for (int i = 0; i < 4 + TFI_GEMM_CONFIG; i++)
        if (!read_number(c, 0, i < 4 ? INT32_MAX : UINT32_MAX, i + 1 < 4 + TFI_GEMM_CONFIG ? ' ' : '\n', &n[i])) return 0;
    s->type = (int32_t)n[0];
    s->out = (int32_t)n[1];
    s->epilogue = (int32_t)n[2];
    s->residual = (int32_t)n[3];
    for (int i = 0; i < TFI_GEMM_CONFIG; i++) e->config[i] = (uint32_t)n[4 + i];
    e->state = TFI_GEMM_READ;
    return s->M == tfi_bucket(s->M);
}

/* Whether the last line is the checksum of those before; they remain. */
static int check_sum(cursor *c)
{
    char line[SUM_LINE + 1];

    if (c->end - c->p < SUM_LINE) return 0;
    c->end -= SUM_LINE;
    snprintf(line, sizeof line, "sum %016llx\n", (unsigned long long)fnv(FNV_BEGIN, c->p, (size_t)(c->end - c->p)));
    return memcmp(line, c->end, SUM_LINE) == 0;
}

const char *tfi_gemm_choices_parse(tfi_gemm_choices *c, const tfi_gemm_origin *o, const char *text, size_t size)
{
    char head[sizeof title + sizeof o->device + 128];
    const size_t head_size = (size_t)print_head(o, head, sizeof head);
    cursor at = {text, text + size}, lines;

    if (size < sizeof title - 1 || memcmp(text, title, sizeof title - 1) != 0) return "it is no file of this version's choices";
    if (!check_sum(&at)) return "it is damaged";
    if ((size_t)(at.end - at.p) < head_size || memcmp(at.p, head, head_size) != 0)
        return "its choices are for another device or another version of cuBLASLt";
    at.p += head_size;
    lines = at;
    for (tfi_gemm_choice e = {0}; at.p < at.end;) /* all of it is sound before any of it is taken */
        if (!read_choice(&at, &e)) return "it is damaged";
    for (tfi_gemm_choice e = {0}; lines.p < lines.end;) {
        tfi_gemm_choice *place = read_choice(&lines, &e) ? tfi_gemm_choices_find(c, &e.shape) : NULL;
        if (place) *place = e;
    }
    return NULL;
}

/* ---- file ---- */

/* The whole of an open file; *text NULL with *why set if it is not to be had. */
static tf_status read_text(int fd, tfi_memory *memory, char **text, size_t *size, const char **why)
{
    struct stat info;
    size_t at = 0;
    ssize_t n = 0;

    *text = NULL;
    *why = "it cannot be read";
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) return TF_STATUS_OK;
    *why = "it is too long";
    if (info.st_size > FILE_MAX) return TF_STATUS_OK;
    *size = (size_t)info.st_size;
    if (!(*text = tfi_alloc(memory, *size))) return TF_STATUS_NOMEM;
    while (at < *size && ((n = pread(fd, *text + at, *size - at, (off_t)at)) > 0 || (n < 0 && errno == EINTR)))
        if (n > 0) at += (size_t)n;
    *why = NULL;
    if (at == *size) return TF_STATUS_OK;
    *why = "it cannot be read";
    tfi_free(memory, *text, *size);
    *text = NULL;
    return TF_STATUS_OK;
}

tf_status tfi_gemm_choices_read(tfi_gemm_choices *c, const tfi_gemm_origin *o, const char *path, tfi_memory *memory,
                                const char **why, int *ours)
{
    const size_t begin = sizeof title_of_any_version - 1;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer would have us wait */
    size_t size = 0;
    char *text;
    tf_status st;

    *why = NULL;
    *ours = fd < 0 && errno == ENOENT;
    if (fd < 0) {
        if (!*ours) *why = "it cannot be opened";
        return TF_STATUS_OK;
    }
    st = read_text(fd, memory, &text, &size, why);
    close(fd);
    if (!text) return st;
    *ours = size == 0 || (size >= begin && memcmp(text, title_of_any_version, begin) == 0);
    if (size > 0) *why = tfi_gemm_choices_parse(c, o, text, size);
    tfi_free(memory, text, size);
    return TF_STATUS_OK;
}

/* A file that is written and summed up as it goes. */
typedef struct writer {
    int fd, failed;
    uint64_t sum;
} writer;

static void put(writer *w, const char *text, size_t size)
{
    w->sum = fnv(w->sum, text, size);
    while (size > 0 && !w->failed) {
        const ssize_t n = write(w->fd, text, size);
        if (n < 0 && errno != EINTR) w->failed = errno;
        if (n > 0) text += n, size -= (size_t)n;
    }
}

static void put_choice(writer *w, const tfi_gemm_choice *e)
{
    const tfi_gemm_shape *s = &e->shape;
    char line[160 + 11 * TFI_GEMM_CONFIG];
    int n = snprintf(line, sizeof line, "%lld %lld %lld %d %d %d %d", (long long)s->M, (long long)s->N, (long long)s->K,
                     (int)s->type, (int)s->out, (int)s->epilogue, (int)s->residual);

    for (int i = 0; i < TFI_GEMM_CONFIG; i++) n += snprintf(line + n, sizeof line - (size_t)n, " %u", (unsigned)e->config[i]);
    line[n++] = '\n';
    put(w, line, (size_t)n);
}

tf_status tfi_gemm_choices_write(const tfi_gemm_choices *c, const tfi_gemm_origin *o, const char *path)
{
    char name[4096], text[sizeof title + sizeof o->device + 128];
    writer w = {.sum = FNV_BEGIN};

    /* A name that no other process, and no other table of this one, writes to. */
    if (snprintf(name, sizeof name, "%s.%ld-%zx", path, (long)getpid(), (size_t)c) >= (int)sizeof name)
        return tfi_fail(TF_STATUS_IO, "%.200s...: the path is too long", path);
    (void)unlink(name);
    if ((w.fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) < 0)
        return tfi_fail(TF_STATUS_IO, "%s: %s", name, strerror(errno));
    put(&w, text, (size_t)print_head(o, text, sizeof text));
    for (int i = 0; i < TFI_GEMM_CLASSES; i++)
        if (c->at[i].state >= TFI_GEMM_TIMED) put_choice(&w, &c->at[i]);
    put(&w, text, (size_t)snprintf(text, sizeof text, "sum %016llx\n", (unsigned long long)w.sum));
    if (close(w.fd) != 0 && !w.failed) w.failed = errno;
    if (!w.failed && rename(name, path) != 0) w.failed = errno;
    if (!w.failed) return TF_STATUS_OK;
    (void)unlink(name);
    return tfi_fail(TF_STATUS_IO, "%s: %s", path, strerror(w.failed));
}
