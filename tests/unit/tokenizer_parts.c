/* tokenizer.json of many parts on files made here: tokens, patterns, streams, bad files, failing allocations. What the tokens must be
 * for real vocabularies and random pipelines is the conformance tests' business. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizing.h"

/* A file with this normalizer, pre-tokenizer and decoder, each JSON, over a model. */
static const char *write_json(const char *normalizer, const char *splitter, const char *decoder, const char *model)
{
    const char *path = check_path("parts.json");
    char text[8192];

    snprintf(text, sizeof text, "{\"normalizer\":%s,\"pre_tokenizer\":%s,\"decoder\":%s,\"model\":%s}", normalizer, splitter,
             decoder, model);
    check_write(path, text, strlen(text));
    return path;
}

#define WORDS                                                                                                                  \
    "{\"type\":\"WordLevel\",\"unk_token\":\"?\",\"vocab\":{\"?\":0,\"a\":1,\"b\":2,\"ab\":3,\"1\":4,\"12\":5,\" "             \
    "a\":6,\"\xc3\xa9\":7,"                                                                                                    \
    "\".\":8,\"\xe2\x96\x81"                                                                                                   \
    "a\":9}}"
#define BYTES                                                                                                                  \
    "{\"type\":\"BPE\",\"byte_fallback\":true,\"unk_token\":\"?\",\"fuse_unk\":true,\"merges\":[[\"a\",\"b\"]],\"vocab\":{\"?" \
    "\":0,"                                                                                                                    \
    "\"a\":1,\"b\":2,\"ab\":3,\"<0xC3>\":4,\"<0xA9>\":5,\"\xe2\x96\x81\":6}}"
#define LLAMA                                                                                                                  \
    "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xe2\x96\x81\"},\"content\":\" \"}," \
    "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}"

static void encodes(const char *path, const char *text, const char *expected)
{
    tf_tokenizer *t = NULL;
    tf_encoding *e = NULL;
    tf_encoding_data d;
    const tf_text input = tf_text_of(text);
    char got[512] = "";

    CHECK_OK(tf_tokenizer_open(path, NULL, &t));
    CHECK_OK(tf_encoding_open(t, &e));
    CHECK_OK(tf_tokenizer_encode(t, &input, NULL, 1, NULL, e));
    tf_encoding_data_init(&d);
    CHECK_OK(tf_encoding_get(e, &d));
    for (int64_t i = 0; i < d.tokens; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%d:%d-%d ", (int)d.ids[i], (int)d.byte_begin[i],
                 (int)d.byte_end[i]);
    if (strcmp(got, expected) != 0) fprintf(stderr, "%s: %s, not %s\n", text, got, expected);
    CHECK(!strcmp(got, expected));
    tf_encoding_close(e);
    tf_tokenizer_close(t);
}

static const char *split_by(const char *pattern, const char *behavior)
{
    char part[1024];

    snprintf(part, sizeof part, "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%s\"},\"behavior\":\"%s\",\"invert\":false}",
             pattern, behavior);
    return write_json("null", part, "null", WORDS);
}

static void test_splitting(void)
{
    encodes(split_by("\\\\p{N}{1,2}", "Isolated"), "a12.1b", "1:0-1 5:1-3 8:3-4 4:4-5 2:5-6 ");
    encodes(split_by("\\\\s+", "Removed"), "a \xe3\x80\x80 b", "1:0-1 2:6-7 ");
    encodes(split_by(" ?\\\\p{L}+", "Isolated"), "ab a", "3:0-2 6:2-4 ");
    encodes(split_by("(?i:B)", "MergedWithNext"), "aba", "1:0-1 0:1-3 ");
    encodes(split_by("[^\\\\W\\\\d_]+", "Contiguous"),
            "\xc3\xa9"
            "1",
            "7:0-2 4:2-3 ");
    encodes(write_json("{\"type\":\"NFC\"}", "{\"type\":\"FixedLength\",\"length\":1}", "null", WORDS),
            "ae\xcc\x81"
            "b",
            "1:0-1 7:1-2 2:4-5 "); /* the reference leaves the mark out of the range */
    encodes(write_json("null", "{\"type\":\"Metaspace\"}", "null", WORDS), "a a", "9:0-1 9:1-3 ");
    encodes(write_json("{\"type\":\"Prepend\",\"prepend\":\"\xe2\x96\x81\"}", "null", LLAMA, BYTES), "ab\xc3\xa9\xe4\xbd\xa0",
            "6:0-1 3:0-2 4:2-4 5:2-4 0:4-7 ");
}

/* Byte tokens wait for their run to end, what Fuse has made one loses its first space alone. */
static void test_stream(void)
{
    static const int32_t ids[] = {6, 3, 4, 5, 6, 4, 1};
    static const char *const pieces[] = {"",
                                         "ab",
                                         "",
                                         "",
                                         "\xc3\xa9 ",
                                         "",
                                         "\xef\xbf\xbd"
                                         "a"};
    tf_tokenizer *t = NULL;
    tf_stream *s = NULL;
    const char *text;
    int64_t size;

    CHECK_OK(tf_tokenizer_open(write_json("null", "null", LLAMA, BYTES), NULL, &t));
    CHECK_OK(tf_stream_open(t, NULL, &s));
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        CHECK_OK(tf_stream_push(s, ids[i], &text, &size));
        CHECK_INT(size, strlen(pieces[i]));
        CHECK(!memcmp(text, pieces[i], (size_t)size));
    }
    CHECK_OK(tf_stream_finish(s, &text, &size));
    CHECK_INT(size, 0);
    tf_stream_close(s);
    tf_tokenizer_close(t);
}

static void test_bad_files(void)
{
    static const char *const patterns[][2] = {{"(a", "group"},           {"a)", "parenthesis"},      {"[a", "class"},
                                              {"a**", "repetition"},     {"*", "repetition"},        {"(a)\\\\1", "escape"},
                                              {"\\\\p{Xyz}", "name"},    {"[z-a]", "range"},         {"[[:alpha:]]", "POSIX"},
                                              {"\\\\X", "escape"},       {"(?i)\xc3\xa9", "case"},   {"(?i)ss", "letters"},
                                              {"a{2}?", "fixed"},        {"(?~a)", "kind"},          {"\\\\x{110000}", "code"},
                                              {"(?i)\\\\p{Lu}", "case"}, {"(?<=a+)b", "lookbehind"}, {"(*UTF)a", "kind"},
                                              {"\\\\", "backslash"},     {"[]a]", "bracket"}};
    char deep[600];

    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++)
        refuse(split_by(patterns[i][0], "Isolated"), TF_STATUS_UNSUPPORTED, patterns[i][1]);
    memset(deep, '(', 200);
    strcpy(deep + 200, "a");
    refuse(split_by(deep, "Isolated"), TF_STATUS_UNSUPPORTED, "groups");
    refuse(split_by("a", "Doubled"), TF_STATUS_CORRUPT, "behavior");
    refuse(write_json("null", "{\"type\":\"Split\",\"pattern\":\"a\",\"behavior\":\"Removed\"}", "null", WORDS),
           TF_STATUS_CORRUPT, "pattern");
    refuse(write_json("null", "{\"type\":\"CharDelimiterSplit\",\"delimiter\":\"ab\"}", "null", WORDS), TF_STATUS_CORRUPT,
           "delimiter");
    refuse(write_json("{\"type\":\"Sequence\"}", "null", "null", WORDS), TF_STATUS_CORRUPT, "normalizers");
    refuse(write_json("{\"type\":\"Prepend\"}", "null", "null", WORDS), TF_STATUS_CORRUPT, "prepend");
    refuse(write_json("null", "null", "{\"type\":\"Strip\",\"content\":\"\"}", WORDS), TF_STATUS_CORRUPT, "content");
    refuse(write_json("null", "null", "{\"type\":\"Anything\"}", WORDS), TF_STATUS_UNSUPPORTED, "Anything");
}

/* Words that nothing stands for, and patterns that do not end, are errors of a call; the handle goes on. */
static void test_bad_texts(void)
{
    static const char *const models[] = {"{\"type\":\"WordLevel\",\"vocab\":{\"a\":0}}",
                                         "{\"type\":\"BPE\",\"unk_token\":\"?\",\"merges\":[],\"vocab\":{\"a\":0}}"};
    char endless[64];
    tf_tokenizer *t = NULL;
    tf_encoding *e = NULL;
    tf_text text;

    memset(endless, 'a', 40);
    strcpy(endless + 40, "b. b1");
    for (int i = 0; i < 3; i++) {
        const char *path = i < 2 ? write_json("null", "null", "null", models[i]) : split_by("(?:a|aa)+[^a]\\\\d", "Isolated");
        CHECK_OK(tf_tokenizer_open(path, NULL, &t));
        CHECK_OK(tf_encoding_open(t, &e));
        text = tf_text_of(i < 2 ? "x" : endless);
        CHECK_STATUS(tf_tokenizer_encode(t, &text, NULL, 1, NULL, e), TF_STATUS_INVALID);
        CHECK_ERROR_SAYS(i < 2 ? "\"x\"" : "too many steps");
        text = tf_text_of("a");
        CHECK_OK(tf_tokenizer_encode(t, &text, NULL, 1, NULL, e));
        tf_encoding_close(e);
        tf_tokenizer_close(t);
    }
}

static void test_allocations(void)
{
    static const char text[] = "ab  e\xcc\x81 12 'll \xea\xb0\x80\xe1\x84\x80\xe1\x85\xa1 x";
    static const char all[] = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFKC\"},{\"type\":\"NFD\"},{\"type\":"
                              "\"Prepend\",\"prepend\":\"x\"},"
                              "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\\\\s+(?=\\\\w)\"},\"content\":\" a\"}]}";
    static const char split[] = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[\\\\p{"
                                "L}&&[^x]]+|\\\\b(?i)q\"},"
                                "\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\"},{\"type\":\"Metaspace\"}]}";
    static const char decoder[] = "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteFallback\"},{\"type\":\"CTC\"},{"
                                  "\"type\":\"BPEDecoder\"},{\"type\":"
                                  "\"Fuse\"},{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"[a-c]\"},\"content\":\"xyz\"}]}";

    fail_each_allocation(write_json(all, split, decoder, BYTES), text, 7);
    fail_each_allocation(write_json(all, split, decoder, WORDS), text, 10);
}

int main(int argc, char **argv)
{
    check_run(argc, argv, "splitting", test_splitting);
    check_run(argc, argv, "stream", test_stream);
    check_run(argc, argv, "bad_files", test_bad_files);
    check_run(argc, argv, "bad_texts", test_bad_texts);
    check_run(argc, argv, "allocations", test_allocations);
    return check_done();
}
