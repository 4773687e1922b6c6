#include "tokenizing.h"

#include <sys/stat.h>

const char *write_files(const char *name, const char *const *files)
{
    const char *path = check_path(name);
    char file[1024];

    (void)mkdir(path, 0777);
    for (; *files; files += 2) {
        snprintf(file, sizeof file, "%s/%s", path, files[0]);
        check_write(file, files[1], strlen(files[1]));
    }
    return path;
}

const char *write_text(const char *name, const char *text)
{
    const char *path = check_path(name);

    check_write(path, text, strlen(text));
    return path;
}

tf_encoding_data view(const tf_encoding *e)
{
    tf_encoding_data d;

    tf_encoding_data_init(&d);
    CHECK_OK(tf_encoding_get(e, &d));
    return d;
}

tf_encoding_data encode(const tf_tokenizer *t, tf_encoding *e, const char *text, const char *pair)
{
    const tf_text one = tf_text_of(text), two = tf_text_of(pair ? pair : "");

    CHECK_OK(tf_tokenizer_encode(t, &one, pair ? &two : NULL, 1, NULL, e));
    return view(e);
}

void check_ids(tf_encoding_data d, int64_t row, const int32_t *ids, int64_t n)
{
    const int64_t begin = d.row_start[row], size = d.row_start[row + 1] - begin;

    CHECK_INT(size, n);
    for (int64_t i = 0; i < n && i < size; i++) CHECK_INT(d.ids[begin + i], ids[i]);
}

void check_text_ids(const tf_tokenizer *t, const char *text, const int32_t *ids, int64_t n)
{
    tf_encoding *e;

    CHECK_OK(tf_encoding_open(t, &e));
    check_ids(encode(t, e, text, NULL), 0, ids, n);
    tf_encoding_close(e);
}

void refuse(const char *path, tf_status status, const char *part)
{
    tf_tokenizer *t = (tf_tokenizer *)1;

    CHECK_STATUS(tf_tokenizer_open(path, NULL, &t), status);
    CHECK(t == NULL);
    CHECK_ERROR_SAYS(part);
}

/* All ids below `ids`, at once and one by one. */
static tf_status decode_all(const tf_tokenizer *t, int32_t ids)
{
    int32_t all[64] = {0};
    char text[1024];
    const char *piece;
    int64_t size;
    tf_stream *s = NULL;

    for (int32_t i = 0; i < ids; i++) all[i] = i;
    tf_status status = tf_tokenizer_decode(t, all, ids, NULL, text, sizeof text, &size);
    if (status == TF_STATUS_OK) status = tf_stream_open(t, NULL, &s);
    for (int32_t i = 0; i < ids && status == TF_STATUS_OK; i++) status = tf_stream_push(s, i, &piece, &size);
    if (status == TF_STATUS_OK) status = tf_stream_finish(s, &piece, &size);
    tf_stream_close(s);
    return status;
}

static tf_status use_all(const char *path, const tf_allocator *allocator, const char *text, int32_t ids)
{
    const tf_text texts[] = {tf_text_of(text), tf_text_of("bad \xff \xe4\xbd\xa0 text")};
    tf_tokenizer_options o;
    tf_tokenize_options windows;
    tf_tokenizer *t;
    tf_encoding *e = NULL;
    tf_status status;

    tf_tokenizer_options_init(&o);
    o.allocator = allocator;
    tf_tokenize_options_init(&windows);
    windows.replace_invalid = windows.overflow = 1;
    windows.truncation = TF_TRUNCATION_LONGEST_FIRST;
    windows.max_length = 6;
    if ((status = tf_tokenizer_open(path, &o, &t)) < 0) return status;
    status = tf_encoding_open(t, &e);
    if (status == TF_STATUS_OK) status = tf_tokenizer_encode(t, texts, NULL, 1, NULL, e);
    if (status == TF_STATUS_OK) status = tf_tokenizer_encode(t, texts, NULL, 2, &windows, e);
    if (status == TF_STATUS_OK) status = decode_all(t, ids);
    tf_tokenizer_close(t); /* before the encoding: it stands alone */
    tf_encoding_close(e);
    return status;
}

void fail_each_allocation(const char *path, const char *text, int32_t ids)
{
    check_memory m;
    int64_t n = 0;
    tf_status status;

    check_memory_init(&m);
    do {
        m.fail_at = ++n;
        m.fail_hit = 0;
        status = use_all(path, &m.hooks, text, ids);
        CHECK_INT(m.live_blocks, 0);
        CHECK_INT(m.live_bytes, 0);
        if (m.fail_hit) CHECK_INT(status, TF_STATUS_NOMEM);
    } while (m.fail_hit && n < 10000);
    CHECK_OK(status);
    CHECK(n > 15);
}

void put_number(writer *w, uint32_t field, uint64_t value)
{
    const uint64_t parts[2] = {(uint64_t)field << 3, value};

    for (int i = 0; i < 2; i++) {
        uint64_t v = parts[i];
        for (; v > 127; v >>= 7) w->data[w->size++] = (uint8_t)(v | 128);
        w->data[w->size++] = (uint8_t)v;
    }
}

void put_bytes(writer *w, uint32_t field, const void *data, size_t size)
{
    put_number(w, field, size);
    w->data[w->size - (size > 127 ? 2 : 1) - 1] |= 2; /* fields here have numbers under 16 */
    memcpy(w->data + w->size, data, size);
    w->size += size;
}

void put_piece(writer *w, const char *text, float score, int type)
{
    writer piece = {.size = 0};

    put_bytes(&piece, 1, text, strlen(text));
    piece.data[piece.size++] = 2 << 3 | 5;
    memcpy(piece.data + piece.size, &score, 4);
    piece.size += 4;
    if (type != 1) put_number(&piece, 3, (uint64_t)type);
    put_bytes(w, 1, piece.data, piece.size);
}
