/* Any bytes as vocab.txt, with what follows the first NUL as tokenizer_config.json. What opens must encode its own text. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <tfinfer/tokenizer.h>

#include "driver/held_files.h"
#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *split = memchr(data, 0, size);
    tfi_files files = {.source = {.file = open_held}, .label = "fuzz"};
    tfi_memory memory;
    tf_tokenizer *t;
    tf_encoding *e;
    tf_tokenize_options o;

    tfi_memory_init(&memory, NULL, 1 << 28);
    held[0].name = "vocab.txt";
    held[0].data = data;
    held[0].size = split ? (size_t)(split - data) : size;
    held[1].name = split ? "tokenizer_config.json" : NULL;
    held[1].data = split ? split + 1 : NULL;
    held[1].size = split ? size - held[0].size - 1 : 0;
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
