/* tokenize PATH [TEXT...]: the tokens of texts, or of the lines of standard input, with their places; and what they decode to. PATH is a
 * checkpoint's directory, or a tokenizer.json, vocab.txt or *.model. Linked with the tokenizer's library alone. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>

#include <tfinfer/tokenizer.h>

static void check(tf_status status)
{
    if (status >= 0) return;
    fprintf(stderr, "%s\n%s\n", tf_status_string(status), tf_last_error());
    exit(1);
}

static void decode(const tf_tokenizer *tokenizer, const tf_encoding_data *d)
{
    tf_decode_options options;
    int64_t size = 0;

    tf_decode_options_init(&options);
    options.skip_special_tokens = 1;
    (void)tf_tokenizer_decode(tokenizer, d->ids, d->tokens, &options, NULL, 0, &size);
    char *text = malloc((size_t)size + 1);
    if (!text) check(TF_STATUS_NOMEM);
    check(tf_tokenizer_decode(tokenizer, d->ids, d->tokens, &options, text, size, &size));
    fputs("  text: ", stdout);
    fwrite(text, 1, (size_t)size, stdout);
    putchar('\n');
    free(text);
}

static void show(const tf_tokenizer *tokenizer, tf_encoding *encoding, tf_text text)
{
    tf_encoding_data d;

    check(tf_tokenizer_encode(tokenizer, &text, NULL, 1, NULL, encoding));
    tf_encoding_data_init(&d);
    check(tf_encoding_get(encoding, &d));
    for (int64_t i = 0; i < d.tokens; i++) {
        const char *token;
        check(tf_tokenizer_token(tokenizer, d.ids[i], &token));
        printf("%8d  %-16s %.*s\n", (int)d.ids[i], token, (int)(d.byte_end[i] - d.byte_begin[i]), text.data + d.byte_begin[i]);
    }
    decode(tokenizer, &d);
}

int main(int argc, char **argv)
{
    tf_tokenizer *tokenizer;
    tf_encoding *encoding;
    tf_text line;
    char *data = NULL;
    size_t room = 0;
    ssize_t size;

    if (argc < 2) return fprintf(stderr, "usage: tokenize PATH [TEXT...]\n"), 2;
    check(tf_tokenizer_open(argv[1], NULL, &tokenizer));
    check(tf_encoding_open(tokenizer, &encoding));
    for (int i = 2; i < argc; i++) show(tokenizer, encoding, tf_text_of(argv[i]));
    while (argc == 2 && (size = getline(&data, &room, stdin)) >= 0) {
        line.data = data;
        line.size = size - (data[size - 1] == '\n'); /* a line may have a NUL in it */
        show(tokenizer, encoding, line);
    }
    free(data);
    tf_encoding_close(encoding);
    tf_tokenizer_close(tokenizer);
    if (ferror(stdin)) return perror("standard input"), 1;
    if (fflush(stdout)) return perror("standard output"), 1;
    return 0;
}
