/* The tokenizer module on a vocabulary of its own: the edges of the public calls, option structs of other versions, bad files,
 * failing allocations. What the tokens must be for real vocabularies is the conformance tests' business. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tokenizing.h"

static const char vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nun\n##aff\n##able\nfox\n.\n,\nete\ntwo\n##s\nthe\n";
enum { PAD, UNK, CLS, SEP, MASK, UN, AFF, ABLE, FOX, DOT, COMMA, ETE, TWO, S, THE, VOCAB };

static const char json_head[] =
    "{\"added_tokens\":[{\"id\":0,\"content\":\"[PAD]\",\"special\":true,\"normalized\":false},"
    "{\"id\":4,\"content\":\"[MASK]\",\"special\":true,\"normalized\":false,\"lstrip\":true}],"
    "\"normalizer\":{\"type\":\"BertNormalizer\",\"clean_text\":true,\"handle_chinese_chars\":true,\"strip_accents\":null,"
    "\"lowercase\":true},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},";
static const char json_post[] = "\"post_processor\":{\"type\":\"BertProcessing\",\"sep\":[\"[SEP]\",3],\"cls\":[\"[CLS]\",2]},";
static const char json_tail[] = "\"decoder\":{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true},\"model\":{\"type\":"
                                "\"WordPiece\",\"unk_token\":\"[UNK]\","
                                "\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":20,\"vocab\":{\"[PAD]\":0,"
                                "\"[UNK]\":1,\"[CLS]\":2,\"[SEP]\":3,"
                                "\"[MASK]\":4,\"un\":5,\"##aff\":6,\"##able\":7,\"fox\":8}}}";

static tf_tokenizer *open_vocab(void)
{
    tf_tokenizer *t = NULL;
    CHECK_OK(tf_tokenizer_open(write_text("vocab.txt", vocab), NULL, &t));
    return t;
}

static void test_encode(void)
{
    tf_tokenizer *t = open_vocab();
    tf_encoding *e;
    const tf_text texts[] = {tf_text_of("Unaffable \xc3\x89T\xc3\x89[MASK]."),
                             {NULL, 0},
                             {"a\0fox", 5},
                             tf_text_of("\xe4\xbd\xa0"
                                        "fox")};

    CHECK_OK(tf_encoding_open(t, &e));
    CHECK_INT(view(e).rows, 0);
    CHECK_OK(tf_tokenizer_encode(t, texts, NULL, 4, NULL, e));
    tf_encoding_data d = view(e);
    CHECK_INT(d.rows, 4);
    ROW_IDS(d, 0, CLS, UN, AFF, ABLE, ETE, MASK, DOT, SEP);
    ROW_IDS(d, 1, CLS, SEP);
    ROW_IDS(d, 2, CLS, UNK, SEP);
    ROW_IDS(d, 3, CLS, UNK, FOX, SEP);
    /* "Unaffable ÉTÉ[MASK].": the accents take two bytes and one code point each */
    CHECK_INT(d.byte_begin[4], 10);
    CHECK_INT(d.byte_end[4], 15);
    CHECK_INT(d.char_begin[4], 10);
    CHECK_INT(d.char_end[4], 13);
    CHECK_INT(d.byte_begin[5], 15);
    CHECK_INT(d.char_end[5], 19);
    CHECK_INT(d.word[3], 0);
    CHECK_INT(d.word[6], 3);
    CHECK_INT(d.sequence[0], -1);
    CHECK_INT(d.sequence[1], 0);
    CHECK_INT(d.byte_end[0], 0);
    CHECK_INT(d.row_text[3], 3);
    /* the control character is in the word's range: "a\0fox" */
    CHECK_INT(d.byte_end[d.row_start[2] + 1], 5);
    CHECK_OK(tf_tokenizer_encode(t, NULL, NULL, 0, NULL, e));
    CHECK_INT(view(e).rows, 0);
    tf_encoding_close(e);
    tf_tokenizer_close(t);
}

/* The caller's arrays: packed, padded on either side, some of them, too small. */
static void test_arrays(void)
{
    tf_tokenizer *t = open_vocab();
    tf_encoding *e;
    tf_encoding_arrays a;
    const tf_text texts[] = {tf_text_of("fox fox"), tf_text_of("two")};
    int64_t rows = -1, tokens = -1, row_start[3], row_text[2], places[2][8];
    int32_t ids[8] = {77}, numbers[4][8];

    CHECK_OK(tf_encoding_open(t, &e));
    tf_encoding_arrays_init(&a);
    CHECK_OK(tf_encoding_write(e, &a, &rows, &tokens));
    CHECK(rows == 0 && tokens == 0);
    CHECK_OK(tf_tokenizer_encode(t, texts, NULL, 2, NULL, e));
    a.ids = ids;
    a.row_start = row_start;
    a.row_capacity = 2;
    a.token_capacity = 6;
    CHECK_STATUS(tf_encoding_write(e, &a, &rows, &tokens), TF_STATUS_TOO_SMALL);
    CHECK(rows == 2 && tokens == 7 && ids[0] == 77);
    a.row_capacity = 1;
    a.token_capacity = 8;
    CHECK_STATUS(tf_encoding_write(e, &a, &rows, &tokens), TF_STATUS_TOO_SMALL);
    a.row_capacity = 2;
    CHECK_OK(tf_encoding_write(e, &a, &rows, &tokens));
    CHECK(memcmp(ids, (const int32_t[]){CLS, FOX, FOX, SEP, CLS, TWO, SEP}, 7 * 4) == 0);
    CHECK(row_start[1] == 4 && row_start[2] == 7);

    a.row_text = row_text;
    a.mask = numbers[0];
    a.type_ids = numbers[1];
    a.sequence = numbers[2];
    a.word = numbers[3];
    a.byte_begin = places[0];
    a.char_end = places[1];
    a.width = 0;
    a.pad_id = MASK;
    CHECK_OK(tf_encoding_write(e, &a, &rows, &tokens));
    CHECK(tokens == 8 && row_start[1] == 4 && row_start[2] == 8 && row_text[1] == 1);
    CHECK(memcmp(ids, (const int32_t[]){CLS, FOX, FOX, SEP, CLS, TWO, SEP, MASK}, sizeof ids) == 0);
    CHECK(memcmp(numbers[0], (const int32_t[]){1, 1, 1, 1, 1, 1, 1, 0}, sizeof ids) == 0);
    CHECK(numbers[1][7] == 0 && numbers[2][5] == 0 && numbers[2][7] == -1 && numbers[3][2] == 1 && numbers[3][7] == -1);
    CHECK(places[0][2] == 4 && places[1][5] == 3 && places[1][7] == 0);
    a.pad_side = TF_SIDE_LEFT;
    CHECK_OK(tf_encoding_write(e, &a, &rows, &tokens));
    CHECK(memcmp(ids, (const int32_t[]){CLS, FOX, FOX, SEP, MASK, CLS, TWO, SEP}, sizeof ids) == 0);
    CHECK(numbers[0][4] == 0 && places[1][4] == 0 && places[1][6] == 3);

    a.width = 3;
    CHECK_STATUS(tf_encoding_write(e, &a, &rows, &tokens), TF_STATUS_INVALID);
    CHECK_ERROR_SAYS("row 0 has 4 tokens");
    a.width = INT64_MAX;
    CHECK_STATUS(tf_encoding_write(e, &a, &rows, &tokens), TF_STATUS_INVALID);
    a.width = 5;
    CHECK_STATUS(tf_encoding_write(e, &a, &rows, &tokens), TF_STATUS_TOO_SMALL);
    CHECK_INT(tokens, 10);
    a.width = -1;
    CHECK_STATUS(tf_encoding_write(e, &a, &rows, &tokens), TF_STATUS_INVALID);
    a.width = TF_UNSET;
    a.pad_side = 2;
    CHECK_STATUS(tf_encoding_write(e, &a, &rows, &tokens), TF_STATUS_INVALID);
    CHECK_ERROR_SAYS("pad_side");
    CHECK_STATUS(tf_encoding_write(e, NULL, &rows, &tokens), TF_STATUS_INVALID);
    CHECK_STATUS(tf_encoding_write(NULL, &a, &rows, &tokens), TF_STATUS_INVALID);
    tf_encoding_close(e);
    tf_tokenizer_close(t);
}

/* Texts as large as those before take no memory, nor does writing them. */
static void test_steady_state(void)
{
    const tf_text texts[] = {tf_text_of("Unaffable fox, the fox [MASK] \xc3\xa9t\xc3\xa9"),
                             tf_text_of("bad \xff \xe4\xbd\xa0")};
    int32_t ids[64];
    int64_t rows, tokens;
    tf_tokenizer_options o;
    tf_tokenize_options set;
    tf_encoding_arrays a;
    tf_tokenizer *t;
    tf_encoding *e;
    check_memory m;

    check_memory_init(&m);
    tf_tokenizer_options_init(&o);
    tf_tokenize_options_init(&set);
    tf_encoding_arrays_init(&a);
    o.allocator = &m.hooks;
    set.replace_invalid = 1;
    a.row_capacity = 2;
    a.token_capacity = 64;
    a.ids = ids;
    CHECK_OK(tf_tokenizer_open(write_text("vocab.txt", vocab), &o, &t));
    CHECK_OK(tf_encoding_open(t, &e));
    for (int round = 0; round < 3; round++) {
        CHECK_OK(tf_tokenizer_encode(t, texts, texts, 2, &set, e));
        CHECK_OK(tf_encoding_write(e, &a, &rows, &tokens));
        m.fail_at = 1; /* from the second round on */
    }
    CHECK(!m.fail_hit);
    tf_encoding_close(e);
    tf_tokenizer_close(t);
}

static void test_pairs_and_windows(void)
{
    tf_tokenizer *t = open_vocab();
    tf_encoding *e;
    const tf_text a = tf_text_of("fox fox fox fox fox"), b = tf_text_of("two");
    tf_tokenize_options o;

    const tf_text empty = {NULL, 0};

    CHECK_OK(tf_encoding_open(t, &e));
    tf_tokenize_options_init(&o);
    CHECK_OK(tf_tokenizer_encode(t, &empty, &empty, 1, NULL, e));
    CHECK_INT(view(e).tokens, 3);
    CHECK_OK(tf_tokenizer_encode(t, &b, &a, 1, NULL, e));
    tf_encoding_data d = view(e);
    ROW_IDS(d, 0, CLS, TWO, SEP, FOX, FOX, FOX, FOX, FOX, SEP);
    CHECK_INT(d.type_ids[2], 0);
    CHECK_INT(d.type_ids[3], 1);
    CHECK_INT(d.sequence[3], 1);
    CHECK_INT(d.word[7], 4);

    o.truncation = TF_TRUNCATION_LONGEST_FIRST;
    o.max_length = 5;
    o.overflow = 1;
    o.stride = 1;
    CHECK_OK(tf_tokenizer_encode(t, &a, NULL, 1, &o, e));
    d = view(e);
    CHECK_INT(d.rows, 2);
    ROW_IDS(d, 0, CLS, FOX, FOX, FOX, SEP);
    ROW_IDS(d, 1, CLS, FOX, FOX, FOX, SEP);
    CHECK_INT(d.word[d.row_start[1] + 1], 2);

    o.truncation_side = TF_SIDE_LEFT;
    o.stride = 2;
    CHECK_OK(tf_tokenizer_encode(t, &a, NULL, 1, &o, e));
    d = view(e);
    CHECK_INT(d.rows, 3);
    CHECK_INT(d.word[1], 2);
    CHECK_INT(d.word[d.row_start[2] + 1], 0);

    o.stride = 3;
    CHECK_STATUS(tf_tokenizer_encode(t, &a, NULL, 1, &o, e), TF_STATUS_INVALID);
    CHECK_ERROR_SAYS("stride");
    CHECK_INT(view(e).rows, 0);
    o.stride = TF_UNSET;
    o.max_length = 1;
    CHECK_STATUS(tf_tokenizer_encode(t, &a, NULL, 1, &o, e), TF_STATUS_INVALID);
    CHECK_ERROR_SAYS("max_length is 1");
    o.truncation = TF_TRUNCATION_ONLY_SECOND;
    o.max_length = 4;
    CHECK_STATUS(tf_tokenizer_encode(t, &a, NULL, 1, &o, e), TF_STATUS_INVALID);
    CHECK_ERROR_SAYS("no second text");
    CHECK_STATUS(tf_tokenizer_encode(t, &a, &b, 1, &o, e), TF_STATUS_INVALID);
    CHECK_ERROR_SAYS("text 0: its second text has 1 tokens");
    o.max_length = TF_UNSET; /* no limit in the file: nothing is cut */
    CHECK_OK(tf_tokenizer_encode(t, &a, &b, 1, &o, e));
    CHECK_INT(view(e).tokens, 9);
    tf_encoding_close(e);
    tf_tokenizer_close(t);
}

static void test_invalid_text(void)
{
    tf_tokenizer *t = open_vocab();
    tf_encoding *e;
    const tf_text texts[] = {tf_text_of("fox"), tf_text_of("fox\xc3 \xe2\x82two\xff.")};
    tf_tokenize_options o;

    CHECK_OK(tf_encoding_open(t, &e));
    CHECK_STATUS(tf_tokenizer_encode(t, texts, NULL, 2, NULL, e), TF_STATUS_INVALID);
    CHECK_ERROR_SAYS("text 1: not UTF-8 at byte 3");
    CHECK_INT(view(e).rows, 0);
    CHECK_STATUS(tf_tokenizer_encode(t, texts, texts, 2, NULL, e), TF_STATUS_INVALID);
    tf_tokenize_options_init(&o);
    o.replace_invalid = 1;
    CHECK_OK(tf_tokenizer_encode(t, texts, NULL, 2, &o, e));
    const tf_encoding_data d = view(e);
    ROW_IDS(d, 1, CLS, FOX, TWO, DOT, SEP);
    const int64_t first = d.row_start[1];
    CHECK_INT(d.byte_begin[first + 2], 7);
    CHECK_INT(d.byte_end[first + 2], 10);
    CHECK_INT(d.char_begin[first + 2], 6);
    CHECK_INT(d.byte_begin[first + 3], 11);
    tf_encoding_close(e);
    tf_tokenizer_close(t);
}

static void test_decode(void)
{
    tf_tokenizer *t = open_vocab();
    const int32_t ids[] = {CLS, UN, AFF, ABLE, FOX, S, COMMA, THE, DOT, SEP}, bad[] = {FOX, VOCAB};
    char text[64] = "untouched";
    int64_t size;
    tf_decode_options o;

    tf_decode_options_init(&o);
    CHECK_STATUS(tf_tokenizer_decode(t, ids, 10, NULL, text, 3, &size), TF_STATUS_TOO_SMALL);
    CHECK_TEXT(text, "untouched");
    CHECK_OK(tf_tokenizer_decode(t, ids, 10, NULL, text, sizeof text, &size));
    text[size] = 0;
    CHECK_TEXT(text, "[CLS] unaffable foxs, the. [SEP]");
    o.skip_special_tokens = 1;
    CHECK_OK(tf_tokenizer_decode(t, ids, 10, &o, text, sizeof text, &size));
    text[size] = 0;
    CHECK_TEXT(text, "unaffable foxs, the.");
    CHECK_OK(tf_tokenizer_decode(t, NULL, 0, &o, NULL, 0, &size));
    CHECK_INT(size, 0);
    CHECK_STATUS(tf_tokenizer_decode(t, bad, 2, NULL, text, sizeof text, &size), TF_STATUS_INVALID);
    CHECK_ERROR_SAYS("ids[1] is 15");
    o.clean_up = 2;
    CHECK_STATUS(tf_tokenizer_decode(t, ids, 1, &o, text, sizeof text, &size), TF_STATUS_INVALID);
    tf_tokenizer_close(t);
}

static void test_info(void)
{
    tf_tokenizer *t = open_vocab();
    tf_tokenizer_info i;
    const char *token;
    int32_t id;

    tf_tokenizer_info_init(&i);
    CHECK_OK(tf_tokenizer_get_info(t, &i));
    CHECK_TEXT(i.model, "WordPiece");
    CHECK_INT(i.vocab_size, VOCAB);
    CHECK_INT(i.model_max_length, INT32_MAX);
    CHECK_INT(i.mask_id, MASK);
    CHECK_INT(i.bos_id, -1);
    CHECK_INT(i.special_tokens_single, 2);
    CHECK_INT(i.special_tokens_pair, 3);
    CHECK_INT(i.lowercase, 1);
    CHECK_OK(tf_tokenizer_token(t, AFF, &token));
    CHECK_TEXT(token, "##aff");
    CHECK_STATUS(tf_tokenizer_token(t, -1, &token), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_token(t, VOCAB, &token), TF_STATUS_INVALID);
    CHECK_OK(tf_tokenizer_id(t, tf_text_of("fox"), &id));
    CHECK_INT(id, FOX);
    CHECK_STATUS(tf_tokenizer_id(t, tf_text_of("fo"), &id), TF_STATUS_NOT_FOUND);
    CHECK_INT(id, -1);
    tf_tokenizer_close(t);
}

static void test_null_arguments(void)
{
    tf_tokenizer *t = open_vocab(), *none;
    tf_encoding *e;
    tf_encoding_data d;
    tf_tokenizer_info i;
    const tf_text null_text = {NULL, 3}, null_string = {NULL, -1}, endless = {"x", INT64_MAX};
    int64_t size;
    const char *token;
    int32_t id;

    tf_encoding_data_init(&d);
    tf_tokenizer_info_init(&i);
    CHECK_OK(tf_encoding_open(t, &e));
    CHECK_STATUS(tf_tokenizer_open(NULL, NULL, &none), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_open("/", NULL, NULL), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_get_info(NULL, &i), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_get_info(t, NULL), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_token(NULL, 0, &token), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_token(t, 0, NULL), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_id(t, null_text, &id), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_id(t, tf_text_of("x"), NULL), TF_STATUS_INVALID);
    CHECK_STATUS(tf_encoding_open(NULL, &e), TF_STATUS_INVALID);
    CHECK_STATUS(tf_encoding_open(t, NULL), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_encode(NULL, &null_text, NULL, 1, NULL, e), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_encode(t, &null_text, NULL, 1, NULL, NULL), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_encode(t, NULL, NULL, 1, NULL, e), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_encode(t, NULL, NULL, -1, NULL, e), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_encode(t, &null_text, NULL, 1, NULL, e), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_encode(t, &null_string, NULL, 1, NULL, e), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_encode(t, &endless, &endless, 1, NULL, e), TF_STATUS_INVALID);
    CHECK_ERROR_SAYS("text 0: 9223372036854775807 bytes");
    CHECK_STATUS(tf_encoding_get(NULL, &d), TF_STATUS_INVALID);
    CHECK_STATUS(tf_encoding_get(e, NULL), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_decode(NULL, NULL, 0, NULL, NULL, 0, &size), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_decode(t, NULL, 1, NULL, NULL, 0, &size), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_decode(t, NULL, 0, NULL, NULL, 0, NULL), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_decode(t, NULL, 0, NULL, NULL, -1, &size), TF_STATUS_INVALID);
    tf_encoding_close(e);
    tf_encoding_close(NULL);
    tf_tokenizer_close(t);
    tf_tokenizer_close(NULL);
}

static void test_struct_sizes(void)
{
    tf_tokenizer *t = open_vocab(), *other;
    tf_encoding *e;
    const tf_text a = tf_text_of("fox fox");
    struct {
        tf_tokenize_options o;
        int32_t later[2];
    } newer;
    struct {
        tf_encoding_data d;
        int64_t later;
    } data;
    tf_tokenizer_options open_options;

    CHECK_OK(tf_encoding_open(t, &e));
    tf_tokenize_options_init(&newer.o);
    newer.o.struct_size = sizeof newer;
    newer.later[0] = TF_UNSET;
    newer.later[1] = 0;
    CHECK_OK(tf_tokenizer_encode(t, &a, NULL, 1, &newer.o, e));
    newer.later[1] = 7;
    CHECK_STATUS(tf_tokenizer_encode(t, &a, NULL, 1, &newer.o, e), TF_STATUS_UNSUPPORTED);
    /* one field older: threads is not looked at */
    newer.o.struct_size = offsetof(tf_tokenize_options, threads);
    newer.o.threads = -5;
    CHECK_OK(tf_tokenizer_encode(t, &a, NULL, 1, &newer.o, e));
    newer.o.struct_size = sizeof newer.o;
    CHECK_STATUS(tf_tokenizer_encode(t, &a, NULL, 1, &newer.o, e), TF_STATUS_INVALID);
    CHECK_ERROR_SAYS("threads is -5");
    newer.o.struct_size = 4;
    CHECK_STATUS(tf_tokenizer_encode(t, &a, NULL, 1, &newer.o, e), TF_STATUS_INVALID);
    CHECK_OK(tf_tokenizer_encode(t, &a, NULL, 1, NULL, e));
    data.d.struct_size = sizeof data;
    data.later = 77;
    CHECK_OK(tf_encoding_get(e, &data.d));
    CHECK_INT(data.later, 77);
    data.d.struct_size = offsetof(tf_encoding_data, tokens);
    data.d.tokens = 77;
    CHECK_OK(tf_encoding_get(e, &data.d));
    CHECK_INT(data.d.rows, 1);
    CHECK_INT(data.d.tokens, 77);
    tf_tokenizer_options_init(&open_options);
    open_options.allocator = &(const tf_allocator){0};
    CHECK_STATUS(tf_tokenizer_open("/", &open_options, &other), TF_STATUS_INVALID);
    tf_encoding_close(e);
    tf_tokenizer_close(t);
}

static void refuse_text(const char *name, const char *text, tf_status status, const char *part)
{
    refuse(write_text(name, text), status, part);
}

static void test_bad_vocab(void)
{
    tf_tokenizer *t;

    refuse_text("a.txt", "", TF_STATUS_CORRUPT, "unknown token \"[UNK]\"");
    refuse_text("a.txt", "[PAD]\nfox\n", TF_STATUS_CORRUPT, "[UNK]");
    refuse_text("a.txt", "[UNK]\nf\xffx\n", TF_STATUS_CORRUPT, "not UTF-8 at byte 7");
    CHECK_STATUS(tf_tokenizer_open(check_path("missing"), NULL, &t), TF_STATUS_NOT_FOUND);
    CHECK_ERROR_SAYS("missing");
    CHECK_OK(tf_tokenizer_open(write_text("a.txt", "[UNK]"), NULL, &t)); /* no [CLS]: added at the end, as the reference does */
    tf_tokenizer_info i;
    tf_tokenizer_info_init(&i);
    CHECK_OK(tf_tokenizer_get_info(t, &i));
    CHECK_INT(i.vocab_size, 5);
    tf_tokenizer_close(t);
}

static void test_bad_json(void)
{
    char text[4096], deep[512];
    tf_tokenizer *t;

    snprintf(text, sizeof text, "%s%s%s", json_head, json_post, json_tail);
    CHECK_OK(tf_tokenizer_open(write_text("a.json", text), NULL, &t));
    tf_tokenizer_close(t);
    for (size_t n = 0; n < strlen(text); n += 7) { /* cut anywhere */
        char cut[4096];
        memcpy(cut, text, n);
        cut[n] = 0;
        refuse_text("a.json", cut, TF_STATUS_CORRUPT, "a.json");
    }
    memset(deep, '[', sizeof deep - 1);
    deep[sizeof deep - 1] = 0;
    refuse_text("a.json", deep, TF_STATUS_CORRUPT, "deeper");
    refuse_text("a.json", "[]", TF_STATUS_CORRUPT, "not an object");
    refuse_text("a.json", "{}", TF_STATUS_CORRUPT, "\"model\"");
    refuse_text("a.json", "{\"model\":1}", TF_STATUS_CORRUPT, "\"model\"");
    refuse_text("a.json", "{\"model\":{\"type\":\"Words\"}}", TF_STATUS_UNSUPPORTED, "Words");
    refuse_text("a.json", "{\"model\":{\"type\":\"WordLevel\"}}", TF_STATUS_CORRUPT, "model.vocab");
    refuse_text("a.json", "{\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0},\"merges\":[\"a b\" 1]}}", TF_STATUS_CORRUPT,
                "model.merges");
    refuse_text("a.json", "{\"model\":{\"unk_id\":0}}", TF_STATUS_CORRUPT, "model.vocab"); /* Unigram */
    refuse_text("a.json", "{\"model\":{\"type\":\"WordPiece\",\"vocab\":[]}}", TF_STATUS_CORRUPT, "model.vocab");
    refuse_text("a.json", "{\"model\":{\"vocab\":{\"a\":0,\"a\":1}}}", TF_STATUS_CORRUPT, "duplicate");
    refuse_text("a.json", "{\"model\":{\"vocab\":{\"a\":99999999}}}", TF_STATUS_CORRUPT, "\"a\"");
    refuse_text("a.json", "{\"model\":{\"vocab\":{\"a\":-1}}}", TF_STATUS_CORRUPT, "\"a\"");
    refuse_text("a.json", "{\"model\":{\"vocab\":{\"a\":1e0}}}", TF_STATUS_CORRUPT, "\"a\"");
    refuse_text("a.json", "{\"model\":{\"vocab\":{\"a\":1.0}}}", TF_STATUS_CORRUPT, "\"a\"");
    refuse_text("a.json", "{\"model\":{\"vocab\":{\"\\ud800\":1}}}", TF_STATUS_CORRUPT, "escape");
    refuse_text("a.json", "{\"model\":{\"vocab\":{\"a\":\"b\"}}}", TF_STATUS_CORRUPT, "\"a\"");
    refuse_text("a.json", "{\"model\":{\"vocab\":{\"a\":0}}}", TF_STATUS_CORRUPT, "unknown token");
    refuse_text("a.json", "{\"normalizer\":{\"type\":\"NFX\"},\"model\":{\"vocab\":{\"[UNK]\":0}}}", TF_STATUS_UNSUPPORTED,
                "NFX");
    refuse_text("a.json", "{\"normalizer\":{},\"model\":{\"vocab\":{\"[UNK]\":0}}}", TF_STATUS_CORRUPT, "normalizer");
    snprintf(text, sizeof text, "%s\"post_processor\":{\"type\":\"RobertaProcessing\"},%s", json_head, json_tail);
    refuse_text("a.json", text, TF_STATUS_CORRUPT, "\"cls\"");
    snprintf(text, sizeof text, "%s\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"x\",9999]},%s", json_head,
             json_tail);
    refuse_text("a.json", text, TF_STATUS_CORRUPT, "cls");
    snprintf(text, sizeof text,
             "%s\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"B\"}}]},%s", json_head,
             json_tail);
    refuse_text("a.json", text, TF_STATUS_CORRUPT, "Sequence");
    snprintf(text, sizeof text,
             "%s\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"X\"}}]},%s",
             json_head, json_tail);
    refuse_text("a.json", text, TF_STATUS_CORRUPT, "special_tokens");
}

static void test_directories(void)
{
    tf_tokenizer *t;
    tf_tokenizer_info i;

    tf_tokenizer_info_init(&i);
    refuse(write_files("d0", (const char *const[]){NULL}), TF_STATUS_NOT_FOUND, "neither tokenizer.json nor vocab.txt");
    refuse(DIR("d1", "spiece.model", "x"), TF_STATUS_UNSUPPORTED, "spiece.model");
    refuse(DIR("d2", "vocab.txt", vocab, "tokenizer_config.json", "{\"tokenizer_class\":\"BertJapaneseTokenizer\"}"),
           TF_STATUS_UNSUPPORTED, "basic");
    refuse(DIR("d3", "vocab.txt", vocab, "tokenizer_config.json", "{\"word_tokenizer_type\":\"mecab\"}"), TF_STATUS_UNSUPPORTED,
           "mecab");
    refuse(DIR("d4", "vocab.txt", vocab, "config.json", "{\"model_type\":\"xlnet\"}"), TF_STATUS_UNSUPPORTED, "xlnet");
    refuse(DIR("d5", "vocab.txt", vocab, "tokenizer_config.json", "{\"do_lower_case\":3}"), TF_STATUS_CORRUPT, "do_lower_case");
    refuse(DIR("d6", "vocab.txt", vocab, "tokenizer_config.json", "{\"truncation_side\":\"up\"}"), TF_STATUS_CORRUPT, "up");
    refuse(DIR("d7", "vocab.txt", vocab, "tokenizer_config.json", "{\"added_tokens_decoder\":{\"x\":{}}}"), TF_STATUS_CORRUPT,
           "added_tokens_decoder");
    refuse(DIR("d8", "vocab.txt", vocab, "added_tokens.json", "{\"a\":1e9}"), TF_STATUS_CORRUPT, "\"a\"");
    refuse(DIR("d9", "vocab.txt", vocab, "tokenizer_config.json", "{\"mask_token\":[]}"), TF_STATUS_CORRUPT, "mask_token");
    refuse(DIR("da", "vocab.txt", vocab, "tokenizer_config.json", "{\"sep_token\":\"\"}"), TF_STATUS_CORRUPT, "sep_token");
    CHECK_OK(tf_tokenizer_open(DIR("e0", "vocab.txt", vocab, "tokenizer_config.json",
                                   "{\"model_max_length\":1000000000000000019884624838656,"
                                   "\"do_lower_case\":false}"),
                               NULL, &t));
    CHECK_OK(tf_tokenizer_get_info(t, &i));
    CHECK_INT(i.model_max_length, INT32_MAX);
    CHECK_INT(i.lowercase, 0);
    tf_tokenizer_close(t);
}

static void remember(void *user, tf_log_level level, const char *text)
{
    (void)level;
    snprintf(user, 200, "%s", text);
}

static void test_log(void)
{
    char text[4096], said[200] = "";
    tf_tokenizer_options o;
    tf_tokenizer *t;
    int32_t id;

    tf_tokenizer_options_init(&o);
    o.log = remember;
    o.log_user = said;
    snprintf(text, sizeof text,
             "{\"added_tokens\":[{\"id\":40,\"content\":\"new\"}],\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},%s",
             json_tail);
    CHECK_OK(tf_tokenizer_open(write_text("log.json", text), &o, &t));
    CHECK(strstr(said, "\"new\" says id 40 and gets 9") != NULL);
    CHECK_OK(tf_tokenizer_id(t, tf_text_of("new"), &id));
    CHECK_INT(id, 9);
    tf_tokenizer_close(t);
}

static void test_allocations(void)
{
    static const char words[] = "Unaffable fox [MASK] \xc3\xa9t\xc3\xa9\xcc\xa7\xcc\x81\xe1\xb7\xba\xcc\x96";
    char text[4096];

    fail_each_allocation(DIR("m0", "vocab.txt", vocab, "tokenizer_config.json",
                             "{\"added_tokens_decoder\":{\"20\":{\"content\":\"Two\"},"
                             "\"4\":{\"content\":\"[MASK]\",\"special\":true}}}"),
                         words, VOCAB);
    snprintf(text, sizeof text, "%s%s%s", json_head, json_post, json_tail);
    fail_each_allocation(write_text("m.json", text), words, 9);
}

/* Many threads on one tokenizer, each asking for threads of its own. */
static tf_tokenizer *shared;

static void *encode_much(void *arg)
{
    enum { TEXTS = 400 };
    static const char line[] =
        "Unaffable fox, the fox. \xc3\xa9t\xc3\xa9 two\xe2\x80\x99s [MASK] unaffable unaffable unaffable unaffable fox fox fox";
    tf_text texts[TEXTS];
    tf_tokenize_options o;
    tf_encoding *e, *one;

    (void)arg;
    for (int i = 0; i < TEXTS; i++) texts[i] = (tf_text){line, (int64_t)sizeof line - 1 - 6 * (i % 3)};
    tf_tokenize_options_init(&o);
    o.threads = 4;
    CHECK_OK(tf_encoding_open(shared, &e));
    CHECK_OK(tf_encoding_open(shared, &one));
    CHECK_OK(tf_tokenizer_encode(shared, texts, NULL, TEXTS, &o, e));
    CHECK_OK(tf_tokenizer_encode(shared, texts, NULL, TEXTS, NULL, one));
    const tf_encoding_data a = view(e), b = view(one);
    CHECK_INT(a.rows, TEXTS);
    CHECK_INT(a.tokens, b.tokens);
    CHECK(memcmp(a.ids, b.ids, (size_t)a.tokens * 4) == 0);
    CHECK(memcmp(a.char_end, b.char_end, (size_t)a.tokens * 8) == 0);
    CHECK(memcmp(a.row_start, b.row_start, (TEXTS + 1) * 8) == 0);
    CHECK(memcmp(a.row_text, b.row_text, TEXTS * 8) == 0);
    texts[TEXTS - 1] = tf_text_of("\x80");
    CHECK_STATUS(tf_tokenizer_encode(shared, texts, NULL, TEXTS, &o, e), TF_STATUS_INVALID);
    CHECK_ERROR_SAYS("text 399: not UTF-8 at byte 0");
    tf_encoding_close(e);
    tf_encoding_close(one);
    return NULL;
}

static void test_threads(void)
{
    pthread_t id;

    shared = open_vocab();
    CHECK(pthread_create(&id, NULL, encode_much, NULL) == 0);
    (void)pthread_join(id, NULL); /* one after the other: the checks' counters are not atomic */
    encode_much(NULL);
    const pid_t child = fork();
    if (child == 0) {
        encode_much(NULL);
        _exit(0);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    tf_tokenizer_close(shared);
}

/* One line without end must take time in proportion: here only that it works, and on a small stack. */
static void *encode_long(void *arg)
{
    enum { BYTES = 3 << 20 };
    tf_tokenizer *t = arg;
    char *text = malloc(BYTES);
    tf_encoding *e;

    CHECK_OK(tf_encoding_open(t, &e));
    static const char *const units[] = {"a",      "fox ", "\xcc\x81", "\xe1\xb7\xba\xcc\x96", "\xe4\xbd\xa0", "\xd0\x96",
                                        "[MASK]", "[",    "\xff"};
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
        const size_t n = strlen(units[u]);
        for (size_t at = 0; at < BYTES; at++) text[at] = units[u][at % n];
        tf_tokenize_options o;
        tf_tokenize_options_init(&o);
        o.replace_invalid = 1;
        CHECK_OK(tf_tokenizer_encode(t, &(tf_text){text, BYTES}, NULL, 1, &o, e));
        CHECK_INT(view(e).rows, 1);
    }
    tf_encoding_close(e);
    free(text);
    return NULL;
}

static void test_long_text(void)
{
    tf_tokenizer *t = open_vocab();
    pthread_attr_t attr;
    pthread_t id;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 128 << 10);
    CHECK(pthread_create(&id, &attr, encode_long, t) == 0);
    (void)pthread_join(id, NULL);
    pthread_attr_destroy(&attr);
    tf_tokenizer_close(t);
}

int main(int argc, char **argv)
{
    check_run(argc, argv, "encode", test_encode);
    check_run(argc, argv, "arrays", test_arrays);
    check_run(argc, argv, "steady_state", test_steady_state);
    check_run(argc, argv, "pairs_and_windows", test_pairs_and_windows);
    check_run(argc, argv, "invalid_text", test_invalid_text);
    check_run(argc, argv, "decode", test_decode);
    check_run(argc, argv, "info", test_info);
    check_run(argc, argv, "null_arguments", test_null_arguments);
    check_run(argc, argv, "struct_sizes", test_struct_sizes);
    check_run(argc, argv, "bad_vocab", test_bad_vocab);
    check_run(argc, argv, "bad_json", test_bad_json);
    check_run(argc, argv, "directories", test_directories);
    check_run(argc, argv, "log", test_log);
    check_run(argc, argv, "allocations", test_allocations);
    check_run(argc, argv, "threads", test_threads);
    check_run(argc, argv, "long_text", test_long_text);
    return check_done();
}
