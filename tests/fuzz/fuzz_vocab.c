/* Any bytes as vocab.txt, with what follows the first NUL as tokenizer_config.json. What opens must encode its own text. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <tfinfer/tokenizer.h>

#include "base/files.h"
#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    const char *name;
    const uint8_t *data;
    size_t size;
} held[2];

static tf_status open_held(tfi_files *f, const char *name, tfi_file *out)
{
    (void)f;
    for (int i = 0; i < 2; i++) {
        if (!held[i].name || strcmp(name, held[i].name) != 0) continue;
        *out = (tfi_file){.data = held[i].data, .size = held[i].size};
        return TF_STATUS_OK;
    }
    return TF_STATUS_NOT_FOUND;
}

static void close_held(tfi_files *f, tfi_file *file)
{
    (void)f;
    memset(file, 0, sizeof *file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *split = memchr(data, 0, size);
    tfi_files files = {.open = open_held, .close = close_held, .label = "fuzz"};
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
    if (tfi_tokenizer_open_files(&files, &memory, NULL, NULL, &t) == TF_STATUS_OK) {
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
