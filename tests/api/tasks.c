/* What every task's numbers must satisfy whatever the weights are, and that a result does not depend on its batch. Equality
 * with transformers is tests/conformance's work. */
#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "tiny_model.h"

enum { TEXTS = 6 };
static const char *const lines[TEXTS] = {"the cat sat on a mat.",
                                         "rates rose again!",
                                         "",
                                         "who lives in paris? is the cat in?",
                                         "a",
                                         "x y z the the the the the the the the the the cats sitting on rates."};

static void embed_is_normalised(void)
{
    tf_text texts[TEXTS];
    float *out = check_out(TEXTS * (TINY_WIDTH + 3)), raw[TEXTS * TINY_WIDTH];
    tf_embed_options o;
    tf_model *m;
    tf_session *s;

    tiny_open(TINY_BASE, NULL, &m, &s);
    for (int i = 0; i < TEXTS; i++) texts[i] = tf_text_of(lines[i]);
    const tf_input in = tiny_texts(texts, TEXTS);
    CHECK_OK(tf_embed(s, &in, NULL, out, TINY_WIDTH + 3));
    tf_embed_options_init(&o);
    o.normalize = 0;
    CHECK_OK(tf_embed(s, &in, &o, raw, TINY_WIDTH));
    for (int i = 0; i < TEXTS; i++) {
        const float *row = out + i * (TINY_WIDTH + 3);
        double square = 0, raw_square = 0;
        for (int k = 0; k < TINY_WIDTH; k++) square += (double)row[k] * row[k];
        for (int k = 0; k < TINY_WIDTH; k++) raw_square += (double)raw[i * TINY_WIDTH + k] * raw[i * TINY_WIDTH + k];
        CHECK(fabs(square - 1) < 1e-5);
        CHECK(fabs(raw_square - 1) > 1e-3);
        if (i < TEXTS - 1) CHECK(isnan(row[TINY_WIDTH])); /* the stride's gap is not written */
    }
    tf_session_close(s);
    tf_model_close(m);
}

static void rows_do_not_depend_on_the_batch(void)
{
    tf_text texts[TEXTS];
    float all[TEXTS * TINY_WIDTH], alone[TINY_WIDTH], steps[TEXTS * TINY_WIDTH];
    tf_session_options so;
    tf_model *m;
    tf_session *s, *narrow;

    tiny_open(TINY_BASE, NULL, &m, &s);
    tf_session_options_init(&so);
    so.max_step_tokens = TINY_POSITIONS;
    so.max_sequences = 2;
    CHECK_OK(tf_session_open(m, &so, &narrow));
    for (int i = 0; i < TEXTS; i++) texts[i] = tf_text_of(lines[i]);
    const tf_input in = tiny_texts(texts, TEXTS);
    CHECK_OK(tf_embed(s, &in, NULL, all, TINY_WIDTH));
    CHECK_OK(tf_embed(narrow, &in, NULL, steps, TINY_WIDTH));
    CHECK(check_relative_l2(steps, all, TEXTS * TINY_WIDTH) <= 2e-6);
    for (int i = 0; i < TEXTS; i++) {
        const tf_input one = tiny_texts(&texts[i], 1);
        CHECK_OK(tf_embed(s, &one, NULL, alone, TINY_WIDTH));
        CHECK(check_relative_l2(alone, all + i * TINY_WIDTH, TINY_WIDTH) <= 2e-6);
    }
    tf_session_close(narrow);
    tf_session_close(s);
    tf_model_close(m);
}

/* A text and its ids give the same, to the bit. */
static void texts_and_ids_agree(void)
{
    const tf_text text = tf_text_of(lines[3]);
    tf_input in = tiny_texts(&text, 1), by_ids;
    float by_text[TINY_WIDTH], out[TINY_WIDTH];
    const tf_tokenizer *t;
    tf_encoding *e;
    tf_encoding_data d;
    tf_model *m;
    tf_session *s;

    tiny_open(TINY_BASE, NULL, &m, &s);
    CHECK_OK(tf_model_tokenizer(m, &t));
    CHECK_OK(tf_encoding_open(t, &e));
    CHECK_OK(tf_tokenizer_encode(t, &text, NULL, 1, NULL, e));
    tf_encoding_data_init(&d);
    CHECK_OK(tf_encoding_get(e, &d));
    const int32_t len = (int32_t)d.tokens;
    tf_input_init(&by_ids);
    by_ids.ids = d.ids;
    by_ids.lens = &len;
    by_ids.count = 1;
    CHECK_OK(tf_embed(s, &in, NULL, by_text, TINY_WIDTH));
    CHECK_OK(tf_embed(s, &by_ids, NULL, out, TINY_WIDTH));
    CHECK(memcmp(by_text, out, sizeof out) == 0);
    tf_encoding_close(e);
    tf_session_close(s);
    tf_model_close(m);
}

static void encode_gives_every_tensor(void)
{
    enum { TOKENS = 5, ALL = TINY_LAYERS + 1 };
    static const int32_t ids[TOKENS] = {TINY_CLS, 5, 6, 7, TINY_SEP}, len = TOKENS, layers[ALL] = {0, 1, 2};
    float *hidden = check_out(ALL * TOKENS * TINY_WIDTH), *pooled = check_out(TINY_WIDTH),
          *last = check_out(TOKENS * TINY_WIDTH);
    tf_encode_output o;
    tf_input in;
    tf_model *m;
    tf_session *s;

    tiny_open(TINY_BASE, NULL, &m, &s);
    tf_input_init(&in);
    in.ids = ids;
    in.lens = &len;
    in.count = 1;
    tf_encode_output_init(&o);
    o.layers = layers;
    o.layer_count = ALL;
    o.hidden = hidden;
    o.pooled = pooled;
    CHECK_OK(tf_encode(s, &in, &o));
    tf_encode_output_init(&o);
    o.layers = &layers[TINY_LAYERS];
    o.layer_count = 1;
    o.hidden = last;
    CHECK_OK(tf_encode(s, &in, &o));
    CHECK(check_relative_l2(last, hidden + TINY_LAYERS * TOKENS * TINY_WIDTH, TOKENS * TINY_WIDTH) <= 2e-6);
    CHECK(check_relative_l2(hidden, last, TOKENS * TINY_WIDTH) > 1e-2);
    for (int i = 0; i < TINY_WIDTH; i++) CHECK(pooled[i] > -1 && pooled[i] < 1);
    tf_session_close(s);
    tf_model_close(m);
}

/* Of what is wanted, bit 0: the last hidden states, bit 1: pooled vectors. */
static void encode_two(tf_session *s, const int32_t *lens, int wanted, float *hidden, float *pooled)
{
    static const int32_t ids[] = {TINY_CLS, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, TINY_SEP}, layers[1] = {TINY_LAYERS};
    tf_encode_output o;
    tf_input in;

    tf_input_init(&in);
    in.ids = ids;
    in.lens = lens;
    in.count = 2;
    tf_encode_output_init(&o);
    if (wanted & 1) {
        o.layers = layers;
        o.layer_count = 1;
        o.hidden = hidden;
    }
    if (wanted & 2) o.pooled = pooled;
    CHECK_OK(tf_encode(s, &in, &o));
}

/* Shapes that come again may be computed in other ways than those that are new. */
static void encode_again_gives_the_same(void)
{
    enum { TOKENS = 12, HIDDEN = TOKENS * TINY_WIDTH, POOLED = 2 * TINY_WIDTH };
    tf_model *m;
    tf_session *s, *fresh;

    tiny_open(TINY_BASE, NULL, &m, &s);
    for (int i = 0; i < 18; i++) {
        const int32_t lens[2] = {1 + i % 5, 4 + i % 3};
        const int wanted = 1 + i / 2 % 3;
        const int64_t count = (int64_t)(lens[0] + lens[1]) * TINY_WIDTH;
        float *hidden = check_out(HIDDEN), *pooled = check_out(POOLED), *first_hidden = check_out(HIDDEN),
              *first_pooled = check_out(POOLED);
        encode_two(s, lens, wanted, hidden, pooled);
        CHECK_OK(tf_session_open(m, NULL, &fresh));
        encode_two(fresh, lens, wanted, first_hidden, first_pooled);
        tf_session_close(fresh);
        if (wanted & 1) CHECK(check_relative_l2(hidden, first_hidden, count) <= 2e-5);
        if (wanted & 2) CHECK(check_relative_l2(pooled, first_pooled, POOLED) <= 2e-5);
        CHECK(!(wanted & 1) == isnan(hidden[0]) && !(wanted & 2) == isnan(pooled[0]));
    }
    tf_session_close(s);
    tf_model_close(m);
}

static void classify_scores_are_probabilities(void)
{
    float out[TINY_OUT];
    tf_model *m;
    tf_session *s;

    tiny_open(TINY_CLASSIFIER, NULL, &m, &s);
    CHECK_OK(tiny_run(s, TINY_CLASSIFIER, out));
    for (int i = 0; i < 2; i++) {
        const float *logits = out + i * TINY_LABELS, *scores = out + (2 + i) * TINY_LABELS;
        double sum = 0, norm = 0;
        for (int k = 0; k < TINY_LABELS; k++) norm += exp(logits[k]);
        for (int k = 0; k < TINY_LABELS; k++) {
            sum += scores[k];
            CHECK(fabs(scores[k] - exp(logits[k]) / norm) < 1e-5);
        }
        CHECK(fabs(sum - 1) < 1e-5);
    }
    tf_session_close(s);
    tf_model_close(m);
}

static void entities_have_ranges(void)
{
    const char *line = "the cat, in paris.";
    const tf_text text = tf_text_of(line);
    const tf_input in = tiny_texts(&text, 1);
    tf_token_classify_options o;
    tf_result *r;
    tf_model *m;
    tf_session *s;

    tiny_open(TINY_TAGGER, NULL, &m, &s);
    tf_token_classify_options_init(&o);
    o.aggregation = TF_AGGREGATION_NONE;
    o.keep_all = 1;
    CHECK_OK(tf_token_classify(s, &in, &o, &r));
    CHECK_INT(tf_result_count(r, 0), 6);
    static const char *const pieces[] = {"the", "cat", ",", "in", "paris", "."};
    for (int i = 0; i < 6; i++) {
        tf_entity e = {.struct_size = sizeof e};
        CHECK_OK(tf_result_entity(r, 0, i, &e));
        CHECK_INT(e.token_begin, i + 1);
        CHECK_INT(e.byte_end - e.byte_begin, strlen(pieces[i]));
        CHECK(strncmp(line + e.byte_begin, pieces[i], strlen(pieces[i])) == 0);
        CHECK(e.score > 1.0f / TINY_LABELS - 1e-5f && e.score <= 1.0f);
        CHECK(e.label && e.label_id >= 0 && e.label_id < TINY_LABELS);
    }
    tf_result_close(r);
    tf_session_close(s);
    tf_model_close(m);
}

static void answers_lie_in_the_context(void)
{
    const char *line = "the cat lives in paris.";
    const tf_text question = tf_text_of("where is the cat?"), context = tf_text_of(line);
    tf_input in = tiny_texts(&question, 1);
    tf_answer_options o;
    tf_result *r;
    tf_model *m;
    tf_session *s;
    float before = 1;

    tiny_open(TINY_ANSWERER, NULL, &m, &s);
    in.pairs = &context;
    tf_answer_options_init(&o);
    o.top_k = 4;
    CHECK_OK(tf_answer(s, &in, &o, &r));
    CHECK_INT(tf_result_count(r, 0), 4);
    for (int i = 0; i < 4; i++) {
        tf_span a = {.struct_size = sizeof a};
        CHECK_OK(tf_result_span(r, 0, i, &a));
        CHECK(a.byte_begin >= 0 && a.byte_begin < a.byte_end && a.byte_end <= (int64_t)strlen(line));
        CHECK(a.score >= 0 && a.score <= before); /* best first */
        before = a.score;
    }
    tf_result_close(r);
    in.pairs = NULL;
    CHECK_STATUS(tf_answer(s, &in, &o, &r), TF_STATUS_INVALID);
    tf_session_close(s);
    tf_model_close(m);
}

static void fills_are_sorted(void)
{
    const tf_text text = tf_text_of("the [MASK] sat on a [MASK].");
    const tf_input in = tiny_texts(&text, 1);
    tf_fill_mask_options o;
    tf_result *r;
    tf_model *m;
    tf_session *s;
    double sum[2] = {0, 0};

    tiny_open(TINY_MASKED_LM, NULL, &m, &s);
    tf_fill_mask_options_init(&o);
    o.top_k = tiny_vocab_size();
    CHECK_OK(tf_fill_mask(s, &in, &o, &r));
    CHECK_INT(tf_result_count(r, 0), 2 * tiny_vocab_size());
    float before = 1;
    for (int i = 0; i < 2 * tiny_vocab_size(); i++) {
        tf_fill f = {.struct_size = sizeof f};
        CHECK_OK(tf_result_fill(r, 0, i, &f));
        if (i == tiny_vocab_size()) before = 1;
        CHECK(f.score <= before);
        before = f.score;
        CHECK_INT(f.mask, i / tiny_vocab_size());
        CHECK_INT(f.position, f.mask ? 6 : 2);
        sum[f.mask & 1] += f.score;
        if (f.id == TINY_UNK) CHECK_TEXT(f.token, "[UNK]");
    }
    CHECK(fabs(sum[0] - 1) < 1e-4 && fabs(sum[1] - 1) < 1e-4);
    tf_result_close(r);
    tf_session_close(s);
    tf_model_close(m);
}

static void graphs_print(void)
{
    tf_model *m;
    tf_session *s;

    tiny_open(TINY_CLASSIFIER, NULL, &m, &s);
    for (int32_t format = TF_GRAPH_TEXT; format <= TF_GRAPH_DOT; format++) {
        int64_t size = 0, again = 0;
        CHECK_STATUS(tf_model_graph(m, format, NULL, 0, &size), TF_STATUS_TOO_SMALL);
        CHECK(size > 100);
        char *text = check_bytes(size);
        CHECK_STATUS(tf_model_graph(m, format, text, size - 1, &again), TF_STATUS_TOO_SMALL);
        CHECK_OK(tf_model_graph(m, format, text, size, &again));
        CHECK_INT(again, size);
        CHECK(text[size - 1] == '\n');
    }
    tf_session_close(s);
    tf_model_close(m);
}

int main(int argc, char **argv)
{
    check_run(argc, argv, "embed_is_normalised", embed_is_normalised);
    check_run(argc, argv, "rows_do_not_depend_on_the_batch", rows_do_not_depend_on_the_batch);
    check_run(argc, argv, "texts_and_ids_agree", texts_and_ids_agree);
    check_run(argc, argv, "encode_gives_every_tensor", encode_gives_every_tensor);
    check_run(argc, argv, "encode_again_gives_the_same", encode_again_gives_the_same);
    check_run(argc, argv, "classify_scores_are_probabilities", classify_scores_are_probabilities);
    check_run(argc, argv, "entities_have_ranges", entities_have_ranges);
    check_run(argc, argv, "answers_lie_in_the_context", answers_lie_in_the_context);
    check_run(argc, argv, "fills_are_sorted", fills_are_sorted);
    check_run(argc, argv, "graphs_print", graphs_print);
    return check_done();
}
