/* Long lines and little memory, for every model: time and memory grow with the text in proportion, and what a limit does not hold is
 * NOMEM, with nothing lost and the handle as good as before. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <time.h>

#include "tokenizing.h"

#define JSON(normalizer, splitter, model)                                                                                      \
    "{\"normalizer\":" normalizer ",\"pre_tokenizer\":" splitter ",\"decoder\":null,\"model\":{" model "}}"
#define MARK "\xe2\x96\x81"
#define METASPACE "{\"type\":\"Metaspace\",\"replacement\":\"" MARK "\",\"prepend_scheme\":\"always\"}"

/* `bytes`: what a byte of text may take while it is encoded, where each is a token. */
static const struct kind {
    const char *name, *json; /* json NULL: made by open_kind */
    int bytes;
} kinds[] = {
    {"WordPiece",
     JSON("{\"type\":\"BertNormalizer\",\"clean_text\":true,\"handle_chinese_chars\":true,\"strip_accents\":null,\"lowercase\":"
          "true}",
          "{\"type\":\"BertPreTokenizer\"}",
          "\"type\":\"WordPiece\",\"unk_token\":\"?\",\"vocab\":{\"?\":0,\"a\":1,\"##a\":2,\"fox\":3,\"ab\":4,\"##b\":5,\"e\":"
          "6,\"1\":7}"),
     130},
    {"BPE of bytes",
     JSON("null", "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}",
          "\"type\":\"BPE\",\"merges\":[\"a b\",\"a a\",\"aa aa\",\"\xc4\xa0 "
          "ab\"],\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"aa\":3,\"aaaa\":4,"
          "\"\xc4\xa0\":5,\"\xc4\xa0"
          "ab\":6,\"e\":7}"),
     130},
    {"BPE of characters",
     JSON("{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" MARK "\"}", "null",
          "\"type\":\"BPE\",\"byte_fallback\":true,\"unk_token\":\"?\",\"merges\":[\"a b\",\"a a\",\"aa "
          "aa\"],\"vocab\":{\"?\":0,\"a\":1,"
          "\"b\":2,\"ab\":3,\"aa\":4,\"aaaa\":5,\"" MARK "\":6,\"<0xC3>\":7,\"<0xA9>\":8}"),
     350},
    {"Unigram",
     JSON("null", "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"}," METASPACE "]}",
          "\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"?\",0],[\"a\",-3],[\"b\",-3.5],[\"ab\",-4],[\"" MARK
          "\",-2],[\"" MARK "ab\",-5],[\"aaa\",-6]]"),
     130},
    {"WordLevel",
     JSON("{\"type\":\"Lowercase\"}", "{\"type\":\"Whitespace\"}",
          "\"type\":\"WordLevel\",\"unk_token\":\"?\",\"vocab\":{\"?\":0,\"a\":1,\"ab\":2,\"e\":3}"),
     350},
    {"a pattern",
     JSON("{\"type\":\"NFKC\"}",
          "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\p{L}+|\\\\s+|a{2,}b\"},\"behavior\":\"Isolated\",\"invert\":false}",
          "\"type\":\"WordLevel\",\"unk_token\":\"?\",\"vocab\":{\"?\":0,\"a\":1,\"ab\":2,\"e\":3}"),
     350},
    {"SentencePiece", NULL, 130},
    {"T5", NULL, 130},
    {"ByT5", NULL, 130},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static void write_model(const char *path)
{
    writer w = {.size = 0};

    put_piece(&w, "<pad>", 0, 3);
    put_piece(&w, "</s>", 0, 3);
    put_piece(&w, "<unk>", 0, 2);
    put_piece(&w, MARK, -2, 1);
    put_piece(&w, "a", -3, 1);
    put_piece(&w, "b", -3, 1);
    put_piece(&w, "ab", -4, 1);
    put_piece(&w, MARK "ab", -5, 1);
    put_bytes(&w, 2, "\xc0\x02\x02", 3); /* unk_id 2 */
    check_write(path, w.data, w.size);
}

static const char *write_kind(const struct kind *k)
{
    char file[1024];

    if (k->json) return write_text("long.json", k->json);
    if (strcmp(k->name, "ByT5") == 0) return DIR("byt5", "tokenizer_config.json", "{\"tokenizer_class\":\"ByT5Tokenizer\"}");
    const char *dir = DIR("t5", "tokenizer_config.json", "{\"tokenizer_class\":\"T5Tokenizer\"}");
    snprintf(file, sizeof file, "%s/spiece.model", dir);
    write_model(file);
    if (strcmp(k->name, "T5") == 0) return dir;
    dir = check_path("long.model");
    write_model(dir);
    return dir;
}

static const char *const units[] = {"a", "ab ",        " ",     "\xe4\xbd\xa0", "e\xcc\x81\xcc\xa7",
                                    "?", "A\xc3\xa9 ", "<unk>", "aaaaaaaab 1. "};
enum { UNITS = sizeof units / sizeof units[0], SHORT = 32 << 10, LONG = 512 << 10 };

static void fill(char *text, const char *unit)
{
    const size_t n = strlen(unit);

    for (size_t at = 0; at < LONG; at++) text[at] = unit[at % n];
}

static double milliseconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* The shorter time of two. */
static double time_of(const tf_tokenizer *t, tf_encoding *e, const char *text, int64_t size)
{
    double best = 1e9;
    tf_tokenize_options o;

    tf_tokenize_options_init(&o);
    o.replace_invalid = 1; /* a unit may be cut */
    for (int i = 0; i < 2; i++) {
        const double begin = milliseconds();
        CHECK_OK(tf_tokenizer_encode(t, &(tf_text){text, size}, NULL, 1, &o, e));
        const double taken = milliseconds() - begin;
        if (taken < best) best = taken;
    }
    return best;
}

/* Sixteen times the text may take 64 times the time, where in proportion to its square it would take 256; a busy machine has three
 * tries. */
static void check_line(const struct kind *k, const char *path, const char *text, const char *unit)
{
    check_memory m;
    tf_tokenizer_options o;
    tf_tokenizer *t;
    tf_encoding *e;

    check_memory_init(&m);
    tf_tokenizer_options_init(&o);
    o.allocator = &m.hooks;
    CHECK_OK(tf_tokenizer_open(path, &o, &t));
    CHECK_OK(tf_encoding_open(t, &e));
    double small = time_of(t, e, text, SHORT);
    const int64_t before = m.peak_bytes = (int64_t)m.live_bytes;
    double large = time_of(t, e, text, LONG);
    const int64_t taken = (m.peak_bytes - before) / (LONG - SHORT);
    for (int more = 2; more > 0 && large > 64 * small + 2; more--) {
        small = time_of(t, e, text, SHORT);
        large = time_of(t, e, text, LONG);
    }
    if (large > 64 * small + 2 || taken > k->bytes)
        check_failed(__FILE__, __LINE__, "%s, \"%s\": %.1f ms, then %.1f; %lld bytes a byte", k->name, unit, small, large,
                     (long long)taken);
    tf_encoding_close(e);
    tf_tokenizer_close(t);
    CHECK_INT(m.live_bytes, 0);
}

static void test_growth(void)
{
    char *text = malloc(LONG);

    for (int k = 0; k < KINDS; k++) {
        const char *path = write_kind(&kinds[k]);
        for (int u = 0; u < UNITS; u++) {
            fill(text, units[u]);
            check_line(&kinds[k], path, text, units[u]);
        }
    }
    free(text);
}

/* Under limits from next to nothing to enough: opening and a long line fail alone, and a short line goes on after them. */
static void test_limits(void)
{
    const tf_text word = tf_text_of("ab a");
    char *text = malloc(LONG);

    fill(text, units[8]);
    for (int k = 0; k < KINDS; k++) {
        const char *path = write_kind(&kinds[k]);
        int opened = 0, refused = 0, done = 0;
        for (int64_t limit = 4096; !done && limit < 1 << 28; limit += limit / 4) {
            check_memory m;
            tf_tokenizer_options o;
            tf_tokenizer *t;
            tf_encoding *e = NULL;
            check_memory_init(&m);
            m.limit_bytes = limit;
            tf_tokenizer_options_init(&o);
            o.allocator = &m.hooks;
            tf_status status = tf_tokenizer_open(path, &o, &t);
            if (status == TF_STATUS_OK) {
                opened++;
                status = tf_encoding_open(t, &e);
            }
            if (status == TF_STATUS_OK) status = tf_tokenizer_encode(t, &word, NULL, 1, NULL, e);
            if (status == TF_STATUS_OK) {
                status = tf_tokenizer_encode(t, &(tf_text){text, LONG}, NULL, 1, NULL, e);
                done = status == TF_STATUS_OK;
                refused += !done;
                m.limit_bytes = 0;
                CHECK_OK(tf_tokenizer_encode(t, &word, NULL, 1, NULL, e));
            }
            if (!done) CHECK_INT(status, TF_STATUS_NOMEM);
            CHECK(m.peak_bytes <= limit || m.limit_bytes == 0);
            tf_encoding_close(e);
            tf_tokenizer_close(t);
            CHECK_INT(m.live_blocks, 0);
        }
        if (!opened || !refused || !done)
            check_failed(__FILE__, __LINE__, "%s: %d, %d, %d", kinds[k].name, opened, refused, done);
    }
    free(text);
}

int main(int argc, char **argv)
{
    check_run(argc, argv, "growth", test_growth);
    check_run(argc, argv, "limits", test_limits);
    return check_done();
}
