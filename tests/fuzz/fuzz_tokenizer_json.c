/* Any bytes as tokenizer.json, of any parts, alone (taken whole) and beside a tokenizer_config.json that follows it after a NUL. What opens
 * must encode and decode. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <tfinfer/tokenizer.h>

#include "driver/held_files.h"
#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A file may hold a pattern without end, growth without end, or words without an unknown token: those are the call's error. */
static void must(tf_status status)
{
    if (status != TF_STATUS_OK && status != TF_STATUS_INVALID) abort();
}

/* Every id is a token, every range lies in the texts, the longer of which has `size` bytes. */
static void check_rows(const tf_encoding *e, int32_t vocab_size, int64_t size)
{
    tf_encoding_data d;

    tf_encoding_data_init(&d);
    must(tf_encoding_get(e, &d));
    for (int64_t i = 0; i < d.tokens; i++)
        if (d.ids[i] < 0 || d.ids[i] >= vocab_size || d.byte_begin[i] < 0 || d.byte_begin[i] > d.byte_end[i] ||
            d.byte_end[i] > size)
            abort();
}

static void use(const tf_tokenizer *t)
{
    static const char text[] = "Fox [MASK] \xc3\x89t\xc3\xa9 \xe4\xbd\xa0!  a\xcc\x81 \xe2\x96\x81\xef\xac\x81\r\n";
    const tf_text texts[] = {tf_text_of(text), tf_text_of("[CLS] b")};
    const int32_t ids[] = {0, 1, 2, 3};
    tf_tokenizer_info info;
    tf_encoding *e;
    tf_stream *stream;
    char out[256];
    int64_t out_size;
    const char *token;

    tf_tokenizer_info_init(&info);
    if (tf_tokenizer_get_info(t, &info) < 0 || info.vocab_size <= 0) abort();
    for (int32_t i = 0; i < info.vocab_size && i < 100; i++)
        if (tf_tokenizer_token(t, i, &token) < 0) abort();
    if (tf_encoding_open(t, &e) < 0) abort();
    for (int is_pair = 0; is_pair < 2; is_pair++) {
        const tf_status status = tf_tokenizer_encode(t, texts, is_pair ? texts : NULL, 2, NULL, e);
        must(status);
        if (status == TF_STATUS_OK) check_rows(e, info.vocab_size, (int64_t)sizeof text - 1);
    }
    (void)tf_tokenizer_decode(t, ids, info.vocab_size < 4 ? info.vocab_size : 4, NULL, out, sizeof out, &out_size);
    tf_encoding_close(e);
    if (tf_stream_open(t, NULL, &stream) < 0) abort();
    for (int32_t i = 0; i < info.vocab_size && i < 300; i++) must(tf_stream_push(stream, i, &token, &out_size));
    must(tf_stream_finish(stream, &token, &out_size));
    tf_stream_close(stream);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *split = memchr(data, 0, size);
    tfi_files files = {.source = {.file = open_held}, .label = "fuzz"};
    tfi_memory memory;
    tf_tokenizer *t;

    tfi_memory_init(&memory, NULL, 1 << 28);
    held[0].name = "tokenizer.json";
    held[0].data = data;
    held[0].size = split ? (size_t)(split - data) : size;
    held[1].name = split ? "tokenizer_config.json" : NULL;
    held[1].data = split ? split + 1 : NULL;
    held[1].size = split ? size - held[0].size - 1 : 0;
    if (tfi_tokenizer_open_files(&files, &memory, NULL, &t) == TF_STATUS_OK) {
        use(t);
        tf_tokenizer_close(t);
    }
    if (memory.used != 0) abort();
    return 0;
}
