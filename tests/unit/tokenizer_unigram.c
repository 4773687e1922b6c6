/* Unigram on files made here: pieces and their scores, SentencePiece's rules, streams, bad files, failing
 * allocations. What the tokens must be for real vocabularies is the conformance tests' business. */
#include <stdlib.h>
#include <sys/stat.h>

#include "tokenizing.h"

#define MARK "\xe2\x96\x81"

enum { PAD, EOS, UNK, SPACE, A, B, AB, MARK_AB, C, VOCAB };

/* The unknown piece is at id `unk`, 2 or 0. */
static void model(writer *w, int unk)
{
    writer trainer = {.size = 0};

    w->size = 0;
    put_piece(w, unk == 0 ? "<unk>" : "<pad>", 0, unk == 0 ? 2 : 3);
    put_piece(w, "</s>", 0, 3);
    put_piece(w, unk == 2 ? "<unk>" : "<s>", 0, unk == 2 ? 2 : 3);
    put_piece(w, MARK, -2, 1);
    put_piece(w, "a", -3, 1);
    put_piece(w, "b", -3, 1);
    put_piece(w, "ab", -4, 1);
    put_piece(w, MARK "ab", -5, 1);
    put_piece(w, "c", -4, 1);
    put_number(&trainer, 3, 1);
    trainer.data[trainer.size++] = 0xc0; /* field 40 */
    trainer.data[trainer.size++] = 0x02;
    trainer.data[trainer.size++] = (uint8_t)unk;
    put_bytes(w, 2, trainer.data, trainer.size);
}

static const char *write_dir(const char *name, const writer *w, const char *config)
{
    const char *path = check_path(name);
    char file[1024];

    (void)mkdir(path, 0777);
    snprintf(file, sizeof file, "%s/spiece.model", path);
    check_write(file, w->data, w->size);
    snprintf(file, sizeof file, "%s/tokenizer_config.json", path);
    check_write(file, config, strlen(config));
    return path;
}

static const char t5[] = "{\"tokenizer_class\":\"T5Tokenizer\",\"extra_ids\":2}";

static void test_class(void)
{
    writer w;
    tf_tokenizer *t;

    model(&w, 2);
    CHECK_OK(tf_tokenizer_open(write_dir("t5", &w, t5), NULL, &t));
    TEXT_IDS(t, "ab", MARK_AB, EOS);
    TEXT_IDS(t, " abab\n", MARK_AB, AB, EOS);
    TEXT_IDS(t, "xyz a", SPACE, UNK, SPACE, A, EOS); /* unknown ones are one token */
    TEXT_IDS(t, "<extra_id_0>c", VOCAB + 1, SPACE, C, EOS);
    TEXT_IDS(t, "", EOS);
    tf_tokenizer_close(t);
}

static void test_own_rules(void)
{
    writer w, normalizer = {.size = 0};
    tf_tokenizer *t;
    const char *path = check_path("own.model");
    char text[32];
    int64_t size;

    model(&w, 0);
    put_number(&normalizer, 3, 0); /* no space in front */
    put_bytes(&w, 3, normalizer.data, normalizer.size);
    check_write(path, w.data, w.size);
    CHECK_OK(tf_tokenizer_open(path, NULL, &t));
    TEXT_IDS(t, "  ab  ab ", AB, MARK_AB);
    TEXT_IDS(t, "</s>", 0); /* no special tokens in the text */
    CHECK_OK(tf_tokenizer_decode(t, (const int32_t[]){MARK_AB, MARK_AB, 0, 1}, 4, NULL, text, sizeof text, &size));
    tf_tokenizer_close(t);
}

/* The same text piece by piece, without an allocation. */
static void test_stream(void)
{
    static const int32_t ids[] = {MARK_AB, C, UNK, SPACE, VOCAB, A, MARK_AB, EOS};
    tf_tokenizer_options o;
    check_memory m;
    writer w;
    tf_tokenizer *t;
    tf_stream *s;
    const char *piece;
    char whole[128], text[128];
    int64_t size, n, at = 0;

    model(&w, 2);
    check_memory_init(&m);
    tf_tokenizer_options_init(&o);
    o.allocator = &m.hooks;
    CHECK_OK(tf_tokenizer_open(write_dir("t5", &w, t5), &o, &t));
    CHECK_OK(tf_tokenizer_decode(t, ids, 8, NULL, whole, sizeof whole, &size));
    CHECK_OK(tf_stream_open(t, NULL, &s));
    m.fail_at = 1;
    m.fail_hit = 0;
    for (int round = 0; round < 2; round++, at = 0) {
        for (int i = 0; i <= 8; i++) {
            CHECK_OK(i < 8 ? tf_stream_push(s, ids[i], &piece, &n) : tf_stream_finish(s, &piece, &n));
            memcpy(text + at, piece, (size_t)n);
            at += n;
        }
        CHECK_INT(at, size);
        CHECK(memcmp(text, whole, (size_t)size) == 0);
    }
    CHECK(!m.fail_hit);
    m.fail_at = 0;
    CHECK_INT(tf_stream_push(s, -1, &piece, &n), TF_STATUS_INVALID);
    CHECK_INT(tf_stream_push(s, VOCAB + 2, &piece, &n), TF_STATUS_INVALID);
    CHECK_INT(tf_stream_push(NULL, 0, &piece, &n), TF_STATUS_INVALID);
    CHECK_INT(tf_stream_finish(s, NULL, &n), TF_STATUS_INVALID);
    tf_stream_close(s);
    tf_stream_close(NULL);
    tf_stream_reset(NULL);
    tf_tokenizer_close(t);
    CHECK_INT(m.live_blocks, 0);
}

static void refuse_model(const writer *w, tf_status status, const char *part)
{
    const char *path = check_path("bad.model");

    check_write(path, w->data, w->size);
    refuse(path, status, part);
}

static void test_bad_files(void)
{
    static const uint8_t one_unit[] = {4, 0, 0, 0, 255, 255, 255, 255, 'a'}; /* crashes libsentencepiece 0.1.97 */
    writer w, normalizer = {.size = 0};
    tf_tokenizer *t;

    model(&w, 0);
    put_bytes(&normalizer, 2, one_unit, sizeof one_unit);
    put_bytes(&w, 3, normalizer.data, normalizer.size);
    check_write(check_path("odd.model"), w.data, w.size);
    CHECK_OK(tf_tokenizer_open(check_path("odd.model"), NULL, &t));
    TEXT_IDS(t, "ab", MARK_AB);
    tf_tokenizer_close(t);
    normalizer.size = 0;
    put_bytes(&normalizer, 2, one_unit, 3);
    model(&w, 0);
    put_bytes(&w, 3, normalizer.data, normalizer.size);
    refuse_model(&w, TF_STATUS_CORRUPT, "precompiled_charsmap");
    model(&w, 0);
    w.size--;
    refuse_model(&w, TF_STATUS_CORRUPT, "malformed at byte");
    model(&w, 0);
    put_piece(&w, "", 0, 1);
    refuse_model(&w, TF_STATUS_CORRUPT, "piece 9 is empty");
    model(&w, 0);
    put_piece(&w, "ab", 0, 1);
    refuse_model(&w, TF_STATUS_CORRUPT, "there twice");
    model(&w, 0);
    put_piece(&w, "z", (float)strtod("nan", NULL), 1);
    refuse_model(&w, TF_STATUS_CORRUPT, "score");
    model(&w, 0);
    put_piece(&w, "\xff", 0, 1);
    refuse_model(&w, TF_STATUS_CORRUPT, "UTF-8");
    w.size = 0;
    refuse_model(&w, TF_STATUS_CORRUPT, "no pieces");
    model(&w, 1);
    refuse_model(&w, TF_STATUS_CORRUPT, "unk_id");
}

static void test_allocations(void)
{
    static const char json[] =
        "{\"added_tokens\":[{\"id\":3,\"content\":\"<x>\",\"normalized\":true}],\"model\":{\"type\":\"Unigram\",\"unk_id\":0,"
        "\"vocab\":[[\"<unk>\",0],[\"a\",-1.5],[\"b\",-2],[\"ab\",-3.1234567890123456],[\"c\",-1],[\"" MARK "\",-1],[\"d\",-1],"
        "[\"e\",-1],[\"f\",-1]]},\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Lowercase\"},"
        "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\" "
        "\"}]},\"pre_tokenizer\":{\"type\":\"Metaspace\"},"
        "\"decoder\":{\"type\":\"Metaspace\"}}";
    static const char text[] = " ab abab\xc3\xa9 xyz<extra_id_1>";
    writer w;

    model(&w, 2);
    fail_each_allocation(write_dir("t5", &w, t5), text, VOCAB);
    model(&w, 0);
    fail_each_allocation(write_dir("rinna", &w, "{\"tokenizer_class\":\"T5Tokenizer\",\"extra_ids\":2,\"do_lower_case\":true}"),
                         text, VOCAB);
    fail_each_allocation(write_text("u.json", json), text, 9);
}

int main(int argc, char **argv)
{
    check_run(argc, argv, "class", test_class);
    check_run(argc, argv, "own_rules", test_own_rules);
    check_run(argc, argv, "stream", test_stream);
    check_run(argc, argv, "bad_files", test_bad_files);
    check_run(argc, argv, "allocations", test_allocations);
    return check_done();
}
