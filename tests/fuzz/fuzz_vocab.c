/* Any bytes as vocab.txt and, each behind a NUL, the JSON files that may lie beside it. What opens must encode its own text. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <tfinfer/tokenizer.h>

#include "driver/held_files.h"
#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The files in the order of their names, as many as there are bytes for. */
static void hold(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"vocab.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                                        "config.json"};

    for (int i = 0; i < HELD_FILES; i++) {
        const uint8_t *end = data ? memchr(data, 0, size) : NULL;
        held[i].name = data ? names[i] : NULL;
        held[i].data = data;
        held[i].size = end ? (size_t)(end - data) : size;
        size -= held[i].size + (end != NULL);
        data = end ? end + 1 : NULL;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tfi_files files = {.source = {.file = open_held}, .label = "fuzz"};
    tfi_memory memory;
    tf_tokenizer *t;
    tf_encoding *e;
    tf_tokenize_options o;

    tfi_memory_init(&memory, NULL, 1 << 28);
    hold(data, size);
    if (tfi_tokenizer_open_files(&files, &memory, NULL, &t) == TF_STATUS_OK) {
        const tf_text text = {(const char *)data, (int64_t)size};
        tf_tokenize_options_init(&o);
        o.replace_invalid = 1;
        if (tf_encoding_open(t, &e) < 0 || tf_tokenizer_encode(t, &text, &text, 1, &o, e) < 0) abort();
        tf_encoding_close(e);
        tf_tokenizer_close(t);
    }
    if (memory.used != 0) abort();
    return 0;
}
