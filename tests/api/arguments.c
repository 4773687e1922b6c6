/* What the calls make of wrong arguments and of callers built against other versions: a status, a sentence, and handles that go
 * on working. */
#include <limits.h>
#include <stdlib.h>

#include "check.h"
#include "tiny_model.h"

static tf_model *model;
static tf_session *session;
static float out[TINY_OUT];

static void still_works(void)
{
    CHECK_OK(tiny_run(session, TINY_BASE, out));
}

static void null_arguments(void)
{
    tf_model *m;
    tf_session *s;
    tf_tokenizer *t;
    const tf_tokenizer *lent;
    tf_plan plan;
    tf_input in;
    int64_t size;

    CHECK_STATUS(tf_model_open(NULL, NULL, &m), TF_STATUS_INVALID);
    CHECK_STATUS(tf_model_open("x", NULL, NULL), TF_STATUS_INVALID);
    CHECK_STATUS(tf_session_open(NULL, NULL, &s), TF_STATUS_INVALID);
    CHECK_STATUS(tf_session_open(model, NULL, NULL), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_open(NULL, NULL, &t), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_open("x", NULL, NULL), TF_STATUS_INVALID);
    CHECK_STATUS(tf_model_get_info(model, NULL), TF_STATUS_INVALID);
    CHECK_STATUS(tf_model_get_info(NULL, NULL), TF_STATUS_INVALID);
    CHECK_STATUS(tf_model_tokenizer(NULL, &lent), TF_STATUS_INVALID);
    CHECK_STATUS(tf_model_tokenizer(model, NULL), TF_STATUS_INVALID);
    tf_plan_init(&plan);
    CHECK_STATUS(tf_model_plan(NULL, NULL, NULL, &plan), TF_STATUS_INVALID);
    CHECK_STATUS(tf_model_plan(tiny_model_path(TINY_BASE), NULL, NULL, NULL), TF_STATUS_INVALID);
    CHECK_STATUS(tf_model_graph(NULL, 0, NULL, 0, &size), TF_STATUS_INVALID);
    CHECK_STATUS(tf_model_graph(model, 7, NULL, 0, &size), TF_STATUS_INVALID);
    CHECK_STATUS(tf_session_get_stats(NULL, NULL), TF_STATUS_INVALID);
    CHECK_STATUS(tf_session_get_stats(session, NULL), TF_STATUS_INVALID);

    tf_input_init(&in);
    CHECK_STATUS(tf_embed(NULL, &in, NULL, out, TINY_WIDTH), TF_STATUS_INVALID);
    CHECK_STATUS(tf_embed(session, NULL, NULL, out, TINY_WIDTH), TF_STATUS_INVALID);
    CHECK_STATUS(tf_embed(session, &in, NULL, out, TINY_WIDTH), TF_STATUS_INVALID); /* an input that nothing was put into */
    CHECK_STATUS(tf_encode(session, NULL, NULL), TF_STATUS_INVALID);
    CHECK_STATUS(tf_classify(session, NULL, NULL, NULL, NULL), TF_STATUS_INVALID);
    CHECK_STATUS(tf_token_classify(session, NULL, NULL, NULL), TF_STATUS_INVALID);
    CHECK_STATUS(tf_answer(session, NULL, NULL, NULL), TF_STATUS_INVALID);
    CHECK_STATUS(tf_fill_mask(session, NULL, NULL, NULL), TF_STATUS_INVALID);
    CHECK_INT(tf_result_count(NULL, 0), 0);
    CHECK_STATUS(tf_result_entity(NULL, 0, 0, NULL), TF_STATUS_INVALID);
    CHECK_STATUS(tf_result_span(NULL, 0, 0, NULL), TF_STATUS_INVALID);
    CHECK_STATUS(tf_result_fill(NULL, 0, 0, NULL), TF_STATUS_INVALID);

    tf_model_close(NULL);
    tf_session_close(NULL);
    tf_result_close(NULL);
    tf_tokenizer_close(NULL);
    tf_encoding_close(NULL);
    still_works();
}

static void tokenizer_arguments(void)
{
    const tf_tokenizer *t;
    tf_tokenizer_info info;
    tf_encoding *e;
    tf_encoding_data data;
    const tf_text text = tf_text_of("the cat");
    const char *token;
    int32_t id;
    int64_t size;

    CHECK_OK(tf_model_tokenizer(model, &t));
    CHECK_STATUS(tf_tokenizer_get_info(t, NULL), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_token(t, -1, &token), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_token(t, tiny_vocab_size(), &token), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_id(t, tf_text_of("no such token"), &id), TF_STATUS_NOT_FOUND);
    CHECK_INT(id, -1);
    CHECK_STATUS(tf_encoding_open(NULL, &e), TF_STATUS_INVALID);
    CHECK_STATUS(tf_encoding_open(t, NULL), TF_STATUS_INVALID);
    CHECK_OK(tf_encoding_open(t, &e));
    CHECK_STATUS(tf_tokenizer_encode(t, NULL, NULL, 1, NULL, e), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_encode(t, &text, NULL, -1, NULL, e), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_encode(t, &text, NULL, 1, NULL, NULL), TF_STATUS_INVALID);
    CHECK_STATUS(tf_encoding_get(e, NULL), TF_STATUS_INVALID);
    CHECK_STATUS(tf_tokenizer_decode(t, NULL, 1, NULL, NULL, 0, &size), TF_STATUS_INVALID);
    id = tiny_vocab_size();
    CHECK_STATUS(tf_tokenizer_decode(t, &id, 1, NULL, NULL, 0, &size), TF_STATUS_INVALID);
    id = TINY_CLS;
    CHECK_STATUS(tf_tokenizer_decode(t, &id, 1, NULL, NULL, 0, &size), TF_STATUS_TOO_SMALL);
    CHECK_INT(size, 5);

    CHECK_OK(tf_tokenizer_encode(t, &text, NULL, 1, NULL, e));
    tf_encoding_data_init(&data);
    CHECK_OK(tf_encoding_get(e, &data));
    CHECK_INT(data.tokens, 4);
    tf_encoding_close(e);
    tf_tokenizer_info_init(&info);
    CHECK_OK(tf_tokenizer_get_info(t, &info));
    CHECK_INT(info.vocab_size, tiny_vocab_size());
}

/* ---- callers built against other versions ---- */

static void older_options(void)
{
    tf_model_options m;
    tf_session_options s;
    tf_model *opened;
    tf_session *opened_session;

    /* The last known field is `device`; what follows is not the library's to read. */
    memset(&m, 0x7e, sizeof m);
    m.struct_size = offsetof(tf_model_options, dtype);
    m.device = "cpu";
    CHECK_OK(tf_model_open(tiny_model_path(TINY_BASE), &m, &opened));

    memset(&s, 0x7e, sizeof s);
    s.struct_size = offsetof(tf_session_options, memory_budget); /* one field older */
    s.stream = NULL;
    s.max_step_tokens = 64;
    s.max_sequences = TF_UNSET;
    CHECK_OK(tf_session_open(opened, &s, &opened_session));
    tf_session_close(opened_session);
    tf_model_close(opened);

    m.struct_size = 0; /* never initialised */
    CHECK_STATUS(tf_model_open(tiny_model_path(TINY_BASE), &m, &opened), TF_STATUS_INVALID);
    CHECK_ERROR_SAYS("struct_size");
    m.struct_size = UINT64_MAX;
    CHECK_STATUS(tf_model_open(tiny_model_path(TINY_BASE), &m, &opened), TF_STATUS_INVALID);
}

static void newer_options(void)
{
    struct {
        tf_session_options known;
        int32_t integer, integer_too;
        float real, real_too;
        const void *pointer;
        int64_t wide;
    } o;
    tf_session *s;

    tf_session_options_init(&o.known);
    o.known.struct_size = sizeof o;
    o.integer = o.integer_too = TF_UNSET;
    o.real = o.real_too = tf_unset_float();
    o.pointer = NULL;
    o.wide = TF_UNSET;
    CHECK_OK(tf_session_open(model, &o.known, &s)); /* unset fields from the future do no harm */
    tf_session_close(s);
    o.integer_too = 3;
    CHECK_STATUS(tf_session_open(model, &o.known, &s), TF_STATUS_UNSUPPORTED);
    CHECK(s == NULL);
    o.integer_too = TF_UNSET;
    o.pointer = &o;
    CHECK_STATUS(tf_session_open(model, &o.known, &s), TF_STATUS_UNSUPPORTED);
}

static void newer_input_and_task_options(void)
{
    const tf_text text = tf_text_of("the cat");
    struct {
        tf_input known;
        int64_t more;
    } in;
    struct {
        tf_embed_options known;
        int64_t more;
    } options;

    in.known = tiny_texts(&text, 1);
    in.known.struct_size = sizeof in;
    in.more = TF_UNSET;
    tf_embed_options_init(&options.known);
    options.known.struct_size = sizeof options;
    options.more = 0;
    CHECK_OK(tf_embed(session, &in.known, &options.known, out, TINY_WIDTH));
    options.more = 1;
    CHECK_STATUS(tf_embed(session, &in.known, &options.known, out, TINY_WIDTH), TF_STATUS_UNSUPPORTED);
    options.more = 0;
    in.more = 1;
    CHECK_STATUS(tf_embed(session, &in.known, &options.known, out, TINY_WIDTH), TF_STATUS_UNSUPPORTED);
    in.known.struct_size = offsetof(tf_input, progress); /* older: without what follows lens */
    CHECK_OK(tf_embed(session, &in.known, NULL, out, TINY_WIDTH));
    still_works();
}

static void result_structs(void)
{
    struct {
        tf_model_info known;
        int64_t more;
    } info;
    tf_session_stats stats;

    memset(&info, 0x5a, sizeof info);
    info.known.struct_size = sizeof info;
    CHECK_OK(tf_model_get_info(model, &info.known));
    CHECK_INT(info.known.struct_size, sizeof info);
    CHECK_INT(info.known.width, TINY_WIDTH);
    CHECK_INT(info.more, 0x5a5a5a5a5a5a5a5a); /* a newer caller's tail is not written */

    memset(&info, 0x5a, sizeof info);
    info.known.struct_size = offsetof(tf_model_info, heads);
    CHECK_OK(tf_model_get_info(model, &info.known));
    CHECK_INT(info.known.layers, TINY_LAYERS);
    CHECK_INT(info.known.heads, 0x5a5a5a5a); /* an older caller's end is kept */
    info.known.struct_size = 3;
    CHECK_STATUS(tf_model_get_info(model, &info.known), TF_STATUS_INVALID);

    tf_session_stats_init(&stats);
    CHECK_OK(tf_session_get_stats(session, &stats));
    const int64_t calls = stats.calls, tokens = stats.tokens;
    still_works();
    CHECK_OK(tf_session_get_stats(session, &stats));
    CHECK_INT(stats.calls, calls + 1);
    CHECK(stats.tokens > tokens && stats.bytes > 0);
}

/* ---- inputs ---- */

static void bad_ids(void)
{
    int32_t ids[TINY_POSITIONS + 1] = {TINY_CLS, 6, 7, TINY_SEP}, types[TINY_POSITIONS + 1] = {0}, lens[2] = {4, 0};
    static float hidden[(TINY_POSITIONS + 1) * TINY_WIDTH];
    const int32_t layer = TINY_LAYERS;
    tf_encode_output o;
    tf_input in;

    for (int i = 4; i <= TINY_POSITIONS; i++) ids[i] = 7;
    tf_encode_output_init(&o);
    o.layers = &layer;
    o.layer_count = 1;
    o.hidden = hidden;
    tf_input_init(&in);
    in.ids = ids;
    in.type_ids = types;
    in.lens = lens;
    in.count = 1;
    CHECK_OK(tf_encode(session, &in, &o));

    static const int32_t wrong[] = {-1, INT32_MIN, INT32_MAX};
    for (int i = 0; i < 4; i++) {
        ids[2] = i < 3 ? wrong[i] : tiny_vocab_size();
        CHECK_STATUS(tf_encode(session, &in, &o), TF_STATUS_INVALID);
    }
    CHECK_ERROR_SAYS("76"); /* the id and the limit; here both are the vocabulary's size */
    ids[2] = 7;
    types[1] = TINY_TYPES;
    CHECK_STATUS(tf_encode(session, &in, &o), TF_STATUS_INVALID);
    types[1] = -1;
    CHECK_STATUS(tf_encode(session, &in, &o), TF_STATUS_INVALID);
    types[1] = 0;
    static const int32_t lengths[] = {0, -1, INT32_MIN, INT32_MAX, TINY_POSITIONS + 1};
    for (int i = 0; i < 5; i++) {
        lens[0] = lengths[i];
        CHECK_STATUS(tf_encode(session, &in, &o), TF_STATUS_INVALID);
    }
    lens[0] = TINY_POSITIONS;
    CHECK_OK(tf_encode(session, &in, &o));
    lens[0] = 4;
    in.count = 2; /* the second sequence has length 0 */
    CHECK_STATUS(tf_encode(session, &in, &o), TF_STATUS_INVALID);
    in.count = 1;
    in.lens = NULL;
    CHECK_STATUS(tf_encode(session, &in, &o), TF_STATUS_INVALID);
    in.lens = lens;
    in.count = -1;
    CHECK_STATUS(tf_encode(session, &in, &o), TF_STATUS_INVALID);
    in.count = 1;
    const int32_t no_layer = TINY_LAYERS + 1;
    o.layers = &no_layer;
    CHECK_STATUS(tf_encode(session, &in, &o), TF_STATUS_INVALID);
    o.layers = &layer;
    CHECK_OK(tf_encode(session, &in, &o));
}

static void bad_texts(void)
{
    char long_text[4 * TINY_POSITIONS];
    tf_text text = tf_text_of("caf\xe9 the");
    const int32_t ids[2] = {TINY_CLS, TINY_SEP}, len = 2;
    tf_input in = tiny_texts(&text, 1);
    tf_model *classifier;
    tf_session *s;

    CHECK_STATUS(tf_embed(session, &in, NULL, out, TINY_WIDTH), TF_STATUS_INVALID);
    CHECK_ERROR_SAYS("UTF-8");
    in.replace_invalid = 1;
    CHECK_OK(tf_embed(session, &in, NULL, out, TINY_WIDTH));
    in.replace_invalid = 7;
    CHECK_STATUS(tf_embed(session, &in, NULL, out, TINY_WIDTH), TF_STATUS_INVALID);
    in.replace_invalid = TF_UNSET;
    text.data = NULL;
    CHECK_STATUS(tf_embed(session, &in, NULL, out, TINY_WIDTH), TF_STATUS_INVALID);
    text.size = 0;
    CHECK_OK(tf_embed(session, &in, NULL, out, TINY_WIDTH)); /* empty text is the special tokens alone */
    text = tf_text_of("the cat");
    in.ids = ids;
    in.lens = &len;
    CHECK_STATUS(tf_embed(session, &in, NULL, out, TINY_WIDTH), TF_STATUS_INVALID); /* texts and ids */
    in.ids = NULL;
    in.lens = NULL;
    CHECK_STATUS(tf_embed(session, &in, NULL, out, TINY_WIDTH - 1), TF_STATUS_INVALID);
    CHECK_STATUS(tf_embed(session, &in, NULL, NULL, TINY_WIDTH), TF_STATUS_INVALID);

    memset(long_text, 'x', sizeof long_text);
    for (size_t i = 1; i < sizeof long_text; i += 2) long_text[i] = ' ';
    text = (tf_text){long_text, sizeof long_text};
    CHECK_OK(tf_embed(session, &in, NULL, out, TINY_WIDTH)); /* truncates */
    tiny_open(TINY_CLASSIFIER, NULL, &classifier, &s);
    CHECK_STATUS(tf_classify(s, &in, NULL, out, NULL), TF_STATUS_INVALID);
    CHECK_ERROR_SAYS("64");
    tf_classify_options o;
    tf_classify_options_init(&o);
    o.truncate = 1;
    CHECK_OK(tf_classify(s, &in, &o, out, NULL));
    tf_session_close(s);
    tf_model_close(classifier);
    still_works();
}

static void missing_heads(void)
{
    const tf_text text = tf_text_of("the cat");
    const tf_input in = tiny_texts(&text, 1);
    tf_result *r = (tf_result *)1;

    CHECK_STATUS(tf_classify(session, &in, NULL, out, NULL), TF_STATUS_UNSUPPORTED);
    CHECK_STATUS(tf_token_classify(session, &in, NULL, &r), TF_STATUS_UNSUPPORTED);
    CHECK(r == NULL);
    CHECK_STATUS(tf_answer(session, &in, NULL, &r), TF_STATUS_UNSUPPORTED);
    CHECK_STATUS(tf_fill_mask(session, &in, NULL, &r), TF_STATUS_UNSUPPORTED);
    still_works();
}

static void wrong_records(void)
{
    const tf_text text = tf_text_of("the [MASK]");
    const tf_input in = tiny_texts(&text, 1);
    tf_model *m;
    tf_session *s;
    tf_result *r;
    tf_fill fill = {.struct_size = sizeof fill};
    tf_span span = {.struct_size = sizeof span};

    tiny_open(TINY_MASKED_LM, NULL, &m, &s);
    CHECK_OK(tf_fill_mask(s, &in, NULL, &r));
    CHECK_INT(tf_result_count(r, 0), 5);
    CHECK_INT(tf_result_count(r, 1), 0);
    CHECK_INT(tf_result_count(r, -1), 0);
    CHECK_OK(tf_result_fill(r, 0, 0, &fill));
    CHECK_INT(fill.position, 2);
    CHECK_STATUS(tf_result_fill(r, 0, 5, &fill), TF_STATUS_INVALID);
    CHECK_STATUS(tf_result_fill(r, 1, 0, &fill), TF_STATUS_INVALID);
    CHECK_STATUS(tf_result_span(r, 0, 0, &span), TF_STATUS_INVALID);
    tf_result_close(r);
    const tf_text maskless = tf_text_of("the cat");
    const tf_input without = tiny_texts(&maskless, 1);
    CHECK_STATUS(tf_fill_mask(s, &without, NULL, &r), TF_STATUS_INVALID);
    tf_session_close(s);
    tf_model_close(m);
}

static void options_out_of_range(void)
{
    tf_model_options o;
    tf_session_options so;
    tf_model *m;
    tf_session *s;

    tf_model_options_init(&o);
    o.threads = 0;
    CHECK_STATUS(tf_model_open(tiny_model_path(TINY_BASE), &o, &m), TF_STATUS_INVALID);
    o.threads = 1025;
    CHECK_STATUS(tf_model_open(tiny_model_path(TINY_BASE), &o, &m), TF_STATUS_INVALID);
    o.threads = 1;
    o.device = "abacus";
    CHECK(tf_model_open(tiny_model_path(TINY_BASE), &o, &m) < 0);
    CHECK_ERROR_SAYS("abacus");
    o.device = "cpu";
    o.dtype = TF_DTYPE_FP16;
    CHECK_STATUS(tf_model_open(tiny_model_path(TINY_BASE), &o, &m), TF_STATUS_UNSUPPORTED);
    o.dtype = 99;
    CHECK(tf_model_open(tiny_model_path(TINY_BASE), &o, &m) < 0);
    o.dtype = TF_DTYPE_FP32;
    o.quantization = TF_QUANTIZATION_INT8;
    CHECK_STATUS(tf_model_open(tiny_model_path(TINY_BASE), &o, &m), TF_STATUS_UNSUPPORTED);
    CHECK_STATUS(tf_model_open("/nonexistent/folder", NULL, &m), TF_STATUS_NOT_FOUND);
    CHECK_ERROR_SAYS("/nonexistent/folder");

    tf_session_options_init(&so);
    so.max_step_tokens = 0;
    CHECK_STATUS(tf_session_open(model, &so, &s), TF_STATUS_INVALID);
    so.max_step_tokens = (1 << 20) + 1;
    CHECK_STATUS(tf_session_open(model, &so, &s), TF_STATUS_INVALID);
    so.max_step_tokens = 64;
    so.max_sequences = 0;
    CHECK_STATUS(tf_session_open(model, &so, &s), TF_STATUS_INVALID);
    still_works();
}

static void error_texts(void)
{
    char version[32];

    snprintf(version, sizeof version, "%d.%d.%d", TFINFER_VERSION_MAJOR, TFINFER_VERSION_MINOR, TFINFER_VERSION_PATCH);
    CHECK_TEXT(tf_status_string((tf_status)17), "unknown status");
#define CHECK_NAME(name, value, text) CHECK(strstr(tf_status_string(TF_STATUS_##name), "TF_STATUS_" #name) != NULL);
    TF_STATUS_LIST(CHECK_NAME)
#undef CHECK_NAME
    CHECK_TEXT(tf_version(), version);
}

int main(int argc, char **argv)
{
    tiny_open(TINY_BASE, NULL, &model, &session);
    check_run(argc, argv, "null_arguments", null_arguments);
    check_run(argc, argv, "tokenizer_arguments", tokenizer_arguments);
    check_run(argc, argv, "older_options", older_options);
    check_run(argc, argv, "newer_options", newer_options);
    check_run(argc, argv, "newer_input_and_task_options", newer_input_and_task_options);
    check_run(argc, argv, "result_structs", result_structs);
    check_run(argc, argv, "bad_ids", bad_ids);
    check_run(argc, argv, "bad_texts", bad_texts);
    check_run(argc, argv, "missing_heads", missing_heads);
    check_run(argc, argv, "wrong_records", wrong_records);
    check_run(argc, argv, "options_out_of_range", options_out_of_range);
    check_run(argc, argv, "error_texts", error_texts);
    tf_session_close(session);
    tf_model_close(model);
    return check_done();
}
