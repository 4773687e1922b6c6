/* Checkpoints that the host hands over: the same model from a directory, from memory, from the inside of an open file and from
 * tensors gives the same numbers to the bit; all that is said wrongly of them has a status and a text; all is given back once. */
#define _GNU_SOURCE
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

static void read_file(const char *folder, const char *name)
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

static held_file *find_file(const char *name)
{
    for (int i = 0; i < h.file_count; i++)
        if (strcmp(h.files[i].name, name) == 0) return &h.files[i];
    return NULL;
}

/* The header of the test's own model.safetensors: "name":{"dtype":"F32","shape":[a,b],"data_offsets":[c,d]}. */
static void read_tensors(void)
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

static void let_go(void)
{
    for (int i = 0; i < h.file_count; i++) free(h.files[i].data);
    free(h.weights);
    memset(&h, 0, sizeof h);
}

static void hold(const char *folder)
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

static tf_status give_file(void *user, const char *name, tf_file *out)
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

static void take_file(void *user, const tf_file *file)
{
    held_file *const f = file->handle;

    (void)user;
    CHECK(f && f->open > 0);
    f->open--;
}

static tf_status give_tensor(void *user, int64_t index, tf_tensor *out)
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

static void release(void *user)
{
    ((held *)user)->released++;
}

static tf_source source_of(int tensors)
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

static void all_is_back(void)
{
    for (int i = 0; i < h.file_count; i++) CHECK_INT(h.files[i].open, 0);
    CHECK_INT(h.released, 1);
}

/* ---- running ---- */

static tf_model_options on_cpu(int32_t dtype)
{
    tf_model_options o;

    tf_model_options_init(&o);
    o.device = "cpu";
    o.dtype = dtype;
    o.threads = 2;
    return o;
}

static void run(tf_model *m, tiny_head head, float out[TINY_OUT])
{
    tf_session *s;

    memset(out, 0, TINY_OUT * sizeof *out);
    CHECK_OK(tf_session_open(m, NULL, &s));
    CHECK_OK(tiny_run(s, head, out));
    tf_session_close(s);
}

/* What the directory's model says, once a process. */
static void run_directory(tiny_head head, int32_t dtype, float out[TINY_OUT])
{
    const tf_model_options o = on_cpu(dtype);
    tf_model *m;

    CHECK_OK(tf_model_open(tiny_model_path(head), &o, &m));
    run(m, head, out);
    tf_model_close(m);
}

/* The model of `source` gives what the directory's gives. */
static void same(const tf_source *source, tiny_head head, int32_t dtype)
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

/* ---- homes of files ---- */

static void files_in_memory(void)
{
    for (int head = 0; head < TINY_HEAD_COUNT; head++) {
        hold(tiny_model_path((tiny_head)head));
        const tf_source s = source_of(0);
        same(&s, (tiny_head)head, TF_DTYPE_FP32);
    }
}

/* All files one behind the other in one, at odd offsets. */
static void files_in_a_file(void)
{
    hold(tiny_model_path(TINY_BASE));
    tf_source s = source_of(0);
    int64_t at = 5;

    if ((h.fd = memfd_create("archive", MFD_CLOEXEC)) < 0) exit(2);
    for (int i = 0; i < h.file_count; i++) {
        h.fd_offset[i] = at;
        if (pwrite(h.fd, h.files[i].data, (size_t)h.files[i].size, at) != h.files[i].size) exit(2);
        at += h.files[i].size + 4097;
    }
    same(&s, TINY_BASE, TF_DTYPE_FP32);
    close(h.fd);
}

/* Shards and their index, and no callback that takes anything back. */
static void shards_in_memory(void)
{
    hold(tiny_model_path(TINY_BASE));
    tf_source s = source_of(0);
    s.file_close = NULL;
    held_file *const whole = find_file("model.safetensors");
    snprintf(whole->name, sizeof whole->name, "a.safetensors");
    held_file *const f = &h.files[h.file_count++];
    snprintf(f->name, sizeof f->name, "model.safetensors.index.json");
    f->size = asprintf(&f->data, "{\"weight_map\":{\"%s\":\"a.safetensors\"}}", h.tensors[0].name);
    const tf_model_options o = on_cpu(TF_DTYPE_FP32);
    tf_model *m;
    CHECK_OK(tf_model_open_source(&s, &o, &m));
    tf_model_close(m);
    CHECK_INT(h.released, 1);
}

/* ---- tensors ---- */

static void tensors_copied(void)
{
    for (int head = 0; head < TINY_HEAD_COUNT; head++) {
        hold(tiny_model_path((tiny_head)head));
        const tf_source s = source_of(1);
        same(&s, (tiny_head)head, TF_DTYPE_FP32);
    }
}

static void tensors_borrowed(void)
{
    for (int head = 0; head < TINY_HEAD_COUNT; head++) {
        hold(tiny_model_path((tiny_head)head));
        tf_source s = source_of(1);
        s.borrow = 1;
        same(&s, (tiny_head)head, TF_DTYPE_FP32);
    }
}

/* Element i of a tensor of floats, in another format: those that are exact, so that the model stays the same. */
static void put(char *out, int32_t dtype, float f)
{
    const double d = f;
    uint32_t bits;

    memcpy(&bits, &f, sizeof bits);
    if (dtype == TF_DTYPE_FP64) memcpy(out, &d, sizeof d);
    if (dtype == TF_DTYPE_FP32) memcpy(out, &f, sizeof f);
    const uint16_t high = (uint16_t)(bits >> 16); /* the numbers were rounded to bf16 */
    if (dtype == TF_DTYPE_BF16) memcpy(out, &high, sizeof high);
}

static int64_t size_of(int32_t dtype)
{
    return dtype == TF_DTYPE_FP64 ? 8 : dtype == TF_DTYPE_FP32 ? 4 : 2;
}

/* Lay each tensor out anew: with its dimensions in the other order, gaps, odd addresses and other formats. */
static void scatter(void)
{
    static const int32_t dtypes[] = {TF_DTYPE_FP32, TF_DTYPE_FP64, TF_DTYPE_BF16};

    for (int i = 0; i < h.tensor_count; i++) {
        tf_tensor *const t = &h.tensors[i].t;
        const int64_t rows = t->shape[0], cols = t->rank == 2 ? t->shape[1] : 1;
        const int64_t step = 1 + (int64_t)(check_random() % 3), pad = (int64_t)(check_random() % 5);
        const int32_t dtype = dtypes[check_random() % 3];
        const int64_t size = size_of(dtype), odd = (int64_t)(check_random() % 8);
        /* Columns first, or rows first. */
        const int turned = t->rank == 2 && check_random() % 2;
        const int64_t inner = turned ? rows : cols, outer_step = (t->rank == 2 ? inner : 1) * step + pad;
        char *const room = check_bytes(((rows + 1) * (cols + 1) * 3 + (rows + cols) * 5 + 1) * 8 + 8);
        t->stride[0] = turned ? step : outer_step;
        t->stride[1] = turned ? outer_step : step;
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < cols; c++) {
                float f;
                memcpy(&f, (const char *)t->data + (r * cols + c) * 4, sizeof f);
                put(room + odd + (r * t->stride[0] + (t->rank == 2 ? c * t->stride[1] : 0)) * size, dtype, f);
            }
        t->data = room + odd;
        t->dtype = dtype;
        t->struct_size = 1;
    }
}

/* Round the checkpoint's numbers so that every format holds them. */
static void round_all(void)
{
    for (int i = 0; i < h.tensor_count; i++) {
        tf_tensor *const t = &h.tensors[i].t;
        const int64_t n = t->shape[0] * (t->rank == 2 ? t->shape[1] : 1);
        for (int64_t k = 0; k < n; k++) {
            uint32_t bits;
            memcpy(&bits, (const char *)t->data + 4 * k, sizeof bits);
            bits &= 0xffff0000u;
            memcpy((char *)(uintptr_t)t->data + 4 * k, &bits, sizeof bits);
        }
    }
}

static void open_and_run(const tf_source *s, tiny_head head, int32_t dtype, float out[TINY_OUT])
{
    const tf_model_options o = on_cpu(dtype);
    tf_model *m = NULL;

    CHECK_OK(tf_model_open_source(s, &o, &m));
    if (m) run(m, head, out);
    tf_model_close(m);
    all_is_back();
}

static void tensors_scattered(void)
{
    float expected[TINY_OUT] = {0}, out[TINY_OUT] = {0};

    for (int round = 0; round < 10; round++) {
        const tiny_head head = (tiny_head)(check_random() % TINY_HEAD_COUNT);
        hold(tiny_model_path(head));
        round_all();
        tf_source s = source_of(1);
        open_and_run(&s, head, TF_DTYPE_FP32, expected);
        scatter();
        s = source_of(1);
        s.borrow = (int32_t)(check_random() % 2);
        open_and_run(&s, head, TF_DTYPE_FP32, out);
        CHECK(memcmp(out, expected, sizeof out) == 0);
    }
}

/* Borrowed memory is used where it lies: a table that changes behind the model's back changes what it says. */
static void borrowed_in_place(void)
{
    const tf_model_options o = on_cpu(TF_DTYPE_FP32);
    float before[TINY_OUT], after[TINY_OUT];

    for (int borrow = 0; borrow < 2; borrow++) {
        tf_model *m = NULL;
        tf_session *session;
        hold(tiny_model_path(TINY_BASE));
        tf_source s = source_of(1);
        s.borrow = borrow;
        CHECK_OK(tf_model_open_source(&s, &o, &m));
        if (!m) return;
        CHECK_INT(h.released, !borrow);
        run(m, TINY_BASE, before);
        for (int i = 0; i < h.tensor_count; i++)
            if (strstr(h.tensors[i].name, "word_embeddings"))
                memset((char *)(uintptr_t)h.tensors[i].t.data, 0, (size_t)tiny_vocab_size() * TINY_WIDTH * 4);
        run(m, TINY_BASE, after);
        CHECK_INT(memcmp(before, after, sizeof before) != 0, borrow);
        /* A session keeps the model's memory, and so the source. */
        CHECK_OK(tf_session_open(m, NULL, &session));
        tf_model_close(m);
        CHECK_INT(h.released, !borrow);
        tf_session_close(session);
        CHECK_INT(h.released, 1);
    }
}

/* What is borrowed is not in the model's budget. */
static void borrowed_bytes(void)
{
    int64_t held_bytes[2];

    for (int borrow = 0; borrow < 2; borrow++) {
        check_memory memory;
        tf_model_options o = on_cpu(TF_DTYPE_FP32);
        tf_model *m = NULL;
        check_memory_init(&memory);
        o.allocator = &memory.hooks;
        hold(tiny_model_path(TINY_BASE));
        tf_source s = source_of(1);
        s.borrow = borrow;
        CHECK_OK(tf_model_open_source(&s, &o, &m));
        held_bytes[borrow] = memory.live_bytes;
        tf_model_close(m);
        CHECK_INT(memory.live_blocks, 0);
    }
    CHECK(held_bytes[0] - held_bytes[1] >= tiny_vocab_size() * TINY_WIDTH * 4);
}

/* GPT-2's stored matrices are turned, its output matrix is tied; T5 has two stacks. */
static void decoders(void)
{
    for (int kind = 0; kind < TINY_DECODER_COUNT; kind++) {
        const tf_model_options o = on_cpu(TF_DTYPE_FP32);
        const char *path = tiny_decoder_path((tiny_decoder)kind);
        const tf_text text = tf_text_of("once");
        int32_t ids[2][64];
        int64_t count[2] = {0};
        for (int way = 0; way < 2; way++) {
            tf_model *m = NULL;
            tf_session *session;
            tf_generate *g;
            tf_generate_options how;
            tf_generated result;
            tf_input in = tiny_texts(&text, 1);
            hold(path);
            const tf_source s = source_of(1);
            if (way == 0) CHECK_OK(tf_model_open(path, &o, &m));
            else CHECK_OK(tf_model_open_source(&s, &o, &m));
            if (!m) return;
            tf_generate_options_init(&how);
            how.max_new_tokens = 16;
            CHECK_OK(tf_session_open(m, NULL, &session));
            CHECK_OK(tf_generate_open(session, &in, &how, &g));
            CHECK_OK(tf_generate_wait(g, -1));
            tf_generated_init(&result);
            CHECK_OK(tf_generate_result(g, 0, &result));
            count[way] = result.count < 64 ? result.count : 64;
            memcpy(ids[way], result.ids, (size_t)count[way] * sizeof ids[way][0]);
            tf_generate_close(g);
            tf_session_close(session);
            tf_model_close(m);
        }
        CHECK_INT(count[1], count[0]);
        CHECK(count[0] > 0 && memcmp(ids[0], ids[1], (size_t)count[0] * sizeof ids[0][0]) == 0);
    }
}

/* ---- what is wrong ---- */

static void fails(const tf_source *s, tf_status status, const char *says, const char *says_too)
{
    const tf_model_options o = on_cpu(TF_DTYPE_FP32);
    tf_model *m = (tf_model *)&o;

    CHECK_STATUS(tf_model_open_source(s, &o, &m), status);
    CHECK(m == NULL);
    CHECK_ERROR_SAYS(says);
    CHECK_ERROR_SAYS(says_too);
    all_is_back();
}

#define SPOIL_FILE(name, statement)                                                                                            \
    static void name(tf_file *out)                                                                                             \
    {                                                                                                                          \
        statement;                                                                                                             \
    }
SPOIL_FILE(no_bytes, (out->data = NULL, out->fd = TF_UNSET))
SPOIL_FILE(both_homes, out->fd = 0)
SPOIL_FILE(negative_size, out->size = -3)
SPOIL_FILE(unset_size, out->size = TF_UNSET)
SPOIL_FILE(wrapping_size, out->size = INT64_MAX; out->data = (const void *)(UINTPTR_MAX - 4096))
SPOIL_FILE(closed_fd, (out->data = NULL, out->fd = 12345))
SPOIL_FILE(negative_fd, (out->data = NULL, out->fd = -1))

static void wrong_files(void)
{
    static const struct {
        void (*spoil)(tf_file *out);
        tf_status status;
        const char *says;
    } cases[] = {{no_bytes, TF_STATUS_INVALID, "neither data nor fd is set"},
                 {both_homes, TF_STATUS_INVALID, "data and fd are both set"},
                 {negative_size, TF_STATUS_INVALID, "size is -3"},
                 {unset_size, TF_STATUS_INVALID, "size is -2147483648"},
                 {wrapping_size, TF_STATUS_INVALID, "size is 9223372036854775807"},
                 {closed_fd, TF_STATUS_IO, "descriptor"},
                 {negative_fd, TF_STATUS_INVALID, "neither data nor fd is set"}};
    static const char *const names[] = {"config.json", "model.safetensors", "modules.json"};

    hold(tiny_model_path(TINY_BASE));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
            const tf_source s = source_of(0);
            h.bad_name = names[n];
            h.spoil_file = cases[i].spoil;
            fails(&s, cases[i].status, cases[i].says, names[n]);
            CHECK_ERROR_SAYS("row 17/");
        }
    h.spoil_file = NULL;
    /* A tokenizer that cannot be read is no reason not to open the model: it says so when it is asked for. */
    const tf_source s = source_of(0);
    const tf_model_options o = on_cpu(TF_DTYPE_FP32);
    const tf_tokenizer *t;
    tf_model *m = NULL;
    h.bad_name = "tokenizer_config.json";
    h.spoil_file = negative_size;
    CHECK_OK(tf_model_open_source(&s, &o, &m));
    CHECK_STATUS(tf_model_tokenizer(m, &t), TF_STATUS_INVALID);
    CHECK_ERROR_SAYS("tokenizer_config.json: size is -3");
    tf_model_close(m);
    all_is_back();
}

static int64_t bad_offset, bad_size;
static int bad_fd;
SPOIL_FILE(range, (out->data = NULL, out->fd = bad_fd, out->offset = bad_offset, out->size = bad_size))

static void wrong_ranges(void)
{
    static const struct {
        int64_t offset, size;
        const char *says;
    } cases[] = {{-1, 5, "offset is -1"},
                 {10001, TF_UNSET, "offset is 10001"},
                 {INT64_MAX, 1, "offset is 9223372036854775807"},
                 {10, 9991, "size is 9991, the file has 9990"},
                 {0, -7, "size is -7"},
                 {9000, INT64_MAX, "size is 9223372036854775807"}};
    int pipes[2];

    hold(tiny_model_path(TINY_BASE));
    h.bad_name = "config.json";
    h.spoil_file = range;
    if ((bad_fd = memfd_create("short", MFD_CLOEXEC)) < 0 || ftruncate(bad_fd, 10000) != 0) exit(2);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const tf_source s = source_of(0);
        bad_offset = cases[i].offset;
        bad_size = cases[i].size;
        fails(&s, TF_STATUS_INVALID, cases[i].says, "row 17/config.json");
    }
    tf_source s = source_of(0);
    bad_offset = 10000, bad_size = TF_UNSET; /* nothing is behind it: an empty file, which is no JSON */
    fails(&s, TF_STATUS_CORRUPT, "config.json", "row 17");
    close(bad_fd);
    if (pipe(pipes) != 0) exit(2);
    s = source_of(0);
    bad_fd = pipes[0], bad_offset = 0;
    fails(&s, TF_STATUS_IO, "not a regular file", "config.json");
    close(pipes[0]);
    close(pipes[1]);
}

#define SPOIL(name, statement)                                                                                                 \
    static void name(tf_tensor *out)                                                                                           \
    {                                                                                                                          \
        statement;                                                                                                             \
    }
SPOIL(no_name, out->name = NULL)
SPOIL(empty_name, out->name = "")
SPOIL(same_name, out->name = h.tensors[h.tensor_count - 1].name)
SPOIL(no_data, out->data = NULL)
SPOIL(no_dtype, out->dtype = TF_UNSET)
SPOIL(auto_dtype, out->dtype = TF_DTYPE_AUTO)
SPOIL(tf32, out->dtype = TF_DTYPE_TF32)
SPOIL(unknown_dtype, out->dtype = 99)
SPOIL(no_rank, out->rank = TF_UNSET)
SPOIL(rank_9, out->rank = 9)
SPOIL(negative_shape, out->shape[1] = -1)
SPOIL(unset_shape, out->shape[1] = TF_UNSET)
SPOIL(huge_shape, (out->shape[0] = INT64_MAX / 2, out->shape[1] = 4))
SPOIL(negative_stride, (out->stride[0] = -32, out->stride[1] = 1))
SPOIL(half_set_stride, out->stride[0] = 32)
SPOIL(huge_stride, (out->stride[0] = INT64_MAX / 8, out->stride[1] = 1))
SPOIL(wrapping_stride, (out->stride[0] = INT64_MAX / 1024, out->stride[1] = 1, out->data = (const void *)(UINTPTR_MAX - 8191)))
SPOIL(other_shape, (out->shape[1] = TINY_WIDTH / 2, out->stride[0] = TINY_WIDTH, out->stride[1] = 1))
SPOIL(other_rank, out->rank = 1)
SPOIL(other_name, out->name = "nobody.knows.it")
SPOIL(negative_device, out->device = -1)

static void wrong_tensors(void)
{
    static const struct {
        void (*spoil)(tf_tensor *out);
        tf_status status;
        const char *says;
    } cases[] = {{no_name, TF_STATUS_INVALID, "has no name"},
                 {empty_name, TF_STATUS_INVALID, "has no name"},
                 {no_data, TF_STATUS_INVALID, "data is NULL"},
                 {no_dtype, TF_STATUS_INVALID, "dtype is -2147483648"},
                 {auto_dtype, TF_STATUS_INVALID, "dtype is 0"},
                 {tf32, TF_STATUS_INVALID, "dtype is 2"},
                 {unknown_dtype, TF_STATUS_INVALID, "dtype is 99"},
                 {no_rank, TF_STATUS_INVALID, "rank is -2147483648"},
                 {rank_9, TF_STATUS_INVALID, "rank is 9"},
                 {negative_shape, TF_STATUS_INVALID, "dimension 1 is -1"},
                 {unset_shape, TF_STATUS_INVALID, "dimension 1 is -2147483648"},
                 {huge_shape, TF_STATUS_INVALID, "more elements than can exist"},
                 {negative_stride, TF_STATUS_INVALID, "stride 0 is -32"},
                 {half_set_stride, TF_STATUS_INVALID, "stride 1 is -2147483648"},
                 {huge_stride, TF_STATUS_INVALID, "strides"},
                 {wrapping_stride, TF_STATUS_INVALID, "strides"},
                 {negative_device, TF_STATUS_INVALID, "device is -1"},
                 {same_name, TF_STATUS_INVALID, "stored twice"},
                 {other_shape, TF_STATUS_CORRUPT, "has shape"},
                 {other_rank, TF_STATUS_CORRUPT, "has shape"},
                 {other_name, TF_STATUS_NOT_FOUND, "word_embeddings"}};

    hold(tiny_model_path(TINY_BASE));
    for (int i = 0; i < h.tensor_count; i++)
        if (strstr(h.tensors[i].name, "word_embeddings")) h.bad_name = h.tensors[i].name;
    CHECK(h.bad_name != NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const tf_source s = source_of(1);
        h.spoil_tensor = cases[i].spoil;
        fails(&s, cases[i].status, cases[i].says, "row 17");
    }
}

/* Statuses and texts of the callbacks come through. */
static void failing_callbacks(void)
{
    static const struct {
        tf_status given, status;
        const char *text, *says;
    } cases[] = {{TF_STATUS_IO, TF_STATUS_IO, "the database is locked", "the database is locked"},
                 {TF_STATUS_CANCELLED, TF_STATUS_CANCELLED, NULL, "TF_STATUS_CANCELLED"},
                 {TF_STATUS_NOMEM, TF_STATUS_NOMEM, "", ""},
                 {(tf_status)7, TF_STATUS_INVALID, "ignored", "returned 7"},
                 {(tf_status)-99, TF_STATUS_INVALID, NULL, "returned -99"}};

    hold(tiny_model_path(TINY_BASE));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        h.status = cases[i].given;
        h.text = cases[i].text;
        tf_source s = source_of(0);
        h.bad_name = "config.json";
        fails(&s, cases[i].status, cases[i].says, "row 17/config.json");
        s = source_of(0);
        h.bad_name = "modules.json";
        fails(&s, cases[i].status, cases[i].says, "row 17/modules.json");
        s = source_of(1);
        h.bad_name = h.tensors[3].name;
        fails(&s, cases[i].status, cases[i].says, "row 17/tensor number 3");
    }
    h.status = TF_STATUS_NOT_FOUND; /* of a tensor it is a failure like any other */
    h.text = "row is gone";
    tf_source s = source_of(1);
    fails(&s, TF_STATUS_NOT_FOUND, "row is gone", "tensor number 3");
    s = source_of(0);
    h.bad_name = "config.json";
    fails(&s, TF_STATUS_NOT_FOUND, "config.json", "row 17");
}

static tf_status endless(void *user, int64_t index, tf_tensor *out)
{
    static char name[32];
    static const float number = 1;

    (void)user;
    snprintf(name, sizeof name, "t%lld", (long long)index);
    out->name = name;
    out->data = &number;
    out->dtype = TF_DTYPE_FP32;
    out->rank = 0;
    return TF_STATUS_OK;
}

static void wrong_sources(void)
{
    struct {
        tf_source s;
        int32_t more[2];
    } newer;
    const tf_model_options o = on_cpu(TF_DTYPE_FP32);
    tf_model_options bad = o;
    tf_model *m;

    CHECK_STATUS(tf_model_open_source(NULL, &o, &m), TF_STATUS_INVALID);
    hold(tiny_model_path(TINY_BASE));
    tf_source s = source_of(0);
    CHECK_STATUS(tf_model_open_source(&s, &o, NULL), TF_STATUS_INVALID);
    all_is_back();
    s = source_of(0);
    s.file = NULL;
    fails(&s, TF_STATUS_INVALID, "`file` is NULL", "");
    s = source_of(0);
    s.borrow = 2;
    fails(&s, TF_STATUS_INVALID, "borrow is 2", "");
    s = source_of(0);
    s.reserved = 4;
    fails(&s, TF_STATUS_UNSUPPORTED, "reserved is 4", "");
    s = source_of(0);
    s.label = NULL;
    h.bad_name = "config.json";
    h.status = TF_STATUS_IO;
    fails(&s, TF_STATUS_IO, "source/config.json", "");
    h.status = TF_STATUS_OK;
    bad.threads = -5;
    s = source_of(0);
    CHECK_STATUS(tf_model_open_source(&s, &bad, &m), TF_STATUS_INVALID);
    all_is_back();
    /* Without tensors and without a file of them. */
    s = source_of(1);
    h.tensor_count = 0;
    fails(&s, TF_STATUS_NOT_FOUND, "row 17: no model.safetensors", "");
    s = source_of(1);
    s.tensor = endless;
    fails(&s, TF_STATUS_INVALID, "more than 1048576 tensors", "");

    /* A struct whose size is wrong cannot be read, so it is not released. */
    hold(tiny_model_path(TINY_BASE));
    s = source_of(0);
    for (uint64_t size = 0; size < 8; size++) {
        s.struct_size = size;
        CHECK_STATUS(tf_model_open_source(&s, &o, &m), TF_STATUS_INVALID);
        CHECK_ERROR_SAYS("tf_source");
    }
    memset(&newer, 0, sizeof newer);
    newer.s = source_of(0);
    newer.s.struct_size = sizeof newer;
    newer.more[1] = 5;
    CHECK_STATUS(tf_model_open_source(&newer.s, &o, &m), TF_STATUS_UNSUPPORTED);
    CHECK_INT(h.released, 0);
    newer.more[1] = 0;
    CHECK_OK(tf_model_open_source(&newer.s, &o, &m));
    tf_model_close(m);
    all_is_back();
    /* An older caller's ends before `borrow`. */
    s = source_of(0);
    s.struct_size = offsetof(tf_source, borrow);
    s.borrow = 77;
    CHECK_OK(tf_model_open_source(&s, &o, &m));
    tf_model_close(m);
    all_is_back();
}

/* A tensor on a device, where there is none. */
SPOIL(on_device, out->device = 0)

static void without_device(void)
{
    if (getenv("TFINFER_DEVICE")) return;
    hold(tiny_model_path(TINY_BASE));
    h.bad_name = h.tensors[0].name;
    h.spoil_tensor = on_device;
    const tf_source s = source_of(1);
    fails(&s, TF_STATUS_UNSUPPORTED, h.tensors[0].name, "");
}

/* Over the simulated device, whose memory is ordinary memory: what has the right type and order goes from device to device, all
 * else by way of the host, and models on the CPU read it too. */
static void on_simulated_device(void)
{
    static const char *const devices[] = {"cpu", "cuda"};
    void *const driver = dlopen("libcuda.so.1", RTLD_NOW);

    if (driver) dlclose(driver);
    if (driver || !getenv("TFINFER_DEVICE")) {
        printf("on_simulated_device: skipped, the device is not simulated\n");
        return;
    }
    for (int round = 0; round < 20; round++) {
        const tiny_head head = (tiny_head)(check_random() % TINY_HEAD_COUNT);
        tf_model_options o = on_cpu(check_random() % 2 ? TF_DTYPE_BF16 : TF_DTYPE_FP32);
        check_memory memory;
        float out[2][TINY_OUT];
        check_memory_init(&memory);
        hold(tiny_model_path(head));
        round_all();
        if (round % 4) scatter();
        o.device = devices[check_random() % 2];
        o.gemm_timing = 0;
        o.allocator = &memory.hooks;
        for (int device = 0; device < 2; device++) {
            tf_model *m = NULL;
            tf_source s = source_of(1);
            s.borrow = (int32_t)(check_random() % 2);
            for (int i = 0; i < h.tensor_count; i++) h.tensors[i].t.device = device ? 1 : 0;
            CHECK_OK(tf_model_open_source(&s, &o, &m));
            if (!m) return;
            run(m, head, out[device]);
            tf_model_close(m);
            all_is_back();
            CHECK_INT(memory.live_blocks, 0);
        }
        CHECK(memcmp(out[0], out[1], sizeof out[0]) == 0);
    }
}

/* ---- memory that fails, many at once ---- */

static void no_memory(void)
{
    for (int tensors = 0; tensors < 2; tensors++) {
        hold(tiny_model_path(TINY_MASKED_LM));
        const int device = tensors && getenv("TFINFER_DEVICE") && !dlopen("libcuda.so.1", RTLD_NOW);
        for (int i = 0; i < h.tensor_count; i++) h.tensors[i].t.device = device;
        for (int n = 1;; n++) {
            check_memory memory;
            tf_model_options o = on_cpu(TF_DTYPE_FP32);
            tf_model *m;
            tf_source s = source_of(tensors);
            s.borrow = tensors;
            check_memory_init(&memory);
            o.allocator = &memory.hooks;
            memory.fail_at = n;
            const tf_status status = tf_model_open_source(&s, &o, &m);
            tf_model_close(m);
            CHECK_INT(memory.live_blocks, 0);
            all_is_back();
            if (!memory.fail_hit) {
                CHECK_STATUS(status, TF_STATUS_OK);
                CHECK(n > 20);
                break;
            }
            CHECK_STATUS(status, TF_STATUS_NOMEM);
        }
    }
}

static void *open_one(void *arg)
{
    float expected[TINY_OUT], out[TINY_OUT];
    tf_model_options o = on_cpu(TF_DTYPE_FP32);
    tf_source s = *(const tf_source *)arg;
    tf_model *m = NULL;

    s.release = NULL;
    s.file_close = NULL;
    for (int i = 0; i < 3; i++) {
        run_directory(TINY_TAGGER, TF_DTYPE_FP32, expected);
        CHECK_OK(tf_model_open_source(&s, &o, &m));
        if (!m) return NULL;
        run(m, TINY_TAGGER, out);
        CHECK(memcmp(out, expected, sizeof out) == 0);
        tf_model_close(m);
    }
    return NULL;
}

static tf_status give_shared_file(void *user, const char *name, tf_file *out)
{
    const held_file *const f = find_file(name);

    (void)user;
    if (!f) return TF_STATUS_NOT_FOUND;
    out->data = f->data;
    out->size = f->size;
    return TF_STATUS_OK;
}

static void many_threads(void)
{
    pthread_t threads[4];

    hold(tiny_model_path(TINY_TAGGER));
    tf_source s = source_of(1);
    s.file = give_shared_file;
    for (int i = 0; i < 4; i++)
        if (pthread_create(&threads[i], NULL, open_one, &s) != 0) exit(2);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
}

/* ---- tokenizers alone ---- */

static int64_t encode(const tf_tokenizer *t, int32_t ids[16])
{
    const tf_text text = tf_text_of("the cat sat");
    tf_encoding *e;
    tf_encoding_data d;

    CHECK_OK(tf_encoding_open(t, &e));
    CHECK_OK(tf_tokenizer_encode(t, &text, NULL, 1, NULL, e));
    tf_encoding_data_init(&d);
    CHECK_OK(tf_encoding_get(e, &d));
    const int64_t n = d.tokens < 16 ? d.tokens : 16;
    memcpy(ids, d.ids, (size_t)n * sizeof *ids);
    tf_encoding_close(e);
    return n;
}

static void tokenizers(void)
{
    const char *path = tiny_model_path(TINY_BASE);
    int32_t expected[16], ids[16];
    tf_tokenizer *t;

    hold(path);
    CHECK_OK(tf_tokenizer_open(path, NULL, &t));
    const int64_t n = encode(t, expected);
    tf_tokenizer_close(t);
    static const char *const names[] = {NULL, "vocab.txt"};
    for (int i = 0; i < 2; i++) {
        const tf_source s = source_of(1);
        CHECK_OK(tf_tokenizer_open_source(&s, names[i], NULL, &t));
        all_is_back();
        CHECK_INT(encode(t, ids), n);
        CHECK(memcmp(ids, expected, (size_t)n * sizeof *ids) == 0);
        tf_tokenizer_close(t);
    }
    tf_source s = source_of(0);
    CHECK_STATUS(tf_tokenizer_open_source(&s, "absent.txt", NULL, &t), TF_STATUS_NOT_FOUND);
    CHECK_ERROR_SAYS("row 17: no file absent.txt");
    CHECK(t == NULL);
    all_is_back();
    s = source_of(0);
    CHECK_STATUS(tf_tokenizer_open_source(&s, NULL, NULL, NULL), TF_STATUS_INVALID);
    all_is_back();
    CHECK_STATUS(tf_tokenizer_open_source(NULL, NULL, NULL, &t), TF_STATUS_INVALID);
    s = source_of(0);
    s.file = NULL;
    CHECK_STATUS(tf_tokenizer_open_source(&s, NULL, NULL, &t), TF_STATUS_INVALID);
    all_is_back();
    s = source_of(0);
    h.bad_name = "vocab.txt";
    h.status = TF_STATUS_IO;
    h.text = "the disk is gone";
    CHECK_STATUS(tf_tokenizer_open_source(&s, NULL, NULL, &t), TF_STATUS_IO);
    CHECK_ERROR_SAYS("row 17/vocab.txt: the disk is gone");
    all_is_back();
    h.status = TF_STATUS_OK;
    for (int k = 1;; k++) {
        check_memory memory;
        tf_tokenizer_options o;
        check_memory_init(&memory);
        tf_tokenizer_options_init(&o);
        o.allocator = &memory.hooks;
        memory.fail_at = k;
        s = source_of(0);
        const tf_status status = tf_tokenizer_open_source(&s, NULL, &o, &t);
        tf_tokenizer_close(t);
        CHECK_INT(memory.live_blocks, 0);
        all_is_back();
        if (!memory.fail_hit) break;
        CHECK_STATUS(status, TF_STATUS_NOMEM);
    }
}

int main(int argc, char **argv)
{
    check_run(argc, argv, "files in memory", files_in_memory);
    check_run(argc, argv, "files in a file", files_in_a_file);
    check_run(argc, argv, "shards in memory", shards_in_memory);
    check_run(argc, argv, "tensors copied", tensors_copied);
    check_run(argc, argv, "tensors borrowed", tensors_borrowed);
    check_run(argc, argv, "tensors scattered", tensors_scattered);
    check_run(argc, argv, "borrowed in place", borrowed_in_place);
    check_run(argc, argv, "borrowed bytes", borrowed_bytes);
    check_run(argc, argv, "decoders", decoders);
    check_run(argc, argv, "wrong files", wrong_files);
    check_run(argc, argv, "wrong ranges", wrong_ranges);
    check_run(argc, argv, "wrong tensors", wrong_tensors);
    check_run(argc, argv, "failing callbacks", failing_callbacks);
    check_run(argc, argv, "wrong sources", wrong_sources);
    check_run(argc, argv, "without device", without_device);
    check_run(argc, argv, "on a simulated device", on_simulated_device);
    check_run(argc, argv, "no memory", no_memory);
    check_run(argc, argv, "many threads", many_threads);
    check_run(argc, argv, "tokenizers", tokenizers);
    let_go();
    return check_done();
}
