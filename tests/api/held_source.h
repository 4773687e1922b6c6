/* A checkpoint held in memory, and a source over it whose callbacks check what they are asked and can go wrong. Include it
 * behind _GNU_SOURCE. */
#ifndef TFC_HELD_SOURCE_H
#define TFC_HELD_SOURCE_H

#include <dlfcn.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "tiny_decoder.h"
#include "tiny_model.h"

enum { FILES = 12, TENSORS = 128, NAME = 96 };

/* A checkpoint in memory: its files and the tensors of its model.safetensors. */
typedef struct held_file {
    char name[NAME];
    char *data;
    int64_t size;
    int open; /* given out, not taken back */
} held_file;

typedef struct held_tensor {
    char name[NAME];
    tf_tensor t;
} held_tensor;

typedef struct held {
    held_file files[FILES];
    held_tensor tensors[TENSORS];
    char *weights; /* what they point to */
    int file_count, tensor_count;
    int use_tensors, fd, released;
    int64_t fd_offset[FILES];
    /* What goes wrong, and where. */
    const char *bad_name;
    tf_status status;
    const char *text;
    void (*spoil_file)(tf_file *out);
    void (*spoil_tensor)(tf_tensor *out);
} held;

static held h;

/* ---- making one ---- */

static inline void read_file(const char *folder, const char *name)
{
    char path[1024];
    struct stat st;
    held_file *f = &h.files[h.file_count];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *in = fopen(path, "rb");
    if (!in) return;
    if (fstat(fileno(in), &st) != 0) exit(2);
    f->size = st.st_size;
    if (!(f->data = malloc((size_t)f->size + 1)) || fread(f->data, 1, (size_t)f->size, in) != (size_t)f->size) exit(2);
    f->data[f->size] = '\0';
    fclose(in);
    snprintf(f->name, sizeof f->name, "%s", name);
    h.file_count++;
}

static inline held_file *find_file(const char *name)
{
    for (int i = 0; i < h.file_count; i++)
        if (strcmp(h.files[i].name, name) == 0) return &h.files[i];
    return NULL;
}

/* The header of the test's own model.safetensors: "name":{"dtype":"F32","shape":[a,b],"data_offsets":[c,d]}. */
static inline void read_tensors(void)
{
    const held_file *f = find_file("model.safetensors");
    uint64_t size;
    const char *p;

    memcpy(&size, f->data, sizeof size);
    char *const header = calloc(1, (size_t)size + 1);
    if (!header) exit(2);
    memcpy(header, f->data + 8, (size_t)size);
    /* The host's tensors are where floats can be; the file's own are at any address. */
    if (!(h.weights = aligned_alloc(64, ((size_t)(f->size) + 63) / 64 * 64))) exit(2);
    memcpy(h.weights, f->data + 8 + size, (size_t)f->size - 8 - (size_t)size);
    for (p = header; (p = strchr(p, '"')) != NULL; h.tensor_count++) {
        held_tensor *t = &h.tensors[h.tensor_count];
        long long shape[2], begin, end;
        if (h.tensor_count == TENSORS || sscanf(p, "\"%95[^\"]\"", t->name) != 1) exit(2);
        const char *s = strstr(p, "\"shape\""), *o = strstr(p, "\"data_offsets\"");
        if (!s || !o || !strstr(p, "F32")) exit(2);
        t->t.rank = sscanf(strchr(s, '[') + 1, "%lld,%lld", &shape[0], &shape[1]);
        if (sscanf(strchr(o, '[') + 1, "%lld,%lld", &begin, &end) != 2) exit(2);
        for (int i = 0; i < t->t.rank; i++) t->t.shape[i] = shape[i];
        t->t.data = h.weights + begin;
        t->t.dtype = TF_DTYPE_FP32;
        p = strchr(o, '}');
    }
    free(header);
}

static inline void let_go(void)
{
    for (int i = 0; i < h.file_count; i++) free(h.files[i].data);
    free(h.weights);
    memset(&h, 0, sizeof h);
}

static inline void hold(const char *folder)
{
    static const char *const names[] = {
        "config.json",    "generation_config.json", "model.safetensors",     "vocab.txt",  "tokenizer_config.json",
        "tokenizer.json", "modules.json",           "1_Pooling/config.json", "vocab.json", "merges.txt"};

    let_go();
    h.fd = -1;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) read_file(folder, names[i]);
    read_tensors();
    CHECK(h.tensor_count > 10);
}

/* ---- the callbacks ---- */

static inline tf_status give_file(void *user, const char *name, tf_file *out)
{
    held *const from = user;

    CHECK_INT(out->struct_size, sizeof *out);
    CHECK(out->size == TF_UNSET && out->offset == TF_UNSET && out->fd == TF_UNSET && !out->data && !out->error);
    CHECK(from->released == 0);
    if (from->bad_name && strcmp(name, from->bad_name) == 0 && from->status != TF_STATUS_OK)
        return out->error = from->text, from->status;
    held_file *const f = find_file(name);
    if (!f || (from->use_tensors && strcmp(name, "model.safetensors") == 0)) return TF_STATUS_NOT_FOUND;
    out->handle = f;
    out->size = f->size;
    f->open++;
    if (from->fd >= 0) {
        out->fd = from->fd;
        out->offset = from->fd_offset[f - from->files];
    } else {
        out->data = f->data;
    }
    if (from->bad_name && strcmp(name, from->bad_name) == 0 && from->spoil_file) from->spoil_file(out);
    return TF_STATUS_OK;
}

static inline void take_file(void *user, const tf_file *file)
{
    held_file *const f = file->handle;

    (void)user;
    CHECK(f && f->open > 0);
    f->open--;
}

static inline tf_status give_tensor(void *user, int64_t index, tf_tensor *out)
{
    held *const from = user;

    CHECK_INT(out->struct_size, sizeof *out);
    CHECK(out->rank == TF_UNSET && out->device == TF_UNSET && out->stride[7] == TF_UNSET && !out->name);
    if (index >= from->tensor_count) return TF_STATUS_END;
    const held_tensor *const t = &from->tensors[index];
    const int bad = from->bad_name && strcmp(t->name, from->bad_name) == 0;
    if (bad && from->status != TF_STATUS_OK) return out->error = from->text, from->status;
    out->name = t->name;
    out->data = t->t.data;
    out->dtype = t->t.dtype;
    out->rank = t->t.rank;
    memcpy(out->shape, t->t.shape, sizeof out->shape);
    if (t->t.device) out->device = t->t.device - 1;
    if (t->t.struct_size) memcpy(out->stride, t->t.stride, sizeof out->stride); /* strides of its own */
    if (bad && from->spoil_tensor) from->spoil_tensor(out);
    return TF_STATUS_OK;
}

static inline void release(void *user)
{
    ((held *)user)->released++;
}

static inline tf_source source_of(int tensors)
{
    tf_source s;

    h.use_tensors = tensors;
    h.released = 0;
    tf_source_init(&s);
    s.label = "row 17";
    s.file = give_file;
    s.file_close = take_file;
    s.tensor = tensors ? give_tensor : NULL;
    s.release = release;
    s.user = &h;
    return s;
}

static inline void all_is_back(void)
{
    for (int i = 0; i < h.file_count; i++) CHECK_INT(h.files[i].open, 0);
    CHECK_INT(h.released, 1);
}

/* ---- running ---- */

static inline tf_model_options on_cpu(int32_t dtype)
{
    tf_model_options o;

    tf_model_options_init(&o);
    o.device = "cpu";
    o.dtype = dtype;
    o.threads = 2;
    return o;
}

static inline void run(tf_model *m, tiny_head head, float out[TINY_OUT])
{
    tf_session *s;

    memset(out, 0, TINY_OUT * sizeof *out);
    CHECK_OK(tf_session_open(m, NULL, &s));
    CHECK_OK(tiny_run(s, head, out));
    tf_session_close(s);
}

/* What the directory's model says, once a process. */
static inline void run_directory(tiny_head head, int32_t dtype, float out[TINY_OUT])
{
    const tf_model_options o = on_cpu(dtype);
    tf_model *m;

    CHECK_OK(tf_model_open(tiny_model_path(head), &o, &m));
    run(m, head, out);
    tf_model_close(m);
}

/* The model of `source` gives what the directory's gives. */
static inline void same(const tf_source *source, tiny_head head, int32_t dtype)
{
    const tf_model_options o = on_cpu(dtype);
    float expected[TINY_OUT], out[TINY_OUT];
    tf_model *m = NULL;

    run_directory(head, dtype, expected);
    CHECK_OK(tf_model_open_source(source, &o, &m));
    if (!m) return;
    CHECK_INT(h.released, source->borrow == 1 ? 0 : 1);
    run(m, head, out);
    CHECK(memcmp(out, expected, sizeof out) == 0);
    tf_model_close(m);
    all_is_back();
}

#endif
