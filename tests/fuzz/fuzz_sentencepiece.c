/* Any bytes as a SentencePiece file: by T5's class, by CamemBERT's, by ALBERT's, and by its own rules. What opens must encode its own bytes,
 * with ranges inside them, and decode what comes of it, at once and one by one, into the same text. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <tfinfer/tokenizer.h>

#include "driver/held_files.h"
#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void stream(const tf_tokenizer *t, const int32_t *ids, int64_t count, const char *whole, int64_t size)
{
    tf_stream *s;
    const char *text;
    int64_t n, at = 0;

    if (tf_stream_open(t, NULL, &s) < 0) abort();
    for (int64_t i = 0; i <= count; i++) {
        if ((i < count ? tf_stream_push(s, ids[i], &text, &n) : tf_stream_finish(s, &text, &n)) < 0) abort();
        if (n > size - at || memcmp(text, whole + at, (size_t)n) != 0) abort();
        at += n;
    }
    if (at != size) abort();
    tf_stream_close(s);
}

static void use(const tf_tokenizer *t, const tf_text *text)
{
    tf_encoding *e;
    tf_tokenize_options o;
    tf_encoding_data d;
    int64_t size;

    tf_tokenize_options_init(&o);
    tf_encoding_data_init(&d);
    o.replace_invalid = 1;
    if (tf_encoding_open(t, &e) < 0 || tf_tokenizer_encode(t, text, NULL, 1, &o, e) < 0 || tf_encoding_get(e, &d) < 0) abort();
    for (int64_t i = 0; i < d.tokens; i++)
        if (d.byte_begin[i] < 0 || d.byte_begin[i] > d.byte_end[i] || d.byte_end[i] > text->size) abort();
    if (tf_tokenizer_decode(t, d.ids, d.tokens, NULL, NULL, 0, &size) == TF_STATUS_INVALID) abort();
    char *whole = malloc((size_t)size + 1);
    if (!whole || tf_tokenizer_decode(t, d.ids, d.tokens, NULL, whole, size, &size) < 0) abort();
    stream(t, d.ids, d.tokens, whole, size);
    free(whole);
    tf_encoding_close(e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const cases[][2] = {
        {"spiece.model", "{\"tokenizer_class\":\"T5Tokenizer\",\"extra_ids\":2,\"do_lower_case\":true}"},
        {"sentencepiece.bpe.model", "{\"tokenizer_class\":\"CamembertTokenizer\"}"},
        {"spiece.model", "{\"tokenizer_class\":\"AlbertTokenizer\"}"}};
    const tf_text text = {(const char *)data, (int64_t)size};
    tfi_files files = {.source = {.file = open_held}, .label = "fuzz"};
    tfi_memory memory;
    tf_tokenizer *t;

    tfi_memory_init(&memory, NULL, 1 << 28);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        memset(held, 0, sizeof held);
        held[0].name = cases[i][0];
        held[0].data = data;
        held[0].size = size;
        held[1].name = "tokenizer_config.json";
        held[1].data = (const uint8_t *)cases[i][1];
        held[1].size = strlen(cases[i][1]);
        if (tfi_tokenizer_open_files(&files, &memory, NULL, &t) == TF_STATUS_OK) {
            use(t, &text);
            tf_tokenizer_close(t);
        }
        if (memory.used != 0) abort();
    }
    return 0;
}
