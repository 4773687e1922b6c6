#define _GNU_SOURCE
#include "tiny_model.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "check.h"
#include "tiny_files.h"

static const char *const words[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat",   "sat",  "on",
                                    "a",     "mat",   "rates", "rose",  "again",  ".",   ",",     "!",    "?",
                                    "in",    "paris", "##s",   "##ing", "who",    "is",  "where", "lives"};
enum { WORDS = sizeof words / sizeof words[0], LETTERS = 2 * 26 };

int tiny_vocab_size(void)
{
    return WORDS + LETTERS - 2; /* "a" and "##s" are words already */
}

static void write_vocabulary(const char *folder)
{
    FILE *f = tiny_create(folder, "vocab.txt");
    for (int i = 0; i < WORDS; i++) fprintf(f, "%s\n", words[i]);
    for (char c = 'b'; c <= 'z'; c++) fprintf(f, "%c\n", c);
    for (char c = 'a'; c <= 'z'; c++) {
        if (c != 's') fprintf(f, "##%c\n", c);
    }
    fclose(f);
}

static void add(tiny_weights *w, const char *name, int rows, int cols)
{
    tiny_weights_add(w, name, rows, cols, strstr(name, "LayerNorm.weight") ? 1.0f : 0.0f, 0.2f);
}

static void add_linear(tiny_weights *w, const char *prefix, const char *name, int outputs, int inputs)
{
    char full[160];
    snprintf(full, sizeof full, "%s%s.weight", prefix, name);
    add(w, full, outputs, inputs);
    snprintf(full, sizeof full, "%s%s.bias", prefix, name);
    add(w, full, 0, outputs);
}

static void add_norm(tiny_weights *w, const char *prefix, const char *name)
{
    char full[160];
    snprintf(full, sizeof full, "%s%s.weight", prefix, name);
    add(w, full, 0, TINY_WIDTH);
    snprintf(full, sizeof full, "%s%s.bias", prefix, name);
    add(w, full, 0, TINY_WIDTH);
}

static void add_encoder(tiny_weights *w, const char *prefix)
{
    char name[96];

    snprintf(name, sizeof name, "%sembeddings.word_embeddings.weight", prefix);
    add(w, name, tiny_vocab_size(), TINY_WIDTH);
    snprintf(name, sizeof name, "%sembeddings.position_embeddings.weight", prefix);
    add(w, name, TINY_POSITIONS, TINY_WIDTH);
    snprintf(name, sizeof name, "%sembeddings.token_type_embeddings.weight", prefix);
    add(w, name, TINY_TYPES, TINY_WIDTH);
    add_norm(w, prefix, "embeddings.LayerNorm");
    for (int i = 0; i < TINY_LAYERS; i++) {
        snprintf(name, sizeof name, "%sencoder.layer.%d.", prefix, i);
        add_linear(w, name, "attention.self.query", TINY_WIDTH, TINY_WIDTH);
        add_linear(w, name, "attention.self.key", TINY_WIDTH, TINY_WIDTH);
        add_linear(w, name, "attention.self.value", TINY_WIDTH, TINY_WIDTH);
        add_linear(w, name, "attention.output.dense", TINY_WIDTH, TINY_WIDTH);
        add_norm(w, name, "attention.output.LayerNorm");
        add_linear(w, name, "intermediate.dense", TINY_INNER, TINY_WIDTH);
        add_linear(w, name, "output.dense", TINY_WIDTH, TINY_INNER);
        add_norm(w, name, "output.LayerNorm");
    }
}

static void add_head(tiny_weights *w, tiny_head head)
{
    switch (head) {
    case TINY_BASE:
        add_linear(w, "", "pooler.dense", TINY_WIDTH, TINY_WIDTH);
        break;
    case TINY_CLASSIFIER:
        add_linear(w, "bert.", "pooler.dense", TINY_WIDTH, TINY_WIDTH);
        add_linear(w, "", "classifier", TINY_LABELS, TINY_WIDTH);
        break;
    case TINY_TAGGER:
        add_linear(w, "", "classifier", TINY_LABELS, TINY_WIDTH);
        break;
    case TINY_ANSWERER:
        add_linear(w, "", "qa_outputs", 2, TINY_WIDTH);
        break;
    case TINY_MASKED_LM:
    default:
        add_linear(w, "cls.predictions.", "transform.dense", TINY_WIDTH, TINY_WIDTH);
        add_norm(w, "cls.predictions.", "transform.LayerNorm");
        add(w, "cls.predictions.bias", 0, tiny_vocab_size());
    }
}

static void write_weights(const char *folder, tiny_head head)
{
    tiny_weights w;

    tiny_weights_begin(&w);
    add_encoder(&w, head == TINY_BASE ? "" : "bert.");
    add_head(&w, head);
    tiny_weights_end(&w, folder);
}

static void write_config(const char *folder, tiny_head head)
{
    static const char *const architectures[TINY_HEAD_COUNT] = {"BertModel", "BertForSequenceClassification",
                                                               "BertForTokenClassification", "BertForQuestionAnswering",
                                                               "BertForMaskedLM"};
    static const char *const labels[TINY_HEAD_COUNT] = {
        "",
        ",\"id2label\": {\"0\": \"bad\", \"1\": \"fair\", \"2\": \"good\"}, \"problem_type\": \"single_label_classification\"",
        ",\"id2label\": {\"0\": \"O\", \"1\": \"B-PLACE\", \"2\": \"I-PLACE\"}", "", ""};
    FILE *f = tiny_create(folder, "config.json");

    fprintf(f,
            "{\"model_type\": \"bert\", \"architectures\": [\"%s\"], \"hidden_act\": \"gelu\", \"hidden_size\": %d,\n"
            " \"intermediate_size\": %d, \"layer_norm_eps\": 1e-12, \"max_position_embeddings\": %d,\n"
            " \"num_attention_heads\": %d, \"num_hidden_layers\": %d, \"pad_token_id\": 0, \"type_vocab_size\": %d,\n"
            " \"position_embedding_type\": \"absolute\", \"torch_dtype\": \"float32\", \"vocab_size\": %d%s}\n",
            architectures[head], TINY_WIDTH, TINY_INNER, TINY_POSITIONS, TINY_HEADS, TINY_LAYERS, TINY_TYPES, tiny_vocab_size(),
            labels[head]);
    fclose(f);
}

static void write_sentence_transformer(const char *folder)
{
    char path[600];

    snprintf(path, sizeof path, "%s/1_Pooling", folder);
    mkdir(path, 0755);
    tiny_write_text(path, "config.json",
               "{\"word_embedding_dimension\": 32, \"pooling_mode_cls_token\": false,\n"
               " \"pooling_mode_mean_tokens\": true, \"pooling_mode_max_tokens\": false,\n"
               " \"pooling_mode_mean_sqrt_len_tokens\": false}\n");
    tiny_write_text(
        folder, "modules.json",
        "[{\"idx\": 0, \"name\": \"0\", \"path\": \"\", \"type\": \"sentence_transformers.models.Transformer\"},\n"
        " {\"idx\": 1, \"name\": \"1\", \"path\": \"1_Pooling\", \"type\": \"sentence_transformers.models.Pooling\"},\n"
        " {\"idx\": 2, \"name\": \"2\", \"path\": \"2_Normalize\", \"type\": \"sentence_transformers.models.Normalize\"}]\n");
    tiny_write_text(folder, "sentence_bert_config.json", "{\"max_seq_length\": 48, \"do_lower_case\": false}\n");
}

void tiny_model_write(const char *path, tiny_head head)
{
    mkdir(path, 0755);
    write_config(path, head);
    write_vocabulary(path);
    tiny_write_text(path, "tokenizer_config.json",
               "{\"tokenizer_class\": \"BertTokenizer\", \"do_lower_case\": true, \"model_max_length\": 64}\n");
    write_weights(path, head);
    if (head == TINY_BASE) write_sentence_transformer(path);
}

const char *tiny_model_path(tiny_head head)
{
    static char paths[TINY_HEAD_COUNT][512];

    if (!paths[head][0]) {
        char name[32];
        snprintf(name, sizeof name, "tiny-%d", (int)head);
        snprintf(paths[head], sizeof paths[head], "%s", check_path(name));
        tiny_model_write(paths[head], head);
    }
    return paths[head];
}

void tiny_open(tiny_head head, const tf_model_options *options, tf_model **model, tf_session **session)
{
    tf_model_options o;

    tf_model_options_init(&o);
    if (options) o = *options;
    if (o.threads == TF_UNSET) o.threads = 2;
    if (!o.device) o.device = getenv("TFINFER_DEVICE"); /* the same on another device */
    if (tf_model_open(tiny_model_path(head), &o, model) < 0 || tf_session_open(*model, NULL, session) < 0) {
        fprintf(stderr, "the tiny model does not open: %s\n", tf_last_error());
        exit(2);
    }
}

tf_input tiny_texts(const tf_text *texts, int64_t count)
{
    tf_input in;

    tf_input_init(&in);
    in.texts = texts;
    in.count = count;
    return in;
}

/* The scores of a result's records, in order; closes it. */
static tf_status take(tf_result *r, tiny_head head, float *out)
{
    tf_status status = TF_STATUS_OK;
    int n = 0;

    for (int64_t input = 0; input < 2; input++) {
        const int64_t count = tf_result_count(r, input);
        for (int64_t i = 0; i < count && status == 0 && n < TINY_OUT; i++) {
            tf_entity entity = {.struct_size = sizeof entity};
            tf_span span = {.struct_size = sizeof span};
            tf_fill fill = {.struct_size = sizeof fill};
            if (head == TINY_TAGGER) status = tf_result_entity(r, input, i, &entity), out[n++] = entity.score;
            if (head == TINY_ANSWERER) status = tf_result_span(r, input, i, &span), out[n++] = span.score;
            if (head == TINY_MASKED_LM) status = tf_result_fill(r, input, i, &fill), out[n++] = fill.score;
        }
    }
    tf_result_close(r);
    return status;
}

tf_status tiny_run(tf_session *s, tiny_head head, float *out)
{
    const tf_text texts[2] = {tf_text_of("The cat sat on a [MASK]."), tf_text_of("rates rose [MASK], who is in Paris?")};
    const tf_text contexts[2] = {tf_text_of("a cat lives in paris, the mat is again on."), tf_text_of("The cats rose again!")};
    tf_input in = tiny_texts(texts, 2);
    tf_token_classify_options tags;
    tf_result *r;
    tf_status status;

    memset(out, 0, TINY_OUT * sizeof *out);
    switch (head) {
    case TINY_BASE:
        return tf_embed(s, &in, NULL, out, TINY_WIDTH);
    case TINY_CLASSIFIER:
        return tf_classify(s, &in, NULL, out, out + 2 * TINY_LABELS);
    case TINY_TAGGER:
        tf_token_classify_options_init(&tags);
        tags.aggregation = TF_AGGREGATION_NONE;
        tags.keep_all = 1;
        status = tf_token_classify(s, &in, &tags, &r);
        break;
    case TINY_ANSWERER:
        in.pairs = contexts;
        status = tf_answer(s, &in, NULL, &r);
        break;
    case TINY_MASKED_LM:
    default:
        status = tf_fill_mask(s, &in, NULL, &r);
    }
    return status < 0 ? status : take(r, head, out);
}
