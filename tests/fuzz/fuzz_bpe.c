/* Any bytes as vocab.json, with what follows the first NUL as merges.txt; without a NUL as a tokenizer.json that is taken
 * whole. What opens must encode its own text and decode what comes of it; a word that is unknown, without
 * a token for it, is the call's error. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <tfinfer/tokenizer.h>

#include "driver/held_files.h"
#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char config[] = "{\"tokenizer_class\":\"RobertaTokenizer\",\"add_prefix_space\":true}";

static void use(const tf_tokenizer *t, const tf_text *text)
{
    tf_encoding *e;
    tf_tokenize_options o;
    tf_encoding_data d;
    int64_t size;

    tf_tokenize_options_init(&o);
    tf_encoding_data_init(&d);
    o.replace_invalid = o.overflow = 1;
    o.truncation = TF_TRUNCATION_LONGEST_FIRST;
    o.max_length = 16;
    if (tf_encoding_open(t, &e) < 0) abort();
    if (tf_tokenizer_encode(t, text, text, 1, &o, e) == TF_STATUS_NOMEM) abort();
    o.max_length = INT32_MAX;
    const tf_status status = tf_tokenizer_encode(t, text, NULL, 1, &o, e);
    if ((status < 0 && status != TF_STATUS_INVALID) || tf_encoding_get(e, &d) < 0) abort();
    for (int64_t i = 0; i < d.tokens; i++)
        if (d.byte_begin[i] < 0 || d.byte_begin[i] > d.byte_end[i] || d.byte_end[i] > text->size) abort();
    if (tf_tokenizer_decode(t, d.ids, d.tokens, NULL, NULL, 0, &size) == TF_STATUS_INVALID) abort();
    tf_encoding_close(e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *split = memchr(data, 0, size);
    const size_t first = split ? (size_t)(split - data) : size;
    const tf_text text = {(const char *)data, (int64_t)size};
    tfi_files files = {.source = {.file = open_held}, .label = "fuzz"};
    tfi_memory memory;
    tf_tokenizer *t;

    tfi_memory_init(&memory, NULL, 1 << 28);
    memset(held, 0, sizeof held);
    held[0].name = split ? "vocab.json" : "tokenizer.json";
    held[0].data = data;
    held[0].size = first;
    if (split) {
        held[1].name = "merges.txt";
        held[1].data = split + 1;
        held[1].size = size - first - 1;
        held[2].name = "tokenizer_config.json";
        held[2].data = (const uint8_t *)config;
        held[2].size = sizeof config - 1;
    }
    if (tfi_tokenizer_open_files(&files, &memory, NULL, &t) == TF_STATUS_OK) {
        use(t, &text);
        tf_tokenizer_close(t);
    }
    if (memory.used != 0) abort();
    return 0;
}
