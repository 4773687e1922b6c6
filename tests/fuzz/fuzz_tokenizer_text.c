/* Any bytes as text: with and without repair, alone and as a pair, cut and not; offsets must lie in the text and in order. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tfinfer/tokenizer.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static tf_tokenizer *tokenizers[2];
static tf_encoding *encoding;

static void must(int condition, const char *what)
{
    if (condition) return;
    fprintf(stderr, "%s: %s\n", what, tf_last_error());
    abort();
}

/* A vocabulary of every ASCII letter as a word and inside one, and some words; in the second tokenizer also added tokens. */
static void write_files(const char *path, int added)
{
    char name[256];

    snprintf(name, sizeof name, "%s/vocab.txt", path);
    FILE *f = fopen(name, "w");
    must(f != NULL, name);
    fputs("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nfox\n##ox\n\xe4\xbd\xa0\n##\xcc\x81\n!\n", f);
    for (char c = 'a'; c <= 'z'; c++) fprintf(f, "%c\n##%c\n", c, c);
    fclose(f);
    snprintf(name, sizeof name, "%s/tokenizer_config.json", path);
    f = fopen(name, "w");
    must(f != NULL, name);
    fprintf(f, "{\"tokenizer_class\":\"BertTokenizer\",\"do_lower_case\":%s", added ? "true" : "false");
    if (added)
        fputs(",\"added_tokens_decoder\":{\"70\":{\"content\":\"Ab\",\"lstrip\":true,\"rstrip\":true},\"71\":{\"content\":"
              "\"\xc3\x89\"},"
              "\"72\":{\"content\":\" x\",\"normalized\":false,\"single_word\":true,\"lstrip\":true}}",
              f);
    fputs("}", f);
    fclose(f);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char path[] = "/tmp/fuzz_tokenizer_XXXXXX", name[300];

    (void)argc;
    (void)argv;
    must(mkdtemp(path) != NULL, path);
    for (int i = 0; i < 2; i++) {
        write_files(path, i);
        must(tf_tokenizer_open(path, NULL, &tokenizers[i]) == TF_STATUS_OK, "open");
    }
    snprintf(name, sizeof name, "%s/vocab.txt", path);
    unlink(name);
    snprintf(name, sizeof name, "%s/tokenizer_config.json", path);
    unlink(name);
    rmdir(path);
    must(tf_encoding_open(tokenizers[0], &encoding) == TF_STATUS_OK, "encoding");
    return 0;
}

static void check_rows(size_t size)
{
    tf_encoding_data d;

    tf_encoding_data_init(&d);
    must(tf_encoding_get(encoding, &d) == TF_STATUS_OK, "get");
    must(d.row_start[d.rows] == d.tokens, "row_start");
    for (int64_t i = 0; i < d.tokens; i++) {
        must(d.byte_begin[i] >= 0 && d.byte_end[i] <= (int64_t)size && d.byte_begin[i] <= d.byte_end[i], "bytes");
        must(d.char_begin[i] >= 0 && d.char_end[i] <= d.byte_end[i] && d.char_begin[i] <= d.char_end[i], "characters");
        must(d.ids[i] >= 0, "id");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tf_tokenize_options o;
    int32_t ids[256];
    char out[4096];
    int64_t out_size;

    if (size < 4) return 0;
    const tf_text text = {(const char *)data + 4, (int64_t)size - 4},
                  second = {(const char *)data + 4, (int64_t)(size - 4) / 2};
    tf_tokenize_options_init(&o);
    o.replace_invalid = data[0] & 1;
    o.truncation = data[0] >> 1 & 3;
    o.truncation_side = data[0] >> 3 & 1;
    o.overflow = data[0] >> 4 & 1;
    o.add_special_tokens = data[0] >> 5 & 1;
    o.max_length = data[1];
    o.stride = data[2];
    const tf_tokenizer *t = tokenizers[data[0] >> 6 & 1];
    if (tf_tokenizer_encode(t, &text, data[0] & 128 ? &second : NULL, 1, &o, encoding) == TF_STATUS_OK) check_rows(size - 4);
    tf_decode_options decode;
    tf_decode_options_init(&decode);
    decode.skip_special_tokens = data[3] & 1;
    decode.clean_up = data[3] >> 1 & 1;
    const int64_t n = text.size < 256 ? text.size : 256;
    for (int64_t i = 0; i < n; i++) ids[i] = data[4 + i] & 127;
    (void)tf_tokenizer_decode(t, ids, n, &decode, out, sizeof out, &out_size);
    return 0;
}
