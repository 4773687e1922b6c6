/* Byte-level BPE on a vocabulary of its own: merges and their order, the pattern, offsets, bad files, failing allocations, long
 * words. What the tokens must be for real vocabularies is the conformance tests' business. */
#include <stdlib.h>

#include "tokenizing.h"

/* G stands for the letter that spells a space. */
#define G "\xc4\xa0"
static const char vocab[] =
    "{\"<s>\":0,\"<pad>\":1,\"</s>\":2,\"<unk>\":3,\"a\":4,\"b\":5,\"c\":6,\"" G "\":7,\"ab\":8,\"bc\":9,\"abc\":10,"
    "\"" G "a\":11,\"" G "ab\":12,\"'\":13,\"s\":14,\"'s\":15,\"\xc3\x83\":16,\"\xc2\xa9\":17,\"1\":18,\"!\":19,"
    "\"aa\":20,\"aaaa\":21,\"<mask>\":22}";
enum {
    BOS,
    PAD,
    EOS,
    UNK,
    A,
    B,
    C,
    SPACE,
    AB,
    BC,
    ABC,
    SPACE_A,
    SPACE_AB,
    QUOTE,
    S,
    QUOTE_S,
    E1,
    E2,
    ONE,
    BANG,
    AA,
    AAAA,
    MASK,
    VOCAB
};
static const char merges[] = "#version: 0.2\nb c\n" G " a\n" G "a b\na b\na bc\n' s\na a\naa aa\n";
static const char roberta[] = "{\"tokenizer_class\":\"RobertaTokenizer\"}";

static const char *good_dir(void)
{
    return DIR("roberta", "vocab.json", vocab, "merges.txt", merges, "tokenizer_config.json", roberta);
}

static void test_encode(void)
{
    tf_tokenizer *t;
    tf_encoding *e;

    CHECK_OK(tf_tokenizer_open(good_dir(), NULL, &t));
    CHECK_OK(tf_encoding_open(t, &e));
    IDS(encode(t, e, "", NULL), BOS, EOS);
    IDS(encode(t, e, "abc", NULL), BOS, ABC, EOS); /* bc goes before ab */
    IDS(encode(t, e, "abcab", NULL), BOS, ABC, AB, EOS);
    IDS(encode(t, e, "aaaaaaa", NULL), BOS, AAAA, AA, A, EOS); /* leftmost first */
    IDS(encode(t, e, "a's", NULL), BOS, A, QUOTE_S, EOS);
    IDS(encode(t, e, "a  ab", NULL), BOS, A, SPACE, SPACE_AB, EOS);
    IDS(encode(t, e, "a1!", NULL), BOS, A, ONE, BANG, EOS);
    IDS(encode(t, e, "azb", NULL), BOS, AB, EOS); /* the vocabulary has no z: it is gone before anything merges */
    IDS(encode(t, e, "a<mask>b", NULL), BOS, A, MASK, B, EOS);
    const tf_encoding_data d = encode(t, e, "b \xc3\xa9 ab", "a");
    IDS(d, BOS, B, SPACE, E1, E2, SPACE_AB, EOS, EOS, A, EOS);
    CHECK_INT(d.byte_begin[2], 2); /* trimmed to nothing */
    CHECK_INT(d.byte_end[2], 2);
    for (int i = 3; i < 5; i++) { /* either half has the whole of the letter */
        CHECK_INT(d.byte_begin[i], 2);
        CHECK_INT(d.byte_end[i], 4);
        CHECK_INT(d.char_begin[i], 2);
        CHECK_INT(d.char_end[i], 3);
        CHECK_INT(d.word[i], 1);
    }
    CHECK_INT(d.byte_begin[5], 5);
    CHECK_INT(d.char_end[5], 6);
    CHECK_INT(d.type_ids[8], 0);
    CHECK_INT(d.sequence[8], 1);
    CHECK_INT(d.sequence[7], -1);
    tf_encoding_close(e);
    tf_tokenizer_close(t);
}

static void test_info_and_decode(void)
{
    const int32_t ids[] = {BOS, E1, E2, SPACE_AB, E1, BANG, EOS};
    tf_tokenizer *t;
    tf_tokenizer_info i;
    tf_decode_options o;
    char text[64];
    int64_t size;

    CHECK_OK(tf_tokenizer_open(good_dir(), NULL, &t));
    tf_tokenizer_info_init(&i);
    CHECK_OK(tf_tokenizer_get_info(t, &i));
    CHECK_TEXT(i.model, "BPE");
    CHECK_INT(i.vocab_size, VOCAB);
    CHECK_INT(i.bos_id, BOS);
    CHECK_INT(i.unk_id, UNK);
    CHECK_INT(i.mask_id, MASK);
    CHECK_INT(i.special_tokens_single, 2);
    CHECK_INT(i.special_tokens_pair, 4);
    tf_decode_options_init(&o);
    o.skip_special_tokens = 1;
    o.clean_up = 1; /* which counts for nothing here */
    CHECK_OK(tf_tokenizer_decode(t, ids, 7, &o, text, sizeof text - 1, &size));
    text[size] = 0;
    CHECK_TEXT(text, "\xc3\xa9 ab\xef\xbf\xbd!");
    CHECK_OK(tf_tokenizer_decode(t, ids, 1, NULL, text, sizeof text - 1, &size));
    text[size] = 0;
    CHECK_TEXT(text, "<s>");
    tf_tokenizer_close(t);
}

static void test_files(void)
{
    static const char *const types[] = {"{\"model_type\":\"roberta\"}", "{\"model_type\":\"gpt2\"}"};
    tf_tokenizer *t;
    tf_encoding *e;

    for (int i = 0; i < 2; i++) {
        CHECK_OK(tf_tokenizer_open(DIR(i ? "f1" : "f0", "vocab.json", vocab, "merges.txt", merges, "config.json", types[i]),
                                   NULL, &t));
        CHECK_OK(tf_encoding_open(t, &e));
        CHECK_INT(encode(t, e, "ab", NULL).tokens, i ? 1 : 3);
        tf_encoding_close(e);
        tf_tokenizer_close(t);
    }
    CHECK_OK(tf_tokenizer_open(DIR("f2", "encoder.json", vocab, "vocab.bpe", merges), NULL, &t));
    tf_tokenizer_close(t);
}

#define REFUSE(name, status, part, ...) refuse(DIR(name, __VA_ARGS__), status, part)

static void test_bad_files(void)
{
    static const struct {
        const char *merges, *part;
    } bad[] = {{"a b c\n", "merge 1"},
               {"ab\n", "merge 1"},
               {"a b\n\n", "merge 2"},
               {"a z\n", "no \"z\""},
               {"z a\n", "no \"z\""},
               {"c c\n", "what comes of"},
               {"b c\na bc\nabc abc\n", "merge 3"},
               {" a\n", "no \"\""},
               {"a \xff\n", "not UTF-8"},
               {"a\tb\n", "merge 1"}};
    char name[8];

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(name, sizeof name, "b%d", (int)i);
        REFUSE(name, TF_STATUS_CORRUPT, bad[i].part, "vocab.json", vocab, "merges.txt", bad[i].merges, "tokenizer_config.json",
               roberta);
    }
    REFUSE("c0", TF_STATUS_NOT_FOUND, "merges.txt", "vocab.json", vocab, "tokenizer_config.json", roberta);
    REFUSE("c1", TF_STATUS_UNSUPPORTED, "vocab.json", "vocab.json", vocab, "merges.txt", merges); /* of what class? */
    REFUSE("c2", TF_STATUS_CORRUPT, "empty", "vocab.json", "{}", "merges.txt", "", "tokenizer_config.json", roberta);
    REFUSE("c3", TF_STATUS_CORRUPT, "\"a\"", "vocab.json", "{\"a\":\"b\"}", "merges.txt", "", "tokenizer_config.json", roberta);
    REFUSE("c4", TF_STATUS_CORRUPT, "not an object", "vocab.json", "[]", "merges.txt", "", "tokenizer_config.json", roberta);
    REFUSE("c5", TF_STATUS_CORRUPT, "add_prefix_space", "vocab.json", vocab, "merges.txt", merges, "tokenizer_config.json",
           "{\"tokenizer_class\":\"GPT2Tokenizer\",\"add_prefix_space\":3}");
    REFUSE("c6", TF_STATUS_UNSUPPORTED, "BartTokenizer", "vocab.json", vocab, "merges.txt", merges, "tokenizer_config.json",
           "{\"tokenizer_class\":\"BartTokenizer\"}");
    REFUSE("c7", TF_STATUS_UNSUPPORTED, "longformer", "tokenizer.json", "{\"model\":{\"merges\":[]}}", "config.json",
           "{\"model_type\":\"longformer\"}");
}

static void test_bad_json(void)
{
    static const struct {
        const char *model, *rest, *part;
        tf_status status;
    } bad[] = {
        {"\"merges\":{}", "", "model.merges", TF_STATUS_CORRUPT},
        {"\"merges\":[3]", "", "merge 1", TF_STATUS_CORRUPT},
        {"\"merges\":[[\"a\"]]", "", "merge 1", TF_STATUS_CORRUPT},
        {"\"merges\":[[\"a\",\"b\"],[\"a\",4]]", "", "merge 2", TF_STATUS_CORRUPT},
        {"\"merges\":[\"ab\"]", "", "merge 1", TF_STATUS_CORRUPT},
        {"\"merges\":[\"a b\",[\"a\",\"b\"]]", "", "merge 2", TF_STATUS_CORRUPT},
        {"\"merges\":[[\"a\",\"b\\x\"]]", "", "escape", TF_STATUS_CORRUPT},
        {"\"merges\":[\"a \xff\"]", "", "UTF-8", TF_STATUS_CORRUPT},
        {"\"merges\":[],\"dropout\":0.5", "", "dropout", TF_STATUS_UNSUPPORTED},
        {"\"merges\":[],\"dropout\":\"x\"", "", "dropout", TF_STATUS_CORRUPT},
        {"\"merges\":[],\"byte_fallback\":true,\"end_of_word_suffix\":\"x\"", "", "end_of_word_suffix", TF_STATUS_UNSUPPORTED},
        {"\"merges\":[[\"a\",\"b\"]],\"continuing_subword_prefix\":\"##\"", "", "continuing_subword_prefix", TF_STATUS_CORRUPT},
        {"\"merges\":[]", ",\"pre_tokenizer\":{\"type\":\"Meta\"}", "Meta", TF_STATUS_UNSUPPORTED},
        {"\"merges\":[]", ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"ab\"}", "replacement",
         TF_STATUS_CORRUPT},
        {"\"merges\":[]", ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"}}", "group",
         TF_STATUS_UNSUPPORTED},
        {"\"merges\":[]", ",\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"decoder\":{\"type\":\"Strip\"}", "content",
         TF_STATUS_CORRUPT},
        {"\"merges\":[]", ",\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"post_processor\":{\"type\":\"RobertaProcessing\"}",
         "cls", TF_STATUS_CORRUPT},
        {"\"merges\":[]",
         ",\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"post_processor\":{\"type\":\"ByteLevel\",\"trim_offsets\":1}",
         "trim_offsets", TF_STATUS_CORRUPT},
    };
    char text[1024];

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(text, sizeof text, "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},%s}%s}", bad[i].model,
                 bad[i].rest);
        REFUSE("j", bad[i].status, bad[i].part, "tokenizer.json", text);
    }
}

static void test_allocations(void)
{
    fail_each_allocation(good_dir(), " ab aaaa abcabcabcabc\xc3\xa9 <mask>'s", VOCAB);
}

/* Merges of merges, the later one first, one of a token with itself, the same one again and again: none goes round in a circle, and a long
 * list takes no longer than its length. */
static void test_odd_merges(void)
{
    enum { MERGES = 200000, ROOM = 64 + 16 * MERGES };
    static const char head[] =
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"aba\":3,\"abab\":4},\"merges\":[";
    static const char *const orders[] = {"\"ab ab\",\"aba b\",\"ab a\",\"a b\"]}}",
                                         "[\"ab\",\"ab\"],[\"\\u0061ba\",\"b\"],[\"ab\",\"a\"],[\"\\u0061\",\"\\u0062\"]]}}",
                                         "\"a b\",\"ab\\u0020a\",\"aba b\",\"ab ab\"]}}"};
    char *text = malloc(ROOM + sizeof head);
    tf_tokenizer *t;

    for (int i = 0; i < 3; i++) {
        snprintf(text, ROOM, "%s%s", head, orders[i]);
        CHECK_OK(tf_tokenizer_open(write_text("odd.json", text), NULL, &t));
        if (i < 2) TEXT_IDS(t, "ababa", 4, 0);
        else TEXT_IDS(t, "ababa", 2, 3);
        tf_tokenizer_close(t);
        fail_each_allocation(write_text("odd.json", text), "ababa", 5);
    }
    size_t at = (size_t)snprintf(text, ROOM, "%s", head);
    for (int i = 0; i < MERGES; i++) at += (size_t)snprintf(text + at, 16, "\"%s\",", i % 2 ? "ab a" : "a b");
    snprintf(text + at, 16, "\"a b\"]}}");
    CHECK_OK(tf_tokenizer_open(write_text("odd.json", text), NULL, &t));
    TEXT_IDS(t, "ababa", 3, 1, 0); /* the last place in the list counts */
    tf_tokenizer_close(t);
    free(text);
}

/* One word of a megabyte, in every form: a quadratic merge would take minutes. */
static void test_long_words(void)
{
    enum { BYTES = 1 << 20 };
    static const char *const units[] = {"a", "abc", "aab", " ", "z", "!", "\xc3\xa9"};
    char *text = malloc(BYTES + 1);
    tf_tokenizer *t;
    tf_encoding *e;

    CHECK_OK(tf_tokenizer_open(good_dir(), NULL, &t));
    CHECK_OK(tf_encoding_open(t, &e));
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
        const size_t n = strlen(units[u]), whole = BYTES / n * n;
        for (size_t at = 0; at < whole; at++) text[at] = units[u][at % n];
        text[whole] = 0;
        const tf_encoding_data d = encode(t, e, text, NULL);
        CHECK_INT(d.rows, 1);
        if (u < 2) CHECK_INT(d.tokens, 2 + (int64_t)whole / (u == 0 ? 4 : 3));
        if (u == 4) CHECK_INT(d.tokens, 2);
    }
    tf_encoding_close(e);
    tf_tokenizer_close(t);
    free(text);
}

int main(int argc, char **argv)
{
    check_run(argc, argv, "encode", test_encode);
    check_run(argc, argv, "info_and_decode", test_info_and_decode);
    check_run(argc, argv, "files", test_files);
    check_run(argc, argv, "bad_files", test_bad_files);
    check_run(argc, argv, "bad_json", test_bad_json);
    check_run(argc, argv, "allocations", test_allocations);
    check_run(argc, argv, "odd_merges", test_odd_merges);
    check_run(argc, argv, "long_words", test_long_words);
    return check_done();
}
