/* Stop strings over random token sequences against a search of the whole text, and what single tokens add to a text. */
#include "generate/stop_strings.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "check.h"
#include "tokenizer/decoder.h"

/* G stands for the letter that spells a space; E1 and E2 for those of the two bytes of an e with an accent. */
#define G "\xc4\xa0"
#define E1 "\xc3\x83"
#define E2 "\xc2\xa9"
static const char vocab[] = "{\"<s>\":0,\"<pad>\":1,\"</s>\":2,\"<unk>\":3,\"a\":4,\"b\":5,\"" G "\":6,\"ab\":7,\"bab\":8,\"" G
                            "a\":9,\"" E1 "\":10,\"" E2 "\":11,\"b" E1 "\":12,\"" E2 "a\":13,\"<mask>\":14}";
static const char merges[] = "#version: 0.2\na b\nb ab\n" G " a\nb " E1 "\n" E2 " a\n";
static const char *const pieces[] = {"<s>",
                                     "<pad>",
                                     "</s>",
                                     "<unk>",
                                     "a",
                                     "b",
                                     " ",
                                     "ab",
                                     "bab",
                                     " a",
                                     "\xc3",
                                     "\xa9",
                                     "b\xc3",
                                     "\xa9"
                                     "a",
                                     "<mask>"};
enum { VOCAB = 15, SPECIAL_BELOW = 4, STRINGS_MAX = 4, TOKENS = 40, TEXT_MAX = 8 * TOKENS };

static tfi_memory memory;
static check_memory counted;

static const char *write_dir(const char *name, const char *const *files)
{
    const char *const path = check_path(name);
    char file[1024];

    (void)mkdir(path, 0777);
    for (; *files; files += 2) {
        snprintf(file, sizeof file, "%s/%s", path, files[0]);
        check_write(file, files[1], strlen(files[1]));
    }
    return path;
}

static tf_tokenizer *open_bytes(void)
{
    const char *const files[] = {
        "vocab.json", vocab, "merges.txt", merges, "tokenizer_config.json", "{\"tokenizer_class\":\"RobertaTokenizer\"}", NULL};
    tf_tokenizer *t = NULL;

    CHECK_OK(tf_tokenizer_open(write_dir("bytes", files), NULL, &t));
    return t;
}

static tf_tokenizer *open_words(void)
{
    const char *const files[] = {"vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nab\na\n##b\nstop\n", NULL};
    tf_tokenizer *t = NULL;

    CHECK_OK(tf_tokenizer_open(write_dir("words", files), NULL, &t));
    return t;
}

static int32_t below(int32_t n)
{
    return (int32_t)(check_random() % (uint64_t)n);
}

static void piece_is(const tf_tokenizer *t, int32_t id, const char *expected)
{
    char text[64] = "";
    int64_t size = -1;
    tfi_decoding d;

    CHECK_OK(tfi_pieces_open(&d, t, t->memory));
    CHECK_OK(tfi_tokenizer_piece(&d, t, id, text, tfi_tokenizer_piece_max(t), &size));
    tfi_decoding_close(&d);
    CHECK_INT(size, strlen(expected));
    CHECK(!memcmp(text, expected, strlen(expected)));
}

static void single_tokens(void)
{
    tf_tokenizer *t = open_bytes();
    char text[2];
    int64_t size;
    tfi_decoding d;

    for (int32_t id = 0; id < VOCAB; id++) piece_is(t, id, pieces[id]);
    CHECK_INT(tfi_tokenizer_piece_max(t), 7); /* "<mask>" */
    piece_is(t, -1, "");
    piece_is(t, VOCAB, "");
    CHECK_OK(tfi_pieces_open(&d, t, t->memory));
    CHECK_STATUS(tfi_tokenizer_piece(&d, t, 7, text, 2, &size), TF_STATUS_TOO_SMALL);
    tfi_decoding_close(&d);
    tf_tokenizer_close(t);
    t = open_words();
    piece_is(t, 5, " ab");
    piece_is(t, 7, "b");
    piece_is(t, 3, " [SEP]");
    tf_tokenizer_close(t);
}

/* A string that random tokens are likely to make, of whole characters. */
static tf_text random_string(char *out)
{
    static const char *const parts[] = {"a", "b", " ", "\xc3\xa9", "<"};
    size_t size = 0;

    for (int32_t n = 1 + below(4); n > 0; n--) {
        const char *const part = parts[below(100) < 3 ? 4 : below(4)];
        memcpy(out + size, part, strlen(part));
        size += strlen(part);
    }
    return (tf_text){out, (int64_t)size};
}

typedef struct found {
    int64_t end; /* 0: none */
    int32_t index;
} found;

/* The first end of any string in text[0, size) behind `from`. */
static found search(const char *text, int64_t from, int64_t size, const tf_text *strings, int32_t count)
{
    for (int64_t end = from + 1; end <= size; end++)
        for (int32_t i = 0; i < count; i++)
            if (strings[i].size <= end && !memcmp(text + end - strings[i].size, strings[i].data, (size_t)strings[i].size))
                return (found){end, i};
    return (found){0, -1};
}

/* What the tokens that are shown before the place `at` in the text have. */
static int64_t shown(const int32_t *ids, int64_t count, int64_t at, int skip)
{
    int64_t begin = 0, bytes = 0;

    for (int64_t i = 0; i < count && begin < at; i++) {
        const int64_t size = (int64_t)strlen(pieces[ids[i]]), part = at - begin < size ? at - begin : size;
        if (!(skip && (ids[i] < SPECIAL_BELOW || ids[i] == VOCAB - 1))) bytes += part;
        begin += size;
    }
    return bytes;
}

static void random_tokens(void)
{
    char buffers[STRINGS_MAX][32], text[TEXT_MAX];
    tf_text strings[STRINGS_MAX];
    int32_t ids[TOKENS], state[STRINGS_MAX], copied[STRINGS_MAX];
    const int32_t count = 1 + below(STRINGS_MAX), prompt = below(5);
    const int skip = below(2);
    tf_tokenizer *const t = open_bytes();
    int64_t size = 0, prompt_size, begin;
    tfi_stops s;

    for (int32_t i = 0; i < count; i++) strings[i] = random_string(buffers[i]);
    for (int32_t i = 0; i < TOKENS; i++) {
        ids[i] = below(20) ? SPECIAL_BELOW + below(VOCAB - 1 - SPECIAL_BELOW) : below(VOCAB);
        if (i < prompt) {
            memcpy(text + size, pieces[ids[i]], strlen(pieces[ids[i]]));
            size += (int64_t)strlen(pieces[ids[i]]);
        }
    }
    prompt_size = size;
    CHECK_OK(tfi_stops_open(&s, strings, count, t, &memory));
    tfi_stops_begin(&s, state, ids, prompt);
    for (int32_t i = prompt; i < TOKENS; i++) {
        const size_t piece = strlen(pieces[ids[i]]);
        tfi_stop_match match = {-1, -1};

        memcpy(text + size, pieces[ids[i]], piece);
        const found expected = search(text, size, size + (int64_t)piece, strings, count);
        size += (int64_t)piece;
        memcpy(copied, state, sizeof copied);
        CHECK_INT(tfi_stops_completes(&s, state, ids[i]), expected.end > 0);
        CHECK(!memcmp(copied, state, (size_t)count * sizeof *state));
        CHECK_INT(tfi_stops_add(&s, state, ids[i], &match), expected.end > 0);
        if (expected.end == 0) continue;
        CHECK_INT(match.index, expected.index);
        CHECK_INT(match.bytes_left, size - expected.end);
        const int64_t at = expected.end - strings[match.index].size - prompt_size;
        CHECK_OK(tfi_stops_find(&s, ids + prompt, i - prompt + 1, &match, skip, &begin));
        CHECK_INT(begin, at < 0 ? 0 : shown(ids + prompt, i - prompt + 1, at, skip));
    }
    tfi_stops_close(&s);
    tf_tokenizer_close(t);
}

static void many_random_tokens(void)
{
    for (int i = 0; i < 200; i++) random_tokens();
}

/* A text's first word has no space before it. */
static void first_word(void)
{
    static const int32_t ids[] = {3, 6, 7, 8}; /* "a" "##b" "stop" behind a special token: "ab stop" */
    const tf_text strings[] = {{"b stop", 6}, {" ab", 3}};
    tf_tokenizer *const t = open_words();
    tfi_stop_match match;
    int32_t state[2];
    int64_t begin;
    tfi_stops s;

    CHECK_OK(tfi_stops_open(&s, strings, 2, t, &memory));
    tfi_stops_begin(&s, state, NULL, 0);
    CHECK_INT(tfi_stops_add(&s, state, ids[0], &match), 0);
    CHECK_INT(tfi_stops_add(&s, state, ids[1], &match), 0);
    CHECK_INT(tfi_stops_add(&s, state, ids[2], &match), 1);
    CHECK_INT(match.index, 1);
    CHECK_OK(tfi_stops_find(&s, ids, 3, &match, 1, &begin));
    CHECK_INT(begin, 0);
    CHECK_OK(tfi_stops_find(&s, ids, 3, &match, 0, &begin)); /* "[SEP] ab" */
    CHECK_INT(begin, 5);
    CHECK_INT(tfi_stops_add(&s, state, ids[3], &match), 1);
    CHECK_INT(match.index, 0);
    CHECK_OK(tfi_stops_find(&s, ids, 4, &match, 1, &begin));
    CHECK_INT(begin, 1);
    tfi_stops_close(&s);
    tf_tokenizer_close(t);
}

static void memory_fails(void)
{
    const tf_text strings[] = {{"abc", 3}};
    tf_tokenizer *const t = open_bytes();
    tfi_stops s;

    counted.fail_at = 1;
    CHECK_STATUS(tfi_stops_open(&s, strings, 1, t, &memory), TF_STATUS_NOMEM);
    tfi_stops_close(&s);
    tf_tokenizer_close(t);
}

int main(int argc, char **argv)
{
    check_memory_init(&counted);
    tfi_memory_init(&memory, &counted.hooks, TF_UNSET);
    check_run(argc, argv, "single tokens", single_tokens);
    check_run(argc, argv, "random tokens", many_random_tokens);
    check_run(argc, argv, "a text's first word", first_word);
    check_run(argc, argv, "memory fails", memory_fails);
    CHECK_INT(counted.live_blocks, 0);
    return check_done();
}
